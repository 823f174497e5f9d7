# SPDX-License-Identifier: GPL-2.0-or-later
"""The bytes ubus speaks: messages, blob attributes and blobmsg values.

Shapes and limits follow libubox (blob.h, blobmsg.h, blobmsg_json.c) and ubus (ubusmsg.h). Text
stays bytes until somebody needs it as text: the real programs do not care whether it is UTF-8.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

MAX_MESSAGE = 1 << 20
SYSTEM_OBJECT_MAX = 1024
_HEADER = struct.Struct(">BBHI")
_U32 = struct.Struct(">I")
HEADER_SIZE = _HEADER.size + _U32.size
_EXTENDED = 0x80000000
# json-c refuses deeper text; libubox takes its default.
_MAX_DEPTH = 31


class Kind(IntEnum):
    HELLO = 0
    STATUS = 1
    DATA = 2
    PING = 3
    LOOKUP = 4
    INVOKE = 5
    ADD_OBJECT = 6
    REMOVE_OBJECT = 7
    SUBSCRIBE = 8
    UNSUBSCRIBE = 9
    NOTIFY = 10
    MONITOR = 11


class Attr(IntEnum):
    STATUS = 1
    OBJPATH = 2
    OBJID = 3
    METHOD = 4
    OBJTYPE = 5
    SIGNATURE = 6
    DATA = 7
    TARGET = 8
    ACTIVE = 9
    NO_REPLY = 10
    SUBSCRIBERS = 11
    USER = 12
    GROUP = 13


class Status(IntEnum):
    OK = 0
    INVALID_COMMAND = 1
    INVALID_ARGUMENT = 2
    METHOD_NOT_FOUND = 3
    NOT_FOUND = 4
    NO_DATA = 5
    PERMISSION_DENIED = 6
    TIMEOUT = 7
    NOT_SUPPORTED = 8
    UNKNOWN_ERROR = 9
    CONNECTION_FAILED = 10
    NO_MEMORY = 11
    PARSE_ERROR = 12
    SYSTEM_ERROR = 13


STATUS_TEXT = (
    "Success",
    "Invalid command",
    "Invalid argument",
    "Method not found",
    "Not found",
    "No response",
    "Permission denied",
    "Request timed out",
    "Operation not supported",
    "Unknown error",
    "Connection failed",
    "Out of memory",
    "Parsing message data failed",
    "System error",
)


def status_text(status: int) -> str:
    known = 0 <= status < len(STATUS_TEXT)
    return STATUS_TEXT[status] if known else f"Unknown error: {status}"


class Type(IntEnum):
    UNSPEC = 0
    ARRAY = 1
    TABLE = 2
    STRING = 3
    INT64 = 4
    INT32 = 5
    INT16 = 6
    INT8 = 7
    BOOL = 7
    DOUBLE = 8


class Int16(int):
    """An integer that travels as INT16; JSON has no way to ask for it."""


class Int64(int):
    """An integer that travels as INT64 however small it is."""


class NotRepresentable(ValueError):
    """The value has no form in blobmsg (not a table, or nested too deeply)."""


class Message(NamedTuple):
    kind: int
    seq: int
    peer: int
    body: bytes
    version: int = 0

    def pack(self) -> bytes:
        head = _HEADER.pack(self.version, self.kind, self.seq & 0xFFFF, self.peer)
        return head + _U32.pack(len(self.body) + 4) + self.body


class Header(NamedTuple):
    version: int
    kind: int
    seq: int
    peer: int
    body_size: int
    """Negative when the length field is smaller than the field itself."""

    @property
    def too_big(self) -> bool:
        return (self.body_size + 4 + 3) & ~3 > MAX_MESSAGE


def unpack_header(data: bytes) -> Header:
    version, kind, seq, peer = _HEADER.unpack_from(data)
    (id_len,) = _U32.unpack_from(data, _HEADER.size)
    return Header(version, kind, seq, peer, (id_len & 0xFFFFFF) - 4)


# Blob attributes: what a message's body is made of.


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def attr(ident: int, payload: bytes) -> bytes:
    return _pad(_U32.pack(ident << 24 | (len(payload) + 4)) + payload)


def attr_u32(ident: int, value: int) -> bytes:
    return attr(ident, _U32.pack(value & 0xFFFFFFFF))


def attr_u8(ident: int, value: int) -> bytes:
    return attr(ident, bytes([value & 0xFF]))


def attr_string(ident: int, value: bytes) -> bytes:
    return attr(ident, value + b"\0")


class Raw(NamedTuple):
    ident: int
    extended: bool
    payload: bytes


def iterate(data: bytes) -> Iterator[Raw]:
    """Attributes of `data`; stops, as libubox does, at the first one that does not fit."""
    at = 0
    while len(data) - at >= 4:
        (id_len,) = _U32.unpack_from(data, at)
        size = id_len & 0xFFFFFF
        padded = (size + 3) & ~3
        if size < 4 or padded > len(data) - at:
            return
        yield Raw(id_len >> 24 & 0x7F, bool(id_len & _EXTENDED), data[at + 4 : at + size])
        at += padded


_WORDS = {Attr.STATUS, Attr.OBJID, Attr.OBJTYPE}
_STRINGS = {Attr.OBJPATH, Attr.METHOD, Attr.USER, Attr.GROUP}


def parse(body: bytes) -> dict[int, bytes]:
    """A message's attributes by number; ill-typed and unknown ones are left out."""
    found: dict[int, bytes] = {}
    for raw in iterate(body):
        if raw.ident > Attr.GROUP:
            continue
        if raw.ident in _WORDS and len(raw.payload) != 4:
            continue
        if raw.ident in _STRINGS and raw.payload[-1:] != b"\0":
            continue
        found[raw.ident] = raw.payload
    return found


