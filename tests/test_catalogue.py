# SPDX-License-Identifier: GPL-2.0-or-later
"""The list of profiles: true after every change of a file, without reading them all again."""

from __future__ import annotations

from pathlib import Path

import pytest

from portcullis import profiles
from portcullis.catalogue import Catalogue

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


def test_a_file_is_read_once(tmp_path: Path, loads: list[str]) -> None:
    (tmp_path / "a.conf").write_text(TEXT)
    catalogue = Catalogue(tmp_path)
    first, second = catalogue.entries(), catalogue.entries()
    assert first == second
    assert loads == ["a"]
    assert first[0]["usable"] and first[0]["server"] == "198.51.100.101 port 51820"


def test_a_changed_file_is_read_again_and_only_it(tmp_path: Path, loads: list[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.conf").write_text(TEXT)
    catalogue = Catalogue(tmp_path)
    catalogue.entries()
    (tmp_path / "new").write_text(TEXT.replace("51820", "51821"))
    (tmp_path / "new").rename(tmp_path / "b.conf")
    assert [entry["server"][-5:] for entry in catalogue.entries()] == ["51820", "51821"]
    assert loads == ["a", "b", "b"]


def test_a_profile_that_is_gone_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    path.write_text("nonsense")
    catalogue = Catalogue(tmp_path)
    assert not catalogue.entries()[0]["usable"]
    path.unlink()
    assert catalogue.entries() == []
