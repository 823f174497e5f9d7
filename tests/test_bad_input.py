# SPDX-License-Identifier: GPL-2.0-or-later
"""Broken input and missing parts: a specific error, the block closed, the daemon alive, and well
again when the cause has gone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from router.appliance import Appliance
from router.leaktest import every_probe, leaks, proven
from router.measurement import measure
from router.standin.bus import CallFailed

BROKEN_CONFIGS = {
    "missing": None,
    "empty": "",
    "binary": "\x00\x01\x02\udcff",
    "syntax": "config portcullis 'main'\n\toption mode 'standard\n",
    "other section": "config something 'main'\n\toption mode 'standard'\n",
}


@pytest.fixture
def idle() -> Iterator[Appliance]:
    """A router on which the daemon does not run yet."""
    with Appliance() as found:
        yield found


@pytest.mark.parametrize("kind", BROKEN_CONFIGS)
def test_a_broken_configuration_closes_and_says_so(idle: Appliance, kind: str) -> None:
    config, text = idle.bus.config_dir / "portcullis", BROKEN_CONFIGS[kind]
    good = config.read_text()
    probes = every_probe(idle)
    assert not measure(idle.world, probes).unseen(), "no positive control"
    if text is None:
        config.unlink()
    else:
        config.write_bytes(text.encode(errors="surrogateescape"))
    idle.start()
    leaks(idle, probes)
    status = idle.status()
    assert status["kill_switch"]["mode"] == "at_all_times"
    assert not status["lan_access"]
    assert any("/etc/config/portcullis" in fault for fault in status["faults"]), status["faults"]
    config.write_text(good)
    if kind == "missing":  # where nobody says that the file is there again
        idle.until(lambda: not idle.status()["faults"], "it is read again", patience=10)
    else:
        assert idle.call("reload") == {"ok": True, "faults": []}
    assert measure(idle.world, probes).on_wan


def test_an_invalid_option_is_named_and_closed(idle: Appliance) -> None:
    text = (
        "config portcullis 'main'\n\toption mode 'sometimes'\n\toption lan_access 'perhaps'\n"
        "\toption enabled '0'\n\toption kill_switch '0'\n\tlist dns 'not-an-address'\n"
    )
    (idle.bus.config_dir / "portcullis").write_text(text)
    idle.start()
    status = idle.status()
    assert status["kill_switch"]["mode"] == "at_all_times"
    assert status["kill_switch"]["active"]
    assert not status["lan_access"]
    (fault,) = status["faults"]
    for named in ("mode", "'sometimes'", "lan_access", "'perhaps'", "enabled", "kill_switch"):
        assert named in fault
    assert "'not-an-address' is" in fault or "not-an-address is not an IP address" in fault


def test_an_unknown_profile_is_refused_and_nothing_changes(appliance: Appliance) -> None:
    answer = appliance.call("connect", profile="sweden")
    assert (answer["ok"], answer["code"]) == (False, "bad_profile")
    assert "sweden" in answer["reason"]
    assert "vpn1, vpn2" in answer["reason"]
    assert appliance.state == "not_connected"


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "", ".hidden", "x" * 300, "a\nb"])
def test_a_profile_name_is_never_a_path(appliance: Appliance, name: str) -> None:
    answer = appliance.call("connect", profile=name)
    if name:
        assert answer["code"] == "bad_profile"
        assert appliance.state == "not_connected"


def test_a_profile_with_commands_is_refused_by_line(appliance: Appliance) -> None:
    text = appliance.world.vpn1.profile().replace("DNS", "PostUp = touch /tmp/owned\nDNS")
    appliance.add_profile("hooked", text)
    answer = appliance.call("connect", profile="hooked")
    assert not answer["ok"]
    assert "line 4: PostUp" in answer["reason"]
    (entry,) = [p for p in appliance.call("profiles")["profiles"] if p["name"] == "hooked"]
    assert not entry["usable"]


def test_an_unreadable_profile_is_named(appliance: Appliance) -> None:
    (appliance.home / "profiles" / "folder.conf").mkdir()
    answer = appliance.call("connect", profile="folder")
    assert "folder cannot be read" in answer["reason"]


def test_a_profile_that_breaks_while_connected_keeps_the_block(appliance: Appliance) -> None:
    with proven(appliance) as probes:
        appliance.connect()
        path = appliance.add_profile("vpn1", "nonsense")
        appliance.call("set", name="dns", value="10.64.1.1")  # a change that reconnects
        appliance.until_state("connection_failed")
        assert "profile vpn1, [Interface] is missing" in appliance.status()["reason"]
        leaks(appliance, probes)
        path.write_text(appliance.world.vpn1.profile())
        appliance.until_state("connected")


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("connect", {}),
        ("connect", {"profile": 1}),
        ("connect", {"profile": "vpn1", "more": True}),
        ("set", {"name": "mode"}),
        ("set", {"name": 1, "value": []}),
        ("status", {"verbose": True}),
        ("release", {}),
    ],
)
def test_a_wrong_ubus_argument_is_refused(
    appliance: Appliance, method: str, arguments: dict[str, object]
) -> None:
    with pytest.raises(CallFailed):
        appliance.call(method, **arguments)
    assert appliance.state == "not_connected"


@pytest.mark.parametrize("name", ["networklock", "killswitch", "Kill Switch", "enabled", "block"])
@pytest.mark.parametrize("value", ["false", "off", "0", "disabled", "no"])
def test_the_kill_switch_cannot_be_disabled(appliance: Appliance, name: str, value: str) -> None:
    appliance.world.vpn1.blackhole()
    appliance.call("connect", profile="vpn1")
    answer = appliance.call("set", name=name, value=value)
    assert (answer["ok"], answer["code"]) == (False, "kill_switch")
    assert "cannot be disabled" in answer["reason"]
    assert appliance.status()["kill_switch"]["active"]


def test_a_corrupt_intent_is_taken_for_connected(idle: Appliance) -> None:
    (idle.home / "intent").write_bytes(b"\xff\x00garbage")
    probes = every_probe(idle)
    assert not measure(idle.world, probes).unseen(), "no positive control"
    idle.world.vpn1.blackhole()
    idle.start()
    leaks(idle, probes)
    assert idle.status()["intent"] == "connected"
    assert any("intent" in fault for fault in idle.status()["faults"])


def test_an_intent_that_cannot_be_saved_is_obeyed_and_told(appliance: Appliance) -> None:
    appliance.connect()
    obstacle = appliance.home / ".intent.new"  # the temporary file cannot be made
    obstacle.mkdir()
    answer = appliance.call("disconnect")
    assert answer["ok"]
    assert "holds until reboot" in answer["warning"]
    appliance.until_state("not_connected")
    assert any("holds until reboot" in fault for fault in appliance.status()["faults"])
    obstacle.rmdir()
    intent = appliance.home / "intent"
    appliance.until(lambda: intent.read_text().startswith("disconnected"), "saved after all")
    appliance.until(lambda: not appliance.status()["faults"], "nothing is wrong any more")


def test_staged_changes_of_others_are_never_committed(appliance: Appliance) -> None:
    staged = {"config": "portcullis", "section": "main", "values": {"dns": ["192.0.2.1"]}}
    appliance.bus.call("uci", "set", staged)
    answer = appliance.call("set", name="lan_access", value="0")
    assert answer["ok"]
    assert "not saved yet" in answer["warning"]
    assert not appliance.status()["lan_access"], "in force all the same"
    config = appliance.bus.config_dir / "portcullis"
    assert "192.0.2.1" not in config.read_text()
    appliance.bus.call("uci", "revert", {"config": "portcullis"})
    appliance.until(lambda: "lan_access '0'" in config.read_text(), "saved later", patience=15)
    assert not appliance.status()["faults"]


def test_without_nft_the_way_out_is_taken_away_and_given_back(idle: Appliance) -> None:
    """K5: no packet filter at all. The routing guard blocks; the upstream goes down as well."""
    probes = every_probe(idle)
    assert not measure(idle.world, probes).unseen(), "no positive control"
    library = Path("/usr/lib/x86_64-linux-gnu/libnftables.so.1")
    nothing = idle.world.state / "nothing"
    nothing.touch()
    router = idle.world.router
    (idle.home / "intent").write_text("connected\nvpn1\n")
    router.binds[str(library)] = nothing
    idle.start()
    del router.binds[str(library)]
    idle.until_state("connection_failed")
    status = idle.status()
    assert "libnftables" in status["reason"]
    assert not status["kill_switch"]["verified"]
    leaks(idle, probes)
    assert "state DOWN" in router.run(["ip", "link", "show", "eth1"]).stdout
    # The owner's word counts all the same: out, and in again without a block to rely on.
    assert idle.call("disconnect")["ok"]
    idle.until_state("not_connected")
    idle.until(lambda: "state UP" in router.run(["ip", "link", "show", "eth1"]).stdout, "eth1")
    assert idle.call("connect", profile="vpn1")["ok"]
    idle.until_state("connection_failed")
    leaks(idle, probes)
    assert "state DOWN" in router.run(["ip", "link", "show", "eth1"]).stdout
    assert idle.daemon
    mounts = [
        "nsenter",
        "-t",
        str(idle.daemon.pid),
        "-m",
        "-r",
        "umount",
        os.path.realpath(library),
    ]
    subprocess.run(mounts, check=True, timeout=10)
    idle.until(lambda: "state UP" in router.run(["ip", "link", "show", "eth1"]).stdout, "eth1")
    router.ip("route replace default via 203.0.113.1\n")  # netifd's part
    idle.until_state("connected")
    leaks(idle, probes)


def test_where_rpcd_has_gone_status_says_what_to_do(appliance: Appliance) -> None:
    """The real one hangs for good where ubusd was restarted under it."""
    appliance.bus.stop_others()

    def told() -> bool:
        """Not at once where a call was under way: the bus is not asked for a while then."""
        faults = appliance.call("reload")["faults"]
        return any(f.startswith("settings: ") and "service rpcd restart" in f for f in faults)

    appliance.until(told, "the advice")


def test_what_was_remembered_may_be_garbage(idle: Appliance) -> None:
    """After a power cut, say. The daemon comes up, and writes it anew."""
    files = [idle.home / name for name in ("networks", "boot.nft")]
    for file in files:
        file.write_bytes(b"\xff\xf7garbage")
    (idle.home / "intent").write_text("connected\nvpn1\n")
    idle.start()
    idle.until_state("connected")
    assert not [file.name for file in files if b"garbage" in file.read_bytes()]


def test_status_names_the_profile_that_is_being_tried(appliance: Appliance) -> None:
    appliance.connect("vpn1")
    appliance.add_profile("named", appliance.world.vpn1.profile("nowhere.invalid"))
    assert appliance.call("connect", profile="named")["ok"]
    assert appliance.status()["profile"] == "named"


def test_a_lost_intent_of_a_router_that_was_connected_means_connected(appliance: Appliance) -> None:
    """Whether its server had a name or not: any connection leaves a trace."""
    appliance.connect("vpn1")
    appliance.kill()
    (appliance.home / "intent").unlink()
    appliance.start()
    appliance.until_state("connected")
    assert any("intent is missing" in fault for fault in appliance.status()["faults"])
