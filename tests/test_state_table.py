# SPDX-License-Identifier: GPL-2.0-or-later
"""Each row of the state table, in both modes, from outside: packets, not words."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from router.appliance import Appliance
from router.flood import Flood
from router.leaktest import devices_flows, leaks, proven, served
from router.measurement import measure
from router.probe import opened

MODES = ("standard", "at_all_times")
FRIENDLY = ["198.51.100.7", "2001:db8:64::7"]


def set_mode(appliance: Appliance, mode: str) -> None:
    assert appliance.call("set", name="mode", value=mode)["ok"]


def assert_active(appliance: Appliance, state: str, mode: str) -> None:
    status = appliance.status()
    assert (status["state"], status["kill_switch"]["mode"]) == (state, mode)
    assert status["kill_switch"]["active"]
    assert status["kill_switch"]["verified"], status["faults"]


def unusable(appliance: Appliance) -> None:
    """A profile whose server lies in the house: refused without a try."""
    profile = appliance.world.vpn1.profile("192.168.1.10")
    appliance.add_profile("home", profile)
    assert appliance.call("connect", profile="home")["ok"]


def test_not_connected_is_inactive_in_standard_mode(appliance: Appliance) -> None:
    with proven(appliance):
        assert appliance.state == "not_connected"


def test_not_connected_blocks_at_all_times(appliance: Appliance) -> None:
    with proven(appliance) as probes:
        set_mode(appliance, "at_all_times")
        assert_active(appliance, "not_connected", "at_all_times")
        leaks(appliance, probes)
        set_mode(appliance, "standard")
        assert measure(appliance.world, probes).on_wan, "standard mode does not release"


@pytest.mark.parametrize("mode", MODES)
def test_connecting_blocks(appliance: Appliance, mode: str) -> None:
    with proven(appliance) as probes:
        set_mode(appliance, mode)
        appliance.world.vpn1.blackhole()
        assert appliance.call("connect", profile="vpn1")["ok"]
        leaks(appliance, probes)
        assert_active(appliance, "connecting", mode)


@pytest.mark.pyroute2
@pytest.mark.parametrize("mode", MODES)
def test_connected_lets_out_nothing_but_the_tunnel(appliance: Appliance, mode: str) -> None:
    with proven(appliance) as probes:
        set_mode(appliance, mode)
        appliance.connect()
        leaks(appliance, probes)
        assert_active(appliance, "connected", mode)
        with opened(devices_flows(appliance)) as devices:
            served(appliance, devices)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cause", ["key removed", "blackholed", "device deleted"])
def test_reconnecting_blocks(appliance: Appliance, mode: str, cause: str) -> None:
    server = appliance.world.vpn1
    causes: dict[str, Callable[[], object]] = {
        # The running session would live on for minutes; after a restart it is unknown.
        "key removed": lambda: (server.stop(), server.start(), server.remove_client_key()),
        "blackholed": server.blackhole,
        "device deleted": lambda: (
            server.blackhole(),
            appliance.world.router.ip("link del pc0"),
        ),
    }
    with proven(appliance) as probes:
        set_mode(appliance, mode)
        appliance.connect()
        with Flood(appliance.world.lana, FRIENDLY):
            causes[cause]()
            leaks(appliance, probes)  # while it is not noticed yet
            appliance.until_state("reconnecting", patience=40)
            leaks(appliance, probes)
            assert_active(appliance, "reconnecting", mode)
        server.unblackhole()
        server.restore_client_key()
        appliance.until_state("connected")
        assert leaks(appliance, probes).tunnelled


@pytest.mark.parametrize("mode", MODES)
def test_connection_failed_blocks(appliance: Appliance, mode: str) -> None:
    with proven(appliance) as probes:
        set_mode(appliance, mode)
        unusable(appliance)
        appliance.until_state("connection_failed")
        assert "protected network lan" in appliance.status()["reason"]
        leaks(appliance, probes)
        assert appliance.status()["kill_switch"]["active"]


def test_a_server_that_never_answers_ends_in_connection_failed(appliance: Appliance) -> None:
    with proven(appliance) as probes:
        appliance.world.vpn1.remove_client_key()
        assert appliance.call("connect", profile="vpn1")["ok"]
        appliance.until_state("connection_failed", patience=60)
        assert "no answer from 198.51.100.101" in appliance.status()["reason"]
        leaks(appliance, probes)
        appliance.world.vpn1.restore_client_key()
        appliance.until_state("connected", patience=60)
        leaks(appliance, probes)


def test_disconnecting_is_told_and_inactive_in_standard_mode(appliance: Appliance) -> None:
    with proven(appliance) as probes:
        appliance.connect()
        with appliance.events() as events:
            appliance.disconnect()
            appliance.until(lambda: len(events()) >= 2, "both events")
            told = {event["state"]: event["kill_switch_active"] for event in events()}
        assert told == {"disconnecting": False, "not_connected": False}
        assert measure(appliance.world, probes).on_wan


def test_disconnecting_blocks_at_all_times(appliance: Appliance) -> None:
    with proven(appliance) as probes:
        set_mode(appliance, "at_all_times")
        appliance.connect()
        with appliance.events() as events, Flood(appliance.world.lana, FRIENDLY):
            assert appliance.call("disconnect")["ok"]
            leaks(appliance, probes)
            appliance.until(lambda: len(events()) >= 2, "both events")
            told = {event["state"]: event["kill_switch_active"] for event in events()}
        assert told == {"disconnecting": True, "not_connected": True}
