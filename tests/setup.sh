#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Everything a fresh Debian needs to run the virtual router and the tests: packages, two virtual
# environments, one for each line of pyroute2 that OpenWrt ships, and eslint.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
top=$(dirname "$here")

# command that shows it is there : package that brings it
needed="
python3:python3
nft:nftables
ip:iproute2
mount:mount
wireguard-go:wireguard-go
wg:wireguard-tools
dnsmasq:dnsmasq-base
ping:iputils-ping
dig:bind9-dnsutils
busybox:busybox
chromium-headless-shell:chromium-headless-shell
openssl:openssl
shellcheck:shellcheck
shfmt:shfmt
"

missing=
for pair in $needed; do
	PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" > /dev/null || missing="$missing ${pair##*:}"
done
[ -e /etc/protocols ] || missing="$missing netbase"
# playwright's driver and npm's node need it, and nothing else in a minimal Debian does.
set -- /usr/lib/*/libatomic.so.1
[ -e "$1" ] || missing="$missing libatomic1"
/usr/bin/python3 -c 'import ensurepip' 2> /dev/null || missing="$missing python3-venv"
if [ -n "$missing" ]; then
	sudo=
	[ "$(id -u)" = 0 ] || sudo=sudo
	echo "installing:$missing"
	$sudo apt-get update -qq
	# shellcheck disable=SC2086 # a list of words
	DEBIAN_FRONTEND=noninteractive $sudo apt-get install -qq -y --no-install-recommends $missing > /dev/null
fi

venv() {
	[ -x "$top/$1/bin/python" ] || /usr/bin/python3 -m venv "$top/$1"
	"$top/$1/bin/pip" install -qq --disable-pip-version-check --requirement "$2"
}

venv .venv "$here/requirements.txt"
oldest() {
	sed -n "s/^$1 = //p" "$top/openwrt-sdk.cfg" | head -n 1
}
sed "s/^pyroute2==.*/pyroute2==$(oldest pyroute2)/; s/^bottle==.*/bottle==$(oldest bottle)/; /^mypy\\|^ruff\\|^nodejs\\|playwright/d" "$here/requirements.txt" > "$top/.venv/old.txt"
venv .venv-old "$top/.venv/old.txt"
