#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The guest as a router, from power-on to power-off: what OpenWrt's rcS and its services do, in
# their order. Says `phase NAME` as it goes.
#   STAGE   a folder whose files come over those of the host
#   GUARD   empty: the boot guard is left out
#   HARM    what is done to the files before anything runs
#   HOLD    seconds without anything else
#   PYTHON, STEPS   who runs the services that are Python here (services.py), and what they do

phase() {
	echo "phase $1"
}

hotplug() {
	(
		export ACTION=ifup DEVICE="$1"
		/bin/sh /etc/hotplug.d/iface/15-portcullis
	)
}

cp -a "$STAGE/." /
export PATH=/stand-in:/usr/sbin:/usr/bin:/sbin:/bin
eval "$HARM"

phase sysctl # S11
for switch in /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/*/forwarding; do
	echo 1 > "$switch"
done

phase guard # S14
[ -z "$GUARD" ] || /etc/init.d/portcullis-guard start

# netifd: at its start every rule goes, but for what stands in UCI; then the interfaces come up,
# which fw4, started next, has not heard of yet.
phase network # S15 or S20
ip rule flush
ip -6 rule flush
for kind in rules guard; do
	ip -batch /etc/boot/$kind
	ip -6 -batch /etc/boot/${kind}6
done
ip -batch /etc/boot/network
for device in lo br-lan eth1; do
	hotplug "$device"
done
sleep 1

phase firewall # S19
nft -f /etc/boot/fw4.nft
sleep "$HOLD"

# shellcheck disable=SC2086 # a list of words
[ -z "$STEPS" ] || "$PYTHON" -m vm.services $STEPS || echo "services: failed"

phase down # K90
ip link set eth1 down
ip link set br-lan down
sleep 0.5
phase power-off
