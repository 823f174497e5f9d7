#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# What the virtual machine needs on a fresh Debian: QEMU and what makes PPPoE lines in it are
# installed; the newest kernel of Debian's archive (the cloud flavour has no PPP) and a static busybox are only unpacked, into .vm/ of the
# checkout.
set -eu

top=$(cd "$(dirname "$0")/../.." && pwd)
PATH="$PATH:/usr/sbin:/sbin"

missing() {
	echo "tests/vm/setup.sh: $1" >&2
	exit 1
}

[ "$(uname -m)" = x86_64 ] || missing "the virtual machine is x86-64 only, this is $(uname -m)"
command -v apt-get > /dev/null || missing "apt-get is missing: this needs Debian"

sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
updated=
update() {
	[ -n "$updated" ] || $sudo apt-get update -qq
	updated=yes
}

if ! command -v qemu-system-x86_64 > /dev/null || [ ! -x /usr/lib/qemu/virtiofsd ]; then
	echo "installing: qemu-system-x86"
	update
	DEBIAN_FRONTEND=noninteractive $sudo apt-get install -qq -y --no-install-recommends \
		qemu-system-x86 qemu-system-common > /dev/null
fi

if ! command -v pppoe-server > /dev/null || ! command -v pppd > /dev/null; then
	echo "installing: ppp pppoe"
	update
	DEBIAN_FRONTEND=noninteractive $sudo apt-get install -qq -y --no-install-recommends \
		ppp pppoe > /dev/null
fi

# One that is of the cloud flavour was unpacked before there were tests of PPP.
set -- "$top"/.vm/boot/vmlinuz-*-cloud-*
[ ! -e "$top/.vm/ready" ] || [ -e "$1" ] || exit 0
update
kernel=$(apt-cache pkgnames linux-image- |
	grep -E '^linux-image-[0-9]+\.[0-9]+\.[0-9]+[^-]*(-[0-9]+)?-amd64$' | sort -V | tail -n 1)
[ -n "$kernel" ] || missing "apt knows no linux-image-*-amd64"
echo "unpacking: $kernel busybox-static"
rm -rf "$top/.vm"
mkdir -p "$top/.vm/packages"
cd "$top/.vm/packages"
apt-get download -qq -o APT::Sandbox::User=root "$kernel" busybox-static
for package in *.deb; do
	dpkg-deb -x "$package" ..
done
rm -rf "$top/.vm/packages"
touch "$top/.vm/ready"
