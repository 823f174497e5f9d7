# SPDX-License-Identifier: GPL-2.0-or-later
"""What the owner's profiles are like, for lists. A provider may have thousands, and to read them
all takes the core a second or more, in which it would do nothing else: so names come first, what
is asked for is read at once, and the rest in small pieces while nobody waits. Each file is read
once, and again when it has changed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from portcullis import profiles
from portcullis.profile import carried

SHOWN = 60
_AT_ONCE, _PIECE, _REST = 0.015, 0.008, 0.016  # seconds
_UNREAD = {"usable": True, "server": "", "note": "It is being read: look again in a moment."}

_Stamp = tuple[int, int, int, int]
_NONE: _Stamp = (0, 0, 0, 0)
Entry = dict[str, Any]


class Found(NamedTuple):
    """The first of those that match, how many do, of how many; `unread` are known by their names
    alone so far."""

    entries: list[Entry]
    matching: int
    total: int
    unread: int


class Catalogue:
    """`after` is the loop's: what is to be done after so many seconds."""

    def __init__(self, folder: Path, after: Callable[[float, Callable[[], None]], object]) -> None:
        self._folder, self._after = folder, after
        self._known: dict[str, tuple[_Stamp, Entry, str]] = {}
        self._pending: list[str] = []
        self._reading = False

    @property
    def unread(self) -> int:
        return len(self._pending)

    def entries(self) -> list[Entry]:
        """One for each profile, by name; those that cannot be used say why."""
        names = self._names()
        until = time.monotonic() + _AT_ONCE
        found = []
        for name in names:
            if name in self._known or time.monotonic() < until:
                found.append(self._entry(name))
            else:
                found.append({"name": name, **_UNREAD})
        self._read_on(names)
        return found

    def find(self, search: str) -> Found:
        """Those that have each word of `search` in their name, or in their server's."""
        names, words = self._names(), search.lower().split()
        matching = [name for name in names if all(word in self._text(name) for word in words)]
        entries = [self._entry(name) for name in matching[:SHOWN]]
        self._read_on(names)
        return Found(entries, len(matching), len(names), self.unread)

    def _names(self) -> tuple[str, ...]:
        names = profiles.names(self._folder)
        if len(self._known) > len(names):
            there = set(names)
            self._known = {name: known for name, known in self._known.items() if name in there}
        return names

    def _text(self, name: str) -> str:
        known = self._known.get(name)
        return known[2] if known else name.lower()

    def _entry(self, name: str) -> Entry:
        stamp, known = self._stamp(name), self._known.get(name)
        if known and known[0] == stamp:
            return known[1]
        try:
            entry = self._read(name)
        except profiles.NoProfileError as error:
            entry = {"name": name, "usable": False, "problem": str(error)}
            stamp = _NONE if error.passing else stamp
        self._known[name] = stamp, entry, f"{name} {entry.get('server', '')}".lower()
        return entry

    # The rest, while nobody waits.

    def _read_on(self, names: tuple[str, ...]) -> None:
        self._pending = [name for name in reversed(names) if name not in self._known]
        self._read_later()

    def _read_later(self) -> None:
        if self._pending and not self._reading:
            self._reading = True
            self._after(_REST, self._read_piece)

    def _read_piece(self) -> None:
        self._reading = False
        until = time.monotonic() + _PIECE
        while self._pending and time.monotonic() < until:
            self._entry(self._pending.pop())
        self._read_later()

    # One file.

    def _stamp(self, name: str) -> _Stamp:
        try:
            found = os.stat(self._folder / f"{name}.conf")
        except OSError:
            return _NONE
        return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)

    def _read(self, name: str) -> Entry:
        profile = profiles.load(self._folder, name)
        server = next(peer.endpoint for peer in profile.peers if peer.endpoint)
        described = {"server": f"{server[0]} port {server[1]}", "note": carried(profile).sentence}
        return {"name": name, "usable": True, **described}
