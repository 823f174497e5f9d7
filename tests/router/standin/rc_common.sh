# shellcheck shell=dash disable=SC2119,SC2120,SC2317 # what scripts may define and call
# SPDX-License-Identifier: GPL-2.0-or-later
# OpenWrt's /etc/rc.common with procd's shell library, as far as init scripts of ours use them.
# What procd is told stands in /tmp/procd, a line a call.

initscript=$1
action=$2
shift 2

start() { return 0; }
stop() { return 0; }
restart() {
	stop "$@"
	start "$@"
}
reload() { restart; }
boot() { start "$@"; }
stop_service() { return 0; }
service_triggers() { return 0; }
user_exists() { grep -qs "^$1:" /etc/passwd; }

for name in open_instance close_instance set_param add_reload_trigger kill; do
	eval "procd_$name() { echo $name \"\$@\" >> /tmp/procd; }"
done

# shellcheck source=files/etc/init.d/portcullis
. "$initscript"

if [ -n "$USE_PROCD" ]; then
	start() {
		start_service "$@"
		service_triggers
	}
	stop() {
		stop_service "$@"
		procd_kill "$(basename "$initscript")"
	}
	reload() {
		if type reload_service > /dev/null 2>&1; then
			reload_service "$@"
		else
			start
		fi
	}
fi

$action "$@"
