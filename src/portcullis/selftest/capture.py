# SPDX-License-Identifier: GPL-2.0-or-later
"""Which packets of the self-test leave by which device.

One AF_PACKET socket on all devices. The self-test's packets end with a token, whatever is before
it: link layer, NAT, a tunnel's encapsulation. So a filter in the kernel that looks at a frame's
last bytes picks them out of a busy router's traffic at no cost worth the name.
"""

from __future__ import annotations

import ctypes
import secrets
import select
import socket
import struct
import time
from contextlib import suppress
from types import TracebackType

_ALL_PROTOCOLS = 0x0003
_SOL_PACKET, _STATISTICS = 263, 6
_ATTACH_FILTER = 26
_LENGTH, _SUBTRACT, _TO_INDEX, _LOAD, _EQUALS, _RETURN = 0x80, 0x14, 0x07, 0x40, 0x15, 0x06
_TOKEN = struct.Struct("!8sI")
_NONCE = b"\x0e\1"


class Capture:
    """Use inside `with`. `left` is token's number → devices that sent it out."""

    def __init__(self) -> None:
        # From its middle on a token is a well-formed nonce option of neighbour discovery (RFC
        # 3971), so that a control can be an honest question for a neighbour.
        self._run = secrets.token_bytes(4) + _NONCE + secrets.token_bytes(2)
        self._last = 0
        self.left: dict[int, set[str]] = {}

    def __enter__(self) -> Capture:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_PACKET, kind, socket.htons(_ALL_PROTOCOLS))
        _attach(self._socket, self._run, _TOKEN.size)
        with suppress(BlockingIOError):
            while True:  # what came before the filter was there
                self._socket.recv(1)
        self.lost()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    @property
    def mark(self) -> bytes:
        """What all tokens of this run have in common."""
        return self._run

    def token(self) -> tuple[int, bytes]:
        """A new token, and its number."""
        self._last += 1
        return self._last, _TOKEN.pack(self._run, self._last)

    def watch(self, seconds: float, awaited: frozenset[int] = frozenset(), most: float = 0) -> None:
        """Look for `seconds`, and up to `most` where one of `awaited` has not been seen yet."""
        began = time.monotonic()
        while True:
            passed = time.monotonic() - began
            limit = seconds if awaited <= self.left.keys() else max(seconds, most)
            if passed >= limit:
                return
            if select.select([self._socket], [], [], limit - passed)[0]:
                self._read()

    def lost(self) -> int:
        """Frames that the kernel had no room for, since the last call."""
        raw = self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 8)
        return int(struct.unpack("II", raw)[1])

    def _read(self) -> None:
        try:
            data, (device, _, kind, *_) = self._socket.recvfrom(65535)
        except OSError:  # a device has gone down: the socket goes on with the others
            return
        if kind == socket.PACKET_OUTGOING:
            self.left.setdefault(_TOKEN.unpack(data[-_TOKEN.size :])[1], set()).add(device)


def _attach(sock: socket.socket, wanted: bytes, before_end: int) -> None:
    """Let through what has `wanted`, eight octets, that far before its end (classic BPF)."""
    high, low = struct.unpack("!II", wanted)
    program = [
        (_LENGTH, 0, 0, 0),
        (_SUBTRACT, 0, 0, before_end),
        (_TO_INDEX, 0, 0, 0),
        (_LOAD, 0, 0, 0),
        (_EQUALS, 0, 3, high),
        (_LOAD, 0, 0, 4),
        (_EQUALS, 0, 1, low),
        (_RETURN, 0, 0, 0x40000),
        (_RETURN, 0, 0, 0),
    ]
    code = b"".join(struct.pack("HBBI", *step) for step in program)
    kept = ctypes.create_string_buffer(code, len(code))
    pointer = struct.pack("HP", len(program), ctypes.addressof(kept))
    sock.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, pointer)
