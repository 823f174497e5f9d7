# SPDX-License-Identifier: GPL-2.0-or-later
"""Packets made by hand, as bytes: what a device of the house, or a raw socket, would send."""

from __future__ import annotations

import os
import secrets
import struct
from socket import AF_INET, AF_INET6, IPPROTO_ICMPV6, inet_pton

ICMP, TCP, UDP, ESP, EXPERIMENT = 1, 6, 17, 50, 253
ARP, IP4, IP6 = 0x0806, 0x0800, 0x86DD
ALL_ONES = b"\xff" * 6
HOPS = 2
"""One hop for this router, and one that ends at the next: nobody beyond it is bothered."""

_PORT = 49152 + secrets.randbelow(16000)
"""Another one in every run: a packet of a flow that an earlier run began is masqueraded for the
device which that flow left by, and dropped before any other, so it would hide a hole."""

_ECHO = {4: 8, 6: 128}


def ethernet(target: bytes, source: bytes, kind: int, body: bytes) -> bytes:
    return target + source + struct.pack("!H", kind) + body


def ip(
    source: str, target: str, protocol: int, body: bytes, *, hops: int = HOPS, fragment: int = 0
) -> bytes:
    """`fragment` is IPv4's field of flags and offset."""
    if ":" in target:
        head = struct.pack("!IHBB", 6 << 28, len(body), protocol, hops)
        return head + inet_pton(AF_INET6, source) + inet_pton(AF_INET6, target) + body
    size = 20 + len(body)
    head = struct.pack("!BBHHHBBH", 0x45, 0, size, 0x5043, fragment, hops, protocol, 0)
    head += inet_pton(AF_INET, source) + inet_pton(AF_INET, target)
    return head[:10] + checksum(head) + head[12:] + body


def udp(source: str, target: str, port: int, payload: bytes) -> bytes:
    body = struct.pack("!4H", _PORT, port, 8 + len(payload), 0) + payload
    return ip(source, target, UDP, _summed(source, target, UDP, body, 6))


def tcp(source: str, target: str, port: int, payload: bytes, *, flags: int = 2) -> bytes:
    """A SYN with data, or with `flags` 16 a segment of a connection that nobody has opened."""
    head = struct.pack("!HHIIBBHHH", _PORT + flags, port, 1, 0, 5 << 4, flags, 65535, 0, 0)
    return ip(source, target, TCP, _summed(source, target, TCP, head + payload, 16))


def echo(source: str, target: str, payload: bytes) -> bytes:
    if ":" not in target:
        return ip(source, target, ICMP, echo_message(4, payload))
    body = echo_message(6, payload)
    return ip(source, target, IPPROTO_ICMPV6, _summed(source, target, IPPROTO_ICMPV6, body, 2))


def echo_message(version: int, payload: bytes) -> bytes:
    """An ICMP echo request; the kernel, or `echo`, sets ICMPv6's checksum."""
    body = struct.pack("!BBH2sH", _ECHO[version], 0, 0, os.urandom(2), 1) + payload
    return body if version == 6 else body[:2] + checksum(body) + body[4:]


def fragments(source: str, target: str, token: bytes) -> tuple[bytes, bytes]:
    """An IPv4 datagram to UDP's discard port in two pieces, each with the token at its end."""
    first = struct.pack("!4H", _PORT + 1, 9, 8 + 48 + 64, 0) + bytes(48 - len(token)) + token
    second = bytes(64 - len(token)) + token
    return (
        ip(source, target, UDP, first, fragment=0x2000),
        ip(source, target, UDP, second, fragment=len(first) // 8),
    )


def arp_request(source_mac: bytes, source: bytes, target: bytes) -> bytes:
    body = struct.pack("!HHBBH", 1, IP4, 6, 4, 1) + source_mac + source + bytes(6) + target
    return ethernet(ALL_ONES, source_mac, ARP, body)


def solicitation(target: bytes, options: bytes) -> bytes:
    """ICMPv6's question for the owner of an address (RFC 4861), without a checksum."""
    return struct.pack("!BBHI", 135, 0, 0, 0) + target + options


def solicit(source_mac: bytes, source: str, target: str) -> bytes:
    """That question as a device of the house puts it."""
    wanted = inet_pton(AF_INET6, target)
    group = "ff02::1:ff" + wanted[-3:-2].hex() + ":" + wanted[-2:].hex()
    body = solicitation(wanted, b"\1\1" + source_mac)
    body = _summed(source, group, IPPROTO_ICMPV6, body, 2)
    packet = ip(source, group, IPPROTO_ICMPV6, body, hops=255)
    return ethernet(b"\x33\x33\xff" + wanted[-3:], source_mac, IP6, packet)


def dhcp_like(mac: bytes, token: bytes) -> bytes:
    """The content of a DHCP client's datagram, as the block lets it out; of no message type that
    a server knows (RFC 2131), so that one which hears it throws it away."""
    head = struct.pack("!4BI", 1, 1, 6, 0, int.from_bytes(token[-4:], "big"))
    return (
        head + bytes(20) + mac.ljust(208, b"\0") + b"\x63\x82\x53\x63" + b"\x35\1\xfd\xff" + token
    )


def question(name: bytes = b"") -> bytes:
    """A DNS query: the root's name servers, or the address of a one-label name."""
    asked = (bytes([len(name)]) + name if name else b"") + b"\0"
    return (
        struct.pack("!6H", 0x5043, 0x0100, 1, 0, 0, 0)
        + asked
        + (b"\0\1\0\1" if name else b"\0\2\0\1")
    )


def checksum(data: bytes) -> bytes:
    """RFC 1071."""
    data += b"\0" * (len(data) & 1)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)


def _summed(source: str, target: str, protocol: int, body: bytes, place: int) -> bytes:
    """`body` with the checksum over it and its pseudo header at `place`."""
    family = AF_INET6 if ":" in target else AF_INET
    pseudo = inet_pton(family, source) + inet_pton(family, target)
    found = checksum(pseudo + struct.pack("!II", len(body), protocol) + body)
    return body[:place] + found + body[place + 2 :]
