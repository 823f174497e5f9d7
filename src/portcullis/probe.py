# SPDX-License-Identifier: GPL-2.0-or-later
"""Probes through the tunnel: a DNS query and an ICMP echo to its resolver.

Nobody reads the answers: that one came shows in the tunnel's own counters, whatever it was.
"""

from __future__ import annotations

import os
import socket
import struct

from portcullis.policy import TUNNEL

_ECHO = {4: (socket.AF_INET, socket.IPPROTO_ICMP, 8), 6: (socket.AF_INET6, 58, 128)}
_ROOT_NAME_SERVERS = struct.pack("!6HB2H", 0, 0x0100, 1, 0, 0, 0, 0, 2, 1)


class Prober:
    """Keeps its sockets, so that answers meet an open port. Bound to the tunnel's device: what
    the tunnel does not take goes nowhere."""

    def __init__(self) -> None:
        self._open: list[socket.socket] = []

    def send(self, resolvers: tuple[str, ...]) -> None:
        """Probe each resolver once. A probe that cannot be sent is an unanswered one."""
        self.close()
        for resolver in resolvers:
            family, protocol, echo = _ECHO[6 if ":" in resolver else 4]
            ident = os.urandom(2)
            self._send(family, socket.SOCK_DGRAM, 0, (resolver, 53), ident + _ROOT_NAME_SERVERS[2:])
            message = struct.pack("!2BH2sH", echo, 0, 0, ident, 1)
            checked = message[:2] + _checksum(message) + message[4:]
            self._send(family, socket.SOCK_RAW, protocol, (resolver, 0), checked)

    def close(self) -> None:
        while self._open:
            self._open.pop().close()

    def _send(
        self, family: int, kind: int, protocol: int, to: tuple[str, int], payload: bytes
    ) -> None:
        try:
            probe = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
            self._open.append(probe)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, TUNNEL.encode() + b"\0")
            probe.sendto(payload, to)
        except OSError:
            return


def _checksum(message: bytes) -> bytes:
    """The internet checksum (RFC 1071); the kernel sets ICMPv6's own."""
    total = sum(struct.unpack(f"!{len(message) // 2}H", message))
    total = (total >> 16) + (total & 0xFFFF)
    return struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)
