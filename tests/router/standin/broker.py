# SPDX-License-Identifier: GPL-2.0-or-later
"""A ubusd: `python broker.py SOCKET [--acl-dir DIR]`.

It answers on the wire as OpenWrt's ubusd does, refusals and silences included: nobody tells a
caller that the callee has gone, answers that overflow a slow client's queue are dropped, and a
client that sends nonsense lengths is cut off. File descriptors passed along are not forwarded.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType

if __name__ == "__main__" and not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = "standin"

from . import wire
from .acl import AccessList
from .registry import Object, Registry
from .transport import Client, Transport
from .wire import Attr, Kind, Status

_SYSTEM_OBJECTS = (1, 2, 3)
"""Of the broker itself: events, access lists, monitoring."""
_NO_ANSWER = None
Attributes = dict[int, bytes]
Handler = Callable[[Client, wire.Message, Attributes], int | None]


class Broker:
    def __init__(self, path: Path, acl_dir: Path | None = None) -> None:
        self.acl = AccessList(acl_dir)
        self._registry = Registry(self.acl, self._event_to)
        self._monitors: dict[int, int] = {}
        self._transport = Transport(path, self)
        self.serve = self._transport.serve
        self._handlers: dict[int, Handler] = {
            Kind.PING: self._ping,
            Kind.ADD_OBJECT: self._add_object,
            Kind.REMOVE_OBJECT: self._remove_object,
            Kind.LOOKUP: self._lookup,
            Kind.INVOKE: self._invoke,
            Kind.STATUS: self._response,
            Kind.DATA: self._response,
            Kind.SUBSCRIBE: self._subscribe,
            Kind.UNSUBSCRIBE: self._unsubscribe,
            Kind.NOTIFY: self._notify,
        }

    def gone(self, client: Client) -> None:
        self._set_monitor(client, wanted=False)
        for item in self._registry.of(client.ident):
            self._free(item)

    # Requests

    def received(self, client: Client, message: wire.Message) -> None:
        handler = self._handlers.get(message.kind)
        status: int | None = Status.INVALID_COMMAND
        if handler:
            status = handler(client, message, wire.parse(message.body))
        if status is not _NO_ANSWER:
            self._status(client, message, status)

    def _status(self, client: Client, request: wire.Message, status: int) -> None:
        body = wire.attr_u32(Attr.STATUS, status)
        self._transport.send(
            client.ident, wire.Message(Kind.STATUS, request.seq, request.peer, body)
        )

    def _data(self, client: Client, request: wire.Message, body: bytes) -> None:
        self._transport.send(client.ident, wire.Message(Kind.DATA, request.seq, request.peer, body))

    def _ping(self, client: Client, message: wire.Message, _: Attributes) -> int:
        self._data(client, message, message.body)
        return Status.OK

    def _add_object(self, client: Client, message: wire.Message, attrs: Attributes) -> int:
        item = self._registry.add(client.ident, client.peer, attrs)
        if item is None:
            return Status.INVALID_ARGUMENT
        body = wire.attr_u32(Attr.OBJID, item.ident)
        if Attr.SIGNATURE in attrs and item.type:
            body += wire.attr_u32(Attr.OBJTYPE, item.type.ident)
        self._data(client, message, body)
        return Status.OK

    def _remove_object(self, client: Client, message: wire.Message, attrs: Attributes) -> int:
        if Attr.OBJID not in attrs:
            return Status.INVALID_ARGUMENT
        item = self._own(client, attrs)
        if isinstance(item, int):
            return Status.PERMISSION_DENIED if item == Status.INVALID_ARGUMENT else item
        body = wire.attr_u32(Attr.OBJID, item.ident)
        if item.type and item.type.users == 1:
            body += wire.attr_u32(Attr.OBJTYPE, item.type.ident)
        self._data(client, message, body)
        self._free(item)
        return Status.OK

    def _own(self, client: Client, attrs: Attributes) -> Object | int:
        if Attr.OBJID not in attrs:
            return Status.NOT_FOUND
        item = self._registry.find(wire.u32(attrs[Attr.OBJID]))
        if item is None:
            return Status.NOT_FOUND
        return item if item.client == client.ident else Status.INVALID_ARGUMENT

    def _free(self, item: Object) -> None:
        for target in self._registry.targets(item):
            self._leave(item, target)
        for ident in list(item.subscribers):
            subscriber = self._registry.find(ident)
            if subscriber:
                subscriber.sequence += 1
                body = wire.attr_u32(Attr.OBJID, ident) + wire.attr_u32(Attr.TARGET, item.ident)
                told = wire.Message(Kind.UNSUBSCRIBE, subscriber.sequence, 0, body)
                self._transport.send(subscriber.client, told)
                self._leave(subscriber, item)
        self._registry.remove(item)

    def _lookup(self, client: Client, message: wire.Message, attrs: Attributes) -> int | None:
        if client.queue:
            client.lookups.append((message, b""))
            return _NO_ANSWER
        if Attr.OBJPATH not in attrs:
            return self._list_all(client, message, b"")
        pattern = wire.c_string(attrs[Attr.OBJPATH])
        if not pattern:
            return Status.INVALID_ARGUMENT
        found = self._registry.matching(pattern)
        for item in found:
            self._describe(client, message, item)
        return Status.OK if found else Status.NOT_FOUND

    def _list_all(self, client: Client, message: wire.Message, after: bytes) -> int | None:
        for item in self._registry.all_after(after):
            if client.queue:
                client.lookups.append((message, after))
                self._transport.watch(client)
                return _NO_ANSWER
            self._describe(client, message, item)
            after = item.path or b""
        return Status.OK

    def writable(self, client: Client) -> None:
        while client.lookups and not client.queue:
            message, after = client.lookups.popleft()
            attrs = wire.parse(message.body)
            if after or Attr.OBJPATH not in attrs:
                status = self._list_all(client, message, after)
            else:
                status = self._lookup(client, message, attrs)
            if status is not _NO_ANSWER:
                self._status(client, message, status)

    def _describe(self, client: Client, request: wire.Message, item: Object) -> None:
        if item.type is None or item.path is None:
            return
        names = [method.name.decode("utf-8", "replace") for method in item.type.methods]
        shown = [
            method.raw
            for name, method in zip(names, item.type.methods, strict=True)
            if self.acl.allows(client.peer, item.path, "access", name)
        ]
        if names and not shown:
            return
        body = wire.attr_string(Attr.OBJPATH, item.path) + wire.attr_u32(Attr.OBJID, item.ident)
        body += wire.attr_u32(Attr.OBJTYPE, item.type.ident)
        self._data(client, request, body + wire.attr(Attr.SIGNATURE, wire.join(shown)))

    def _invoke(self, client: Client, message: wire.Message, attrs: Attributes) -> int | None:
        if Attr.METHOD not in attrs or Attr.OBJID not in attrs:
            return Status.INVALID_ARGUMENT
        ident, method = wire.u32(attrs[Attr.OBJID]), wire.c_string(attrs[Attr.METHOD])
        if ident in _SYSTEM_OBJECTS:
            return self._system(client, message, attrs)
        item = self._registry.find(ident)
        if item is None:
            return Status.NOT_FOUND
        if not self.acl.allows(client.peer, item.path, "access", method.decode("utf-8", "replace")):
            return Status.PERMISSION_DENIED
        self._forward(client, item, message, attrs)
        return _NO_ANSWER

    def _forward(
        self, client: Client, item: Object, message: wire.Message, attrs: Attributes
    ) -> None:
        silent = message.kind == Kind.NOTIFY and _is_silent(attrs)
        body = wire.attr_u8(Attr.NO_REPLY, 1) if silent else b""
        body += wire.attr_u32(Attr.OBJID, item.ident)
        body += wire.attr_string(Attr.METHOD, wire.c_string(attrs[Attr.METHOD]))
        body += wire.attr_string(Attr.USER, client.peer.user.encode())
        body += wire.attr_string(Attr.GROUP, client.peer.group.encode())
        if Attr.DATA in attrs:
            body += wire.attr(Attr.DATA, attrs[Attr.DATA])
        told = wire.Message(Kind.INVOKE, message.seq, client.ident, body)
        self._transport.send(item.client, told)

    def _response(self, client: Client, message: wire.Message, attrs: Attributes) -> None:
        wanted = Attr.STATUS if message.kind == Kind.STATUS else Attr.DATA
        item = self._own(client, attrs)
        if isinstance(item, Object) and wanted in attrs:
            answer = message._replace(peer=item.ident)
            self._transport.send(message.peer, answer)

    # The broker's own objects

    def _system(self, client: Client, message: wire.Message, attrs: Attributes) -> int:
        data, ident = attrs.get(Attr.DATA), wire.u32(attrs[Attr.OBJID])
        match ident, wire.c_string(attrs[Attr.METHOD]):
            case (1, b"register"):
                return self._registry.listen(client.ident, client.peer, data)
            case (1, b"send"):
                return self._registry.send(client.ident, client.peer, data)
            case (2, b"query"):
                body = wire.encode({"seq": 1, "acl": []})
                head = wire.attr_u32(Attr.OBJID, ident)
                self._data(client, message, head + wire.attr(Attr.DATA, body))
                return Status.OK
            case (3, _) if client.peer.uid or client.peer.gid:
                return Status.PERMISSION_DENIED
            case (3, b"add"):
                self._set_monitor(client, wanted=True)
                return Status.OK
            case (3, b"remove"):
                self._set_monitor(client, wanted=False)
                return Status.OK
            case (3, _):
                return Status.METHOD_NOT_FOUND
        return Status.INVALID_COMMAND

    def _event_to(self, item: Object, sequence: int, name: bytes, data: bytes) -> None:
        body = wire.attr_u32(Attr.OBJID, item.ident) + wire.attr_string(Attr.METHOD, name)
        told = wire.Message(Kind.INVOKE, sequence, 0, body + wire.attr(Attr.DATA, data))
        self._transport.send(item.client, told)

    def _set_monitor(self, client: Client, wanted: bool) -> None:
        self._monitors.pop(client.ident, None)
        if wanted:
            self._monitors[client.ident] = 0
        self._transport.observe = self._tell_monitors if self._monitors else None

    def _tell_monitors(self, client: Client, message: wire.Message, sent: bool) -> None:
        body = wire.attr_u32(0, client.ident) + wire.attr_u32(1, message.peer)
        body += wire.attr_u32(3, message.seq) + wire.attr_u32(4, message.kind)
        body += wire.attr_u8(2, sent) + wire.attr(5, message.body)
        for ident in list(self._monitors):
            self._monitors[ident] += 1
            told = wire.Message(Kind.MONITOR, self._monitors[ident], 0, body)
            self._transport.send(ident, told)

    # Subscriptions

    def _subscribe(self, client: Client, _: wire.Message, attrs: Attributes) -> int:
        if Attr.OBJID not in attrs or len(attrs.get(Attr.TARGET, b"")) < 4:
            return Status.INVALID_ARGUMENT
        item = self._own(client, attrs)
        if isinstance(item, int):
            return item
        target = self._registry.find(wire.u32(attrs[Attr.TARGET]))
        if target is None or not self.acl.allows(client.peer, target.path, "subscribe"):
            return Status.NOT_FOUND
        if target.client == client.ident:
            return Status.INVALID_ARGUMENT
        target.subscribers.insert(0, item.ident)
        if len(target.subscribers) == 1:
            self._tell_activity(target)
        return Status.OK

    def _unsubscribe(self, client: Client, _: wire.Message, attrs: Attributes) -> int:
        if Attr.OBJID not in attrs or len(attrs.get(Attr.TARGET, b"")) < 4:
            return Status.INVALID_ARGUMENT
        item = self._own(client, attrs)
        if isinstance(item, int):
            return item
        target = self._registry.find(wire.u32(attrs[Attr.TARGET]))
        if target is None or item.ident not in target.subscribers:
            return Status.NOT_FOUND
        self._leave(item, target)
        return Status.OK

    def _leave(self, item: Object, target: Object) -> None:
        target.subscribers.remove(item.ident)
        if not target.subscribers:
            self._tell_activity(target)

    def _tell_activity(self, target: Object) -> None:
        target.sequence += 1
        body = wire.attr_u32(Attr.OBJID, target.ident)
        body += wire.attr_u8(Attr.ACTIVE, bool(target.subscribers))
        told = wire.Message(Kind.NOTIFY, target.sequence, 0, body)
        self._transport.send(target.client, told)

    def _notify(self, client: Client, message: wire.Message, attrs: Attributes) -> int | None:
        if Attr.METHOD not in attrs or Attr.OBJID not in attrs:
            return Status.INVALID_ARGUMENT
        item = self._own(client, attrs)
        if isinstance(item, int):
            return Status.PERMISSION_DENIED if item == Status.INVALID_ARGUMENT else item
        if not _is_silent(attrs):
            listed = wire.join(wire.attr_u32(0, ident) for ident in item.subscribers)
            body = wire.attr_u32(Attr.OBJID, item.ident) + wire.attr(Attr.SUBSCRIBERS, listed)
            body += wire.attr_u32(Attr.STATUS, Status.OK)
            self._transport.send(
                client.ident, wire.Message(Kind.STATUS, message.seq, message.peer, body)
            )
        for subscriber in filter(None, map(self._registry.find, list(item.subscribers))):
            self._forward(client, subscriber, message, attrs)
        return _NO_ANSWER


def _is_silent(attrs: Attributes) -> bool:
    return any(attrs.get(Attr.NO_REPLY, b"")[:1])


def main(arguments: Iterable[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("socket", type=Path)
    parser.add_argument("--acl-dir", type=Path)
    options = parser.parse_args(list(arguments))
    broker = Broker(options.socket, options.acl_dir)

    def leave(_signum: int, _frame: FrameType | None) -> None:
        options.socket.unlink(missing_ok=True)
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGHUP, lambda _signum, _frame: broker.acl.load())
    broker.serve()


if __name__ == "__main__":
    main(sys.argv[1:])
