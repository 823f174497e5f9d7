# SPDX-License-Identifier: GPL-2.0-or-later
"""K12 in each state and mode: many look-ups at once, and a crash that leaves nothing changed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from router import addresses as at
from router.appliance import Appliance
from router.flood import Flood
from router.leaktest import ALLOWED
from router.measurement import BatchResult, measure, questions
from router.probe import Probe
from router.probes import DnsTcp, DnsUdp

MODES = ("standard", "at_all_times")
AT_ONCE = 50
SECONDS = 1.0
REFUSALS = 1


def lookups(appliance: Appliance) -> list[Probe]:
    """To the router, which asks whomever the ISP named, and past it. dnsmasq serves twenty TCP
    connections at once, and fw4 lets in 25 a second: `ask_router` has them to itself."""
    world = appliance.world
    return [
        DnsUdp(world.lana, at.ROUTER_LAN.v4),
        *questions(world.lana, at.PUBLIC_DNS.v4),
        *questions(world.guest, at.PUBLIC_DNS.v6),
        *questions(world.router, at.ISP.v4),
    ]


def ask(appliance: Appliance, probes: list[Probe]) -> BatchResult:
    return measure(appliance.world, probes, ALLOWED, count=AT_ONCE, timeout=2 * SECONDS)


def ask_router(appliance: Appliance) -> BatchResult:
    probe = DnsTcp(appliance.world.lana, at.ROUTER_LAN.v4)
    return measure(appliance.world, [probe], ALLOWED, count=10, timeout=2 * SECONDS)


def assert_told_at_once(result: BatchResult) -> None:
    """Each was answered or refused. By ICMP the kernel refuses no more than six UDP datagrams of a
    device, refilled by one each second; who asks the router is answered by dnsmasq."""
    for found in result.results:
        past = found.label.startswith("DNS/UDP") and at.ROUTER_LAN.v4 not in found.label
        told = [a for a in found.attempts if a.answered or a.error]
        assert len(told) >= (REFUSALS if past else found.sent), str(result)
        assert not [a for a in told if a.seconds > SECONDS], str(result)


def walk(appliance: Appliance) -> Iterator[str]:
    """Every state that lasts, one after the other."""
    server = appliance.world.vpn1
    yield "not_connected"
    server.blackhole()
    assert appliance.call("connect", profile="vpn1")["ok"]
    yield "connecting"
    server.unblackhole()
    appliance.until_state("connected")
    yield "connected"
    with Flood(appliance.world.lana, list(at.FRIENDLY.addresses), rate=100):
        server.blackhole()
        appliance.until_state("reconnecting", patience=40)
    yield "reconnecting"
    server.unblackhole()
    appliance.until_state("connected", patience=40)
    appliance.add_profile("home", server.profile(at.LAN_A.v4))
    assert appliance.call("connect", profile="home")["ok"]
    appliance.until_state("connection_failed")
    yield "connection_failed"
    appliance.connect_to("vpn1")


@pytest.mark.parametrize("mode", MODES)
def test_lookups_in_every_state(appliance: Appliance, mode: str) -> None:
    probes = lookups(appliance)
    control = ask(appliance, probes)  # the kill switch is inactive: all are seen outside
    assert not control.unseen()
    assert not control.unanswered(), str(control)
    appliance.call("set", name="mode", value=mode)
    for state in walk(appliance):
        for again in (lambda: ask(appliance, probes), lambda: ask_router(appliance)):
            result = again()
            if state == "not_connected" and mode == "standard":
                assert not result.unseen()
                continue
            assert result.verdict.clean, f"{state}: {result}"
            assert not result.on_wan, f"{state}: {result}"
            if state == "connected" and result.unanswered():  # a busy machine loses datagrams
                result = again()
                assert result.verdict.clean, f"{state}: {result}"
            if state != "reconnecting":  # there they wait in the tunnel
                assert_told_at_once(result)
            if state == "connected":
                assert not result.unanswered(), str(result)
                assert not result.untunnelled(), str(result)
        trying = ("connecting", "connection_failed")  # again and again
        assert appliance.state in (trying if state in trying else (state,))
    _while_disconnecting(appliance, mode, probes)


def _while_disconnecting(appliance: Appliance, mode: str, probes: list[Probe]) -> None:
    """It lasts milliseconds: look-ups run across it."""
    found: list[BatchResult] = []
    asker = threading.Thread(target=lambda: found.append(ask(appliance, probes)))
    with appliance.events() as events:
        asker.start()
        appliance.disconnect()
        asker.join()
        appliance.until(lambda: len(events()) >= 2, "both events")
        assert [e["state"] for e in events()][:2] == ["disconnecting", "not_connected"]
    if mode == "at_all_times":
        assert found[0].verdict.clean, str(found[0])
    else:
        assert not ask(appliance, probes).unseen()


def configuration(appliance: Appliance) -> dict[str, bytes]:
    """Everything that tells dnsmasq and the system how names are resolved, and UCI's files."""
    state, world = appliance.world.state, appliance.world
    files = [world.dnsmasq.config, world.dnsmasq.resolv, state / "hosts"]
    files += [*state.glob("resolv.conf*"), *appliance.bus.config_dir.iterdir()]
    command = Path(f"/proc/{world.dnsmasq.pid}/cmdline")
    return {str(path): path.read_bytes() for path in (*files, command) if path.is_file()}


def test_a_crash_in_any_state_leaves_no_configuration_changed(appliance: Appliance) -> None:
    appliance.call("set", name="lan_access", value="denied")
    before = configuration(appliance)
    reached: Callable[[], bool] = appliance.answers
    for state in walk(appliance):
        appliance.kill()
        assert configuration(appliance) == before, state
        assert _local_name(appliance), state
        appliance.start()
        appliance.until(reached, "the daemon answers")
        if state in ("connected", "reconnecting"):
            appliance.world.vpn1.unblackhole()
            appliance.until_state("connected", patience=40)
    assert configuration(appliance) == before


def _local_name(appliance: Appliance) -> bool:
    command = ["dig", "+short", "+time=1", "+tries=1", "lanb.lan"]
    return appliance.world.lana.run(command, check=False).stdout.strip() == at.LAN_B.v4
