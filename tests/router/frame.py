# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading frames: Ethernet, VLAN, PPPoE, ARP, IPv4, IPv6 with its extension headers, and what is
inside. Checksums are not looked at: between virtual devices they are often not filled in."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

ETH_IP4, ETH_IP6, ETH_ARP = 0x0800, 0x86DD, 0x0806
ETH_VLAN, ETH_QINQ = 0x8100, 0x88A8
ETH_PPPOE_DISCOVERY, ETH_PPPOE_SESSION, ETH_EAPOL = 0x8863, 0x8864, 0x888E
PPP_IP4, PPP_IP6 = 0x0021, 0x0057
ICMP, IGMP, TCP, UDP, ICMP6 = 1, 2, 6, 17, 58
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AH, _NONE, _DESTINATION = 0, 43, 44, 51, 59, 60
_MOBILITY, _HIP, _SHIM6 = 135, 139, 140
_PROTOCOLS = {
    ICMP: "ICMP",
    IGMP: "IGMP",
    TCP: "TCP",
    UDP: "UDP",
    ICMP6: "ICMPv6",
    4: "IP in IP",
    41: "6in4",
    47: "GRE",
    50: "ESP",
    132: "SCTP",
}


class Malformed(ValueError):
    """A frame that does not parse. To the judge that is a leak."""


@dataclass(frozen=True)
class Frame:
    """As captured: seconds since 1970, and the bytes from the Ethernet header on."""

    time: float
    raw: bytes


@dataclass(frozen=True)
class Ip:
    """An IPv4 or IPv6 packet. `body` begins after all headers but the transport's; of a fragment
    that is not the first it has no transport header, and sport, dport are None."""

    version: int
    source: str
    target: str
    protocol: int
    hops: int
    ident: int
    offset: int
    more: bool
    options: bytes
    body: bytes
    sport: int | None = None
    dport: int | None = None
    payload: bytes = b""
    kind: int | None = None  # of ICMP
    code: int | None = None
    flags: int = 0  # of TCP

    @property
    def fragment(self) -> bool:
        return self.more or self.offset > 0

    def __str__(self) -> str:
        name = _PROTOCOLS.get(self.protocol, f"IP protocol {self.protocol}")
        source, target = self.source, self.target
        if self.kind is not None:
            name += f" type {self.kind}"
        if self.sport is not None:
            bracket = "[{}]:{}" if self.version == 6 else "{}:{}"
            source = bracket.format(self.source, self.sport)
            target = bracket.format(self.target, self.dport)
        if self.protocol == TCP and self.sport is not None:
            marks = "".join(c for bit, c in enumerate("FSRPAU") if self.flags >> bit & 1)
            name += f" {marks or 'no flags'}"
        return f"{name}{' fragment' if self.fragment else ''} {source} → {target}"


@dataclass(frozen=True)
class Arp:
    operation: int
    sender_mac: bytes
    sender: str
    target_mac: bytes
    target: str

    def __str__(self) -> str:
        what = {1: "who-has", 2: "is-at"}.get(self.operation, f"operation {self.operation}")
        return f"ARP {what} {self.target} from {self.sender}"


@dataclass(frozen=True)
class Other:
    """What is neither IP nor ARP; `ppp` is the PPP protocol inside a PPPoE session."""

    ethertype: int
    body: bytes
    ppp: int | None = None

    def __str__(self) -> str:
        if self.ppp is not None:
            return f"PPP protocol 0x{self.ppp:04x}"
        return f"ethertype 0x{self.ethertype:04x}"


@dataclass(frozen=True)
class Ethernet:
    """`trailer` is what stands behind the end of an IP or ARP packet, be it padding or hidden."""

    target_mac: bytes
    source_mac: bytes
    vlans: tuple[int, ...]
    pppoe: bool
    inner: Ip | Arp | Other
    trailer: bytes = b""


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def parse(raw: bytes) -> Ethernet:
    try:
        return _ethernet(raw)
    except (struct.error, IndexError) as error:
        raise Malformed(f"cut short: {error}") from error


def carried(outer: Ip) -> tuple[Ip, bytes]:
    """The packet inside of an IP tunnel's (protocol 4 or 41), and what is behind its end."""
    try:
        inside, end = (_ip4 if outer.protocol == 4 else _ip6)(outer.body)
    except (struct.error, IndexError) as error:
        raise Malformed(f"cut short: {error}") from error
    return inside, outer.body[end:]


