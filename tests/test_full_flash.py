# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings and sections are saved whole or not at all, though uci does not look at how much could
be written (K7)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from router.standin import bus as standin

from portcullis import openwrt
from portcullis.bus import Bus, BusError

NETWORK = "config interface 'lan'\n\toption proto 'static'\n"
WISH = [("add", {"type": "route", "name": "more", "values": {"target": "192.0.2.0/24"}})]


class Rpcd(Bus):
    def __init__(self, directory: Path) -> None:
        self.real = standin.Bus(directory)
        self.real.start()

    def call(self, name: str, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return next(iter(self.real.call(name, method, arguments)), {})


@pytest.fixture
def rpcd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rpcd]:
    """One whose /etc/config has 96 kB, and a network in it."""
    flash = tmp_path / "config"
    flash.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(flash)], check=True)
    monkeypatch.setattr(openwrt, "CONFIGS", flash)
    (flash / "network").write_text(NETWORK)
    found = Rpcd(tmp_path)
    try:
        yield found
    finally:
        found.real.stop()
        subprocess.run(["umount", str(flash)], check=True)


def test_on_a_full_flash_the_configuration_stays_whole_until_there_is_room(rpcd: Rpcd) -> None:
    network, rest = openwrt.CONFIGS / "network", openwrt.CONFIGS / "rest"
    with rest.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    with pytest.raises(BusError, match="the flash is full"):
        openwrt.save(rpcd, "network", WISH)
    assert network.read_text() == NETWORK
    rest.unlink()
    openwrt.save(rpcd, "network", WISH)
    assert "192.0.2.0/24" in network.read_text()


def test_where_nothing_can_be_written_nothing_is_left_staged(rpcd: Rpcd) -> None:
    """It would be taken for somebody else's from then on, and nothing be saved any more."""
    subprocess.run(["mount", "-o", "remount,ro", str(openwrt.CONFIGS)], check=True)
    with pytest.raises(BusError, match="read-only"):
        openwrt.save(rpcd, "network", WISH)
    assert not rpcd.call("uci", "changes", {"config": "network"}).get("changes")
