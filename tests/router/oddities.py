# SPDX-License-Identifier: GPL-2.0-or-later
"""Packets of every odd kind that a device may put on the wire to get past its router."""

from __future__ import annotations

import secrets
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

from . import addresses as at
from . import craft
from .frame import ETH_VLAN, TCP, UDP

_A, _A6, _OUT, _OUT6 = at.LAN_A.v4, at.LAN_A.v6, at.FRIENDLY.v4, at.FRIENDLY.v6
_Maker = Callable[[bytes], list[bytes]]


class Oddity(NamedTuple):
    """Frames of lana's with a token; `stray` ones leave no router, whatever its rules."""

    name: str
    token: bytes
    frames: list[bytes]
    stray: bool


def oddities() -> list[Oddity]:
    found = []
    for stray, makers in ((False, _LEAVING), (True, _STRAY)):
        for name, make in makers.items():
            token = b"odd" + secrets.token_hex(6).encode()
            frames = [_framed(packet) for packet in make(token)]
            found.append(Oddity(name, token, frames, stray))
    for name, tags in (("a VLAN tag", (7,)), ("a priority tag", (0,)), ("two tags", (7, 8))):
        token = b"odd" + secrets.token_hex(6).encode()
        frame = _framed(_udp(_A, _OUT, token))
        stack = b"".join(struct.pack("!HH", ETH_VLAN, tag) for tag in tags)
        found.append(Oddity(name, token, [frame[:12] + stack + frame[12:]], name[2] != "p"))
    token = b"odd" + secrets.token_hex(6).encode()
    mirrored = _framed(_udp(_A, _OUT, token), at.BR_LAN_MAC)
    found.append(Oddity("the router's MAC address", token, [mirrored], True))
    return found


def _framed(packet: bytes, source: str = at.LAN_A_MAC) -> bytes:
    return craft.ethernet(packet, source=source, target=at.BR_LAN_MAC)


def _udp(source: str, target: str, token: bytes, port: int = 5001, hops: int = 64) -> bytes:
    return craft.sealed(craft.udp(source, 40000, target, port, token, hops=hops))


def _other(protocol: int, v6: bool = False) -> _Maker:
    """GRE and the like: a body that such a packet might have."""
    pair = (_A6, _OUT6) if v6 else (_A, _OUT)
    return lambda t: [craft.ip(*pair, protocol, b"\x45\0\0\0\0\1\0\2" + t.ljust(40, b"."))]


