# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's tunnel devices (sit, ip6tnl, ipip): their remote end, and the mark by which the
way of their outer packets is looked up.

Plain netlink, because a change of one parameter has to repeat all the others, and those that
nobody here knows (OpenWrt's own of MAP-E) must come through as they are.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from typing import NamedTuple

KINDS = ("sit", "ip6tnl", "ipip")

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr
_NEWLINK, _GETLINK, _ERROR, _DONE = 16, 18, 2, 3
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_NAME, _MTU, _LINKINFO, _INFO_KIND, _INFO_DATA = 3, 4, 18, 1, 2
_REMOTE, _FWMARK = 3, 20  # of IFLA_INFO_DATA
_TYPE = 0x3FFF  # without NLA_F_NESTED


class IpTunnel(NamedTuple):
    """`remote` is empty where the way of each packet decides (6rd). `parameters` are the others,
    as the kernel wrote them."""

    number: int
    device: str
    kind: str
    remote: str
    mark: int
    mtu: int
    parameters: bytes


def read() -> dict[str, IpTunnel]:
    """The tunnel devices by name. Raises OSError."""
    found = {}
    for body in _ask(_GETLINK, _DUMP, _LINK.pack(0, 0, 0, 0, 0)):
        attributes = dict(_attributes(body[_LINK.size :]))
        info = dict(_attributes(attributes.get(_LINKINFO, b"")))
        kind = info.get(_INFO_KIND, b"").rstrip(b"\0").decode()
        if kind not in KINDS or _INFO_DATA not in info:
            continue
        data = dict(_attributes(info[_INFO_DATA]))
        remote = data.get(_REMOTE, b"")
        rest = b"".join(
            _attribute(number, value)
            for number, value in _attributes(info[_INFO_DATA], flags=True)
            if number != _FWMARK
        )
        name = attributes[_NAME].rstrip(b"\0").decode(errors="replace")
        found[name] = IpTunnel(
            _LINK.unpack_from(body)[2],
            name,
            kind,
            str(ip_address(remote)) if any(remote) else "",
            int.from_bytes(data.get(_FWMARK, b""), sys.byteorder),
            int.from_bytes(attributes[_MTU], sys.byteorder),
            rest,
        )
    return found


def mark(tunnel: IpTunnel, mark: int) -> None:
    """Have the way of the outer packets looked up with `mark`; all else stays. Raises OSError."""
    data = tunnel.parameters + _attribute(_FWMARK, struct.pack("=I", mark))
    kind = _attribute(_INFO_KIND, tunnel.kind.encode() + b"\0")
    body = _LINK.pack(0, 0, tunnel.number, 0, 0)
    body += _attribute(_MTU, struct.pack("=I", tunnel.mtu))  # or the kernel takes one of its own
    body += _attribute(_LINKINFO, kind + _attribute(_INFO_DATA, data))
    for _ in _ask(_NEWLINK, _ACK, body):
        pass


def _ask(kind: int, flags: int, body: bytes) -> Iterator[bytes]:
    """Send a request; the messages of the answer, without their header."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as asked:
        asked.settimeout(5.0)
        asked.sendto(
            _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, 1, 0) + body, (0, 0)
        )
        while True:
            answer = asked.recv(1 << 16)
            while answer:
                length, number, *_ = _HEADER.unpack_from(answer)
                message, answer = answer[_HEADER.size : length], answer[_aligned(length) :]
                if number == _ERROR:
                    (code,) = struct.unpack_from("=i", message)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return
                if number == _DONE:
                    return
                yield message


def _attributes(data: bytes, flags: bool = False) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, number = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            return
        yield number if flags else number & _TYPE, data[_ATTRIBUTE.size : length]
        data = data[_aligned(length) :]


def _attribute(number: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, number) + value + b"\0" * (_aligned(length) - length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
