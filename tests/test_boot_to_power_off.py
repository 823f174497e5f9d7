# SPDX-License-Identifier: GPL-2.0-or-later
"""K8: a router, as a virtual machine, from power-on to power-off under a flood from the LAN that
begins before and ends after, with a capture of all it sends on the WAN."""

from __future__ import annotations

from collections.abc import Iterator
from socket import AF_INET, AF_INET6, inet_pton

import pytest
from router import addresses as at
from router.judge import Verdict, judge
from router.leaktest import ALLOWED
from vm.household import Boot, Household

pytestmark = pytest.mark.machine
CONNECTED, DISCONNECTED = "connected\nvpn1\n", "disconnected\nvpn1\n"
TUNNEL = ("await=connected", "phase=connected", "hold=2", "phase=shutdown")


@pytest.fixture(scope="module")
def household() -> Iterator[Household]:
    with Household() as found:
        yield found


def between(boot: Boot, first: str, last: str) -> Verdict:
    return judge(boot.between(first, last), ALLOWED)


def assert_sealed(boot: Boot, first: str = "power-on") -> None:
    """Nothing but what may leaves from a phase on until after power-off."""
    assert {first, "power-off"} <= boot.phases.keys(), f"it went no further:\n{boot.output}"
    verdict = judge([f for f in boot.frames if f.time >= boot.phases[first]], ALLOWED)
    print(f"{boot}, from {first} on: {verdict}")
    assert verdict.clean, f"{verdict}\n{boot.output}"
    assert boot.flood.sent.total() > 1000


def answers(household: Household) -> bool:
    """K14: whether the router answers a device that has not yet asked for its MAC address."""
    pings = (["ping", "-c1", "-W2", a] for a in at.ROUTER_LAN.addresses[:2])
    return not any(household.world.lanb.run(ping, check=False).returncode for ping in pings)


def test_connected_nothing_leaves_from_power_on_to_power_off(household: Household) -> None:
    boot = household.boot(CONNECTED, TUNNEL, at_phase={"connected": lambda: answers(household)})
    assert_sealed(boot)
    assert boot.told["connected"], boot.output
    assert {at.VPN1.v4, at.VPN1.v6} == boot.flood.sources.keys(), "no traffic in the tunnel"
    assert between(boot, "connected", "down").passed["tunnel"] > 100


def test_disconnected_the_flood_leaves_until_connect_ends_every_flow(household: Household) -> None:
    """The positive control, and K3 on a router that booted released."""
    steps = ("await=not_connected", "phase=released", "hold=2", "connect=vpn1", "phase=armed")
    boot = household.boot(DISCONNECTED, (*steps, *TUNNEL))
    for first, last in (("network", "firewall"), ("released", "armed")):
        assert len(between(boot, first, last).leaks) > 100, f"no positive control: {boot}"
    assert_sealed(boot, "armed")


NO_ROUTING_GUARD = "for file in /etc/boot/guard*; do : > $file; done"


def test_with_neither_layer_the_flood_leaves(household: Household) -> None:
    """The positive control of the next test."""
    boot = household.boot(CONNECTED, guard=False, harm=NO_ROUTING_GUARD, hold=2)
    for address in at.FRIENDLY.addresses:
        token = inet_pton(AF_INET6 if ":" in address else AF_INET, address)
        assert len(between(boot, "network", "down").having(token)) > 50, f"no control: {boot}"


@pytest.mark.parametrize("layer", ["the packet filter", "the routing guard"])
def test_either_layer_alone_holds_it(household: Household, layer: str) -> None:
    """K9, before there is a daemon."""
    if layer == "the packet filter":
        boot = household.boot(CONNECTED, harm=NO_ROUTING_GUARD, hold=2)
    else:
        boot = household.boot(CONNECTED, guard=False, hold=2)
    assert_sealed(boot)


HARM = {
    "a broken configuration": (DISCONNECTED, 'echo "config \'portcullis" > /etc/config/portcullis'),
    "an unreadable intent": (DISCONNECTED, "head -c 512 /dev/zero > /etc/portcullis/intent"),
    "nothing remembered": (CONNECTED, "rm /etc/portcullis/boot.nft /etc/portcullis/networks"),
    "no Python": (CONNECTED, "rm /usr/bin/python3"),
}


@pytest.mark.parametrize("kind", HARM)
def test_whatever_is_broken_it_boots_closed_and_answers_the_house(
    household: Household, kind: str
) -> None:
    intent, harm = HARM[kind]
    steps = TUNNEL if kind == "no Python" else ()
    boot = household.boot(
        intent, steps, harm=harm, hold=2, at_phase={"firewall": lambda: answers(household)}
    )
    assert_sealed(boot)
    assert boot.told["firewall"], boot.output
    assert boot.flood.answered.total() == 0
    if kind == "no Python":
        assert "services: failed" in boot.output
