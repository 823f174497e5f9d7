# SPDX-License-Identifier: GPL-2.0-or-later
"""The owner's exceptions in UCI: read with their closed meaning, written with nothing else."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest

from portcullis.bus import BusError
from portcullis.exemptions import parse, read, save
from portcullis.lanaccess import Access, Exemption
from portcullis.openwrt import ForeignChangesError

A, B = "02:00:5e:00:53:10", "02:00:5e:00:53:11"


def section(**options: Any) -> dict[str, Any]:
    return {".type": "device", **options}


def test_a_section_is_an_exception() -> None:
    found, problems = parse(
        {"d": section(mac=A.upper(), access="allowed", port="lan1", name="TV\x07")}
    )
    assert (found, problems) == ({A: Exemption(A, Access.ALLOWED, "lan1", "TV")}, ())


def test_other_sections_are_none_of_ours() -> None:
    assert parse({"main": {".type": "portcullis", "mac": A}}) == ({}, ())


def test_a_section_without_an_address_is_named_and_ignored() -> None:
    found, (problem,) = parse({"d": section(access="denied")})
    assert (found, "portcullis.'d'.mac" in problem) == ({}, True)


@pytest.mark.parametrize("access", ["maybe", "", ["allowed"], 1])
def test_an_access_that_makes_no_sense_is_a_denial(access: Any) -> None:
    found, (problem,) = parse({"d": section(mac=A, access=access)})
    assert (found[A].access, "denied holds" in problem) == (Access.DENIED, True)


def test_a_missing_access_is_the_default() -> None:
    assert parse({"d": section(mac=A, name="TV")})[0][A].access is Access.DEFAULT


@pytest.mark.parametrize("order", [("allowed", "denied"), ("denied", "allowed")])
def test_of_two_sections_for_one_device_the_denial_wins(order: tuple[str, str]) -> None:
    found, problems = parse({str(n): section(mac=A, access=a) for n, a in enumerate(order)})
    assert (found[A].access, len(problems)) == (Access.DENIED, 1)


@pytest.mark.parametrize("port", ['x"; flush ruleset', "a" * 16, "two words", "\x00"])
def test_a_port_that_is_no_devices_name_is_not_known(port: str) -> None:
    assert parse({"d": section(mac=A, access="allowed", port=port)})[0][A].port == ""


def test_thousands_of_sections_are_bounded() -> None:
    many = {f"d{n}": section(mac=f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}") for n in range(5000)}
    found, (problem,) = parse(many)
    assert (len(found), "1000 of 5000" in problem) == (1000, True)


class Uci:
    """rpcd's `uci` as far as it is used here."""

    def __init__(self, sections: dict[str, Any], fails_at: str = "") -> None:
        self.sections, self.fails_at = sections, fails_at
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.changes: list[Any] = []

    def call(self, name: str, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        assert name == "uci"
        if method == self.fails_at:
            raise BusError("refused", "Permission denied")
        if method == "get":
            return {"values": self.sections}
        if method == "changes":
            return {"changes": self.changes}
        self.told.append((method, {k: v for k, v in arguments.items() if k != "config"}))
        return {}


def test_a_new_exception_is_one_section_and_a_commit() -> None:
    uci = Uci({})
    save(uci, Exemption(A, Access.ALLOWED, "lan1"))  # type: ignore[arg-type]
    values = {"mac": A, "access": "allowed", "port": "lan1"}
    assert uci.told == [
        ("add", {"type": "device", "name": "device_02005e005310", "values": values}),
        ("commit", {}),
    ]


def test_a_changed_exception_replaces_every_section_of_its_device() -> None:
    uci = Uci({"x": section(mac=A.upper()), "y": section(mac=A), "z": section(mac=B)})
    save(uci, Exemption(A, Access.DENIED, "", "TV"))  # type: ignore[arg-type]
    assert [told for told in uci.told if told[0] == "delete"] == [
        ("delete", {"section": "x"}),
        ("delete", {"section": "y"}),
    ]
    assert ("add" in dict(uci.told)) is True


def test_an_exception_that_never_was_is_not_written() -> None:
    uci = Uci({})
    save(uci, Exemption(A, Access.DEFAULT))  # type: ignore[arg-type]
    assert uci.told == []


def test_a_name_survives_the_end_of_an_exception() -> None:
    uci = Uci({"x": section(mac=A, access="denied", name="TV")})
    save(uci, Exemption(A, Access.DEFAULT, "", "TV"))  # type: ignore[arg-type]
    assert dict(uci.told)["add"]["values"] == {"mac": A, "access": "default", "name": "TV"}


def test_foreign_staged_changes_are_never_committed() -> None:
    uci = Uci({})
    uci.changes = [["set", "main", "mode", "standard"]]
    with pytest.raises(ForeignChangesError):
        save(uci, Exemption(A, Access.DENIED))  # type: ignore[arg-type]
    assert uci.told == []


def test_a_refused_commit_leaves_nothing_staged() -> None:
    uci = Uci({}, fails_at="commit")
    with pytest.raises(BusError):
        save(uci, Exemption(A, Access.DENIED))  # type: ignore[arg-type]
    assert uci.told[-1] == ("revert", {})


def test_no_configuration_holds_no_exceptions() -> None:
    class Missing(Uci):
        def call(self, name: str, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
            raise BusError("gone", "Not found")

    assert read(Missing({})) == ({}, ())  # type: ignore[arg-type]


def test_a_silent_rpcd_is_no_configuration_without_exceptions() -> None:
    with pytest.raises(BusError):
        read(Uci({}, fails_at="get"))  # type: ignore[arg-type]


def test_a_configuration_that_cannot_be_read_is_none_without_exceptions() -> None:
    """rpcd out of memory or descriptors, or a file that makes no sense."""
    bus: Any = Mock()
    bus.call.side_effect = BusError("out of memory", "Unknown error")
    with pytest.raises(BusError):
        read(bus)
