# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines whose outer packets are IP: DS-Lite, MAP-E, 6in4, 6rd, IPIP (contract, K2).

Such a line is an interface of netifd's on a tunnel device of the kernel. What it carries is
judged on that device, which leads upstream like any other. The packets that carry it leave by
another one, and may, if they go to the remote end, are of the line's protocol and carry what has
our mark: an outer packet has its inner one's. But the kernel looks their way up with the mark of
the *device*, so that has to be ours too, or the routing guard stops them.

So neither layer opens anything to others. A socket of the router's that sends the line's
protocol to the same address has not the mark, a packet of a device is forwarded, and a tunnel
that is no interface of netifd's is none of ours (K4). PPPoE needs nothing: its frames are no IP.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any, NamedTuple

from portcullis import iptunnel
from portcullis.iptunnel import IpTunnel
from portcullis.policy import MARK, Network, Outer, endpoint_objection

log = logging.getLogger("portcullis")

_KINDS = {
    **dict.fromkeys(("6in4", "6rd", "6to4"), "sit"),
    **dict.fromkeys(("dslite", "ipip6", "map"), "ip6tnl"),
    "ipip": "ipip",
}
"""netifd's protocols, and the kind of device that the kernel has for each."""


class Line(NamedTuple):
    """What netifd says of a line: its device, the kind that has to be, and, of 6rd, the relays:
    its device has no remote end, they stand in the routes."""

    device: str
    kind: str
    relays: tuple[str, ...] = ()


def listed(interfaces: Iterable[Mapping[str, Any]], upstream: Iterable[str]) -> tuple[Line, ...]:
    """The lines in netifd's `network.interface dump` that lead upstream."""
    leading = set(upstream)
    return tuple(
        Line(interface["l3_device"], kind, tuple(_relays(interface)) if kind == "sit" else ())
        for interface in interfaces
        if (kind := _KINDS.get(interface.get("proto", "")))
        and interface.get("l3_device") in leading
    )


def outer(lines: Iterable[Line], tunnels: Mapping[str, IpTunnel]) -> tuple[Outer, ...]:
    """The outer packets of the lines, as far as the kernel has the device that netifd says."""
    found = []
    for line in lines:
        tunnel = tunnels.get(line.device)
        if tunnel is not None and tunnel.kind == line.kind:
            ends = (tunnel.remote,) if tunnel.remote else line.relays
            found += [Outer(line.kind, end) for end in ends]
    return tuple(dict.fromkeys(found))


def sound(
    found: Iterable[Outer], networks: tuple[Network, ...], own: tuple[str, ...]
) -> tuple[tuple[Outer, ...], tuple[str, ...]]:
    """Those of `found` whose remote end can be one, and what is wrong with the others: whoever
    tells the router where its line ends must not send it into the house (K11)."""
    objections = {outer: endpoint_objection(outer.address, networks, own) for outer in found}
    return (
        tuple(outer for outer, objection in objections.items() if not objection),
        tuple(f"the line's remote end: {o}" for o in objections.values() if o),
    )


def hold(lines: tuple[Line, ...]) -> tuple[Outer, ...]:
    """Have the outer packets of `lines` find their way; which those are. Raises OSError."""
    tunnels = iptunnel.read() if lines else {}
    for line in lines:
        tunnel = tunnels.get(line.device)
        if tunnel is not None and tunnel.kind == line.kind and tunnel.mark != MARK:
            iptunnel.mark(tunnel, MARK)
            log.info("%s carries a line: its packets pass to the remote end", line.device)
    return outer(lines, tunnels)


def _relays(interface: Mapping[str, Any]) -> Iterable[str]:
    """IPv4 addresses of next hops, as sit has them: ::192.0.2.1 (RFC 5969)."""
    for route in interface.get("route", ()):
        try:
            hop = int(IPv6Address(route.get("nexthop", "")))
        except AddressValueError:
            continue
        if 1 < hop < 1 << 32:
            yield str(IPv4Address(hop))
