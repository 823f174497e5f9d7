# SPDX-License-Identifier: GPL-2.0-or-later
"""rpcd that begins to hang while something of ours is being saved: what it has staged by then is
taken back and saved later, and what others have staged stays theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from portcullis import openwrt
from portcullis.bus import BusError
from portcullis.exemptions import save as save_exception
from portcullis.faults import Faults
from portcullis.integration import Integration
from portcullis.lanaccess import Access, Exemption
from portcullis.loop import Loop
from portcullis.openwrt import ForeignChangesError, save_setting
from portcullis.settings import DEFAULT

MAC = "02:00:5e:00:53:10"
WANTED = DEFAULT._replace(lan_access=False)


class Rpcd:
    """Stages and commits as rpcd does, which shows what is staged as if it were in force. From
    `hangs_at` on it answers nobody, though it has carried that call out."""

    up = True

    def __init__(self, sections: dict[str, dict[str, Any]], hangs_at: str = "") -> None:
        self.flash, self.hangs_at = sections, hangs_at
        self.staged: list[tuple[str, dict[str, Any]]] = []
        self.hangs = False

    def call(self, _name: str, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if self.hangs:
            raise BusError("timed out; not waited for again yet")
        answer: dict[str, Any] = {}
        if method == "get":
            values = self._with(self.staged)
            answer = {"values": values}
        elif method == "changes":
            answer = {"changes": [one for change in self.staged for one in _told(*change)]}
        elif method == "revert":
            self.staged = []
        elif method == "commit":
            self.flash, self.staged = self._with(self.staged), []
        else:
            self.staged.append((method, arguments))
        if method == self.hangs_at:
            self.hangs = True
            raise BusError("timed out")
        return answer

    def recovers(self) -> None:
        self.hangs, self.hangs_at = False, ""

    def _with(self, changes: list[tuple[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = json.loads(json.dumps(self.flash))
        for method, arguments in changes:
            if method == "delete":
                del found[arguments["section"]]
            elif method == "add":
                found[arguments["name"]] = {".type": arguments["type"], **arguments["values"]}
            else:
                found[arguments["section"]] |= arguments["values"]
        return found


def _told(method: str, arguments: dict[str, Any]) -> list[list[str]]:
    """As the real one tells it."""
    if method == "delete":
        return [["remove", arguments["section"]]]
    section = arguments.get("section") or arguments["name"]
    created = [["set", section, arguments["type"]]] if method == "add" else []
    return created + [["set", section, *option] for option in arguments["values"].items()]


@pytest.fixture
def main() -> dict[str, dict[str, Any]]:
    return {"main": {".type": "portcullis", "mode": "standard"}}


def as_bus(rpcd: Any) -> Any:
    """As the type that it stands in for."""
    return rpcd


def test_a_setting_is_saved_once_rpcd_is_back(main: dict[str, dict[str, Any]]) -> None:
    rpcd = Rpcd(main, "set")
    with pytest.raises(BusError):
        save_setting(as_bus(rpcd), WANTED, "lan_access")
    with pytest.raises(BusError):  # still nobody
        save_setting(as_bus(rpcd), WANTED, "lan_access")
    rpcd.recovers()
    save_setting(as_bus(rpcd), WANTED, "lan_access")
    assert (rpcd.flash["main"]["lan_access"], rpcd.staged) == ("0", [])


def test_an_exception_is_saved_once_rpcd_is_back(main: dict[str, dict[str, Any]]) -> None:
    rpcd = Rpcd(main, "add")
    with pytest.raises(BusError):
        save_exception(as_bus(rpcd), Exemption(MAC, Access.DENIED))
    rpcd.recovers()
    save_exception(as_bus(rpcd), Exemption(MAC, Access.DENIED))
    assert (rpcd.flash["device_02005e005310"]["access"], rpcd.staged) == ("denied", [])


OTHERS = {
    "another section": ("add", {"type": "device", "name": "tv", "values": {"mac": MAC}}),
    "another option": ("set", {"section": "main", "values": {"dns": "192.0.2.1"}}),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_others_have_staged_since_stays_theirs(
    main: dict[str, dict[str, Any]], kind: str
) -> None:
    rpcd = Rpcd(main, "set")
    with pytest.raises(BusError):
        save_setting(as_bus(rpcd), WANTED, "lan_access")
    rpcd.recovers()
    rpcd.staged.append(OTHERS[kind])
    for _ in range(2):
        with pytest.raises(ForeignChangesError):
            save_setting(as_bus(rpcd), WANTED, "lan_access")
    assert OTHERS[kind] in rpcd.staged


def test_sections_that_were_only_staged_are_not_taken_for_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for config in ("network", "firewall"):
        (tmp_path / f"{config}.uci").write_text(f"{config}.portcullis=interface\n")
    monkeypatch.setattr(openwrt, "_look_for_room", lambda config: None)
    rpcd, faults = Rpcd({"lan": {".type": "interface"}}, "add"), Faults()
    loop = Loop(lambda error: pytest.fail(repr(error)))
    integration = Integration(loop, as_bus(rpcd), faults, tmp_path)
    integration._heal()
    assert "integration" in faults
    rpcd.recovers()
    integration._heal()
    assert (not faults, "portcullis" in rpcd.flash, rpcd.staged) == (True, True, [])
