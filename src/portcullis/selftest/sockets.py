# SPDX-License-Identifier: GPL-2.0-or-later
"""What the router itself may send: sockets of every kind, each of which sends one packet.

A packet that is refused is as good as one that is dropped; one that this kernel cannot send at
all has not been tried.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

from portcullis.selftest import packets as made
from portcullis.selftest.kernel import hardware

_FASTOPEN_NO_COOKIE = 34
_HDRINCL = socket.IPPROTO_RAW
_REFUSED = (
    *(errno.EPERM, errno.EACCES, errno.ENETUNREACH, errno.EHOSTUNREACH),
    *(errno.EINPROGRESS, errno.ECONNREFUSED, errno.ENETDOWN, errno.EADDRNOTAVAIL),
)
_NOBODY6 = "ff02::1:ff43:7465"  # the solicited-node group of the address below
_SOUGHT6 = "fe80::5043:7465"

Send = Callable[[bytes], bool]
"""Sends a packet with this token at its end; whether it could be tried."""


class Sockets:
    """Keeps its sockets until `close`, so that what waits for a neighbour is not lost."""

    def __init__(self) -> None:
        self._open: list[socket.socket] = []

    def close(self) -> None:
        while self._open:
            self._open.pop().close()

    def udp(self, to: str, port: int = 9, *, by: str = "", mark: int = 0, size: int = 0) -> Send:
        return self._sends(socket.SOCK_DGRAM, 0, to, port, by, mark, lambda t: bytes(size) + t)

    def dns(self, to: str, *, by: str = "") -> Send:
        return self._sends(socket.SOCK_DGRAM, 0, to, 53, by, 0, lambda t: made.question() + t)

    def tcp(self, to: str, port: int = 443, *, by: str = "") -> Send:
        """A SYN that carries data (RFC 7413), or it would carry no token."""

        def send(token: bytes) -> bool:
            sock = self._socket(to, socket.SOCK_STREAM, 0, by, 0)
            return _tried(lambda: self._syn(sock, token, _place(to, port, by)))

        return send

    def icmp(self, to: str, *, by: str = "", mark: int = 0) -> Send:
        version = 6 if ":" in to else 4
        protocol = socket.IPPROTO_ICMPV6 if version == 6 else made.ICMP
        return self._sends(
            socket.SOCK_RAW, protocol, to, 0, by, mark, lambda t: made.echo_message(version, t)
        )

    def raw(self, to: str, protocol: int, *, by: str = "") -> Send:
        return self._sends(socket.SOCK_RAW, protocol, to, 0, by, 0, lambda token: token)

    def fragments(self, to: str, *, by: str) -> Send:
        """Two pieces of an IPv4 datagram, whole only behind whoever does not look at pieces."""

        def send(token: bytes) -> bool:
            sock = self._socket(to, socket.SOCK_RAW, _HDRINCL, by, 0)
            first, second = made.fragments("0.0.0.0", to, token)
            tried = _tried(lambda: sock.sendto(first, (to, 0)))
            return _tried(lambda: sock.sendto(second, (to, 0))) and tried

        return send

    def group(self, to: str, *, by: str) -> Send:
        """Multicast, or IPv4's broadcast."""
        return self._sends(socket.SOCK_DGRAM, 0, to, 9, by, 0, lambda token: token)

    def frame(self, version: int, *, by: str) -> Send:
        """A frame written to the device itself, past the whole of IP."""

        def send(token: bytes) -> bool:
            if version == 4:
                packet = made.udp("192.0.2.2", "239.255.80.67", 9, token)
                place = (by, made.IP4, 0, 0, b"\x01\0\x5e\x7f\x50\x43")
            else:
                packet = made.udp(_SOUGHT6, "ff02::5043", 9, token)
                place = (by, made.IP6, 0, 0, b"\x33\x33\0\0\x50\x43")
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
            self._open.append(sock)
            try:
                sock.sendto(packet, place)
            except OSError as error:  # ENOBUFS is how the egress hook says that it dropped it
                return error.errno == errno.ENOBUFS
            return True

        return send

    # What the block lets out: the controls.

    def dhcp(self, by: str) -> Send:
        """What looks like a DHCP client's datagram, to a group that nobody hears. One for each
        device: masquerading drops what belongs to a flow by another."""

        def send(token: bytes) -> bool:
            group = f"239.255.80.{socket.if_nametoindex(by) % 256}"
            sock = self._socket(group, socket.SOCK_RAW, made.UDP, by, 0)
            body = made.dhcp_like(hardware(by), token)
            body = struct.pack("!4H", 68, 67, 8 + len(body), 0) + body
            return _tried(lambda: sock.sendto(body, (group, 0)))

        return send

    def neighbour(self, by: str) -> Send:
        """A question for a neighbour that does not exist."""

        def send(token: bytes) -> bool:
            sock = self._socket(_NOBODY6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6, by, 0)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            nonces = b"\x0e\1\0\0" + token  # of which the token's second half is one
            body = made.solicitation(socket.inet_pton(socket.AF_INET6, _SOUGHT6), nonces)
            return _tried(lambda: sock.sendto(body, _place(_NOBODY6, 0, by)))

        return send

    def asks(self, to: str, seconds: float) -> str:
        """What became of an honest DNS query: `answered`, `refused` or `silent`."""
        sock = self._socket(to, socket.SOCK_DGRAM, 0, "", 0, hops=64)
        sock.settimeout(seconds)
        try:
            sock.connect((to, 53))
            sock.send(made.question())
            sock.recv(4096)
        except TimeoutError:
            return "silent"
        except OSError:
            return "refused"
        return "answered"

    def _sends(
        self,
        kind: int,
        protocol: int,
        to: str,
        port: int,
        by: str,
        mark: int,
        payload: Callable[[bytes], bytes],
    ) -> Send:
        def send(token: bytes) -> bool:
            sock = self._socket(to, kind, protocol, by, mark)
            return _tried(lambda: sock.sendto(payload(token), _place(to, port, by)))

        return send

    def _socket(
        self, to: str, kind: int, protocol: int, by: str, mark: int, hops: int = 1
    ) -> socket.socket:
        v6 = ":" in to
        sock = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, kind, protocol)
        self._open.append(sock)
        sock.setblocking(False)
        level = socket.IPPROTO_IPV6 if v6 else socket.IPPROTO_IP
        sock.setsockopt(level, socket.IPV6_UNICAST_HOPS if v6 else socket.IP_TTL, hops)
        if kind != socket.SOCK_STREAM:
            several = socket.IPV6_MULTICAST_HOPS if v6 else socket.IP_MULTICAST_TTL
            sock.setsockopt(level, several, hops)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if by:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, by.encode() + b"\0")
        if mark:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        return sock

    @staticmethod
    def _syn(sock: socket.socket, token: bytes, place: tuple[object, ...]) -> None:
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, _FASTOPEN_NO_COOKIE, 1)
        sock.sendto(token, socket.MSG_FASTOPEN, place)


def _place(to: str, port: int, by: str) -> tuple[object, ...]:
    if ":" not in to:
        return (to, port)
    local = to.startswith(("fe80:", "ff02:"))
    return (to, port, 0, socket.if_nametoindex(by) if by and local else 0)


def _tried(send: Callable[[], object]) -> bool:
    try:
        send()
    except OSError as error:
        return error.errno in _REFUSED
    return True
