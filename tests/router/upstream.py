# SPDX-License-Identifier: GPL-2.0-or-later
"""A hostile upstream network: what it pushes by DHCP, router advertisements and redirects, and the
router's side of it, which installs all that netifd would."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv6Network, ip_address

from . import addresses as at
from . import craft
from .frame import ETH_IP6
from .hostile import raw
from .topology import VirtualRouter

ISP_LINK_LOCAL = "fe80::5eff:fe00:5301"
# What udhcpc calls when it has a lease: routes as /lib/netifd/dhcp.script has netifd make them,
# and those of option 33, which it leaves out.
_SCRIPT = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip address replace "$ip/$mask" dev "$interface"
for gateway in $router; do
	ip route replace default via "$gateway" dev "$interface" src "$ip" onlink
done
ways() {
	while [ $# -ge 2 ]; do
		if [ "$2" = 0.0.0.0 ]; then
			ip route replace "$1" dev "$interface" src "$ip"
		else
			ip route replace "$1" via "$2" dev "$interface" src "$ip" onlink
		fi
		shift 2
	done
}
# shellcheck disable=SC2046,SC2086 # lists of words
ways $staticroutes $msstaticroutes $(echo $routes | tr / ' ')
"""


@contextmanager
def dhcp(world: VirtualRouter, *options: str, mask: str = "255.255.255.0") -> Iterator[None]:
    """A DHCP server (dnsmasq) at the ISP's end of the line; `options` as its --dhcp-option."""
    pidfile = world.state / "isp-dhcp.pid"
    command = [
        *("dnsmasq", "-C", "/dev/null", "--port=0", "--user=root", "--group="),
        *(f"--pid-file={pidfile}", f"--dhcp-leasefile={world.state}/isp.leases"),
        *(f"--interface={world.access}", "--bind-interfaces", "--dhcp-authoritative"),
        f"--dhcp-range={at.ROUTER_WAN.v4},{at.ROUTER_WAN.v4},{mask},1h",
        f"--dhcp-option=option:router,{at.ISP.v4}",
        *(f"--dhcp-option-force={option}" for option in options),
    ]
    world.isp.run(command)
    try:
        yield
    finally:
        os.kill(int(pidfile.read_text()), signal.SIGTERM)


def lease(world: VirtualRouter) -> None:
    """The router's WAN asks for an address, takes it and every route that comes along."""
    script = world.state / "udhcpc.script"
    script.write_text(_SCRIPT)
    script.chmod(0o755)
    world.router.run(
        [
            *("busybox", "udhcpc", "-f", "-n", "-q", "-t", "5", "-T", "1", "-i", at.WAN_DEVICE),
            *("-s", str(script), "-O", "121", "-O", "249", "-O", "33"),
        ]
    )


def obey(world: VirtualRouter) -> None:
    """The router believes its upstream whatever it says: advertisements, every route in them,
    redirects. OpenWrt's kernel does not."""
    device = at.WAN_DEVICE
    believed = {
        f"ipv6/conf/{device}/accept_ra": 2,
        f"ipv6/conf/{device}/accept_redirects": 1,
        "ipv6/conf/all/accept_redirects": 1,
        f"ipv4/conf/{device}/accept_redirects": 1,
        "ipv4/conf/all/accept_redirects": 1,
        f"ipv4/conf/{device}/secure_redirects": 0,
        "ipv4/conf/all/secure_redirects": 0,
    }
    world.router.sysctl(believed)
    length = {f"ipv6/conf/{device}/accept_ra_rt_info_max_plen": 128}
    world.router.sysctl(length, optional=True)  # CONFIG_IPV6_ROUTE_INFO


def advertise(
    world: VirtualRouter,
    *,
    on_link: Sequence[str] = (),
    routes: Sequence[str] = (),
    resolvers: Sequence[str] = (),
) -> None:
    """A router advertisement onto the line: a default router of high preference, prefixes that
    are on-link and for addresses, routes (RFC 4191), resolvers (RFC 8106)."""
    body = struct.pack("!BBHII", 64, 0b00001000, 1800, 0, 0)
    body += bytes([1, 1]) + bytes.fromhex(at.ISP_MAC.replace(":", ""))
    for prefix in map(IPv6Network, on_link):
        body += struct.pack("!BBBBIII", 3, 4, prefix.prefixlen, 0b11000000, 7200, 7200, 0)
        body += prefix.network_address.packed
    for prefix in map(IPv6Network, routes):
        body += struct.pack("!BBBBI", 24, 3, prefix.prefixlen, 0b00001000, 1800)
        body += prefix.network_address.packed
    for resolver in resolvers:
        body += struct.pack("!BBHI", 25, 3, 0, 1800) + ip_address(resolver).packed
    packet = craft.icmp(ISP_LINK_LOCAL, "ff02::1", 134, 0, body, hops=255)
    frame = craft.ethernet(packet, ETH_IP6, source=at.ISP_MAC, target="33:33:00:00:00:01")
    raw(world, "isp", frame)


def redirect(target: str, gateway: str) -> bytes:
    """The ISP's router tells ours to reach `target` by another gateway."""
    if ":" in target:
        body = b"\0" * 4 + ip_address(gateway).packed + ip_address(target).packed
        return craft.icmp(ISP_LINK_LOCAL, at.ROUTER_WAN.v6, 137, 0, body, hops=255)
    quoted = craft.icmp(at.ROUTER_WAN.v4, target, 0, 0, b"\0" * 4)  # an echo's reply of ours
    return craft.icmp(at.ISP.v4, at.ROUTER_WAN.v4, 5, 1, ip_address(gateway).packed + quoted)
