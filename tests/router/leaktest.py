# SPDX-License-Identifier: GPL-2.0-or-later
"""Leak tests as contract.md says: probes from everywhere, a capture behind the WAN, a positive
control in the same run."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from portcullis import egress

from . import addresses as at
from .appliance import Appliance
from .judge import Allowed, Endpoint
from .measurement import BatchResult, flows, lan_probes, measure, router_probes
from .probe import Probe, opened
from .probes import PacketSocket

ALLOWED = Allowed.of(*(Endpoint(a) for host in at.VPN_SERVERS for a in host.addresses))
"""The tunnels' own datagrams, and what keeps the line up."""


@contextmanager
def asleep(appliance: Appliance) -> Iterator[None]:
    """Inside, the daemon repairs nothing."""
    assert appliance.daemon
    os.kill(appliance.daemon.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(appliance.daemon.pid, signal.SIGCONT)


def leave_the_filter_alone(appliance: Appliance) -> None:
    """Take the routing guard and the egress hook away; while the daemon is asleep."""
    if has_egress_hook():
        appliance.delete_table("netdev portcullis")
    for family, priorities in (("-4", (800, 830)), ("-6", (800, 810, 830, 831))):
        for priority in priorities:
            appliance.world.router.run(["ip", family, "rule", "del", "pref", f"{priority}"])


def every_probe(appliance: Appliance) -> list[Probe]:
    """From LAN, guest and router. Frames written to the device itself are stopped by the egress
    hook alone, so that class is left out where the kernel has none (README, known issues)."""
    world = appliance.world
    found = (*lan_probes(world), *router_probes(world))
    return [p for p in found if has_egress_hook() or not isinstance(p, PacketSocket)]


@cache
def has_egress_hook() -> bool:
    """Whether kernel and nft of this machine have it; a daemon that says otherwise is wrong."""
    command = ["unshare", "-n", "nft", "-c", "-f", "-"]
    done = subprocess.run(command, input=egress.PROBE.encode(), capture_output=True, check=False)
    return not done.returncode


@contextmanager
def proven(appliance: Appliance) -> Iterator[Sequence[Probe]]:
    """Every probe, its held flows open, each seen by the capture while the kill switch is
    inactive: the positive control."""
    probes = every_probe(appliance)
    assert not appliance.status()["kill_switch"]["active"]
    with opened(probes):
        control = measure(appliance.world, probes, ALLOWED)
        assert not control.unseen(), f"no positive control: {control}"
        yield probes


def leaks(appliance: Appliance, probes: Sequence[Probe], count: int = 3) -> BatchResult:
    """Measure where nothing may leak; asserts that nothing does."""
    result = measure(appliance.world, probes, ALLOWED, count=count)
    assert not result.leaks, f"leaked: {result}"
    assert result.sent >= len(probes)
    return result


def devices_flows(appliance: Appliance) -> list[Probe]:
    """All that devices send, on new and on held flows."""
    world = appliance.world
    return [*flows(world.lana), *flows(world.guest, at.HOSTILE)]


def served(appliance: Appliance, probes: Sequence[Probe]) -> None:
    """Nothing leaks, and every attempt is answered through the tunnel. `opened` there, large ones
    have met its MTU."""
    # Each once at a time: where the machine is busy they all wait in the socket of the VPN
    # server, whose 208 KiB hold not even three of each.
    for _ in range(3):
        result = measure(appliance.world, probes, ALLOWED, count=1, timeout=3)
        assert not result.leaks, f"leaked: {result}"
        lost = [*result.unanswered(), *result.untunnelled()]
        assert not lost, "not served in the tunnel:\n" + "\n".join(map(str, lost))
