# SPDX-License-Identifier: GPL-2.0-or-later
"""What the broker knows: objects, their types, and who listens to which events."""

import secrets
from bisect import insort
from collections.abc import Callable, Container
from dataclasses import dataclass, field

from . import wire
from .acl import AccessList, Peer, prefix_length, split_pattern
from .wire import Attr, Status


@dataclass
class Method:
    name: bytes
    raw: bytes


@dataclass
class Type:
    ident: int
    methods: list[Method]
    users: int = 0


@dataclass
class Object:
    ident: int
    client: int
    type: Type | None
    path: bytes | None = None
    subscribers: list[int] = field(default_factory=list)
    sequence: int = 0


@dataclass(order=True)
class Pattern:
    key: bytes
    partial: bool = field(compare=False)
    owner: int = field(compare=False)


Deliver = Callable[[Object, int, bytes, bytes], None]


def new_ident(taken: Container[int]) -> int:
    while True:
        ident = secrets.randbits(32)
        if ident >= wire.SYSTEM_OBJECT_MAX and ident not in taken:
            return ident


class Registry:
    def __init__(self, acl: AccessList, deliver: Deliver) -> None:
        self._acl = acl
        self._deliver = deliver
        self._objects: dict[int, Object] = {}
        self._paths: dict[bytes, Object] = {}
        self._types: dict[int, Type] = {}
        self._patterns: list[Pattern] = []
        self._sequence = 0

    # Objects

    def add(self, client: int, peer: Peer, attrs: dict[int, bytes]) -> Object | None:
        kind = None
        if Attr.OBJTYPE in attrs:
            kind = self._types.get(wire.u32(attrs[Attr.OBJTYPE]))
        elif Attr.SIGNATURE in attrs:
            kind = self._new_type(attrs[Attr.SIGNATURE])
        item = Object(new_ident(self._objects), client, kind)
        if Attr.OBJPATH in attrs:
            path = wire.c_string(attrs[Attr.OBJPATH])
            if path in self._paths or not self._acl.allows(peer, path, "publish"):
                return None
            item.path = path
            self._paths[path] = item
        if kind:
            self._types[kind.ident] = kind
            kind.users += 1
        self._objects[item.ident] = item
        self._announce(item, b"ubus.object.add")
        return item

    def _new_type(self, signature: bytes) -> Type | None:
        methods = []
        for raw, named in zip(wire.iterate(signature), wire.fields(signature), strict=True):
            if named is None or not raw.extended or not named.name:
                return None
            methods.append(Method(named.name, wire.field(*named)))
        return Type(new_ident(self._types), methods)

    def remove(self, item: Object) -> None:
        self._patterns = [known for known in self._patterns if known.owner != item.ident]
        self._announce(item, b"ubus.object.remove")
        if item.path is not None:
            del self._paths[item.path]
        del self._objects[item.ident]
        if item.type:
            item.type.users -= 1
            if not item.type.users:
                del self._types[item.type.ident]

    def find(self, ident: int) -> Object | None:
        return self._objects.get(ident)

    def of(self, client: int) -> list[Object]:
        # Newest first, as ubusd takes a vanished client's objects down.
        return [item for item in reversed(self._objects.values()) if item.client == client]

    def targets(self, item: Object) -> list[Object]:
        return [other for other in self._objects.values() if item.ident in other.subscribers]

    def all_after(self, path: bytes) -> list[Object]:
        return [self._paths[name] for name in sorted(self._paths) if name > path or not path]

    def matching(self, pattern: bytes) -> list[Object]:
        prefix, partial = split_pattern(pattern)
        if not partial:
            return [self._paths[pattern]] if pattern in self._paths else []
        return [item for item in self.all_after(b"") if (item.path or b"").startswith(prefix)]

    # Events

    def listen(self, client: int, peer: Peer, data: bytes | None) -> int:
        policy = {"pattern": wire.Type.STRING, "object": wire.Type.INT32}
        asked = wire.pick(policy, data or b"")
        if len(asked) < 2:
            return Status.INVALID_ARGUMENT
        ident = asked["object"] & 0xFFFFFFFF
        if ident < wire.SYSTEM_OBJECT_MAX:
            return Status.PERMISSION_DENIED
        item = self.find(ident)
        if item is None:
            return Status.NOT_FOUND
        pattern = asked["pattern"].encode("utf-8", "surrogateescape")
        key, partial = split_pattern(pattern)
        if item.client != client or not pattern or not self._acl.allows(peer, key, "listen"):
            return Status.PERMISSION_DENIED
        insort(self._patterns, Pattern(key, partial, ident))
        return Status.OK

    def send(self, client: int, peer: Peer, data: bytes | None) -> int:
        policy = {b"id": wire.Type.STRING, b"data": wire.Type.TABLE}
        found: dict[bytes, bytes] = {}
        for item in wire.fields(data or b""):
            if item is None:
                break
            if policy.get(item.name) == item.type:
                found.setdefault(item.name, item.payload)
        if len(found) < 2:
            return Status.INVALID_ARGUMENT
        name = wire.c_string(found[b"id"])
        if name.startswith(b"ubus.") or not self._acl.allows(peer, name, "send"):
            return Status.PERMISSION_DENIED
        self._broadcast(client, name, found[b"data"])
        return Status.OK

    def _announce(self, item: Object, event: bytes) -> None:
        if item.path is None:
            return
        path = item.path.decode("utf-8", "surrogateescape")
        ident = item.ident - (1 << 32) if item.ident >> 31 else item.ident
        data = wire.encode({"id": ident, "path": path})
        self._broadcast(None, event, data)

    def _broadcast(self, sender: int | None, name: bytes, data: bytes) -> None:
        told: set[int] = set()
        best = 0
        # ubusd's walk, early end included: it is part of what listeners may rely on.
        for pattern in list(self._patterns):
            length = prefix_length(name, pattern.key)
            if length < best:
                break
            best = length
            if name != pattern.key and not (pattern.partial and length == len(pattern.key)):
                continue
            item = self._objects.get(pattern.owner)
            if item is None or item.client == sender or item.ident in told:
                continue
            told.add(item.ident)
            self._sequence += 1
            self._deliver(item, self._sequence, name, data)
