# SPDX-License-Identifier: GPL-2.0-or-later
"""The packet filter's text: policy → nft.

Pure. The structure of `inet portcullis` never changes; `STRUCTURE` is all of it. A state is
nothing but the elements of its sets and maps (`elements`), refilled in one transaction
(`refill`). Empty means blocked; *released* is an element of the map `gate`.

Rules of the house, each with a test: every rule has a comment; every base chain ends in an
explicit drop or reject, because a `policy drop` is not there at once when a chain is replaced;
no interval sets, because they miss look-ups while they are refilled (platform.md).
"""

from __future__ import annotations

from ipaddress import ip_address
from itertools import product

from portcullis.policy import MARK, MASK, TUNNEL, Policy, Socket
from portcullis.table import Elements, Sets, Table, structure

LAYER2, FREE, APART = 0x01000000, 0x02000000, 0x04000000
"""Bits of the mark by which the two tables speak to each other about a packet between devices:
*to be decided on layer 2*, and what that knows of the sender: *excepted*, or *at a port that is
kept apart*. Clear of pbr's and mwan3's, and none of them is in `MARK`."""

SETS: Sets = {
    # name: (kind, type, purpose)
    "gate": ("map", "typeof meta nfproto : verdict", "families that are released; empty: blocked"),
    "forwards": ("map", "type ifname . ifname : verdict", "who may forward to whom"),
    "protected": ("set", "type ifname", "devices of the protected networks"),
    "served": ("set", "type ifname", "other devices that the router answers"),
    "tunnel4": ("set", "type ipv4_addr", "our IPv4 addresses in the tunnel"),
    "tunnel6": ("set", "type ipv6_addr", "our IPv6 addresses in the tunnel"),
    "endpoints4": ("set", "type ipv4_addr . inet_proto . inet_service", "pinned VPN servers"),
    "endpoints6": ("set", "type ipv6_addr . inet_proto . inet_service", "pinned VPN servers"),
    "bootstrap4": ("set", "type ipv4_addr . inet_proto . inet_service", "who names VPN servers"),
    "bootstrap6": ("set", "type ipv6_addr . inet_proto . inet_service", "who names VPN servers"),
    "outer_sit": ("set", "type ipv4_addr", "remote ends of lines: 6in4, 6rd"),
    "outer_ipip": ("set", "type ipv4_addr", "remote ends of lines: IPIP"),
    "outer_ip6tnl": ("set", "type ipv6_addr", "remote ends of lines: DS-Lite, MAP-E"),
    "resolvers4": ("set", "type ipv4_addr", "the tunnel's resolvers"),
    "resolvers6": ("set", "type ipv6_addr", "the tunnel's resolvers"),
    "chosen4": ("set", "type ipv4_addr", "resolvers on the owner's networks"),
    "chosen6": ("set", "type ipv6_addr", "resolvers on the owner's networks"),
    "dns4": ("map", "type inet_proto : ipv4_addr", "where the router's plain DNS goes"),
    "dns6": ("map", "type inet_proto : ipv6_addr", "where the router's plain DNS goes"),
    "upstream4": ("map", "type inet_proto : ipv4_addr", "the tunnel's resolver"),
    "upstream6": ("map", "type inet_proto : ipv6_addr", "the tunnel's resolver"),
    "redirected": ("map", "typeof meta nfproto : verdict", "where a chosen resolver answers"),
    "asking": ("learnt", "type inet_service", "53 while a chosen resolver asks the router"),
    "free": ("set", "type ether_addr . ifname", "devices that reach all others, where they are"),
    "apart": ("set", "type ether_addr", "devices that reach no other"),
    "lan4": ("map", "type ipv4_addr . ifname : verdict", "excepted devices without a bridge"),
    "lan6": ("map", "type ipv6_addr . ifname : verdict", "excepted devices without a bridge"),
    "lan": ("map", "type ifname : verdict", "networks that any device may send to"),
}

_METERS = {"blocked_by_device": "whose traffic was blocked"}

COUNTERS = {
    "blocked_devices": "IPv4 of devices that was blocked",
    "blocked_ipv6": "IPv6 of devices that was blocked",
    "blocked_dns": "plain DNS that was not for the tunnel's resolvers",
    "blocked_router": "the router's own traffic that was blocked",
    "blocked_lan": "what a device sent to another and was blocked",
    "blocked_inbound": "what came from outside and was dropped",
    "blocked_tunnel": "what came uninvited out of the tunnel and was dropped",
}

