# SPDX-License-Identifier: GPL-2.0-or-later
"""What the boot guard is to know outlives a flash that is full for a while."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from portcullis import boot, networks
from portcullis import core as module
from portcullis.boot import Boot
from portcullis.core import Core
from portcullis.loop import Loop
from portcullis.networks import Surroundings
from portcullis.paths import Paths
from portcullis.policy import Network, Policy
from portcullis.uplink import Uplink

LAN = Network("lan", "br-lan", ("192.168.1.0/24",))


def fail(error: Exception) -> None:
    raise error


def test_what_could_not_be_written_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot, "_AGAIN_AFTER", 0.02)
    file, loop = tmp_path / "boot.nft", Loop(fail)
    obstacle = tmp_path / ".boot.nft.new"  # the temporary file cannot be made
    obstacle.mkdir()
    Boot(loop, file, tmp_path / "boot-lan.nft").prepare(Policy(networks=(LAN,)), lan_known=False)
    assert not file.exists()
    obstacle.rmdir()
    loop.after(0.1, loop.stop)
    loop.run()
    assert '"br-lan"' in file.read_text()


def test_the_networks_too_are_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The core's own, for a start while netifd does not answer (K14)."""
    monkeypatch.setattr(boot, "_AGAIN_AFTER", 0.02)
    monkeypatch.setattr(module.uplink, "read", lambda _protected: Uplink())
    paths = Paths(tmp_path / "home", tmp_path / "run", tmp_path / "share")
    obstacle = paths.home / ".networks.new"
    obstacle.mkdir(parents=True)
    loop = Loop(fail)
    nobody: Any = Mock(up=False)
    core: Any = Core(loop, nobody, Mock(), paths, Mock(), Mock())
    found = Surroundings((LAN,))
    monkeypatch.setattr(module.openwrt, "read_surroundings", lambda *_: found)
    for part in ("enforce", "kernel_changed", "_integration"):
        monkeypatch.setattr(core, part, Mock())
    core._read_surroundings()
    core._read_surroundings()  # once more, and the same
    obstacle.rmdir()
    loop.after(0.1, loop.stop)
    loop.run()
    assert networks.load(paths.networks.read_text()) == (LAN,)
