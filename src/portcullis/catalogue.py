# SPDX-License-Identifier: GPL-2.0-or-later
"""What the owner's profiles are like, for lists. A provider may have thousands, and to parse
them all takes the core a second: each file is read once, and again when it has changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from portcullis import profiles
from portcullis.profile import carried

_Stamp = tuple[int, int, int, int]


class Catalogue:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[_Stamp, dict[str, Any]]] = {}

    def entries(self) -> list[dict[str, Any]]:
        """One for each profile, by name; those that cannot be used say why."""
        found: dict[str, tuple[_Stamp, dict[str, Any]]] = {}
        for name in profiles.names(self._folder):
            stamp, known = self._stamp(name), self._known.get(name)
            fresh = known is not None and known[0] == stamp
            found[name] = known if known and fresh else (stamp, self._entry(name))
        self._known = found
        return [entry for _, entry in found.values()]

    def _stamp(self, name: str) -> _Stamp:
        try:
            found = os.stat(self._folder / f"{name}.conf")
        except OSError:
            return (0, 0, 0, 0)
        return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)

    def _entry(self, name: str) -> dict[str, Any]:
        try:
            profile = profiles.load(self._folder, name)
        except profiles.NoProfileError as error:
            return {"name": name, "usable": False, "problem": str(error)}
        server = next(peer.endpoint for peer in profile.peers if peer.endpoint)
        described = {"server": f"{server[0]} port {server[1]}", "note": carried(profile).sentence}
        return {"name": name, "usable": True, **described}