def u32(payload: bytes) -> int:
    return int(_U32.unpack(payload[:4])[0])


def c_string(payload: bytes) -> bytes:
    return payload.split(b"\0", 1)[0]


# Blobmsg: named and typed values.

_FIXED = {Type.INT64: 8, Type.INT32: 4, Type.INT16: 2, Type.INT8: 1}


class Field(NamedTuple):
    name: bytes
    type: int
    payload: bytes


def fields(data: bytes) -> Iterator[Field | None]:
    """Members of a table or array; None stands for one libubox's checks refuse."""
    for raw in iterate(data):
        name, payload = b"", raw.payload
        if raw.extended:
            if len(payload) < 3:
                yield None
                continue
            size = int.from_bytes(payload[:2], "big")
            start = (2 + size + 1 + 3) & ~3
            if len(payload) < start or payload[2 + size] != 0:
                yield None
                continue
            name, payload = c_string(payload[2 : 2 + size]), payload[start:]
        yield Field(name, raw.ident, payload) if _fits(raw.ident, payload) else None


def _fits(kind: int, payload: bytes) -> bool:
    if kind > Type.DOUBLE:
        return False
    if kind == Type.STRING:
        return payload[-1:] == b"\0"
    if kind == Type.DOUBLE:
        return len(payload) >= 8
    return kind not in _FIXED or len(payload) == _FIXED[Type(kind)]


def field(name: bytes, kind: int, payload: bytes) -> bytes:
    head = _pad(struct.pack(">H", len(name)) + name + b"\0")
    size = 4 + len(head) + len(payload)
    return _pad(_U32.pack(_EXTENDED | kind << 24 | size) + head + payload)


def encode(values: Mapping[str, Any]) -> bytes:
    """Members of a table, typed as libubox types what it reads from JSON."""
    return b"".join(_value(_text(name), value, 1) for name, value in values.items())


def _text(text: str) -> bytes:
    # C strings end at the first NUL.
    return text.split("\0", 1)[0].encode("utf-8", "surrogateescape")


