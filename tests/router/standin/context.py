# SPDX-License-Identifier: GPL-2.0-or-later
"""One connection to ubus, as libubus keeps it.

What callers feel of libubus is here: requests that arrive while a request of one's own is under way
wait in `pending`, and after such a request the next `handle_data` takes one message only, because
libubus leaves its "cancel" mark standing.
"""

import select
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import wire
from .wire import Attr, Kind, Status

Poll = Callable[[int, int], None]
"""Waits until the descriptor is readable or the milliseconds (-1: no limit) are over."""


@dataclass
class Call:
    """A method call as its handler sees it."""

    context: "Context"
    object: int
    seq: int
    peer: int
    method: str

    def reply(self, data: bytes) -> bool:
        body = wire.attr_u32(Attr.OBJID, self.object) + wire.attr(Attr.DATA, data)
        return self.context.send(wire.Message(Kind.DATA, self.seq, self.peer, body))


Handler = Callable[[Call, bytes], int]


@dataclass
class Exported:
    ident: int
    handlers: Mapping[str, Handler] | Handler
    """By method name, or one for every name (event listeners)."""


@dataclass
class _Request:
    seq: int
    peer: int
    on_data: Callable[[dict[int, bytes]], None] | None
    status: int | None = None


def _poll(descriptor: int, timeout: int) -> None:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    poller.poll(timeout)


