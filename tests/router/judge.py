# SPDX-License-Identifier: GPL-2.0-or-later
"""How a leak is judged (contract.md): every frame the router sends on the WAN is on the allow-list,
in address and in content, or it is a leak."""

from __future__ import annotations

import ipaddress
import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from . import dns
from . import frame as wire
from .addresses import GUEST4, GUEST6, LAN4, LAN6, LAN_ULA, ROUTER_WAN, WAN_MAC, WIREGUARD_PORT
from .frame import Arp, Ethernet, Frame, Ip, Malformed, Other

INSIDE = tuple(ipaddress.ip_network(net) for net in (LAN4, GUEST4, LAN6, GUEST6, LAN_ULA))
_LINK_LOCAL = ipaddress.ip_network("fe80::/10")
_DHCP_COOKIE = b"\x63\x82\x53\x63"
_DHCP6_CLIENT = (1, 3, 4, 5, 6, 8, 9, 11)
_ROUTER_ALERT_MLD = b"\x05\x02\x00\x00"
_OPENVPN_OPCODES = range(1, 12)


@dataclass(frozen=True)
class Endpoint:
    """A VPN server as it is pinned; `carries` is wireguard or openvpn, `protocol` 17 or 6."""

    address: str
    port: int = WIREGUARD_PORT
    carries: str = "wireguard"
    protocol: int = wire.UDP


@dataclass(frozen=True)
class Carrier:
    """The remote end of a line whose outer packets are IP, and their protocol: 41, or 4. What is
    inside is judged."""

    remote: str
    protocol: int


@dataclass(frozen=True)
class Allowed:
    """The allow-list. With the defaults only what keeps the line up passes: no tunnel, no DNS."""

    endpoints: frozenset[Endpoint] = frozenset()
    resolvers: frozenset[str] = frozenset()  # where the bootstrap may ask
    names: frozenset[str] = frozenset()  # for what
    wan: frozenset[str] = frozenset(ROUTER_WAN.addresses)
    mac: str = WAN_MAC
    carriers: frozenset[Carrier] = frozenset()

    @classmethod
    def of(
        cls,
        *endpoints: Endpoint,
        resolvers: Iterable[str] = (),
        names: Iterable[str] = (),
        carriers: Iterable[Carrier] = (),
    ) -> Allowed:
        lower = frozenset(name.lower().rstrip(".") for name in names)
        found = cls(frozenset(endpoints), frozenset(resolvers), lower)
        return replace(found, carriers=frozenset(carriers))

    def at(self, *wan: str) -> Allowed:
        """The same after a renumbering: these are the WAN's addresses as well."""
        return replace(self, wan=self.wan | frozenset(wan))


@dataclass(frozen=True)
class Leak:
    frame: Frame
    what: str


@dataclass
class Verdict:
    """What of a capture was a leak, and how many frames were allowed as what."""

    leaks: list[Leak] = field(default_factory=list)
    passed: Counter[str] = field(default_factory=Counter)

    @property
    def clean(self) -> bool:
        return not self.leaks

    def having(self, token: bytes) -> list[Leak]:
        return [leak for leak in self.leaks if token in leak.frame.raw]

    def __str__(self) -> str:
        counts = Counter(leak.what for leak in self.leaks)
        lines = [f"{number} x {what}" for what, number in counts.most_common(20)]
        if len(counts) > 20:
            lines.append(f"… and {len(counts) - 20} other kinds")
        good = ", ".join(f"{number} {what}" for what, number in sorted(self.passed.items()))
        return "\n".join(lines or ["no leak"]) + f"\n(allowed: {good or 'nothing'})"


