# SPDX-License-Identifier: GPL-2.0-or-later
"""What the boot guard is to know outlives a flash that is full for a while."""

from __future__ import annotations

from pathlib import Path

import pytest

from portcullis import boot
from portcullis.boot import Boot
from portcullis.loop import Loop
from portcullis.policy import Network, Policy

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
