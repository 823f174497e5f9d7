# SPDX-License-Identifier: GPL-2.0-or-later
"""Making frames by hand: for probes that go past the IP stack, and to try the judge."""

from __future__ import annotations

import socket
import struct

from .addresses import ISP_MAC, WAN_MAC
from .frame import ETH_IP4, ETH_IP6, UDP, mac


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


def checksum(data: bytes) -> int:
    """RFC 1071."""
    data += b"\0" * (len(data) & 1)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