UPKEEP = """\
		ip protocol udp udp sport 68 udp dport 67 @th,64,24 0x010106 @th,1952,32 0x63825363 accept comment "K2: DHCP client, by its content"
		ip6 saddr fe80::/10 ip6 daddr ff02::1:2 udp sport 546 udp dport 547 accept comment "K2: DHCPv6 client"
		icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept comment "K2: neighbour discovery"
		icmpv6 type { mld-listener-report, mld-listener-done, mld2-listener-report } ip6 daddr ff02::/16 ip6 hoplimit 1 accept comment "K2: neighbour discovery"
"""
"""What keeps a line up, whoever on the router sends it. This and `MARKED` hold in the egress hook
as well (egress.py), whose family knows no `meta nfproto`."""

MARKED = """\
		ip daddr . meta l4proto . th dport @endpoints4 accept comment "K2: the tunnel's own packets"
		ip6 daddr . meta l4proto . th dport @endpoints6 accept comment "K2: the tunnel's own packets"
		ip daddr . meta l4proto . th dport @bootstrap4 accept comment "K12: the endpoint's address"
		ip6 daddr . meta l4proto . th dport @bootstrap6 accept comment "K12: the endpoint's address"
		meta l4proto 41 ip daddr @outer_sit accept comment "K2: what carries the line, by the mark of what it carries"
		meta l4proto 4 ip daddr @outer_ipip accept comment "K2: what carries the line, by the mark of what it carries"
		meta l4proto 4 ip6 daddr @outer_ip6tnl accept comment "K2: what carries the line, by the mark of what it carries"
"""
"""Of what carries the mark, that which may leave; its sets are those of `OUTWARD`."""

OUTWARD = (
    *("endpoints4", "endpoints6", "bootstrap4", "bootstrap6"),
    *("outer_sit", "outer_ipip", "outer_ip6tnl"),
)

