# SPDX-License-Identifier: GPL-2.0-or-later
"""At home on OpenWrt: sections in UCI are healed, netifd knows the tunnel, scripts are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from router.appliance import Appliance


def sections(appliance: Appliance, config: str) -> dict[str, Any]:
    (answer,) = appliance.bus.call("uci", "get", {"config": config})
    found: dict[str, Any] = answer["values"]
    return found


def delete(appliance: Appliance, config: str, section: str) -> None:
    commit_without(appliance, config, section)
    appliance.call("reload")


def commit_without(appliance: Appliance, config: str, section: str) -> None:
    appliance.bus.call("uci", "delete", {"config": config, "section": section})
    appliance.bus.call("uci", "commit", {"config": config})


@pytest.mark.parametrize(
    ("config", "section"),
    [
        ("network", "portcullis"),
        ("network", "portcullis_tunnel"),
        ("network", "portcullis_block"),
        ("firewall", "portcullis"),
        ("firewall", "portcullis_guest"),
    ],
)
def test_a_deleted_section_is_put_back(appliance: Appliance, config: str, section: str) -> None:
    before = sections(appliance, config)
    delete(appliance, config, section)
    appliance.until(lambda: section in sections(appliance, config), "it is put back")
    was, found = before[section], sections(appliance, config)[section]
    assert {k: v for k, v in found.items() if k != ".index"} == {
        k: v for k, v in was.items() if k != ".index"
    }


def test_what_somebody_else_has_staged_is_never_committed(appliance: Appliance) -> None:
    commit_without(appliance, "firewall", "portcullis")
    staged = {"config": "firewall", "section": "lan", "values": {"input": "DROP"}}
    appliance.bus.call("uci", "set", staged)
    appliance.call("reload")
    appliance.until(
        lambda: any("somebody else" in fault for fault in appliance.status()["faults"]),
        "it is told",
    )
    on_flash = (appliance.bus.config_dir / "firewall").read_text()
    assert "DROP" not in on_flash.split("config zone 'lan'")[1].split("config")[0]
    appliance.bus.call("uci", "revert", {"config": "firewall"})
    appliance.until(lambda: "portcullis" in sections(appliance, "firewall"), "then it is put back")
    appliance.until(lambda: appliance.status()["faults"] == [], "and all is well")


def test_a_zone_that_begins_to_forward_is_let_into_the_tunnel(appliance: Appliance) -> None:
    delete(appliance, "firewall", "portcullis_guest")
    appliance.until(lambda: "portcullis_guest" in sections(appliance, "firewall"), "guest is in")


def test_netifd_knows_the_tunnels_device(appliance: Appliance) -> None:
    appliance.connect()

    def device() -> str:
        (found,) = appliance.bus.call("network.interface.portcullis", "status", {})
        return str(found.get("l3_device", ""))

    appliance.until(lambda: device() == "pc0", "it is attached")
    appliance.disconnect()
    appliance.until(lambda: device() == "", "it is gone with the tunnel")
    appliance.connect()
    appliance.until(lambda: device() == "pc0", "the new one is attached")


def test_scripts_are_called_at_every_transition_in_order(appliance: Appliance) -> None:
    told = appliance.world.state / "told"
    script = f'#!/bin/sh\nprintf "%s %s %s\\n" "$1" "$OLD_STATE" "$STATE" >> {told}\n'
    appliance.hotplug.write_text(script)
    appliance.hotplug.chmod(0o755)
    appliance.connect()
    appliance.disconnect()
    expected = [
        "portcullis not_connected connecting",
        "portcullis connecting connected",
        "portcullis connected disconnecting",
        "portcullis disconnecting not_connected",
    ]
    appliance.until(lambda: told.exists() and told.read_text().split("\n")[3:4] != [""], "called")
    appliance.until(lambda: told.read_text().splitlines() == expected, "in order")


def test_transitions_are_remembered_newest_first(appliance: Appliance) -> None:
    appliance.connect()
    events = appliance.call("events")["events"]
    assert [event["state"] for event in events] == ["connected", "connecting"]
    assert events[1] | {"time": 0} == {
        "time": 0,
        "state": "connecting",
        "old_state": "not_connected",
        "reason": "the owner connected",
        "kill_switch_active": True,
    }


def test_the_boot_guard_is_told_of_the_house(appliance: Appliance) -> None:
    boot: Path = appliance.home / "boot.nft"
    appliance.until(boot.exists, "it is written")
    text = boot.read_text()
    assert 'protected { "br-guest", "br-lan" }' in text
    assert "gate" not in text
    appliance.connect()
    assert boot.read_text() == text


# Profiles


def profile(appliance: Appliance) -> str:
    return appliance.world.vpn1.profile()


def names(appliance: Appliance) -> list[str]:
    return [p["name"] for p in appliance.call("profiles")["profiles"]]


def test_a_profile_is_imported_as_it_came(appliance: Appliance) -> None:
    text = profile(appliance)
    assert appliance.call("import_profile", name="sweden", text=text) == {"ok": True}
    kept = appliance.home / "profiles/sweden.conf"
    assert (kept.read_text(), kept.stat().st_mode & 0o777) == (text, 0o600)


def test_a_bad_profile_is_refused_with_every_problem(appliance: Appliance) -> None:
    text = profile(appliance).replace("[Peer]", "PostUp = reboot\n[Peer]\nNonsense = 1")
    answer = appliance.call("import_profile", name="sweden", text=text)
    assert (answer["ok"], answer["code"]) == (False, "bad_profile")
    assert [p["key"] for p in answer["problems"]] == ["PostUp", "Nonsense"]
    assert all(p["line"] > 0 and p["reason"] for p in answer["problems"])
    assert "sweden" not in names(appliance)


@pytest.mark.parametrize("name", ["", "../x", "vpn1", "a b", "ä"])
def test_a_name_that_cannot_be_is_refused(appliance: Appliance, name: str) -> None:
    answer = appliance.call("import_profile", name=name, text=profile(appliance))
    assert (answer["ok"], answer["code"]) == (False, "bad_profile")
    assert names(appliance) == ["vpn1", "vpn2"]


def test_a_renamed_profile_stays_connected_chosen_and_a_fallback(appliance: Appliance) -> None:
    appliance.call("set", name="profiles", value="vpn2 vpn1")
    appliance.connect("vpn1")
    answer = appliance.call("rename_profile", name="vpn1", new_name="sweden")
    assert answer == {"ok": True, "warning": ""}
    status = appliance.status()
    assert (status["state"], status["profile"]) == ("connected", "sweden")
    assert appliance.call("get")["profiles"] == ["vpn2", "sweden"]
    assert (appliance.home / "intent").read_text() == "connected\nsweden\n"


def test_a_profile_in_use_is_not_deleted(appliance: Appliance) -> None:
    appliance.connect("vpn1")
    answer = appliance.call("delete_profile", name="vpn1")
    assert (answer["ok"], "in use" in answer["reason"]) == (False, True)
    assert names(appliance) == ["vpn1", "vpn2"]


def test_a_deleted_profile_is_no_fallback_any_more(appliance: Appliance) -> None:
    appliance.call("set", name="profiles", value="vpn2 vpn1")
    assert appliance.call("delete_profile", name="vpn2") == {"ok": True}
    assert (names(appliance), appliance.call("get")["profiles"]) == (["vpn1"], ["vpn1"])


@pytest.mark.parametrize("method", ["delete_profile", "rename_profile"])
def test_what_is_not_there_can_be_neither_renamed_nor_deleted(
    appliance: Appliance, method: str
) -> None:
    more = {"new_name": "x"} if method == "rename_profile" else {}
    answer = appliance.call(method, name="../../intent", **more)
    assert (answer["ok"], answer["code"]) == (False, "bad_profile")


def test_the_owner_corrects_which_networks_are_protected(appliance: Appliance) -> None:
    def protected() -> list[str]:
        return [n["name"] for n in appliance.status()["networks"]]

    assert appliance.call("set", name="internet_networks", value="guest")["ok"]
    assert protected() == ["lan"]
    assert appliance.call("set", name="internet_networks", value="")["ok"]
    assert protected() == ["lan", "guest"]
    appliance.call("set", name="protected_networks", value="wan")
    assert protected() == ["lan", "guest"]
    assert any("wan" in fault for fault in appliance.status()["faults"])
