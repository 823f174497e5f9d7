# SPDX-License-Identifier: GPL-2.0-or-later
"""K12: a resolver on a protected network that the owner chose (Pi-hole, AdGuard Home)."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest
from router import addresses as at
from router.appliance import Appliance
from router.capture import Capture
from router.judge import judge
from router.lan import answers as reaches
from router.lan import stations
from router.leaktest import ALLOWED
from router.namespace import Namespace
from router.servers import IDENTITIES, resolver

TUNNEL, PIHOLE = IDENTITIES["tunnel1"], IDENTITIES["pihole"]
OUTSIDE = ["198.51.100.53", "2001:db8:64::53", "203.0.113.1"]
BOTH = f"{at.LAN_B.v4} {at.LAN_B.v6}"


def ask(host: Namespace, name: str, *options: str) -> str:
    """The short answer to a question for A, or dig's complaint."""
    command = ["dig", "+short", "+time=1", "+tries=1", *options, name]
    return host.run(command, check=False).stdout.strip()


def choose(appliance: Appliance, *addresses: str) -> None:
    answer = appliance.call("set", name="dns", value=" ".join(addresses))
    assert answer["ok"], answer


@pytest.fixture
def pihole(appliance: Appliance) -> Appliance:
    """lanb answers, and who asks it gets an address that nobody else gives."""
    appliance.world.servers.serve(resolver(appliance.world.lanb, at.LAN_B, "pihole"))
    choose(appliance, BOTH)
    return appliance


class Forwarder:
    """lanb as Pi-hole is: a dnsmasq that asks `upstream` in its turn, and keeps nothing."""

    def __init__(self, appliance: Appliance, *upstream: str) -> None:
        self._pidfile = appliance.world.state / "pihole.pid"
        command = ["dnsmasq", "-C", "/dev/null", "--user=root", "--group=", "--local-service"]
        command += ["--no-resolv", "--no-hosts", "--address=/ads.example.org/192.0.2.99"]
        command += [f"--server={address}" for address in upstream]
        command += ["--cache-size=0", f"--pid-file={self._pidfile}"]
        appliance.world.lanb.run(command)

    def stop(self) -> None:
        os.kill(int(self._pidfile.read_text()), signal.SIGTERM)


@pytest.fixture
def forwarders(appliance: Appliance) -> Iterator[list[Forwarder]]:
    started: list[Forwarder] = []
    yield started
    for forwarder in started:
        forwarder.stop()


@pytest.mark.pyroute2
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
@pytest.mark.parametrize("host", ["lana", "guest", "router"])
def test_the_chosen_resolver_alone_answers(pihole: Appliance, host: str, transport: str) -> None:
    space = pihole.world.spaces[host]
    for address in OUTSIDE:  # positive control: outside, everybody answers for himself
        assert ask(space, "control.example.org", transport, f"@{address}") not in ("", PIHOLE[0])
    pihole.connect()
    assert pihole.status()["resolvers"] == BOTH.split()
    with Capture(pihole.world.isp, pihole.world.access) as wan:
        for number, address in enumerate(OUTSIDE):
            name = f"outside-{number}.example.org"
            assert ask(space, name, transport, f"@{address}") == PIHOLE[0]
        assert ask(space, "through-dnsmasq.example.org", transport) == PIHOLE[0]
        if host != "router":
            for address in BOTH.split():  # a guest's firewall would not let it there
                assert ask(space, "direct.example.org", transport, f"@{address}") == PIHOLE[0]
    assert judge(wan.frames, ALLOWED).clean


@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
@pytest.mark.parametrize("upstream", [*OUTSIDE, at.ROUTER_LAN.v4, at.ROUTER_LAN.v6])
def test_what_it_asks_in_its_turn_goes_to_the_tunnels_resolver(
    appliance: Appliance, forwarders: list[Forwarder], upstream: str, transport: str
) -> None:
    """Whoever it asks, the router itself included: there is no loop. That it asks the router is
    noticed by its first question, which dnsmasq takes for a repetition of its own."""
    forwarders.append(Forwarder(appliance, upstream))
    choose(appliance, BOTH)
    appliance.connect()
    world = appliance.world
    before = len(world.servers.queries())
    assert ask(world.lana, "ads.example.org", transport, "@203.0.113.1") == "192.0.2.99"
    first = ask(world.lana, "first.example.org", transport, f"@{OUTSIDE[0]}")
    assert first == TUNNEL[0] or upstream in at.ROUTER_LAN.addresses
    for space in (world.lana, world.guest, world.lanb):
        name = f"{space.name}.example.org"
        assert ask(space, name, transport, f"@{OUTSIDE[0]}") == TUNNEL[0]
    asked = world.servers.queries()[before:]
    assert {query.resolver for query in asked} == {"tunnel1"}
    assert len(asked) < 12, [query.name for query in asked]


def test_local_names_are_dnsmasqs(pihole: Appliance) -> None:
    pihole.connect()
    for server in (at.ROUTER_LAN.v4, OUTSIDE[0]):
        assert ask(pihole.world.lana, "lanb.lan", f"@{server}") == at.LAN_B.v4


