# SPDX-License-Identifier: GPL-2.0-or-later
"""The process behind every server of the virtual internet: echo and DNS, in all namespaces at once.

Started by servers.py as `python -m <package>.responder QUERY_LOG`. Each line on its standard input
is a JSON list of services {kind, netns, address, port, name, answers}; the answer is a line "ok" or
"error: ...". It ends when its standard input does."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, BinaryIO

from . import dns
from .namespace import Namespace

IPV6_FREEBIND, IP_FREEBIND = 78, 15
_SO_RCVBUFFORCE = 33
LARGEST = 65535
TTL = 300  # long enough that a stale cache shows
Handler = Callable[[], None]


def signature(name: str, peer: tuple[Any, ...]) -> bytes:
    """What an echo appends: who answers, and from where it was asked."""
    return f" {name} {peer[0]} {peer[1]}".encode()


class Responder:
    def __init__(self, log: BinaryIO) -> None:
        self._log = log
        self._selector = selectors.DefaultSelector()

    def serve(self, service: dict[str, Any]) -> None:
        opener = {"udp": self._udp, "tcp": self._tcp, "raw": self._raw}
        opener[service["transport"]](service)

    def run(self, control: BinaryIO) -> None:
        self._selector.register(control, selectors.EVENT_READ, None)
        while True:
            for key, _events in self._selector.select():
                if key.data is not None:
                    try:
                        key.data()
                    except OSError as error:
                        # a peer that has gone (ICMP unreachable, reset) is no concern of the
                        # others; but without a descriptor none of them would be served
                        if error.errno == errno.EMFILE:
                            raise
                    continue
                line = control.readline()
                if not line:
                    return
                print(self._obey(line), flush=True)

    def _obey(self, line: bytes) -> str:
        try:
            for service in json.loads(line):
                self.serve(service)
        except OSError as error:
            return f"error: {service}: {error}"
        return "ok"

    def _open(self, service: dict[str, Any], kind: int, protocol: int = 0) -> socket.socket:
        address, port = service["address"], service["port"]
        v6 = ":" in address
        family = socket.AF_INET6 if v6 else socket.AF_INET
        sock = Namespace(service["netns"]).socket(family, kind, protocol)
        # the address of a tunnel comes and goes with the tunnel; the server stands ready
        if v6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
            if kind != socket.SOCK_RAW:  # which is EINVAL there
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        # bound to the one address, so that the answer comes from it
        sock.bind((address, 0 if kind == socket.SOCK_RAW else port))
        sock.setblocking(False)
        return sock

    def _udp(self, service: dict[str, Any]) -> None:
        sock = self._open(service, socket.SOCK_DGRAM)
        # By default it holds some 270 datagrams, and hundreds of questions come at once.
        with contextlib.suppress(
            PermissionError
        ):  # in a user namespace; then the default has to do
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 4 << 20)
        name = service["name"]

        def echo() -> None:
            for _ in range(64):
                data, peer = sock.recvfrom(LARGEST)
                sock.sendto(data + signature(name, peer), peer)

        def resolve() -> None:
            for _ in range(64):
                data, peer = sock.recvfrom(LARGEST)
                if reply := self._resolve(service, data, peer, "udp"):
                    sock.sendto(reply, peer)

        handler = resolve if service["kind"] == "dns" else echo
        self._selector.register(sock, selectors.EVENT_READ, handler)

    def _raw(self, service: dict[str, Any]) -> None:
        sock = self._open(service, socket.SOCK_RAW, service["port"])

        def echo() -> None:
            data, peer = sock.recvfrom(LARGEST)
            if sock.family == socket.AF_INET:
                data = data[(data[0] & 15) * 4 :]
            if data.count(b" ") >= 3:
                return  # an answer to someone else on this host; two echoes would never stop
            sock.sendto(data + signature(service["name"], (peer[0], 0)), (peer[0], 0))

        self._selector.register(sock, selectors.EVENT_READ, echo)

    def _tcp(self, service: dict[str, Any]) -> None:
        listener = self._open(service, socket.SOCK_STREAM)
        listener.listen(1024)

        def accept() -> None:
            connection, peer = listener.accept()
            connection.setblocking(False)
            serve = self._resolver if service["kind"] == "dns" else self._line_echo
            self._selector.register(
                connection, selectors.EVENT_READ, serve(service, connection, peer)
            )

        self._selector.register(listener, selectors.EVENT_READ, accept)

    def _receive(self, connection: socket.socket, buffer: bytearray) -> None:
        try:
            data = connection.recv(LARGEST)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(connection)
            connection.close()
        buffer += data

    def _line_echo(
        self, service: dict[str, Any], connection: socket.socket, peer: tuple[Any, ...]
    ) -> Handler:
        buffer = bytearray()

        def echo() -> None:
            self._receive(connection, buffer)
            while (end := buffer.find(b"\n")) >= 0:
                connection.sendall(buffer[:end] + signature(service["name"], peer) + b"\n")
                del buffer[: end + 1]

        return echo

    def _resolver(
        self, service: dict[str, Any], connection: socket.socket, peer: tuple[Any, ...]
    ) -> Handler:
        buffer = bytearray()

        def resolve() -> None:
            self._receive(connection, buffer)
            while len(buffer) >= 2 and len(buffer) >= 2 + (size := buffer[0] << 8 | buffer[1]):
                reply = self._resolve(service, bytes(buffer[2 : 2 + size]), peer, "tcp")
                del buffer[: 2 + size]
                if reply:
                    connection.sendall(struct.pack("!H", len(reply)) + reply)

        return resolve

    def _resolve(
        self, service: dict[str, Any], data: bytes, peer: tuple[Any, ...], over: str
    ) -> bytes | None:
        try:
            asked = dns.parse(data)
        except dns.DnsError:
            return None
        entry = {
            "time": time.time(),
            "resolver": service["name"],
            "address": service["address"],
            "source": peer[0],
            "transport": over,
            "name": asked.name.lower(),
            "kind": asked.kind,
        }
        self._log.write(json.dumps(entry).encode() + b"\n")
        found: dict[str, str] = service["answers"].get(asked.name.lower(), service["answers"]["*"])
        if asked.kind == dns.TXT:
            values = [(dns.TXT, f"{service['name']} {peer[0]}")]
        else:
            values = [(asked.kind, found[str(asked.kind)])] if str(asked.kind) in found else []
        return dns.response(asked, values, TTL)


def main() -> None:
    control = os.fdopen(sys.stdin.fileno(), "rb", buffering=0)
    # A connection whose client was cut off is never over: some are left of every flood.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with open(sys.argv[1], "ab", buffering=0) as log:
        Responder(log).run(control)


if __name__ == "__main__":
    main()
