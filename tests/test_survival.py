# SPDX-License-Identifier: GPL-2.0-or-later
"""K7: what the block outlives, each under a flood of new and established flows."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from router.appliance import Appliance
from router.capture import Capture
from router.flood import Flood
from router.judge import judge
from router.leaktest import ALLOWED, leaks, proven

FRIENDLY = ["198.51.100.7", "2001:db8:64::7"]
ENOUGH = 300


@contextmanager
def watched(appliance: Appliance) -> Iterator[Flood]:
    """A connected router under a flood; whatever happens inside, nothing may leave. The flood is
    first seen by the capture while the kill switch is inactive: the positive control."""
    world = appliance.world
    with Flood(world.lana, FRIENDLY, rate=500) as flood:
        with Capture(world.isp, world.access) as control:
            before = flood.totals()
            appliance.until(lambda: (flood.totals() - before).sent["new"] > ENOUGH, "a flood")
        assert len(judge(control.frames, ALLOWED).leaks) > ENOUGH, "no positive control"
        appliance.connect()
        with Capture(world.isp, world.access) as wan:
            yield flood
            start = flood.totals()
            appliance.until(lambda: (flood.totals() - start).sent["new"] > ENOUGH, "more flood")
        verdict = judge(wan.frames, ALLOWED)
        assert verdict.clean, str(verdict)


def test_intent_survives_kill_9_and_restart(appliance: Appliance) -> None:
    with watched(appliance):
        appliance.kill()
        appliance.start()
        appliance.until_state("connected")
    assert appliance.status()["intent"] == "connected"
    assert appliance.status()["profile"] == "vpn1"


def test_a_disconnected_router_stays_so_after_kill_9(appliance: Appliance) -> None:
    appliance.connect()
    appliance.disconnect()
    appliance.kill()
    appliance.start()
    assert appliance.state == "not_connected"
    assert not appliance.status()["kill_switch"]["active"]


def test_stopping_the_service_lifts_nothing(appliance: Appliance) -> None:
    with watched(appliance):
        appliance.stop()
        os.kill(_wireguard_go(appliance), signal.SIGKILL)


def _wireguard_go(appliance: Appliance) -> int:
    (pid,) = [p for p in appliance.world.router.pids() if "wireguard-go" in _command(p)]
    return pid


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_wireguard_go_dies_and_comes_back(appliance: Appliance, number: int) -> None:
    with watched(appliance), appliance.events() as events:
        os.kill(_wireguard_go(appliance), number)
        appliance.until(
            lambda: [e["state"] for e in events()][-2:] == ["reconnecting", "connected"],
            "reconnecting, then connected",
        )


@pytest.mark.parametrize("action", ["reload", "restart", "stop"])
def test_fw4_does_what_it_likes(appliance: Appliance, action: str) -> None:
    with watched(appliance):
        for _ in range(5):
            getattr(appliance.world.firewall, action)()
        appliance.world.firewall.start()


def test_the_ruleset_is_flushed_and_the_routing_guard_holds(appliance: Appliance) -> None:
    with watched(appliance):
        for _ in range(5):
            appliance.world.router.nft("flush ruleset\n")
            appliance.until(lambda: _table_stands(appliance), "the table is back")
        appliance.world.firewall.start()
        assert appliance.status()["restored"] or _owned(appliance)


def test_fw4_flush_deletes_all_tables_and_ours_is_back(appliance: Appliance) -> None:
    with watched(appliance):
        appliance.world.firewall.flush()
        appliance.until(lambda: _table_stands(appliance), "the table is back")
        appliance.world.firewall.start()


def _owned(appliance: Appliance) -> bool:
    """Whether the kernel keeps the table from everybody but the daemon: then a flush skips it."""
    command = ["nft", "list", "table", "inet", "portcullis"]
    return "flags owner" in appliance.world.router.run(command).stdout


def _table_stands(appliance: Appliance) -> bool:
    found = appliance.world.router.run(["nft", "list", "tables"]).stdout
    return "inet portcullis" in found


@pytest.mark.pyroute2
@pytest.mark.parametrize(
    "command",
    [
        "rule del pref 830",
        "-6 rule del pref 831",
        "rule flush",
        "-6 rule flush",
        "route flush table 707",
        "-6 route flush table 707",
        "route flush table 706",
        "link del pc0",
    ],
)
def test_routes_and_rules_are_deleted_and_the_filter_holds(
    appliance: Appliance, command: str
) -> None:
    with watched(appliance):
        appliance.world.router.run(["ip", *command.split()])
        if command == "rule flush":  # takes the kernel's own along, which netifd would put back
            for rule in ("from all lookup main pref 32766", "from all lookup default pref 32767"):
                appliance.world.router.run(["ip", "rule", "add", *rule.split()])
        if command == "-6 rule flush":
            rule = "from all lookup main pref 32766"
            appliance.world.router.run(["ip", "-6", "rule", "add", *rule.split()])
        stands = ["ip", "route", "show", "table", "706"]
        appliance.until(lambda: appliance.world.router.run(stands).stdout, "table 706 is filled")
        if "table 706" not in command and "link" not in command:
            appliance.until(lambda: appliance.status()["restored"], "a repair is told")
        appliance.until_state("connected")
        assert appliance.status()["kill_switch"]["verified"]


def test_the_way_out_comes_and_goes(appliance: Appliance) -> None:
    with watched(appliance):
        router = appliance.world.router
        router.ip("link set eth1 down\n")
        appliance.until_state("reconnecting")
        assert "gone" in appliance.status()["reason"]
        router.ip(
            "link set eth1 up\naddr replace 2001:db8:ffff::2/64 dev eth1 nodad\n"
            "route replace default via 203.0.113.1\nroute replace ::/0 via 2001:db8:ffff::1\n"
        )
        appliance.until_state("connected")


def test_ubusd_dies_and_the_block_does_not_care(appliance: Appliance) -> None:
    with watched(appliance):
        appliance.bus.stop_others()
        appliance.bus.stop_broker()
        appliance.bus.start_broker()
        appliance.bus.start_others()
        appliance.until(appliance.answers, "the daemon is on the bus again")
        assert appliance.state == "connected"


def test_a_core_that_starts_without_ubus_closes_and_comes_up_with_it(
    appliance: Appliance,
) -> None:
    with proven(appliance) as probes:
        appliance.connect()
        appliance.kill()
        appliance.bus.stop_others()
        appliance.bus.stop_broker()
        appliance.start(wait=False)
        leaks(appliance, probes)
        # The tunnel needs no ubus: what is protected is remembered.
        ping = ["ping", "-c1", "-W1", "198.51.100.7"]
        appliance.until(
            lambda: not appliance.world.lana.run(ping, check=False).returncode, "traffic"
        )
        appliance.bus.start_broker()
        appliance.bus.start_others()
        appliance.until(appliance.answers, "the daemon is on the bus")
        assert appliance.state == "connected"
        leaks(appliance, probes)
