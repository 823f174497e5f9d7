# SPDX-License-Identifier: GPL-2.0-or-later
"""K12: plain DNS while the block is active."""

from __future__ import annotations

import pytest
from router import addresses as at
from router.appliance import Appliance
from router.capture import Capture
from router.flood import Flood
from router.judge import Allowed, Endpoint, judge
from router.namespace import Namespace
from router.servers import IDENTITIES, Service

TUNNEL = IDENTITIES["tunnel1"]
ELSEWHERE = ["198.51.100.53", "2001:db8:64::53", "203.0.113.1"]


def ask(host: Namespace, name: str, *options: str) -> str:
    """The short answer to a question for A, or dig's complaint."""
    command = ["dig", "+short", "+time=1", "+tries=1", *options, name]
    return host.run(command, check=False).stdout.strip()


@pytest.mark.parametrize("host", ["lana", "guest", "router"])
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_only_the_tunnels_resolver_answers(appliance: Appliance, host: str, transport: str) -> None:
    space = appliance.world.spaces[host]
    for resolver in ELSEWHERE:  # positive control: outside, everybody answers for himself
        assert ask(space, "control.example.org", transport, f"@{resolver}") not in ("", TUNNEL[0])
    appliance.connect()
    asked = len(outside(appliance))
    for resolver in ELSEWHERE:
        assert ask(space, "who.example.org", transport, f"@{resolver}") == TUNNEL[0]
    assert ask(space, "through-dnsmasq.example.org") == TUNNEL[0]
    assert len(outside(appliance)) == asked


def outside(appliance: Appliance) -> list[object]:
    queries = appliance.world.servers.queries()
    return [query for query in queries if query.resolver in ("isp", "public-dns")]


def test_dns_is_rejected_at_once_while_there_is_no_tunnel(appliance: Appliance) -> None:
    appliance.world.vpn1.blackhole()
    appliance.call("connect", profile="vpn1")
    before = len(outside(appliance))
    for resolver in ELSEWHERE:
        command = ["dig", "+time=3", "+tries=1", f"@{resolver}", "no.example.org"]
        done = appliance.world.lana.run(command, check=False)
        assert "timed out" not in done.stdout, done.stdout
        assert "no servers could be reached" in done.stdout
    assert len(outside(appliance)) == before


def test_local_names_go_on_in_every_state(appliance: Appliance) -> None:
    def lana() -> str:
        return ask(appliance.world.lanb, "lana.lan")

    assert lana() == at.LAN_A.v4
    appliance.connect()
    assert lana() == at.LAN_A.v4
    appliance.world.vpn1.blackhole()
    assert lana() == at.LAN_A.v4


def test_caches_are_dropped_at_both_flips(appliance: Appliance) -> None:
    """What was learnt outside is not served inside, nor the other way round."""
    lan = appliance.world.lana
    outside_answer = ask(lan, "cached.example.org")
    assert outside_answer == IDENTITIES["isp"][0]
    appliance.connect()
    appliance.until(lambda: ask(lan, "cached.example.org") == TUNNEL[0], "the tunnel's answer")
    appliance.disconnect()
    appliance.until(lambda: ask(lan, "cached.example.org") == outside_answer, "the ISP's answer")


def test_a_profile_without_resolver_is_refused_unless_the_owner_set_one(
    appliance: Appliance,
) -> None:
    text = appliance.world.vpn1.profile()
    without = "\n".join(line for line in text.splitlines() if not line.startswith("DNS"))
    appliance.add_profile("silent", without)
    appliance.call("connect", profile="silent")
    appliance.until_state("connection_failed")
    assert "no DNS resolver" in appliance.status()["reason"]
    assert appliance.call("set", name="dns", value="10.64.1.1")["ok"]
    appliance.until_state("connected")
    assert appliance.status()["resolvers"] == ["10.64.1.1"]


