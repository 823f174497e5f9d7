# SPDX-License-Identifier: GPL-2.0-or-later
"""A translation as LuCI reads it: `lmo.py FILE.po` prints what LuCI's po2lmo would write.

Big-endian: the translations, each padded to four bytes; an index sorted by the key's hash, of
hash, number of forms, offset and length; the offset of the index. Here without plurals and
contexts, which our views do not use.
"""

from __future__ import annotations

import re
import struct
import sys
from pathlib import Path

_MASK = 0xFFFFFFFF


class Error(Exception):
    """What is wrong with a translation, in words for who wrote it."""


def compile_po(text: str) -> bytes:
    if found := re.search(r"^(msgctxt|msgid_plural)\b", text, re.MULTILINE):
        raise Error(f"{found[1]} is not known here: LuCI's own po2lmo can do it")
    values, index = b"", []
    for source, translation in _messages(text):
        if source:
            key, forms, value = _hash(source), 1, translation
        else:  # the header, of which LuCI reads one field, under the key 0
            field = re.search(rb"Plural-Forms: (.*?)\\n", translation, re.IGNORECASE)
            key, forms, value = 0, 0, field[1] if field else b""
        if value and key != _hash(value):
            index.append((key, forms, len(values), len(value)))
            values += value + bytes(-len(value) % 4)
    table = b"".join(struct.pack(">4I", *entry) for entry in sorted(index))
    return values + table + struct.pack(">I", len(values))


def _messages(text: str) -> list[tuple[bytes, bytes]]:
    """Pairs of what is said in English and in the other language."""
    strings = r'((?:\s*"(?:[^"\\]|\\.)*"\s*?)+)'
    pairs = re.findall(rf"^msgid{strings}\nmsgstr{strings}", text, re.MULTILINE)
    return [(_joined(source), _joined(translation)) for source, translation in pairs]


def _joined(strings: str) -> bytes:
    # Quotes and backslashes lose their backslash; \n and the like stay as they are written.
    parts = re.findall(r'"((?:[^"\\]|\\.)*)"', strings)
    return re.sub(r'\\(["\\])', r"\1", "".join(parts)).encode()


def _hash(data: bytes) -> int:
    """Paul Hsieh's SuperFastHash, begun with the length."""
    value = len(data)
    whole = len(data) // 4 * 4
    for low, high in struct.iter_unpack("<2H", data[:whole]):
        value = (value + low) & _MASK
        value = ((value << 16) ^ (high << 11) ^ value) & _MASK
        value = (value + (value >> 11)) & _MASK
    rest = data[whole:]
    if len(rest) >= 2:
        value = (value + struct.unpack("<H", rest[:2])[0]) & _MASK
    if len(rest) == 3:
        value ^= (value << 16) & _MASK
        value ^= (struct.unpack("b", rest[2:])[0] << 18) & _MASK
        value = (value + (value >> 11)) & _MASK
    elif len(rest) == 2:
        value ^= (value << 11) & _MASK
        value = (value + (value >> 17)) & _MASK
    elif len(rest) == 1:
        value = (value + struct.unpack("b", rest)[0]) & _MASK
        value ^= (value << 10) & _MASK
        value = (value + (value >> 1)) & _MASK
    for left, right in ((3, 5), (4, 17), (25, 6)):
        value ^= (value << left) & _MASK
        value = (value + (value >> right)) & _MASK
    return value


def main() -> int:
    try:
        compiled = compile_po(Path(sys.argv[1]).read_text())
    except Error as error:
        print(f"{sys.argv[1]}: {error}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(compiled)
    return 0


if __name__ == "__main__":
    sys.exit(main())