def _ethernet(raw: bytes) -> Ethernet:
    target, source, kind = struct.unpack_from("!6s6sH", raw)
    at, vlans, pppoe = 14, [], False
    while kind in (ETH_VLAN, ETH_QINQ):
        tag, kind = struct.unpack_from("!2H", raw, at)
        vlans.append(tag & 0xFFF)
        at += 4
    body = raw[at:]
    inner: Ip | Arp | Other
    if kind == ETH_PPPOE_SESSION:
        version, code, _session, length, ppp = struct.unpack_from("!BBHHH", body)
        if version != 0x11 or code != 0 or length < 2 or length + 6 > len(body):
            raise Malformed("PPPoE session header")
        pppoe, body = True, body[8 : 6 + length]
        if ppp not in (PPP_IP4, PPP_IP6):
            return Ethernet(target, source, tuple(vlans), True, Other(kind, body, ppp))
        kind = ETH_IP4 if ppp == PPP_IP4 else ETH_IP6
    end = len(body)
    if kind == ETH_IP4:
        inner, end = _ip4(body)
    elif kind == ETH_IP6:
        inner, end = _ip6(body)
    elif kind == ETH_ARP:
        inner, end = _arp(body), 28
    else:
        inner = Other(kind, body)
    return Ethernet(target, source, tuple(vlans), pppoe, inner, body[end:])


def _arp(body: bytes) -> Arp:
    hardware, protocol, hlen, plen, operation, smac, sip, tmac, tip = struct.unpack_from(
        "!HHBBH6s4s6s4s", body
    )
    if (hardware, protocol, hlen, plen) != (1, ETH_IP4, 6, 4):
        raise Malformed("ARP for something else than IPv4 over Ethernet")
    return Arp(operation, smac, _text(sip), tmac, _text(tip))


def _ip4(body: bytes) -> tuple[Ip, int]:
    first, _tos, total, ident, fragment, ttl, protocol, _sum, source, target = struct.unpack_from(
        "!BBHHHBBH4s4s", body
    )
    header = (first & 15) * 4
    end = total or len(body)  # 0: a segmented TCP frame beyond 64 kB
    if first >> 4 != 4 or header < 20 or not header <= end <= len(body):
        raise Malformed("IPv4 header")
    packet = _transport(
        4,
        _text(source),
        _text(target),
        protocol,
        ttl,
        ident,
        (fragment & 0x1FFF) * 8,
        bool(fragment & 0x2000),
        body[20:header],
        body[header:end],
    )
    return packet, end


def _ip6(body: bytes) -> tuple[Ip, int]:
    first, length, following, hops, source, target = struct.unpack_from("!IHBB16s16s", body)
    if first >> 28 != 6 or 40 + length > len(body):
        raise Malformed("IPv6 header")
    end = 40 + length if length else len(body)  # 0: a segmented TCP frame beyond 64 kB
    at, ident, offset, more, options = 40, 0, 0, False, b""
    while following in (
        _HOP_BY_HOP,
        _ROUTING,
        _FRAGMENT,
        _AH,
        _DESTINATION,
        _MOBILITY,
        _HIP,
        _SHIM6,
    ):
        if offset:
            break
        this, (following, size) = following, struct.unpack_from("!2B", body, at)
        if this == _FRAGMENT:
            place, ident = struct.unpack_from("!HI", body, at + 2)
            offset, more = place & 0xFFF8, bool(place & 1)
            at += 8
        else:
            length = (size + 2) * 4 if this == _AH else (size + 1) * 8
            if at + length > end:
                raise Malformed("IPv6 extension header")
            options += body[at : at + length] if this != _AH else b""
            at += length
        if this in (_MOBILITY, _HIP, _SHIM6, _AH):
            # allowed nowhere: no need to look further
            following = this
            break
    packet = _transport(
        6, _text(source), _text(target), following, hops, ident, offset, more, options, body[at:end]
    )
    return packet, end


def _transport(
    version: int,
    source: str,
    target: str,
    protocol: int,
    hops: int,
    ident: int,
    offset: int,
    more: bool,
    options: bytes,
    body: bytes,
) -> Ip:
    sport = dport = kind = code = None
    flags, payload = 0, body
    if offset:
        pass
    elif protocol == UDP:
        sport, dport, length, _sum = struct.unpack_from("!4H", body)
        payload = body[8:]
        if not more and length != len(body):
            raise Malformed("UDP length")
    elif protocol == TCP:
        sport, dport, _seq, _ack, bits = struct.unpack_from("!2H2IH", body)
        flags = bits & 0x3F
        payload = body[(bits >> 12) * 4 :]
    elif (protocol, version) in ((ICMP, 4), (ICMP6, 6)):
        kind, code = struct.unpack_from("!2B", body)
        payload = body[4:]
    return Ip(
        version,
        source,
        target,
        protocol,
        hops,
        ident,
        offset,
        more,
        options,
        body,
        sport,
        dport,
        payload,
        kind,
        code,
        flags,
    )


def _text(packed: bytes) -> str:
    return str(ipaddress.ip_address(packed))
