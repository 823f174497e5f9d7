# SPDX-License-Identifier: GPL-2.0-or-later
"""K7: the block and the intent outlive the daemon. More disruptions are in test_disruptions."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from router import addresses as at
from router.appliance import Appliance
from router.capture import Capture
from router.flood import Flood
from router.judge import judge
from router.leaktest import ALLOWED, leaks, proven
from router.probe import run
from router.probes import Udp
from router.scene import FRIENDLY
from router.upkeep import wireguard_go

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


def test_the_owners_choice_is_kept_before_it_is_acted_on(appliance: Appliance) -> None:
    appliance.connect("vpn1")
    assert appliance.call("connect", profile="vpn2")["ok"]
    appliance.kill()
    for kept_in_ram in appliance.run_dir.glob("intent*"):
        kept_in_ram.unlink()  # as a power cut would
    appliance.start()
    appliance.until_state("connected")
    assert appliance.status()["profile"] == "vpn2"


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
        (pid,) = wireguard_go(appliance)
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_wireguard_go_dies_and_comes_back(appliance: Appliance, number: int) -> None:
    with watched(appliance), appliance.events() as events:
        (pid,) = wireguard_go(appliance)
        os.kill(pid, number)
        appliance.until(
            lambda: [e["state"] for e in events()][-2:] == ["reconnecting", "connected"],
            "reconnecting, then connected",
        )


def test_ipv6_comes_back_when_it_is_switched_on_again(appliance: Appliance) -> None:
    """The kernel forgets the tunnel's address as it is switched off."""
    world = appliance.world
    world.router.sysctl({"ipv6/conf/default/disable_ipv6": 1})
    appliance.connect()
    world.router.sysctl({"ipv6/conf/pc0/disable_ipv6": 0})

    def answered() -> bool:
        (result,) = run([Udp(world.lana, at.FRIENDLY.v6)], 1, 0.3)
        return bool(result.answered)

    appliance.until(answered, "IPv6 goes through the tunnel")


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