def _value(name: bytes, value: Any, depth: int) -> bytes:
    if depth > _MAX_DEPTH:
        raise NotRepresentable("nested too deeply")
    match value:
        case None:
            return field(name, Type.UNSPEC, b"")
        case bool():
            return field(name, Type.INT8, bytes([value]))
        case Int16():
            return field(name, Type.INT16, struct.pack(">h", value))
        case int():
            return _integer(name, value)
        case float():
            return field(name, Type.DOUBLE, struct.pack(">d", value))
        case str():
            return field(name, Type.STRING, _text(value) + b"\0")
        case bytes():
            return field(name, Type.STRING, value + b"\0")
        case Mapping():
            inner = (_value(_text(key), item, depth + 1) for key, item in value.items())
            return field(name, Type.TABLE, b"".join(inner))
        case Sequence():
            inner = (_value(b"", item, depth + 1) for item in value)
            return field(name, Type.ARRAY, b"".join(inner))
    raise NotRepresentable(f"no blobmsg type for {type(value).__name__}")


def _integer(name: bytes, value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31 and not isinstance(value, Int64):
        return field(name, Type.INT32, struct.pack(">i", value))
    clamped = max(-(1 << 63), min((1 << 63) - 1, value))
    return field(name, Type.INT64, struct.pack(">q", clamped))


def decode(data: bytes) -> dict[str, Any]:
    """A table as Python values, for programs (bytes that are not UTF-8 survive as surrogates)."""
    return {
        item.name.decode("utf-8", "surrogateescape"): to_python(item)
        for item in fields(data)
        if item is not None
    }


def to_python(item: Field) -> Any:
    match item.type:
        case Type.UNSPEC:
            return None
        case Type.INT8:
            return bool(item.payload[0])
        case Type.INT16 | Type.INT32 | Type.INT64:
            return int.from_bytes(item.payload, "big", signed=True)
        case Type.DOUBLE:
            return struct.unpack(">d", item.payload[:8])[0]
        case Type.STRING:
            return c_string(item.payload).decode("utf-8", "surrogateescape")
        case Type.ARRAY:
            return [to_python(member) for member in fields(item.payload) if member is not None]
    return decode(item.payload)


def pick(policy: Mapping[str, int], data: bytes) -> dict[str, Any]:
    """What libubox's blobmsg_parse finds: the first member of the right name and type."""
    found: dict[str, Any] = {}
    for item in fields(data):
        if item is None:
            break
        name = item.name.decode("utf-8", "surrogateescape")
        wanted = policy.get(name)
        if wanted is not None and name not in found and wanted in (item.type, Type.UNSPEC):
            found[name] = to_python(item)
    return found


# JSON text as libubox writes it: python-ubus passes every value through it.

_ESCAPES = {8: b"\\b", 10: b"\\n", 9: b"\\t", 13: b"\\r", 34: b'\\"', 92: b"\\\\"}


def _quoted(text: bytes) -> bytes:
    inner = b"".join(
        _ESCAPES.get(byte) or (b"\\u00%02x" % byte if byte < 32 else bytes([byte])) for byte in text
    )
    return b'"' + inner + b'"'


def to_json(data: bytes, array: bool = False) -> bytes:
    members = (_json_member(item, named=not array) for item in fields(data))
    return (b"[%b]" if array else b"{%b}") % b",".join(members)


def _json_member(item: Field | None, named: bool) -> bytes:
    if item is None:
        return b""
    head = _quoted(item.name) + b":" if named and item.name else b""
    return head + _json_value(item)


def _json_value(item: Field) -> bytes:
    match item.type:
        case Type.STRING:
            return _quoted(c_string(item.payload))
        case Type.TABLE:
            return to_json(item.payload)
        case Type.ARRAY:
            return to_json(item.payload, array=True)
        case Type.DOUBLE:
            return b"%.6f" % to_python(item)
        case Type.INT8:
            return b"true" if item.payload[0] else b"false"
        case Type.UNSPEC:
            return b"null"
    return b"%d" % to_python(item)


def signature(methods: Mapping[str, Mapping[str, int]]) -> bytes:
    """The signature attribute's payload: each method a table of argument name to type."""
    return b"".join(_value(_text(name), dict(args), 1) for name, args in methods.items())


def join(parts: Iterable[bytes]) -> bytes:
    return b"".join(parts)