def _with_options(packet: bytes, options: bytes) -> bytes:
    """An IPv4 packet with options, a multiple of four octets."""
    total = struct.pack("!H", len(packet) + len(options))
    head = bytes([0x45 + len(options) // 4]) + packet[1:2] + total + packet[4:10]
    head += b"\0\0" + packet[12:20] + options
    return head[:10] + struct.pack("!H", craft.checksum(head)) + head[12:] + packet[20:]


def _extended(packet: bytes, number: int, header: bytes) -> bytes:
    """An IPv6 packet with one extension header; `header` is all behind its first octet."""
    body = packet[6:7] + header + packet[40:]
    return packet[:4] + struct.pack("!H", len(body)) + bytes([number]) + packet[7:40] + body


def _cut(*pieces: tuple[int, int], v6: bool = False) -> _Maker:
    """A datagram in fragments from octet to octet."""

    def make(token: bytes) -> list[bytes]:
        source, target = (_A6, _OUT6) if v6 else (_A, _OUT)
        head = 40 if v6 else 20
        body = _udp(source, target, token.ljust(88, b"."))[head:]
        ident = secrets.randbits(15)
        return [
            craft.ip(source, target, UDP, body[a:b], offset=a, more=b < 96, ident=ident)
            for a, b in pieces
        ]

    return make


_PADDED = b"\0\1\4\0\0\0\0"  # an extension header of eight octets, filled with padding
_LEAVING: dict[str, _Maker] = {
    "GRE": _other(47),
    "SCTP": _other(132),
    "IP in IP": _other(4),
    "ESP": _other(50),
    "AH": _other(51),
    "6in4": _other(41),
    "L2TP": _other(115),
    "UDP-Lite": _other(136),
    "protocol 255": _other(255),
    "GRE over IPv6": _other(47, v6=True),
    "IPv4 in IPv6": _other(4, v6=True),
    "no next header": _other(59, v6=True),
    "fragments": _cut((0, 48), (48, 96)),
    "the tiniest fragments": _cut(*((n, n + 8) for n in range(0, 96, 8))),
    "fragments in reverse": _cut((48, 96), (0, 48)),
    "fragments over IPv6": _cut((0, 48), (48, 96), v6=True),
    "nothing odd": lambda t: [_udp(_A, _OUT, t)],
    "another device's address": lambda t: [_udp(at.LAN_B.v4, _OUT, t)],
    "an address of the guests": lambda t: [_udp(at.GUEST.v4, _OUT, t)],
    "an address of the internet": lambda t: [_udp(at.HOSTILE.v4, _OUT, t)],
    "an address of the internet, IPv6": lambda t: [_udp(at.HOSTILE.v6, _OUT6, t)],
    "the VPN server's address": lambda t: [_udp(at.VPN1.v4, _OUT, t, at.WIREGUARD_PORT)],
    "a link-local address": lambda t: [_udp("169.254.7.7", _OUT, t)],
    "a record-route option": lambda t: [_with_options(_udp(_A, _OUT, t), b"\7\7\4\0\0\0\0\1")],
    "a hop-by-hop header": lambda t: [_extended(_udp(_A6, _OUT6, t), 0, _PADDED)],
    "destination options": lambda t: [_extended(_udp(_A6, _OUT6, t), 60, _PADDED)],
    "to the ISP's router": lambda t: [_udp(_A, at.ISP.v4, t)],
    "to the ISP's router, IPv6": lambda t: [_udp(_A6, at.ISP.v6, t)],
    "its last hop but one": lambda t: [_udp(_A, _OUT, t, hops=2)],
    "a segment of no connection": lambda t: [craft.tcp(_A, 40001, _OUT, 80, craft.ACK, payload=t)],
    "a reset of no connection": lambda t: [craft.tcp(_A6, 40001, _OUT6, 80, craft.RST, payload=t)],
    "all flags": lambda t: [craft.tcp(_A6, 40002, _OUT6, 80, 0x3F, payload=t)],
    "an answer nobody asked for": lambda t: [craft.icmp(_A6, _OUT6, 129, 0, b"\0\1\0\1" + t)],
    "an error about nothing": lambda t: [
        craft.icmp(_A6, _OUT6, 1, 0, b"\0" * 4 + _udp(_OUT6, _A6, t))
    ],
    "plain DNS": lambda t: [craft.sealed(craft.udp(_A, 40003, at.PUBLIC_DNS.v4, 53, t))],
    "plain DNS behind a header": lambda t: [
        _extended(_udp(_A6, at.PUBLIC_DNS.v6, t, 53), 60, _PADDED)
    ],
}
_STRAY: dict[str, _Maker] = {
    "overlapping fragments": _cut((0, 48), (40, 88), (88, 96)),
    "a last fragment alone": _cut((48, 96)),
    "a first fragment alone": _cut((0, 48)),
    "overlapping fragments over IPv6": _cut((0, 48), (40, 88), (88, 96), v6=True),
    "the router's own address": lambda t: [_udp(at.ROUTER_LAN.v4, _OUT, t)],
    "the router's address at the WAN": lambda t: [_udp(at.ROUTER_WAN.v4, _OUT, t)],
    "our address in the tunnel": lambda t: [_udp(at.CLIENT1.v4, _OUT, t)],
    "no address": lambda t: [_udp("0.0.0.0", _OUT, t)],
    "a multicast address": lambda t: [_udp(at.GROUP4, _OUT, t)],
    "loopback's address": lambda t: [_udp("127.0.0.1", _OUT, t)],
    "a link-local address, IPv6": lambda t: [_udp("fe80::7", _OUT6, t)],
    "a source route": lambda t: [
        _with_options(
            _udp(_A, at.ROUTER_LAN.v4, t), b"\x83\x07\x04" + socket.inet_aton(_OUT) + b"\1"
        )
    ],
    "a routing header of type 0": lambda t: [_routing(t, 0)],
    "a segment routing header": lambda t: [_routing(t, 4)],
    "its last hop": lambda t: [_udp(_A, _OUT, t, hops=1)],
    "broadcast": lambda t: [_udp(_A, "255.255.255.255", t)],
    "the WAN's broadcast": lambda t: [_udp(_A, "203.0.113.255", t)],
    "multicast": lambda t: [_udp(_A, at.GROUP4, t), _udp(_A6, at.GROUP6, t)],
    "a zero checksum over IPv6": lambda t: [craft.udp("fe80::7", 1, "ff02::fb", 5353, t)],
    "TCP to everybody": lambda t: [
        craft.sealed(craft.ip(_A, "255.255.255.255", TCP, b"\0\1\0\2" + b"\0" * 8 + b"P\2" + t))
    ],
}


def _routing(token: bytes, kind: int) -> bytes:
    packet = _udp(_A6, at.ROUTER_LAN.v6, token)
    header = b"\2" + bytes([kind, 1]) + b"\0" * 4
    return _extended(packet, 43, header + socket.inet_pton(socket.AF_INET6, _OUT6))