def test_a_family_without_resolver_is_rejected(appliance: Appliance) -> None:
    appliance.call("set", name="dns", value="10.64.1.1")
    appliance.connect()
    assert ask(appliance.world.lana, "who.example.org", "@198.51.100.53") == TUNNEL[0]
    command = ["dig", "+time=3", "+tries=1", "@2001:db8:64::53", "who.example.org"]
    done = appliance.world.lana.run(command, check=False)
    assert "timed out" not in done.stdout, done.stdout
    assert "no servers could be reached" in done.stdout


def test_an_endpoint_is_resolved_by_the_bootstrap_resolvers_alone(appliance: Appliance) -> None:
    world = appliance.world
    assert appliance.call("set", name="bootstrap_dns", value="198.51.100.53")["ok"]
    appliance.add_profile("named", world.vpn1.profile(world.vpn1.hostname))
    allowed = Allowed.of(
        *(Endpoint(a) for a in at.VPN1.addresses),
        resolvers=["198.51.100.53"],
        names=[world.vpn1.hostname],
    )
    with Capture(world.isp, world.access) as wan:
        appliance.connect("named")
    verdict = judge(wan.frames, allowed)
    assert verdict.clean, str(verdict)
    assert world.vpn1.hostname in (appliance.home / "endpoints").read_text()
    before = len(outside(appliance))
    appliance.call("disconnect")
    appliance.connect("named")
    assert len(outside(appliance)) == before, "the remembered address was not used"


def test_an_endpoint_name_that_leads_into_the_house_is_refused(appliance: Appliance) -> None:
    """TunnelCrack's ServerIP: whoever answers for the name must not open a hole to himself."""
    world = appliance.world
    lie = {world.vpn1.hostname: {"1": "192.168.1.10", "28": "fd27:70fa:5c1d::10"}}
    lie["*"] = lie[world.vpn1.hostname]
    liar = Service("dns", "udp", world.inet.name, "198.51.100.66", 53, "liar", lie)
    world.servers.serve([liar])
    appliance.call("set", name="bootstrap_dns", value="198.51.100.66")
    appliance.add_profile("named", world.vpn1.profile(world.vpn1.hostname))
    appliance.call("connect", profile="named")
    appliance.until_state("connection_failed", patience=40)
    assert "protected network lan" in appliance.status()["reason"]
    assert not appliance.status()["endpoints"]


def test_a_server_that_moves_is_found_again(appliance: Appliance) -> None:
    """Its old address is dead, and its name has another by now."""
    world = appliance.world
    name, moved = world.vpn1.hostname, "198.51.100.111"
    here, there = (
        Service(
            "dns",
            "udp",
            world.inet.name,
            address,
            53,
            "named",
            {n: {"1": at_} for n in ("*", name)},
        )
        for address, at_ in (("198.51.100.66", at.VPN1.v4), ("2001:db8:64::66", moved))
    )
    world.servers.serve([here, there])
    appliance.call("set", name="bootstrap_dns", value="198.51.100.66")
    appliance.add_profile("named", world.vpn1.profile(name))
    appliance.connect("named")
    assert appliance.status()["endpoints"] == [f"{at.VPN1.v4} udp {at.WIREGUARD_PORT}"]
    appliance.call("set", name="bootstrap_dns", value="2001:db8:64::66")
    allowed = Allowed.of(
        *(Endpoint(a) for a in (*at.VPN1.addresses, moved)),
        resolvers=["2001:db8:64::66"],
        names=[name],
    )
    with Capture(world.isp, world.access) as wan, Flood(world.lana, [at.FRIENDLY.v4], rate=100):
        world.vpn1.netns.ip(
            f"addr del {at.VPN1.v4}/24 dev eth0\naddr add {moved}/24 dev eth0\n"
            f"route replace default via {at.CORE4}\n"
        )
        appliance.until_state("reconnecting", patience=40)
        appliance.until_state("connected", patience=40)
    assert appliance.status()["endpoints"] == [f"{moved} udp {at.WIREGUARD_PORT}"]
    assert moved in (appliance.home / "endpoints").read_text()
    verdict = judge(wan.frames, allowed)
    assert verdict.clean, str(verdict)