_CHAINS = f"""
	chain arriving {{
		type filter hook prerouting priority raw - 10; policy drop;
		ip daddr != @tunnel4 accept comment "not for our tunnel address"
		ip6 daddr != @tunnel6 accept comment "not for our tunnel address"
		iifname {{ "lo", "{TUNNEL}" }} accept comment "by the way it should come"
		counter name blocked_inbound drop comment "the end: beside the tunnel it may not come (K11), nor count as part of a flow"
	}}

	chain forward {{
		type filter hook forward priority filter - 10; policy drop;
		iifname . oifname vmap @forwards comment "tunnel and local traffic: decided in one look-up"
		iifname "{TUNNEL}" counter name blocked_tunnel drop comment "K6: out of the tunnel come replies alone"
		meta nfproto vmap @gate comment "released, or go on"
		jump blocked comment "K1: say no at once"
		drop comment "the end: deny by default"
	}}

	chain to_tunnel {{
		tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu comment "fit the tunnel's MTU"
		ct state invalid,untracked drop comment "what is not translated tells who lives here"
		th dport 53 meta l4proto {{ tcp, udp }} goto to_resolver comment "K12: plain DNS"
		accept comment "into the tunnel"
	}}

	chain from_tunnel {{
		tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu comment "fit the tunnel's MTU"
		ct state established,related ct direction reply ct status snat accept comment "K6: replies to what devices sent into it"
		counter name blocked_tunnel drop comment "K6: nothing else comes in"
	}}

	chain to_resolver {{
		ip daddr @resolvers4 accept comment "K12: the tunnel's resolvers"
		ip6 daddr @resolvers6 accept comment "K12: the tunnel's resolvers"
		counter name blocked_dns goto refuse comment "K12: no other resolver"
	}}

	chain to_chosen {{
		ip daddr @chosen4 accept comment "K12: a resolver of the owner's"
		ip6 daddr @chosen6 accept comment "K12: a resolver of the owner's"
		goto to_resolver comment "K12: the tunnel's resolvers alone"
	}}

	chain to_local {{
		th dport 53 meta l4proto {{ tcp, udp }} ct direction original goto to_chosen comment "K12: before any exception"
		accept comment "between protected networks, the router included"
	}}

	chain between {{
		meta mark & {APART:#010x} == {APART:#010x} goto refuse_lan comment "K16: from a port kept apart"
		ether saddr @apart goto refuse_lan comment "K16: from a device kept apart"
		ip daddr . oifname vmap @lan4 comment "K16: to an excepted device"
		ip6 daddr . oifname vmap @lan6 comment "K16: to an excepted device"
		meta mark & {FREE:#010x} == {FREE:#010x} goto let comment "K16: from an excepted device"
		ether saddr . iifname @free goto let_excepted comment "K16: from an excepted device without a bridge"
		oifname vmap @lan comment "K16: allowed, or layer 2 decides"
		goto refuse_lan comment "K16: deny by default"
	}}

	chain let_excepted {{
		meta mark set meta mark | {FREE:#010x} comment "K16: what a bridge would have said"
		goto let comment "K16: from an excepted device"
	}}

	chain let {{
		meta mark set meta mark | {LAYER2:#010x} comment "K16: layer 2 knows the receiver"
		meta nfproto vmap @gate comment "released, or go on"
		goto to_local comment "K12: DNS first"
	}}

	chain refuse_lan {{
		counter name blocked_lan goto refuse comment "K16: devices apart from each other"
	}}

	chain blocked {{
		iifname != @protected counter name blocked_inbound drop comment "not ours to answer"
		th dport 53 meta l4proto {{ tcp, udp }} counter name blocked_dns goto refuse comment "K12: plain DNS"
		meta nfproto ipv6 counter name blocked_ipv6 goto refuse comment "K1: IPv6"
		counter name blocked_devices goto refuse comment "K1: IPv4"
	}}

	chain refuse {{
		iifname @protected update @blocked_by_device {{ ether saddr counter }} comment "K15: whose it was"
		meta l4proto tcp reject with tcp reset comment "K15: an answer, not a time-out"
		reject with icmpx type admin-prohibited comment "K15: an answer, not a time-out"
	}}

	chain input {{
		type filter hook input priority filter - 10; policy drop;
		iifname "lo" accept comment "the router to itself"
		iifname "{TUNNEL}" goto input_tunnel comment "K6: the tunnel's far side"
		meta nfproto vmap @gate comment "released, or go on"
		iifname @protected accept comment "K14: the router answers its networks"
		iifname @served accept comment "K14: the router answers the house"
		ip saddr . meta l4proto . th sport @endpoints4 accept comment "K2: the tunnel's own packets"
		ip6 saddr . meta l4proto . th sport @endpoints6 accept comment "K2: the tunnel's own packets"
		ip saddr . meta l4proto . th sport @bootstrap4 accept comment "K12: the endpoint's address"
		ip6 saddr . meta l4proto . th sport @bootstrap6 accept comment "K12: the endpoint's address"
		meta l4proto 41 ip saddr @outer_sit accept comment "K2: what the line carries is judged on the line"
		meta l4proto 4 ip saddr @outer_ipip accept comment "K2: what the line carries is judged on the line"
		meta l4proto 4 ip6 saddr @outer_ip6tnl accept comment "K2: what the line carries is judged on the line"
		icmp type {{ destination-unreachable, time-exceeded, parameter-problem }} ct state related accept comment "errors about the tunnel's own packets"
		icmpv6 type {{ destination-unreachable, packet-too-big, time-exceeded, parameter-problem }} ct state related accept comment "errors about the tunnel's own packets"
		meta nfproto ipv4 udp sport 67 udp dport 68 accept comment "K2: DHCP client"
		ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept comment "K2: DHCPv6 client"
		icmpv6 type {{ mld-listener-query, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert }} accept comment "K2: neighbour discovery"
		counter name blocked_inbound drop comment "the end: deny by default"
	}}

	chain input_tunnel {{
		ct state established,related ct direction reply accept comment "K6: replies to the router"
		counter name blocked_tunnel drop comment "K6: nothing else comes in"
	}}

	chain output {{
		type filter hook output priority filter - 10; policy drop;
		oifname "lo" accept comment "the router to itself"
		oifname "{TUNNEL}" goto output_tunnel comment "the router through the tunnel"
		meta nfproto vmap @gate comment "released, or go on"
		oifname @protected goto to_local comment "K14: the router answers its networks"
		oifname @served ct direction reply accept comment "K14: the router answers the house"
		oifname @served udp sport {{ 67, 547 }} udp dport {{ 68, 546 }} accept comment "K14: and gives it addresses"
		meta mark & {MASK:#010x} == {MARK:#010x} goto output_marked comment "K2: what carries the mark"
{UPKEEP}		counter name blocked_router jump refuse comment "K2: the router's own traffic"
		drop comment "the end: deny by default"
	}}

	chain output_tunnel {{
		ct direction reply drop comment "K11: what was begun outside gets no answer out of the tunnel"
		ct state invalid,untracked drop comment "what is not translated tells who lives here"
		th dport 53 meta l4proto {{ tcp, udp }} goto to_chosen comment "K12: plain DNS, rerouted by now if it was redirected home"
		accept comment "into the tunnel"
	}}

	chain output_marked {{
{MARKED}		counter name blocked_router goto refuse comment "K2: the mark alone opens nothing"
	}}

	chain dns_devices {{
		type nat hook prerouting priority -110; policy accept;
		meta nfproto vmap @gate comment "released, or go on"
		th dport != 53 accept comment "not DNS"
		meta l4proto != {{ tcp, udp }} accept comment "not DNS"
		iifname != @protected accept comment "not a device's"
		fib daddr type local goto asks_router comment "dnsmasq answers, and knows local names"
		ip saddr @chosen4 goto asks_tunnel comment "K12: what a chosen resolver asks in its turn"
		ip6 saddr @chosen6 goto asks_tunnel comment "K12: what a chosen resolver asks in its turn"
		meta nfproto vmap @redirected comment "K12: the chosen resolver, asked by the router"
		goto asks_tunnel comment "K12: the tunnel's resolver"
		drop comment "the end: deny by default"
	}}

	chain asks_router {{
		ip saddr @chosen4 update @asking {{ th dport timeout 2m }} comment "K12: what it asks us must not come back to it"
		ip6 saddr @chosen6 update @asking {{ th dport timeout 2m }} comment "K12: what it asks us must not come back to it"
		accept comment "dnsmasq answers, and knows local names"
	}}

	chain redirect_to_router {{
		redirect comment "K12: so that the answer comes back the same way, on any network"
	}}

	chain asks_tunnel {{
		meta nfproto ipv4 dnat ip to meta l4proto map @upstream4 comment "K12: the tunnel's resolver"
		meta nfproto ipv6 dnat ip6 to meta l4proto map @upstream6 comment "K12: the tunnel's resolver"
		goto no_resolver comment "K12: none of this family"
	}}

	chain no_resolver {{
		counter name blocked_dns goto refuse comment "K12: no resolver of this family"
	}}

	chain dns_router {{
		type nat hook output priority -110; policy accept;
		meta nfproto vmap @gate comment "released, or go on"
		th dport != 53 accept comment "not DNS"
		meta l4proto != {{ tcp, udp }} accept comment "not DNS"
		oifname "lo" accept comment "the router's own dnsmasq"
		meta mark & {MASK:#010x} == {MARK:#010x} accept comment "K12: the endpoint's address"
		th dport @asking goto asks_tunnel comment "K12: on behalf of a chosen resolver: no loop"
		meta nfproto ipv4 dnat ip to meta l4proto map @dns4 comment "K12: the chosen or the tunnel's resolver"
		meta nfproto ipv6 dnat ip6 to meta l4proto map @dns6 comment "K12: the chosen or the tunnel's resolver"
		goto no_resolver comment "K12: none of this family"
		drop comment "the end: deny by default"
	}}

	chain source_nat {{
		type nat hook postrouting priority srcnat - 10; policy accept;
		oifname != "{TUNNEL}" goto source_nat_home comment "not into the tunnel"
		masquerade comment "the tunnel knows one address of ours"
		drop comment "the end: un-NATed it may not go"
	}}

	chain source_nat_home {{
		meta l4proto != {{ tcp, udp }} accept comment "fw4's to decide"
		th dport != 53 accept comment "fw4's to decide"
		ip daddr @chosen4 masquerade comment "K12: nobody at home could answer the tunnel's address"
		ip6 daddr @chosen6 masquerade comment "K12: nobody at home could answer the tunnel's address"
		accept comment "fw4's to decide"
	}}
"""