def judge(frames: Iterable[Frame], allowed: Allowed) -> Verdict:
    verdict = Verdict()
    later: list[tuple[Frame, Ethernet, Ip]] = []
    followed: set[tuple[str, str, int, int]] = set()
    for frame in frames:
        try:
            packet = _opened(wire.parse(frame.raw), allowed)
        except Malformed as error:
            verdict.leaks.append(Leak(frame, f"malformed frame ({error})"))
            continue
        inner = packet.inner
        if isinstance(inner, Ip) and inner.offset:
            later.append((frame, packet, inner))
            continue
        reason = _reason(packet, allowed)
        if reason is None:
            verdict.leaks.append(Leak(frame, _describe(packet, allowed)))
            continue
        verdict.passed[reason] += 1
        if isinstance(inner, Ip) and inner.more:
            followed.add((inner.source, inner.target, inner.protocol, inner.ident))
    for frame, packet, inner in later:
        # a later fragment says nothing by itself; it is what its first one is
        key = (inner.source, inner.target, inner.protocol, inner.ident)
        if key in followed and packet.source_mac == wire.mac(allowed.mac):
            verdict.passed["fragment"] += 1
        else:
            verdict.leaks.append(Leak(frame, _describe(packet, allowed)))
    return verdict


def _opened(packet: Ethernet, allowed: Allowed) -> Ethernet:
    """What is inside of what carries the line, from the WAN to its remote end. Raises Malformed."""
    outer = packet.inner
    if (
        isinstance(outer, Ip)
        and outer.source in allowed.wan
        and Carrier(outer.target, outer.protocol) in allowed.carriers
    ):
        inside, rest = wire.carried(outer)
        return replace(packet, inner=inside, trailer=packet.trailer + rest)
    return packet


def _describe(packet: Ethernet, allowed: Allowed) -> str:
    notes = []
    inner = packet.inner
    if isinstance(inner, Ip):
        source = ipaddress.ip_address(inner.source)
        if any(source in net for net in INSIDE):
            notes.append("un-NATed")
        elif inner.source in allowed.wan:
            notes.append("under the WAN address")
    if packet.source_mac != wire.mac(allowed.mac):
        notes.append(f"from MAC {packet.source_mac.hex(':')}")
    notes += [f"VLAN {vlan}" for vlan in packet.vlans]
    if packet.pppoe:
        notes.append("in PPPoE")
    if packet.trailer.strip(b"\0"):
        notes.append(f"with {len(packet.trailer)} bytes behind its end")
    return f"{inner}{' (' + ', '.join(notes) + ')' if notes else ''}"


def _reason(packet: Ethernet, allowed: Allowed) -> str | None:
    """The entry of the allow-list that covers the packet, None for a leak."""
    if packet.source_mac != wire.mac(allowed.mac) or packet.trailer.strip(b"\0"):
        return None
    inner = packet.inner
    if isinstance(inner, Arp):
        return "ARP" if _is_arp(inner, allowed) else None
    if isinstance(inner, Other):
        return _line(inner)
    if inner.protocol == wire.UDP:
        ports = (inner.sport, inner.dport)
        if ports == (68, 67):
            return "DHCP" if _is_dhcp(inner, allowed) else None
        if ports == (546, 547):
            return "DHCPv6" if _is_dhcp6(inner) else None
    if inner.protocol == wire.ICMP6:
        return _neighbour(inner, allowed)
    if inner.source in allowed.wan:
        if any(_is_tunnel(inner, endpoint) for endpoint in allowed.endpoints):
            return "tunnel"
        if inner.target in allowed.resolvers and _is_bootstrap(inner, allowed):
            return "bootstrap"
    return None


def _line(inner: Other) -> str | None:
    if inner.ethertype == wire.ETH_EAPOL:
        return "EAPOL"
    if inner.ethertype == wire.ETH_PPPOE_DISCOVERY:
        # PADI, PADR and PADT: what a client says (RFC 2516)
        ours = inner.body[:1] == b"\x11" and inner.body[1:2] in (b"\x09", b"\x19", b"\xa7")
        return "PPPoE discovery" if ours else None
    if inner.ppp is not None and inner.ppp >= 0x8000:
        return "PPP control"  # link and network control protocols carry nobody's data (RFC 1661)
    return None


def _is_arp(arp: Arp, allowed: Allowed) -> bool:
    # an answer for (or a question from) another address tells the WAN who lives inside
    return (
        arp.operation in (1, 2)
        and arp.sender_mac == wire.mac(allowed.mac)
        and (arp.sender in allowed.wan or (arp.sender == "0.0.0.0" and arp.operation == 1))
    )