def test_denied_devices_ask_it_and_reach_nothing_else(pihole: Appliance) -> None:
    world = pihole.world
    assert pihole.call("set", name="lan_access", value="denied")["ok"]
    pihole.connect()
    for space in (world.lana, world.guest):
        for address in (OUTSIDE[0], at.LAN_B.v4):
            if (space, address) == (world.lana, at.LAN_B.v4):
                continue  # on one bridge, without the router
            assert ask(space, f"{space.name}.example.org", f"@{address}") == PIHOLE[0]
    everybody = stations(world)
    assert not reaches(everybody["lana"], at.LAN_B.v4)
    assert not reaches(everybody["guest"], at.LAN_B.v4)
    assert reaches(everybody["lana"])


def test_denied_devices_ask_it_directly_where_it_is_excepted(pihole: Appliance) -> None:
    lan = pihole.world.lana
    assert pihole.call("set", name="lan_access", value="denied")["ok"]
    pihole.connect()
    assert ask(lan, "direct.example.org", f"@{at.LAN_B.v4}") != PIHOLE[0]
    assert pihole.call("set_device", mac=at.LAN_B_MAC, access="allowed")["ok"]
    pihole.until(
        lambda: ask(lan, "direct.example.org", f"@{at.LAN_B.v4}") == PIHOLE[0], "a direct answer"
    )


def test_it_answers_from_what_it_knows_while_there_is_no_tunnel(pihole: Appliance) -> None:
    pihole.world.vpn1.blackhole()
    pihole.call("connect", profile="vpn1")
    assert pihole.state == "connecting"
    assert ask(pihole.world.lana, "direct.example.org", f"@{at.LAN_B.v4}") == PIHOLE[0]


def test_a_family_in_which_none_was_chosen_is_refused_at_once(pihole: Appliance) -> None:
    """Or else it would be the way around the owner's choice."""
    choose(pihole, at.LAN_B.v4)
    pihole.connect()
    done = pihole.world.lana.run(
        ["dig", "+time=3", "+tries=1", f"@{OUTSIDE[1]}", "who.example.org"], check=False
    )
    assert "timed out" not in done.stdout, done.stdout
    assert "no servers could be reached" in done.stdout
    assert ask(pihole.world.lana, "who.example.org", f"@{at.ROUTER_LAN.v6}") == PIHOLE[0]


def test_other_addresses_beside_it_are_those_it_asks(
    appliance: Appliance, forwarders: list[Forwarder]
) -> None:
    forwarders.append(Forwarder(appliance, OUTSIDE[0]))
    text = appliance.world.vpn1.profile()
    without = "\n".join(line for line in text.splitlines() if not line.startswith("DNS"))
    appliance.add_profile("silent", without)
    choose(appliance, at.LAN_B.v4)
    appliance.call("connect", profile="silent")
    appliance.until_state("connection_failed")
    assert f"no DNS resolver that {at.LAN_B.v4} could ask" in appliance.status()["reason"]
    choose(appliance, at.LAN_B.v4, at.TUNNEL1.v4)
    appliance.until_state("connected")
    assert ask(appliance.world.lana, "who.example.org", f"@{OUTSIDE[0]}") == TUNNEL[0]


@pytest.mark.parametrize("address", [at.ROUTER_LAN.v4, at.ROUTER_GUEST.v4, at.ROUTER_LAN.ula])
def test_the_router_itself_cannot_be_chosen(appliance: Appliance, address: str) -> None:
    answer = appliance.call("set", name="dns", value=address)
    assert (answer["ok"], answer["code"]) == (False, "invalid_value")
    assert "is the router itself" in answer["reason"]
    (appliance.bus.config_dir / "portcullis").write_text(
        f"config portcullis 'main'\n\tlist dns '{address}'\n"
    )
    assert appliance.call("reload")["ok"]
    appliance.call("connect", profile="vpn1")
    appliance.until_state("connection_failed")
    assert "is the router itself" in appliance.status()["reason"]


def test_a_forged_answer_to_the_tunnels_address_is_dropped(pihole: Appliance) -> None:
    """CVE-2019-14899: replies to the chosen resolver's questions pass, and nothing like them."""
    pihole.connect()
    world = pihole.world

    def dropped() -> int:
        return int(pihole.status()["blocked"]["blocked_inbound"])

    before = dropped()
    world.lanb.ip(f"route add {at.CLIENT1.v4}/32 via {at.ROUTER_LAN.v4}\n")
    with world.lanb.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
        forger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        forger.sendto(b"forged", (at.CLIENT1.v4, 40000))
    pihole.until(lambda: dropped() > before, "the packet is dropped")


def test_nothing_changes_while_the_kill_switch_is_inactive(pihole: Appliance) -> None:
    lan = pihole.world.lana
    assert ask(lan, "who.example.org", f"@{OUTSIDE[0]}") == IDENTITIES["public-dns"][0]
    assert ask(lan, "who.example.org") == IDENTITIES["isp"][0]
