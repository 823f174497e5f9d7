# SPDX-License-Identifier: GPL-2.0-or-later
"""LAN device access on layer 2: the table `bridge portcullis` (K16).

Pure. It stands only where access is restricted, so that nobody else pays for it. Like the other
table it is one constant structure, and empty means that no device reaches another. Frames to
and from the router itself pass by `forward`: the router stays reachable whatever is in here
(K14).

Devices are told apart by MAC address *and* port, because an address alone is anybody's to
claim. What is routed from one network to another, or between two devices over the router's own
address, is decided here too: `inet portcullis` knows neither the sender's port nor the
receiver's address, so it marks such a packet, and `output` has the last word.
"""

from __future__ import annotations

from ipaddress import ip_address

from portcullis.policy import Lan
from portcullis.ruleset import APART, FREE, LAYER2
from portcullis.table import Elements, Sets, Table, structure

_SETS: Sets = {
    "ports": ("map", "type ifname : verdict", "where something has to be marked for layer 3"),
    "free": ("set", "type ether_addr . ifname", "devices that reach all others, where they are"),
    "apart": ("set", "type ether_addr", "devices that reach no other"),
    "closed": ("set", "type ifname", "ports that are kept apart with all behind them"),
    "passing": ("set", "type ifname", "ports whose other devices reach each other"),
    "heard": ("set", "type ifname", "ports of excepted devices alone: they hear broadcasts"),
    "sought4": ("set", "type ipv4_addr . ifname", "excepted devices that may be asked for"),
    "sought6": ("set", "type ether_addr . ifname", "excepted devices that may be asked for"),
    "learnt4": ("learnt", "type ipv4_addr . ifname", "addresses that they use themselves"),
    "learnt6": ("learnt", "type ipv6_addr . ifname", "the low 24 bits of such addresses"),
}

COUNTERS = {"blocked_lan": "what a device sent to another and was blocked"}

_METERS = {"blocked_by_device": "whose traffic was blocked"}

_CHAINS = f"""
	chain prerouting {{
		type filter hook prerouting priority filter - 10; policy accept;
		iifname vmap @ports comment "ports with something to remember for layer 3"
		accept comment "the end: on to the bridge, and to the router"
	}}

	chain port_of_excepted {{
		ether saddr . iifname != @free accept comment "not an excepted device, or not where it belongs"
		meta mark set meta mark | {FREE:#010x} comment "K16: an excepted device, at its port"
		update @learnt4 {{ arp saddr ip . iifname }} comment "who may be asked for, at this port"
		icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} update @learnt6 {{ ip6 saddr & ::ff:ffff . iifname }} comment "who may be asked for, at this port"
		accept comment "on to the bridge, and to the router"
	}}

	chain port_kept_apart {{
		meta mark set meta mark | {APART:#010x} comment "K16: the port is kept apart"
		accept comment "on to the bridge, and to the router"
	}}

	chain forward {{
		type filter hook forward priority filter - 10; policy drop;
		iifname @closed goto blocked comment "K16: from a port kept apart"
		ether saddr @apart goto blocked comment "K16: from a device kept apart"
		goto to comment "who is it for?"
		drop comment "the end: deny by default"
	}}

	chain output {{
		type filter hook output priority filter - 10; policy accept;
		meta mark & {LAYER2:#010x} == {LAYER2:#010x} goto to comment "routed from a device: who is it for?"
		accept comment "the end: the router to its devices (K14)"
	}}

	chain to {{
		oifname @closed goto blocked comment "K16: to a port kept apart"
		ether daddr @apart goto blocked comment "K16: to a device kept apart"
		oifname @passing accept comment "access is allowed"
		meta mark & {FREE:#010x} == {FREE:#010x} accept comment "K16: from an excepted device"
		ether daddr . oifname @free accept comment "K16: to an excepted device"
		oifname @heard ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 accept comment "K16: to all, so to an excepted device"
		ether daddr ff:ff:ff:ff:ff:ff arp operation request goto sought comment "K16: who has this address?"
		ether daddr & ff:ff:ff:00:00:00 == 33:33:ff:00:00:00 icmpv6 type nd-neighbor-solicit goto sought comment "K16: who has this address?"
		goto blocked comment "K16: deny by default"
	}}

	chain sought {{
		arp daddr ip . oifname @sought4 accept comment "K16: an excepted device's address"
		arp daddr ip . oifname @learnt4 accept comment "K16: an excepted device's address"
		ether daddr . oifname @sought6 accept comment "K16: an excepted device's address"
		ip6 daddr & ::ff:ffff . oifname @learnt6 accept comment "K16: an excepted device's address"
		goto blocked comment "K16: deny by default"
	}}

	chain blocked {{
		update @blocked_by_device {{ ether saddr counter }} comment "K15: whose it was"
		counter name blocked_lan drop comment "K16: devices apart from each other"
	}}
"""

STRUCTURE = structure(_SETS, _METERS, COUNTERS, _CHAINS)


def elements(lan: Lan) -> Elements:
    """What each set holds."""
    ports = {port: "port_of_excepted" for _, port in lan.free}
    ports |= dict.fromkeys(lan.closed, "port_kept_apart")
    found = {
        "ports": {f'"{port}" : goto {chain}' for port, chain in ports.items()},
        "free": {f'{mac} . "{port}"' for mac, port in lan.free},
        "apart": set(lan.apart),
        "closed": {f'"{port}"' for port in lan.closed},
        "passing": {f'"{port}"' for port in lan.passing},
        "heard": {f'"{port}"' for port in lan.heard},
        "sought4": {f'{a} . "{port}"' for a, port in lan.sought if ":" not in a},
        "sought6": {f'{solicited(a)} . "{port}"' for a, port in lan.sought if ":" in a},
    }
    return {name: frozenset(values) for name, values in found.items()}


def solicited(address: str) -> str:
    """The multicast MAC address at which an IPv6 address is asked for (RFC 4291, RFC 2464)."""
    low = ip_address(address).packed[-3:]
    return "33:33:ff:" + low.hex(":")


BRIDGE: Table[Lan] = Table("bridge", "portcullis", _SETS, _METERS, COUNTERS, STRUCTURE, elements)


def boot(lan: Lan | None) -> str:
    """The table for the boot guard, empty where none is needed. What depends on who was seen
    where comes with the daemon: it would be written to the flash again and again."""
    return BRIDGE.render(elements(lan._replace(heard=(), sought=()))) if lan else ""