STRUCTURE = structure(SETS, _METERS, COUNTERS, _CHAINS)
"""Body of the table: the same in every state, for the core and for the boot guard."""


def elements(policy: Policy) -> Elements:
    """What each set and map holds under `policy`."""
    link = policy.link
    addresses = link.addresses if link else ()
    filled: dict[str, set[str]] = {
        name: set() for name, (kind, *_) in SETS.items() if kind != "learnt"
    }
    if policy.released:
        filled["gate"] = {"ipv4 : accept", "ipv6 : accept"}
    filled["protected"] = {f'"{device}"' for device in policy.devices}
    filled["served"] = {f'"{network.device}"' for network in policy.served} - filled["protected"]
    if way := _between(policy):
        for one, other in product(policy.devices, repeat=2):
            filled["forwards"].add(f'"{one}" . "{other}" : goto {way}')
    for device in policy.devices if link and policy.flowing else ():
        filled["forwards"].add(f'"{device}" . "{TUNNEL}" : goto to_tunnel')
        filled["forwards"].add(f'"{TUNNEL}" . "{device}" : goto from_tunnel')
    for version in (4, 6):
        filled[f"tunnel{version}"] = set(_of(addresses, version))
        filled[f"endpoints{version}"] = _sockets(policy.endpoints, version)
        filled[f"bootstrap{version}"] = _sockets(policy.bootstrap, version)
        resolvers, chosen = _of(policy.resolvers, version), _of(policy.chosen, version)
        filled[f"resolvers{version}"], filled[f"chosen{version}"] = set(resolvers), set(chosen)
        filled[f"upstream{version}"] = _first(resolvers)
        filled[f"dns{version}"] = _first(chosen if policy.chosen else resolvers)
        if policy.chosen:  # a family without one is refused: nobody gets around the owner's choice
            chain = "redirect_to_router" if chosen else "no_resolver"
            filled["redirected"].add(f"ipv{version} : goto {chain}")
    for kind, address in policy.outer:
        filled[f"outer_{kind}"].add(address)
    if lan := policy.lan:
        filled["free"] = {f'{mac} . "{at}"' for mac, at in lan.free if at in policy.devices}
        filled["apart"] = set(lan.apart)
        filled["lan"] = {f'"{device}" : goto let' for device in lan.open}
        for address, device, allowed in lan.addressed:
            verdict = "let" if allowed else "refuse_lan"
            name = f"lan{ip_address(address).version}"
            filled[name].add(f'{address} . "{device}" : goto {verdict}')
    return {name: frozenset(values) for name, values in filled.items()}


