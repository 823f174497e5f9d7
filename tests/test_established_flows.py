# SPDX-License-Identifier: GPL-2.0-or-later
"""K3: flows that existed before the kill switch became active end at once."""

from __future__ import annotations

import re
import time

import pytest
from router import VirtualRouter
from router import addresses as at
from router.appliance import Appliance
from router.capture import Capture
from router.flood import Flood
from router.judge import judge
from router.leaktest import ALLOWED, leaks, proven
from router.measurement import lan_probes, measure, router_probes
from router.probe import opened, run
from router.probes import PacketSocket, Udp

from portcullis import ruleset
from portcullis.policy import Network, Policy

FRIENDLY = ["198.51.100.7", "2001:db8:64::7"]


@pytest.mark.parametrize("masquerade", [True, False], ids=["NATed", "un-NATed"])
def test_connect_cuts_every_established_flow(masquerade: bool) -> None:
    with Appliance(masquerade=masquerade) as appliance:
        appliance.start()
        with proven(appliance) as probes:
            appliance.world.vpn1.blackhole()  # nothing can be excused by the tunnel
            assert appliance.call("connect", profile="vpn1")["ok"]
            result = leaks(appliance, probes)
            assert not result.answered or all("router" in r.label for r in result.results)


@pytest.mark.parametrize("masquerade", [True, False], ids=["NATed", "un-NATed"])
def test_the_filter_alone_ends_flows_that_nobody_has_cut(masquerade: bool) -> None:
    """As after a boot guard without conntrack's help, or where a flush has failed."""
    networks = tuple(
        Network(name, device, (prefix,))
        for name, device, prefix in (
            ("lan", at.LAN_BRIDGE, at.LAN4),
            ("guest", at.GUEST_BRIDGE, at.GUEST4),
        )
    )
    with VirtualRouter(masquerade=masquerade) as world:
        every = (*lan_probes(world), *router_probes(world))
        probes = [p for p in every if p.held and not isinstance(p, PacketSocket)]
        with opened(probes):
            assert not measure(world, probes).unseen(), "no positive control"
            world.router.nft(ruleset.render(Policy(networks=networks)))
            result = measure(world, probes)
    assert not result.leaks, str(result)


def test_what_waits_in_the_queue_of_a_shaped_line_is_dropped(appliance: Appliance) -> None:
    """It has passed all layers already (SQM)."""
    world, line = appliance.world, ["dev", at.WAN_DEVICE]
    shaped = ["tc", "qdisc", "add", *line, "root", "tbf", "rate", "200kbit", "burst", "2kb"]
    if world.router.run([*shaped, "latency", "3s"], check=False).returncode:
        pytest.skip("no token bucket in this kernel")
    with Flood(world.lana, FRIENDLY, rate=500), Capture(world.isp, world.access) as wan:
        shown = ["tc", "-s", "qdisc", "show", *line]
        full = re.compile(r"backlog \S+ \d{3,}p")
        appliance.until(lambda: full.search(world.router.run(shown).stdout), "a hundred packets")
        assert appliance.call("connect", profile="vpn1")["ok"]
        began = time.time()
        appliance.until_state("connected")
    assert judge([frame for frame in wan.frames if frame.time < began], ALLOWED).leaks
    verdict = judge([frame for frame in wan.frames if frame.time > began], ALLOWED)
    assert verdict.clean and verdict.passed["tunnel"], str(verdict)


def test_a_flow_begins_anew_at_both_flips(appliance: Appliance) -> None:
    """Kept, it would go on under the address of its former way: unanswered, and the provider
    would learn the house's own. In IPv6, where the kernel's masquerading does not see to it."""
    probe = Udp(appliance.world.lana, at.FRIENDLY.v6, held=True)

    def seen_from() -> set[str]:
        (result,) = run([probe], 2, 1.0)
        return set(result.sources)

    with opened([probe]):
        assert seen_from() == {at.LAN_A.v6}
        appliance.connect()
        assert seen_from() == {at.VPN1.v6}
        appliance.disconnect()
        assert seen_from() == {at.LAN_A.v6}


def test_nothing_leaves_under_a_flood_from_the_moment_connect_has_answered(
    appliance: Appliance,
) -> None:
    world = appliance.world
    with Flood(world.lana, FRIENDLY, rate=1000) as flood, Capture(world.isp, world.access) as wan:
        before = flood.totals()
        appliance.until(lambda: (flood.totals() - before).answered["new"] > 500, "a flood")
        began = time.time()
        assert appliance.call("connect", profile="vpn1")["ok"]
        answered = time.time()
        appliance.until_state("connected")
        held = flood.totals()
        appliance.until(lambda: (flood.totals() - held).answered["new"] > 500, "the tunnel's flood")
    early = [frame for frame in wan.frames if frame.time < began]
    late = [frame for frame in wan.frames if frame.time > answered]
    assert len(judge(early, ALLOWED).leaks) > 500, "no positive control"
    assert judge(late, ALLOWED).clean, str(judge(late, ALLOWED))


def test_router_services_answer_the_lan_across_the_flip(appliance: Appliance) -> None:
    """K14: what is cut is the way out, never the way to the router."""
    world = appliance.world
    question = ["dig", "+short", "+time=2", "+tries=1", "@192.168.1.1", "lana.lan"]
    for _ in range(2):
        assert world.lana.run(question).stdout.strip() == "192.168.1.10"
        guest_question = [*question[:-2], "@192.168.2.1", question[-1]]
        assert world.guest.run(guest_question).stdout.strip() == "192.168.1.10"
        world.vpn1.blackhole()
        appliance.call("connect", profile="vpn1")
        assert world.lana.run(question).stdout.strip() == "192.168.1.10"
        assert world.lana.run(["ping", "-c1", "-W2", "2001:db8:1::1"]).returncode == 0
        appliance.disconnect()
