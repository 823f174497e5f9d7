# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that refuse: a daemon whose nft says no, from when a file is there until it is gone."""

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


class Sabotage:
    """Starts the daemon of `appliance`; `refuse` and `allow` take a table, `inet portcullis`."""

    def __init__(self, appliance: Appliance, *refused: str) -> None:
        state = appliance.world.state
        self._refused, code = state / "refused", state / "sabotage"
        self._refused.mkdir()
        code.mkdir()
        (code / "sitecustomize.py").write_text(_REFUSAL.format(folder=str(self._refused)))
        for table in refused:
            self.refuse(table)
        paths = [str(code), appliance.environment()["PYTHONPATH"]]
        appliance.start(environment={"PYTHONPATH": os.pathsep.join(paths)})

    def refuse(self, table: str) -> None:
        self._file(table).touch()

    def allow(self, table: str) -> None:
        self._file(table).unlink()

    def _file(self, table: str) -> Path:
        return self._refused / table.replace(" ", "_")
