# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast passwords may be guessed: who was wrong waits longer each time, and all who are
wrong together wait too, so that many addresses help nobody (IPv6 gives a device plenty)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

V = TypeVar("V")

_FREE = 3  # wrong ones without a wait: people mistype
_LONGEST = 60.0
_FORGET = 900.0
_ADDRESSES_MAX = 256
_STRANGE_BURST, _STRANGE_RATE = 30, 3.0  # 30 at once, then 3 in a second
_BURST, _EACH = 15, 4.0  # wrong ones from anywhere: 15 at once, then one in 4 s


class Backoff:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._wrong: dict[str, tuple[int, float]] = {}
        self._trusted: dict[str, None] = {}
        self._spent, self._spent_at = 0.0, 0.0

    def attempt(self, address: str) -> float:
        """0 if this address may try a password now, or the seconds it has to wait.

        A try counts as wrong until it `succeeded`: many at the same time gain nothing.
        """
        with self._lock:
            now = self._clock()
            count, last = self._wrong.get(address, (0, 0.0))
            if now - last >= _FORGET:
                count = 0
            wait = last + self._pause(count) - now if count else 0.0
            if address not in self._trusted:
                wait = max(wait, (self._level(now) - _BURST + 1) * _EACH)
            if wait > 0:
                return wait
            self._spent, self._spent_at = self._level(now) + 1, now
            self._wrong.pop(address, None)
            _push(self._wrong, address, (count + 1, now))
            return 0.0

    def succeeded(self, address: str) -> None:
        """The password was right: from there a person who knows it may mistype in future,
        however many others guess."""
        with self._lock:
            self._wrong.pop(address, None)
            self._spent = max(0.0, self._spent - 1)
            self._trusted.pop(address, None)
            _push(self._trusted, address, None)

    def _level(self, now: float) -> float:
        return max(0.0, self._spent - (now - self._spent_at) / _EACH)

    @staticmethod
    def _pause(count: int) -> float:
        return min(_LONGEST, 2.0 ** (count - _FREE)) if count >= _FREE else 0.0


class Allowance:
    """How often an address may come with a session that is none: each time costs the core a
    question to rpcd."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._spent: dict[str, tuple[float, float]] = {}

    def spend(self, address: str) -> None:
        with self._lock:
            level = self._level(address) + 1
            self._spent.pop(address, None)
            _push(self._spent, address, (level, self._clock()))

    def used_up(self, address: str) -> bool:
        with self._lock:
            return self._level(address) >= _STRANGE_BURST

    def _level(self, address: str) -> float:
        level, when = self._spent.get(address, (0.0, 0.0))
        return max(0.0, level - (self._clock() - when) * _STRANGE_RATE)


def _push(kept: dict[str, V], address: str, value: V) -> None:
    while len(kept) >= _ADDRESSES_MAX:
        del kept[next(iter(kept))]
    kept[address] = value
