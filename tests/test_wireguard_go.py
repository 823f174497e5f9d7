# SPDX-License-Identifier: GPL-2.0-or-later
"""wireguard-go's process where something goes wrong around it: none is left behind."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from router.appliance import Appliance
from router.upkeep import wireguard_go

from portcullis import wireguard
from portcullis.netlink import NetlinkError
from portcullis.wireguard import WireGuard


def test_a_process_that_cannot_be_watched_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no descriptor left it would live for ever, and hold the device against the next."""
    program, spawned, spawn = tmp_path / "wireguard-go", [], os.posix_spawn
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)

    def noted(*arguments: Any, **more: Any) -> int:
        spawned.append(spawn(*arguments, **more))
        return spawned[-1]

    monkeypatch.setattr(wireguard.shutil, "which", lambda _name: str(program))
    monkeypatch.setattr(wireguard, "_SOCKET", tmp_path / "pc0.sock")
    monkeypatch.setattr(os, "posix_spawn", noted)
    monkeypatch.setattr(os, "pidfd_open", Mock(side_effect=OSError(errno.EMFILE, "too many")))
    without_module: Any = Mock()
    without_module.link.side_effect = NetlinkError(errno.EOPNOTSUPP)
    with pytest.raises(OSError, match="too many"):
        WireGuard(Mock(), Mock())._create(without_module)
    (pid,) = spawned
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_one_that_hangs_while_its_device_is_taken_away_is_ended(appliance: Appliance) -> None:
    appliance.connect()
    (pid,) = wireguard_go(appliance)
    os.kill(pid, signal.SIGSTOP)
    appliance.world.router.ip("link del pc0\n")
    appliance.until(lambda: pid not in wireguard_go(appliance), "it is gone")
    appliance.until(lambda: appliance.state == "connected", "the next one serves")
    assert len(wireguard_go(appliance)) == 1
