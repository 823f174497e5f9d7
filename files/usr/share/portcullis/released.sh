# shellcheck shell=dash
# SPDX-License-Identifier: GPL-2.0-or-later
# Whether the owner has chosen to do without the block, as far as files tell: for the boot guard
# and for hotplug, which must know it where neither the daemon nor ubus is there. Whatever is
# missing, unreadable or makes no sense means no.

portcullis_released() {
	_portcullis_disconnected && _portcullis_standard
}

# The daemon notes the intent in RAM first, and leaves it there where it could not be saved.
_portcullis_disconnected() {
	local intent=/var/run/portcullis/intent
	[ -e "$intent" ] || intent=/etc/portcullis/intent
	if [ -e "$intent" ] || [ -L "$intent" ]; then
		# What is no plain file may give no end to the waiting, and to the boot with it.
		[ -f "$intent" ] || return 1
		# At most one byte more than the word: a shell would lose a NUL, and hold a whole
		# file of garbage in memory.
		[ "$(head -c 13 "$intent" 2> /dev/null | tr '\0' '?')" = disconnected ]
	else
		# Never connected, unless what only a connection leaves behind is there.
		[ ! -e /etc/portcullis/endpoints ] && [ ! -L /etc/portcullis/endpoints ]
	fi
}

# Named by its path a configuration is read without what somebody has staged for it.
_portcullis_standard() {
	local config=/etc/config/portcullis
	[ "$(uci -q get "$config.main" 2> /dev/null)" = portcullis ] &&
		[ "$(uci -q get "$config.main.mode" 2> /dev/null)" = standard ]
}

# Release the routing guard: what busybox can do of it. What is there already stays.
portcullis_release_routing() {
	ip route add throw default table 707 2> /dev/null
	ip -6 rule add pref 820 lookup main 2> /dev/null
	return 0
}