def _is_dhcp(ip: Ip, allowed: Allowed) -> bool:
    body = ip.payload
    return (
        ip.version == 4
        and not ip.fragment
        and ip.source in allowed.wan | {"0.0.0.0"}
        and len(body) >= 240
        and body[:3] == b"\x01\x01\x06"  # a request, Ethernet
        and body[28:34] == wire.mac(allowed.mac)
        and body[236:240] == _DHCP_COOKIE
    )


def _is_dhcp6(ip: Ip) -> bool:
    return (
        ip.version == 6
        and not ip.fragment
        and ip.target == "ff02::1:2"
        and ipaddress.ip_address(ip.source) in _LINK_LOCAL
        and len(ip.payload) >= 8
        and ip.payload[0] in _DHCP6_CLIENT
    )


def _neighbour(ip: Ip, allowed: Allowed) -> str | None:
    """RS, NS, NA (RFC 4861) and MLD reports (RFC 3810) of the WAN's own addresses."""
    own = ip.source in allowed.wan or ipaddress.ip_address(ip.source) in _LINK_LOCAL
    if ip.version != 6 or ip.code != 0 or ip.fragment or not (own or ip.source == "::"):
        return None
    target = ipaddress.ip_address(ip.target)
    if ip.kind in (131, 132, 143):
        good = ip.hops == 1 and target.is_multicast and _ROUTER_ALERT_MLD in ip.options
        return "MLD" if good else None
    if ip.hops != 255 or ip.options or not _neighbour_options(ip):
        return None
    if ip.kind == 133:
        return "RS" if ip.target == "ff02::2" or target in _LINK_LOCAL else None
    if ip.kind in (135, 136) and len(ip.body) >= 24:
        about = ipaddress.ip_address(ip.body[8:24])
        if ip.kind == 135:
            return "NS"
        if own and (str(about) in allowed.wan or about in _LINK_LOCAL):
            return "NA"
    return None


def _neighbour_options(ip: Ip) -> bool:
    """Nothing but link-layer addresses and a nonce behind the fixed part."""
    rest = ip.body[8 if ip.kind == 133 else 24 :]
    while rest:
        if rest[0] not in (1, 2, 14) or rest[1:2] != b"\1" or len(rest) < 8:
            return False
        rest = rest[8:]
    return True


def _is_tunnel(ip: Ip, endpoint: Endpoint) -> bool:
    if (ip.target, ip.protocol, ip.dport) != (endpoint.address, endpoint.protocol, endpoint.port):
        return False
    if endpoint.carries == "wireguard":
        return _is_wireguard(ip.payload, whole=not ip.more)
    if endpoint.protocol == wire.TCP:
        # 16 bits of length, then the opcode, where a segment happens to begin a record; a segment
        # in the middle of one shows nothing but noise
        return True
    return bool(ip.payload) and ip.payload[0] >> 3 in _OPENVPN_OPCODES


def _is_wireguard(data: bytes, *, whole: bool) -> bool:
    """The types, zero bytes and sizes of the WireGuard paper, section 5.4."""
    if len(data) < 4 or data[1:4] != b"\0\0\0":
        return False
    kind = data[0]
    if kind in (1, 2, 3):
        return whole and len(data) == {1: 148, 2: 92, 3: 64}[kind]
    return kind == 4 and (len(data) >= 32 or not whole)


def _is_bootstrap(ip: Ip, allowed: Allowed) -> bool:
    if ip.dport != 53 or ip.fragment:
        return False
    data = ip.payload
    if ip.protocol == wire.TCP:
        if not data:
            return True
        if len(data) < 2 or struct.unpack_from("!H", data)[0] != len(data) - 2:
            return False
        data = data[2:]
    elif ip.protocol != wire.UDP:
        return False
    try:
        asked = dns.parse(data)
    except dns.DnsError:
        return False
    return (
        not asked.response
        and asked.kind in (dns.A, dns.AAAA)
        and asked.name.lower().rstrip(".") in allowed.names
    )