def _between(policy: Policy) -> str:
    """The chain for packets between devices, in every state where access is restricted."""
    if policy.lan or not policy.lan_access:
        return "between"
    return "" if policy.released else "to_local"


INET: Table[Policy] = Table("inet", "portcullis", SETS, _METERS, COUNTERS, STRUCTURE, elements)


def render(policy: Policy, flags: str = "") -> str:
    """The whole table in one transaction, whatever stood there before (`Table.render`)."""
    return INET.render(elements(policy), flags)


def boot(policy: Policy) -> str:
    """The elements that the boot guard adds to an empty table: those of the closed policy with
    the networks of `policy`, so that the house is answered from the first moment (K14)."""
    unrestricted = policy.lan_access and policy.lan is None
    closed = Policy(lan_access=unrestricted, networks=policy.networks, served=policy.served)
    return INET.fill(elements(closed))


def refill(policy: Policy) -> str:
    """The elements alone, in one transaction, for a table whose structure stands."""
    return INET.refill(elements(policy))


def _of(addresses: tuple[str, ...], version: int) -> list[str]:
    return [address for address in addresses if ip_address(address).version == version]


def _first(resolvers: list[str]) -> set[str]:
    return {f"{proto} : {resolvers[0]}" for proto in ("tcp", "udp")} if resolvers else set()


def _sockets(sockets: tuple[Socket, ...], version: int) -> set[str]:
    return {
        f"{address} . {transport} . {port}"
        for address, transport, port in sockets
        if ip_address(address).version == version
    }


if __name__ == "__main__":
    from portcullis.policy import CLOSED

    print(render(CLOSED), end="")  # what the boot guard loads; made when the package is built
