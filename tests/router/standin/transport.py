# SPDX-License-Identifier: GPL-2.0-or-later
"""The broker's connections: accepting, reading, queueing what slow clients leave unread."""

import selectors
import socket
import struct
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from . import wire
from .acl import Peer, identify
from .registry import new_ident
from .wire import Kind

_QUEUE_LIMIT = wire.MAX_MESSAGE
_CHUNK = 1 << 18


class Client:
    def __init__(self, sock: socket.socket, ident: int, peer: Peer) -> None:
        self.sock = sock
        self.ident = ident
        self.peer = peer
        self.received = bytearray()
        self.queue: deque[bytes] = deque()
        self.queued = 0
        self.lookups: deque[tuple[wire.Message, bytes]] = deque()
        """Lookups that wait for room, with the path they go on after."""
        self.eof = False

    def flush(self) -> None:
        while self.queue:
            try:
                sent = self.sock.send(self.queue[0])
            except BlockingIOError:
                return
            except OSError:
                self.queue.clear()
                self.queued = 0
                self.eof = True
                return
            self.queued -= sent
            if sent == len(self.queue[0]):
                self.queue.popleft()
            else:
                self.queue[0] = self.queue[0][sent:]


class Service(Protocol):
    """Who is told of what happens on the connections."""

    def received(self, client: Client, message: wire.Message) -> None: ...

    def writable(self, client: Client) -> None: ...

    def gone(self, client: Client) -> None: ...


class Transport:
    def __init__(self, path: Path, service: Service) -> None:
        self._service = service
        self._selector = selectors.DefaultSelector()
        self.clients: dict[int, Client] = {}
        self.observe: Callable[[Client, wire.Message, bool], None] | None = None
        """Sees each message, and whether it was sent (or received)."""
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        path.chmod(0o666)
        self._listener.listen(128)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, None)

    def serve(self) -> None:
        while True:
            for key, mask in self._selector.select():
                if key.data is None:
                    self._accept()
                elif key.data.ident in self.clients:
                    self._attend(key.data, mask)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            _, uid, gid = struct.unpack("iII", credentials)
            peer = identify(uid, gid)
            if peer is None:
                sock.close()
                continue
            sock.setblocking(False)
            client = Client(sock, new_ident(self.clients), peer)
            self.clients[client.ident] = client
            self._selector.register(sock, selectors.EVENT_READ, client)
            self.send(client.ident, wire.Message(Kind.HELLO, 0, client.ident, b""))

    def _attend(self, client: Client, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            client.flush()
            self._service.writable(client)
            self.watch(client)
        if mask & selectors.EVENT_READ:
            self._read(client)
        if client.eof:
            self._drop(client)

    def _read(self, client: Client) -> None:
        # One chunk per turn: a flooding client must not starve the others.
        try:
            chunk = client.sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        client.eof = client.eof or not chunk
        client.received += chunk
        while len(client.received) >= wire.HEADER_SIZE:
            header = wire.unpack_header(bytes(client.received[: wire.HEADER_SIZE]))
            if header.body_size < 0 or header.too_big:
                client.eof = True
                client.received.clear()
                return
            end = wire.HEADER_SIZE + header.body_size
            if len(client.received) < end:
                return
            body = bytes(client.received[wire.HEADER_SIZE : end])
            del client.received[:end]
            message = wire.Message(header.kind, header.seq, header.peer, body)
            if self.observe:
                self.observe(client, message, False)
            self._service.received(client, message)

    def _drop(self, client: Client) -> None:
        del self.clients[client.ident]
        self._selector.unregister(client.sock)
        self._service.gone(client)
        client.sock.close()

    def send(self, ident: int, message: wire.Message) -> None:
        """Sends or queues; drops when the client's queue is full, or it is unknown."""
        client = self.clients.get(ident)
        if client is None:
            return
        if self.observe and message.kind != Kind.MONITOR:
            self.observe(client, message, True)
        data = message.pack()
        if client.queue and client.queued + len(data) > _QUEUE_LIMIT:
            return
        client.queue.append(data)
        client.queued += len(data)
        if len(client.queue) == 1:
            client.flush()
            self.watch(client)

    def watch(self, client: Client) -> None:
        writes = selectors.EVENT_WRITE if client.queue or client.lookups else 0
        self._selector.modify(client.sock, selectors.EVENT_READ | writes, client)
