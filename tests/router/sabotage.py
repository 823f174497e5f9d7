# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that refuse: a daemon whose nft says no, from when a file is there until it is gone, or
that has no tables which only their owner may change."""

from __future__ import annotations

import os
from pathlib import Path

from .appliance import Appliance

_REFUSAL = """
import os
import portcullis.nft as nft

carry_out = nft.Nftables.run

def run(self, commands):
    for name in os.listdir({folder!r}):
        if name.replace("_", " ") in commands:
            raise nft.NftError("Operation not supported")
    carry_out(self, commands)

nft.Nftables.run = run
"""
_PLAIN = """
import portcullis.nft as nft

accepts = nft.Nftables.accepts

def refuse_owners(self, commands):
    return "flags owner" not in commands and accepts(self, commands)

nft.Nftables.accepts = refuse_owners
"""


def start_plain(appliance: Appliance) -> None:
    """Start the daemon as before nft 1.1 and Linux 6.9, wherever this is: anybody with the rights
    may change its tables."""
    _start(appliance, _PLAIN)


class Sabotage:
    """Starts the daemon of `appliance`; `refuse` and `allow` take a table, `inet portcullis`."""

    def __init__(self, appliance: Appliance, *refused: str) -> None:
        self._refused = appliance.world.state / "refused"
        self._refused.mkdir()
        for table in refused:
            self.refuse(table)
        _start(appliance, _REFUSAL.format(folder=str(self._refused)))

    def refuse(self, table: str) -> None:
        self._file(table).touch()

    def allow(self, table: str) -> None:
        self._file(table).unlink()

    def _file(self, table: str) -> Path:
        return self._refused / table.replace(" ", "_")


def _start(appliance: Appliance, code: str) -> None:
    folder = appliance.world.state / "sabotage"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    paths = [str(folder), appliance.environment()["PYTHONPATH"]]
    appliance.start(environment={"PYTHONPATH": os.pathsep.join(paths)})
