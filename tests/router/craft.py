# SPDX-License-Identifier: GPL-2.0-or-later
"""Making frames by hand: for probes that go past the IP stack, and to try the judge."""

from __future__ import annotations

import socket
import struct

from .addresses import ISP_MAC, WAN_MAC
from .frame import ETH_IP4, ETH_IP6, ICMP, ICMP6, TCP, UDP, mac

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
_SUM_AT = {TCP: 16, UDP: 6, ICMP: 2, ICMP6: 2}


def ethernet(
    body: bytes, kind: int | None = None, *, source: str = WAN_MAC, target: str = ISP_MAC
) -> bytes:
    """A frame from the router to the ISP; without a kind, of the IP version that body has."""
    if kind is None:
        kind = ETH_IP6 if body[0] >> 4 == 6 else ETH_IP4
    return mac(target) + mac(source) + struct.pack("!H", kind) + body


def ip(
    source: str,
    target: str,
    protocol: int,
    body: bytes,
    *,
    hops: int = 64,
    offset: int = 0,
    more: bool = False,
    ident: int = 1,
) -> bytes:
    if ":" in target:
        if offset or more:
            head = struct.pack("!BBHI", protocol, 0, offset | more, ident)
            protocol, body = 44, head + body
        addresses = (socket.inet_pton(socket.AF_INET6, a) for a in (source, target))
        return struct.pack("!IHBB", 6 << 28, len(body), protocol, hops) + b"".join(addresses) + body
    addresses = (socket.inet_aton(a) for a in (source, target))
    where = offset >> 3 | more << 13
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), ident, where, hops, protocol, 0)
    head += b"".join(addresses)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def udp(source: str, sport: int, target: str, dport: int, payload: bytes, hops: int = 64) -> bytes:
    """Without a checksum, which IPv4 allows and captures do not look at."""
    body = struct.pack("!4H", sport, dport, 8 + len(payload), 0) + payload
    return ip(source, target, UDP, body, hops=hops)


def tcp(
    source: str,
    sport: int,
    target: str,
    dport: int,
    flags: int,
    *,
    seq: int = 0,
    ack: int = 0,
    payload: bytes = b"",
    hops: int = 64,
) -> bytes:
    head = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 5 << 4, flags, 64240, 0, 0)
    return sealed(ip(source, target, TCP, head + payload, hops=hops))


def icmp(
    source: str, target: str, kind: int, code: int, body: bytes = b"", *, hops: int = 64
) -> bytes:
    """ICMP, or ICMPv6 between IPv6 addresses; `body` is all behind the checksum."""
    protocol = ICMP6 if ":" in target else ICMP
    message = struct.pack("!BBH", kind, code, 0) + body
    return sealed(ip(source, target, protocol, message, hops=hops))


def sealed(packet: bytes) -> bytes:
    """The packet with its transport's checksum, for a receiver that looks at it. Without
    fragments and extension headers."""
    v6 = packet[0] >> 4 == 6
    start = 40 if v6 else (packet[0] & 15) * 4
    protocol = packet[6] if v6 else packet[9]
    head, body = packet[:start], packet[start:]
    at = _SUM_AT[protocol]
    body = body[:at] + b"\0\0" + body[at + 2 :]
    pseudo = b""
    if protocol != ICMP:
        pseudo = head[8:40] if v6 else head[12:20]
        pseudo += struct.pack("!II", len(body), protocol)
    total = checksum(pseudo + body) or 0xFFFF
    return head + body[:at] + struct.pack("!H", total) + body[at + 2 :]


def checksum(data: bytes) -> int:
    """RFC 1071."""
    data += b"\0" * (len(data) & 1)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
