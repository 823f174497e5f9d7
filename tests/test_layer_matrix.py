# SPDX-License-Identifier: GPL-2.0-or-later
"""K9: what each layer stops by itself, under a flood. The README has the table."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from router import addresses as at
from router.appliance import Appliance
from router.flood import Flood
from router.leaktest import ALLOWED, has_egress_hook
from router.measurement import flows, measure, multicast_probes, questions, raw_frames
from router.multicast import MulticastRouting
from router.probe import Probe, opened
from router.probes import Icmp, Multicast, Raw
from router.topology import VirtualRouter

LAYERS = ("packet filter", "routing guard", "egress hook")
STOPS = {
    # class of traffic: the layers that stop it, each by itself
    "forwarded, new": {*LAYERS},
    "forwarded, established": {*LAYERS},
    "forwarded multicast": {"packet filter", "egress hook"},
    "router, ordinary": {*LAYERS},
    "router, raw IP": {*LAYERS},
    "router, device-bound, IPv4": {"packet filter", "egress hook"},
    "router, device-bound, IPv6": {*LAYERS},
    "router, multicast": {"packet filter", "egress hook"},
    "router, AF_PACKET": {"egress hook"},
}


def probes_of(world: VirtualRouter) -> dict[str, list[Probe]]:
    """Those of each class; held ones are opened in the tunnel."""
    router, host, wan = world.router, at.PUBLIC_DNS, at.WAN_DEVICE
    lan = [*flows(world.lana), *flows(world.guest, at.HOSTILE)]
    bound = [p for p in flows(router, host, device=wan) if not p.held and p.protocol != "TCP"]
    return {
        "forwarded, new": [p for p in lan if not p.held] + questions(world.lana, *at.ISP.addresses),
        "forwarded, established": [p for p in lan if p.held],
        "forwarded multicast": multicast_probes(world),
        "router, ordinary": [
            *(p for p in flows(router, host) if not p.held),
            *questions(router, *at.ISP.addresses),
        ],
        "router, raw IP": [kind(router, a) for kind in (Raw, Icmp) for a in host.addresses],
        "router, device-bound, IPv4": [p for p in bound if not p.v6],
        "router, device-bound, IPv6": [p for p in bound if p.v6],
        "router, multicast": [Multicast(router, a, device=wan) for a in (at.GROUP4, at.GROUP6)],
        "router, AF_PACKET": raw_frames(world),
    }


def take_away(world: VirtualRouter, layer: str) -> None:
    if layer == "packet filter":
        world.router.nft("delete table inet portcullis\n")
    elif layer == "egress hook" and has_egress_hook():
        world.router.nft("delete table netdev portcullis\n")
    elif layer == "routing guard":
        for family, priorities in (("-4", (800, 830)), ("-6", (800, 810, 830, 831))):
            for priority in priorities:
                world.router.run(["ip", family, "rule", "del", "pref", f"{priority}"])


@pytest.mark.parametrize("layer", [*LAYERS, "none"])
def test_what_one_layer_stops_by_itself(appliance: Appliance, layer: str) -> None:
    """What it must stop leaks not one packet, of the flood included; what it cannot stop is seen
    outside, as everything is without any layer: the positive control."""
    if layer == "egress hook" and not has_egress_hook():
        pytest.skip("this kernel has no egress hook")
    world = appliance.world
    appliance.connect()
    # Without a route the kernel looks for the host itself on the device that it is told.
    world.router.ip(f"neigh add {at.PUBLIC_DNS.v4} lladdr {at.ISP_MAC} dev eth1 nud permanent\n")
    classes = probes_of(world)
    stopped = [p for name, found in classes.items() if layer in STOPS[name] for p in found]
    passing = {name: found for name, found in classes.items() if layer not in STOPS[name]}
    with ExitStack() as open_:
        open_.enter_context(MulticastRouting(world.router))
        held = [p for found in classes.values() for p in found if p.held]
        open_.enter_context(opened(held))
        open_.enter_context(Flood(world.lana, list(at.FRIENDLY.addresses), rate=200))
        appliance.kill()  # it would repair, and what it owns nobody else may delete
        for other in LAYERS:
            if other != layer:
                take_away(world, other)
        if stopped:
            found = measure(world, stopped, ALLOWED)
            assert found.sent >= 3 * len(stopped)
            assert not found.leaks, f"{layer} alone leaked: {found}"
        if passing:
            found = measure(world, [p for some in passing.values() for p in some], ALLOWED)
            unseen = {result.label for result in found.unseen()}
            for name, probes in passing.items():
                lost = [str(probe) for probe in probes if str(probe) in unseen]
                assert not lost, f"{name} is said to pass {layer}: {lost}"