class Context:
    def __init__(self, path: str, poll: Poll = _poll) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.eof = False
        self.depth = 0
        self.pending: deque[wire.Message] = deque()
        self.pending_due: float | None = None
        """When the loop, if one runs, is to look after what waits (libubus: one millisecond on)."""
        self._poll = poll
        self._objects: dict[int, Exported] = {}
        self._requests: list[_Request] = []
        self._seq = 0
        self._cancel = False
        try:
            self.socket.connect(path)
            hello = self.socket.recv(wire.HEADER_SIZE, socket.MSG_WAITALL)
            if len(hello) < wire.HEADER_SIZE or wire.unpack_header(hello).kind != Kind.HELLO:
                raise ConnectionError("no greeting")
        except OSError:
            self.socket.close()
            raise
        self.socket.setblocking(False)

    def close(self) -> None:
        self.socket.close()

    # Requests of our own

    def lookup(self, path: str, on_data: Callable[[dict[int, bytes]], None]) -> int:
        return self._request(Kind.LOOKUP, wire.attr_string(Attr.OBJPATH, path.encode()), 0, on_data)

    def lookup_ident(self, path: str) -> tuple[int, int]:
        """Status and object id; of several objects (a pattern) the last, as libubus has it."""
        found = [0]

        def note(attrs: dict[int, bytes]) -> None:
            if Attr.OBJID in attrs:
                found.append(wire.u32(attrs[Attr.OBJID]))

        return self.lookup(path, note), found[-1]

    def invoke(
        self,
        ident: int,
        method: str,
        data: bytes,
        timeout: int = 0,
        on_data: Callable[[bytes], None] | None = None,
    ) -> int:
        def deliver(attrs: dict[int, bytes]) -> None:
            if on_data and Attr.DATA in attrs:
                on_data(attrs[Attr.DATA])

        body = wire.attr_u32(Attr.OBJID, ident) + wire.attr_string(Attr.METHOD, method.encode())
        body += wire.attr(Attr.DATA, data)
        return self._request(Kind.INVOKE, body, ident, deliver, timeout)

    def send_event(self, name: str, data: bytes) -> int:
        inner = wire.field(b"id", wire.Type.STRING, name.encode() + b"\0")
        inner += wire.field(b"data", wire.Type.TABLE, data)
        return self.invoke(1, "send", inner)

    def add_object(
        self,
        name: str | None,
        methods: Mapping[str, Mapping[str, int]],
        handlers: Mapping[str, Handler] | Handler,
    ) -> tuple[int, int]:
        """Status and id of the new object; one without a name has no signature either."""
        body = b""
        if name is not None:
            body = wire.attr_string(Attr.OBJPATH, name.encode())
            body += wire.attr(Attr.SIGNATURE, wire.signature(methods))
        found: list[int] = []
        status = self._request(
            Kind.ADD_OBJECT, body, 0, lambda attrs: found.append(wire.u32(attrs[Attr.OBJID]))
        )
        if status or not found:
            return status or Status.NO_DATA, 0
        self._objects[found[0]] = Exported(found[0], handlers)
        return Status.OK, found[0]

    def remove_object(self, ident: int) -> int:
        status = self._request(Kind.REMOVE_OBJECT, wire.attr_u32(Attr.OBJID, ident), 0, None)
        if status == Status.OK:
            self._objects.pop(ident, None)
        return status

    def listen(self, pattern: str, handler: Handler) -> tuple[int, int]:
        status, ident = self.add_object(None, {}, handler)
        if status:
            return status, 0
        number = ident - (1 << 32) if ident >> 31 else ident
        asked = wire.encode({"object": number, "pattern": pattern})
        return self.invoke(1, "register", asked), ident

    def notify(self, ident: int, kind: str, values: Mapping[str, Any]) -> None:
        """Tells the subscribers of one's own object, without waiting for anybody."""
        body = wire.attr_u32(Attr.OBJID, ident) + wire.attr_string(Attr.METHOD, kind.encode())
        body += wire.attr(Attr.DATA, wire.encode(values)) + wire.attr_u8(Attr.NO_REPLY, 1)
        self._seq += 1
        self.send(wire.Message(Kind.NOTIFY, self._seq, ident, body))

    def _request(
        self,
        kind: Kind,
        body: bytes,
        peer: int,
        on_data: Callable[[dict[int, bytes]], None] | None,
        timeout: int = 0,
    ) -> int:
        if len(body) + 4 > wire.MAX_MESSAGE:
            return Status.INVALID_ARGUMENT
        self._seq = self._seq + 1 & 0xFFFF
        request = _Request(self._seq, peer, on_data)
        if not self.send(wire.Message(kind, request.seq, peer, body)):
            return Status.INVALID_ARGUMENT
        self._requests.append(request)
        self.depth += 1
        try:
            self._await(request, timeout)
        finally:
            self.depth -= 1
            if request in self._requests:
                self._requests.remove(request)
        if self.depth:
            self._cancel = True
        return Status.NO_DATA if request.status is None else request.status

    def _await(self, request: _Request, timeout: int) -> None:
        end = time.monotonic() + timeout / 1000
        while request.status is None:
            left = -1
            if timeout:
                left = int((end - time.monotonic()) * 1000)
                if left <= 0:
                    request.status = Status.TIMEOUT
                    return
            self._cancel = False
            self._poll(self.socket.fileno(), left)
            self.handle_data()
            if self.eof:
                request.status = Status.CONNECTION_FAILED
                self._cancel = True

    # The wire

    def send(self, message: wire.Message) -> bool:
        view = memoryview(message.pack())
        while view:
            try:
                view = view[self.socket.send(view) :]
            except BlockingIOError:
                select.select([], [self.socket], [])
            except OSError:
                self.eof = True
                return False
        return True

    def handle_data(self) -> None:
        """Takes what has arrived; returns when nothing is left or a request has its answer."""
        while True:
            if not self.depth:
                self.process_pending()
            message = self._receive()
            if message is None:
                break
            self._process(message)
            if self._cancel:
                break
        if not self.depth:
            self.process_pending()
        if self.eof:
            for request in self._requests:
                request.status = Status.TIMEOUT
            self._requests.clear()

    def process_pending(self) -> None:
        self.pending_due = None
        while self.pending and not self.depth:
            self._process(self.pending.popleft())

    def _receive(self) -> wire.Message | None:
        head = self._read(wire.HEADER_SIZE, wait=False)
        if not head:
            return None
        header = wire.unpack_header(head)
        if header.version or header.body_size < 0 or header.too_big:
            return None
        body = self._read(header.body_size, wait=True) if header.body_size else b""
        if body is None:
            return None
        return wire.Message(header.kind, header.seq, header.peer, body)

    def _read(self, size: int, wait: bool) -> bytes | None:
        data = b""
        while len(data) < size:
            try:
                chunk = self.socket.recv(size - len(data))
            except BlockingIOError:
                if not wait and not data:
                    return None
                select.select([self.socket], [], [])
                continue
            except OSError:
                chunk = b""
            if not chunk:
                self.eof = True
                return None
            data += chunk
        return data

    def _process(self, message: wire.Message) -> None:
        if message.kind in (Kind.STATUS, Kind.DATA):
            self._answer(message)
        elif message.kind in (Kind.INVOKE, Kind.NOTIFY, Kind.UNSUBSCRIBE):
            if self.depth:
                self.pending.append(message)
                self.pending_due = time.monotonic() + 0.001
            elif message.kind == Kind.INVOKE:
                self.depth += 1
                try:
                    self._invoked(message)
                finally:
                    self.depth -= 1

    def _answer(self, message: wire.Message) -> None:
        for request in reversed(self._requests):
            if (request.seq, request.peer) == (message.seq, message.peer):
                break
        else:
            return
        attrs = wire.parse(message.body)
        if message.kind == Kind.DATA:
            if request.on_data:
                request.on_data(attrs)
            return
        known = Attr.STATUS in attrs
        request.status = wire.u32(attrs[Attr.STATUS]) if known else Status.INVALID_ARGUMENT
        self._requests.remove(request)
        self._cancel = True

    def _invoked(self, message: wire.Message) -> None:
        attrs = wire.parse(message.body)
        if Attr.OBJID not in attrs:
            return
        target = self._objects.get(wire.u32(attrs[Attr.OBJID]))
        status: int = Status.NOT_FOUND
        if target:
            status = self._dispatch(target, message, attrs)
        if attrs.get(Attr.NO_REPLY, b"\0")[0]:
            return
        # libubus answers for object 0 when it does not know the object.
        body = wire.attr_u32(Attr.STATUS, status)
        body += wire.attr_u32(Attr.OBJID, target.ident if target else 0)
        self.send(wire.Message(Kind.STATUS, message.seq, message.peer, body))

    def _dispatch(self, target: Exported, message: wire.Message, attrs: dict[int, bytes]) -> int:
        if Attr.METHOD not in attrs:
            return Status.INVALID_ARGUMENT
        method = wire.c_string(attrs[Attr.METHOD]).decode("utf-8", "surrogateescape")
        handlers = target.handlers
        handler = handlers.get(method) if isinstance(handlers, Mapping) else handlers
        if handler is None:
            return Status.METHOD_NOT_FOUND
        if Attr.DATA not in attrs:
            return Status.INVALID_ARGUMENT
        call = Call(self, target.ident, message.seq, message.peer, method)
        return handler(call, attrs[Attr.DATA])
