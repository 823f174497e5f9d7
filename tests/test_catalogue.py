# SPDX-License-Identifier: GPL-2.0-or-later
"""The list of profiles: true after every change of a file, without reading them all again."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from portcullis import profiles
from portcullis.catalogue import SHOWN, Catalogue

KEY = "QWxsIHlvdXIga2V5cyBhcmUgYmVsb25nIHRvIHVzIQ0="
TEXT = f"""[Interface]
PrivateKey = {KEY}
Address = 10.64.0.2/32
DNS = 10.64.0.1
[Peer]
PublicKey = {KEY}
AllowedIPs = 0.0.0.0/0
Endpoint = 198.51.100.101:51820
"""


class Later:
    """The loop's `after`, by hand: what is to be done, not yet done."""

    def __init__(self) -> None:
        self.todo: list[Callable[[], None]] = []
        self.longest = 0.0

    def __call__(self, _seconds: float, callback: Callable[[], None]) -> None:
        self.todo.append(callback)

    def run(self) -> int:
        """Do all of it; in how many pieces."""
        pieces = 0
        while self.todo:
            began = time.thread_time()
            self.todo.pop()()
            self.longest = max(self.longest, time.thread_time() - began)
            pieces += 1
        return pieces


@pytest.fixture
def later() -> Later:
    return Later()


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, there is time to read all of a few files at once."""
    monkeypatch.setattr("portcullis.catalogue._AT_ONCE", 60.0)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the profiles that were read."""
    seen: list[str] = []
    load = profiles.load

    def counted(folder: Path, name: str) -> profiles.Profile:
        seen.append(name)
        return load(folder, name)

    monkeypatch.setattr(profiles, "load", counted)
    return seen


def test_a_file_is_read_once(tmp_path: Path, later: Later, loads: list[str]) -> None:
    (tmp_path / "a.conf").write_text(TEXT)
    catalogue = Catalogue(tmp_path, later)
    first, second = catalogue.entries(), catalogue.entries()
    assert first == second
    assert loads == ["a"]
    assert first[0]["usable"] and first[0]["server"] == "198.51.100.101 port 51820"


def test_a_changed_file_is_read_again_and_only_it(
    tmp_path: Path, later: Later, loads: list[str]
) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.conf").write_text(TEXT)
    catalogue = Catalogue(tmp_path, later)
    catalogue.entries()
    (tmp_path / "new").write_text(TEXT.replace("51820", "51821"))
    (tmp_path / "new").rename(tmp_path / "b.conf")
    assert [entry["server"][-5:] for entry in catalogue.entries()] == ["51820", "51821"]
    assert loads == ["a", "b", "b"]


def test_a_file_that_could_not_be_opened_for_a_moment_is_read_again(
    tmp_path: Path, later: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.conf").write_text(TEXT)
    catalogue = Catalogue(tmp_path, later)
    with monkeypatch.context() as scarce:
        scarce.setattr(os, "open", Mock(side_effect=OSError(errno.EMFILE, "Too many open files")))
        assert "Too many open files" in catalogue.entries()[0]["problem"]
    assert catalogue.entries()[0]["usable"]


def test_a_profile_that_is_gone_is_gone(tmp_path: Path, later: Later) -> None:
    path = tmp_path / "a.conf"
    path.write_text("nonsense")
    catalogue = Catalogue(tmp_path, later)
    assert not catalogue.entries()[0]["usable"]
    path.unlink()
    assert catalogue.entries() == []


# Thousands


@pytest.fixture
def thousands(tmp_path: Path) -> Path:
    for number in range(3000):
        text = TEXT.replace("101:51820", f"{number % 250}:51820")
        (tmp_path / f"city-{number:04}.conf").write_text(text)
    return tmp_path


def test_the_first_rows_come_without_reading_the_rest(
    thousands: Path, later: Later, loads: list[str]
) -> None:
    found = Catalogue(thousands, later).find("")
    assert (found.matching, found.total, found.unread) == (3000, 3000, 3000 - SHOWN)
    assert [entry["name"] for entry in found.entries] == loads
    assert all(entry["server"] for entry in found.entries)


def test_a_name_is_found_before_its_file_was_read(thousands: Path, later: Later) -> None:
    (entry,) = Catalogue(thousands, later).find("CITY 2345").entries
    assert (entry["name"], entry["usable"]) == ("city-2345", True)


def test_the_rest_is_read_in_pieces_and_then_found_by_server(
    thousands: Path, later: Later, loads: list[str]
) -> None:
    catalogue = Catalogue(thousands, later)
    assert not catalogue.find("198.51.100.77 ").entries
    assert later.run() > 5
    assert later.longest < 0.05  # 8 ms, and the machine may be busy
    found = catalogue.find("198.51.100.77 ")
    assert (found.matching, found.unread) == (12, 0)
    assert sorted(loads) == sorted(set(loads))
    assert not later.todo


def test_the_whole_list_says_what_is_not_read_yet(
    thousands: Path, later: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portcullis.catalogue._AT_ONCE", 0.0)
    catalogue = Catalogue(thousands, later)
    assert "being read" in catalogue.entries()[-1]["note"]
    assert catalogue.unread == 3000
    later.run()
    assert catalogue.entries()[-1]["server"] == "198.51.100.249 port 51820"
    assert catalogue.unread == 0


def test_a_piece_that_fails_does_not_end_the_reading(
    thousands: Path, later: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = Catalogue(thousands, later)
    catalogue.find("")
    load = profiles.load
    monkeypatch.setattr(profiles, "load", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        later.run()
    monkeypatch.setattr(profiles, "load", load)
    catalogue.find("")
    later.run()
    assert catalogue.find("").unread == 0
