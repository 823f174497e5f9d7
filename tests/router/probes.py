# SPDX-License-Identifier: GPL-2.0-or-later
"""The kinds of probes: what a device, or the router itself, may try to send."""

from __future__ import annotations

import errno
import os
import secrets
import selectors
import socket
import struct
import time
from typing import Any

from . import craft, dns
from .addresses import DOMAIN, ODD_PROTOCOL, WAN_DEVICE
from .namespace import Namespace
from .probe import TOKEN, Attempt, Probe

SOL_PACKET, QDISC_BYPASS = 263, 20


class Udp(Probe):
    protocol = "UDP"

    def __init__(self, *args: Any, size: int = 0, **options: Any) -> None:
        super().__init__(*args, **options)
        self.size = size  # above 1472 it is fragmented
        if size:
            self.protocol = f"UDP of {size} bytes"

    def _new_flow(self) -> socket.socket:
        sock = self._socket(socket.SOCK_DGRAM)
        sock.connect((self.target, self.port))
        return sock

    def _message(self, attempt: Attempt) -> bytes:
        return (attempt.token + b" ").ljust(self.size, b".")


class Multicast(Udp):
    """A datagram to a group. Nobody answers it: what counts is whether it is seen."""

    protocol = "multicast"
    answerable = False

    def _new_flow(self) -> socket.socket:
        sock = self._socket(socket.SOCK_DGRAM)
        device = self.device or "eth0"
        with self.netns.inside():
            index = socket.if_nametoindex(device)
        if self.v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 8)
        else:
            request = struct.pack("4s4si", b"\0" * 4, b"\0" * 4, index)  # struct ip_mreqn
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 8)
        sock.connect((self.target, self.port))
        return sock


class Tcp(Probe):
    protocol = "TCP"
    clears_errors = False  # of a connection that was reset the error is the answer

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._unsent: dict[socket.socket, bytes] = {}
        self._received: dict[socket.socket, bytes] = {}

    def _new_flow(self) -> socket.socket:
        sock = self._socket(socket.SOCK_STREAM)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex((self.target, self.port))
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            raise OSError(code, os.strerror(code))
        self._unsent[sock] = b""
        return sock

    def _emit(self, flow: socket.socket, attempt: Attempt) -> None:
        if flow in self._unsent:
            self._unsent[flow] += self._message(attempt)
        else:
            flow.send(self._message(attempt))

    def events(self, flow: socket.socket) -> int:
        return selectors.EVENT_WRITE if flow in self._unsent else selectors.EVENT_READ

    def ready(self, flow: socket.socket) -> None:
        if flow not in self._unsent:
            super().ready(flow)
            return
        number = flow.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        waiting = self._unsent.pop(flow)
        if number:
            self._refused(flow, number)
        else:
            flow.send(waiting)

    def close(self) -> None:
        for flow in self.flows:
            # without a lingering FIN, which would come out after the test
            flow.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        super().close()

    def _message(self, attempt: Attempt) -> bytes:
        return attempt.token + b" \n"

    def _read(self, flow: socket.socket, data: bytes) -> None:
        if not data:
            self._refused(flow, errno.ECONNRESET)
            return
        *lines, rest = (self._received.get(flow, b"") + data).split(b"\n")
        self._received[flow] = rest
        for line in lines:
            super()._read(flow, line)


class _DnsMixin(Probe):
    def _query(self, attempt: Attempt) -> bytes:
        ident = int(attempt.token.rpartition(b"-")[2]) & 0xFFFF
        return dns.query(ident, f"{attempt.token.decode()}.probe.{DOMAIN}", dns.TXT)

    def _resolved(self, data: bytes) -> None:
        answer = dns.parse(data)
        token = answer.name.partition(".")[0].encode()
        if answer.answers:
            name, _, source = answer.answers[0].partition(" ")
            self._answered(token, name, source)
        elif token in self.attempts:
            refused = self.attempts[token]
            refused.error = f"rcode {answer.rcode}"
            refused.seconds = time.monotonic() - refused.began


class DnsUdp(_DnsMixin, Udp):
    protocol = "DNS/UDP"

    def __init__(self, netns: Namespace, target: str, port: int = 53, **options: Any) -> None:
        super().__init__(netns, target, port, **options)

    def _message(self, attempt: Attempt) -> bytes:
        return self._query(attempt)

    def _read(self, flow: socket.socket, data: bytes) -> None:
        self._resolved(data)


class DnsTcp(_DnsMixin, Tcp):
    protocol = "DNS/TCP"

    def __init__(self, netns: Namespace, target: str, port: int = 53, **options: Any) -> None:
        super().__init__(netns, target, port, **options)

    def _message(self, attempt: Attempt) -> bytes:
        message = self._query(attempt)
        return struct.pack("!H", len(message)) + message

    def _read(self, flow: socket.socket, data: bytes) -> None:
        if not data:
            self._refused(flow, errno.ECONNRESET)
            return
        rest = self._received.get(flow, b"") + data
        while len(rest) >= 2 and len(rest) >= 2 + (size := rest[0] << 8 | rest[1]):
            self._resolved(rest[2 : 2 + size])
            rest = rest[2 + size :]
        self._received[flow] = rest


class Icmp(Probe):
    protocol = "ICMP echo"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._idents: dict[socket.socket, int] = {}

    def _new_flow(self) -> socket.socket:
        sock = self._socket(socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if self.v6 else 1)
        sock.connect((self.target, 0))
        self._idents[sock] = secrets.randbelow(0xFFFF) + 1
        return sock

    def _emit(self, flow: socket.socket, attempt: Attempt) -> None:
        number = int(attempt.token.rpartition(b"-")[2]) & 0xFFFF
        kind = 128 if self.v6 else 8
        body = attempt.token + b" "
        message = struct.pack("!BBHHH", kind, 0, 0, self._idents[flow], number) + body
        if not self.v6:  # for ICMPv6 the kernel does it
            message = message[:2] + struct.pack("!H", craft.checksum(message)) + message[4:]
        flow.send(message)

    def _read(self, flow: socket.socket, data: bytes) -> None:
        reply = data[0] == 129 if self.v6 else data[(data[0] & 15) * 4] == 0
        if reply and (found := TOKEN.search(data)):
            self._answered(found.group())


class Raw(Probe):
    """An IP protocol that no NAT or filter knows."""

    protocol = f"IP protocol {ODD_PROTOCOL}"

    def _new_flow(self) -> socket.socket:
        sock = self._socket(socket.SOCK_RAW, ODD_PROTOCOL)
        sock.connect((self.target, 0))
        return sock

    def _message(self, attempt: Attempt) -> bytes:
        return attempt.token + b" "


class PacketSocket(Probe):
    """A frame written to the WAN device behind IP's back (AF_PACKET), or past its queue as well.
    It is only to be seen."""

    protocol = "AF_PACKET"
    answerable = False

    def __init__(
        self, netns: Namespace, target: str, source: str, *, bypass: bool = False, **options: Any
    ) -> None:
        super().__init__(netns, target, **options)
        self.source, self.bypass = source, bypass
        if bypass:
            self.protocol = "AF_PACKET past the queue"

    def _new_flow(self) -> socket.socket:
        sock = self.netns.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sock.setsockopt(SOL_PACKET, QDISC_BYPASS, int(self.bypass))
        sock.bind((self.device or WAN_DEVICE, 0))
        return sock

    def _message(self, attempt: Attempt) -> bytes:
        packet = craft.udp(self.source, 40000, self.target, self.port, attempt.token)
        return craft.ethernet(packet)
