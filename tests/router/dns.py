# SPDX-License-Identifier: GPL-2.0-or-later
"""As much of RFC 1035 as a test resolver and a probe need: one question, A/AAAA/TXT answers."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass

A, NS, SOA, TXT, AAAA = 1, 2, 6, 16, 28
NOERROR, SERVFAIL, NXDOMAIN, REFUSED = 0, 2, 3, 5
TYPES = {"A": A, "AAAA": AAAA, "TXT": TXT}


class DnsError(ValueError):
    """Not a DNS message, or none with exactly one question."""


@dataclass(frozen=True)
class Message:
    """ident, whether it is a response, its code, the question, and the answers as text."""

    ident: int
    response: bool
    rcode: int
    name: str
    kind: int
    answers: tuple[str, ...] = ()
    edns: bool = False


def _encode_name(name: str) -> bytes:
    labels = [label.encode() for label in name.rstrip(".").split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _decode_name(data: bytes, at: int) -> tuple[str, int]:
    labels: list[str] = []
    end = -1
    for _hop in range(128):
        length = data[at]
        if length >= 0xC0:
            if end < 0:
                end = at + 2
            at = (length & 0x3F) << 8 | data[at + 1]
        elif length == 0:
            return ".".join(labels), at + 1 if end < 0 else end
        else:
            labels.append(data[at + 1 : at + 1 + length].decode("ascii", "replace"))
            at += 1 + length
    raise DnsError("a name of too many labels or jumps")


def query(ident: int, name: str, kind: int) -> bytes:
    head = struct.pack("!6H", ident, 0x0100, 1, 0, 0, 0)
    return head + _encode_name(name) + struct.pack("!2H", kind, 1)


def response(
    asked: Message, values: Sequence[tuple[int, str]], ttl: int, rcode: int = NOERROR
) -> bytes:
    """The answer to `asked` with (type, text) records of its name."""
    head = struct.pack("!6H", asked.ident, 0x8580 | rcode, 1, len(values), 0, int(asked.edns))
    body = _encode_name(asked.name) + struct.pack("!2H", asked.kind, 1)
    for kind, text in values:
        if kind in (A, AAAA):
            data = ipaddress.ip_address(text).packed
        else:
            raw = text.encode()[:255]
            data = bytes([len(raw)]) + raw
        body += b"\xc0\x0c" + struct.pack("!2HIH", kind, 1, ttl, len(data)) + data
    if asked.edns:  # one who speaks EDNS must be answered so (RFC 6891, 7)
        body += b"\0" + struct.pack("!2HIH", 41, 1232, 0, 0)
    return head + body


def parse(data: bytes) -> Message:
    try:
        ident, flags, questions, answers, _authority, extra = struct.unpack_from("!6H", data)
        if questions != 1:
            raise DnsError(f"{questions} questions")
        name, at = _decode_name(data, 12)
        kind, _class = struct.unpack_from("!2H", data, at)
        at += 4
        texts = []
        for _ in range(answers):
            _owner, at = _decode_name(data, at)
            what, _class, _ttl, length = struct.unpack_from("!2HIH", data, at)
            value = data[at + 10 : at + 10 + length]
            at += 10 + length
            if what in (A, AAAA):
                texts.append(str(ipaddress.ip_address(value)))
            elif what == TXT:
                texts.append(value[1:].decode("ascii", "replace"))
        return Message(ident, bool(flags & 0x8000), flags & 15, name, kind, tuple(texts), extra > 0)
    except (struct.error, IndexError, ValueError) as error:
        raise DnsError(f"not a DNS message: {error}") from error
