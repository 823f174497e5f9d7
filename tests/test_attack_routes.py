# SPDX-License-Identifier: GPL-2.0-or-later
"""K11: routes, addresses and names that a hostile upstream network pushes. Nothing leaks, and the
traffic goes on in the tunnel."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from router import addresses as at
from router.appliance import Appliance
from router.capture import Capture
from router.hostile import onto
from router.judge import Allowed, Endpoint, judge
from router.leaktest import (
    ALLOWED,
    asleep,
    devices_flows,
    leaks,
    leave_the_filter_alone,
    proven,
    served,
)
from router.measurement import measure
from router.probe import opened
from router.probes import Udp
from router.servers import Service
from router.topology import VirtualRouter
from router.upstream import ISP_LINK_LOCAL, advertise, dhcp, lease, obey, redirect

GATE, ATTACKER = at.ISP.v4, "203.0.113.66"


@contextmanager
def in_the_tunnel(appliance: Appliance) -> Iterator[Callable[[], None]]:
    """Connected, after a positive control of every probe. Calling what is given checks that
    nothing leaks, and that every flow of the devices, begun before or after, goes on in the
    tunnel."""
    with proven(appliance) as probes:
        appliance.connect()
        with opened(devices_flows(appliance)) as devices:

            def check() -> None:
                served(appliance, devices)
                leaks(appliance, probes, 1)

            yield check


def answer_for_everybody(world: VirtualRouter) -> None:
    """The ISP says that it is whoever the router looks for on the line (proxy ARP)."""
    world.isp.sysctl({f"ipv4/conf/{world.access}/proxy_arp": 1})
    world.isp.sysctl({f"ipv4/neigh/{world.access}/proxy_delay": 0})


# DHCP (TunnelVision, CVE-2024-3661) ---------------------------------------------------------------

_TARGETS = (*(host.v4 for host in at.INTERNET), at.TUNNEL1.v4)
_PUSHED = (
    *("0.0.0.0/1", "128.0.0.0/1", "10.64.0.0/16", "169.254.0.0/16"),
    *(f"{target}/32" for target in (*_TARGETS, at.VPN1.v4)),
    *("192.168.1.0/25", "192.168.1.10/32", "192.168.1.1/32", "192.168.2.0/25"),
)
PUSHES = {
    "option 121": ("121," + ",".join(f"{prefix},{GATE}" for prefix in _PUSHED),),
    "options 249 and 33, on-link too": (
        "249," + ",".join(f"{target}/32,0.0.0.0" for target in _TARGETS),
        "33," + ",".join(f"{target},{GATE}" for target in (*_TARGETS, at.VPN1.v4, at.LAN_A.v4)),
    ),
}


@pytest.mark.parametrize("option", PUSHES)
def test_routes_pushed_by_dhcp_change_nothing(appliance: Appliance, option: str) -> None:
    world = appliance.world
    answer_for_everybody(world)
    with in_the_tunnel(appliance) as check, dhcp(world, *PUSHES[option]):
        lease(world)
        pushed = world.router.run(["ip", "route", "get", at.FRIENDLY.v4, "mark", "0x50430000"])
        assert at.WAN_DEVICE in pushed.stdout
        assert f"{at.FRIENDLY.v4} " in world.router.run(["ip", "route"]).stdout
        check()


def test_a_public_network_on_link_at_the_wan_changes_nothing(appliance: Appliance) -> None:
    """TunnelCrack's LocalNet (CVE-2023-36672, CVE-2023-35838): half the internet is said to be
    the local network, the VPN server and the devices' peers included."""
    world = appliance.world
    answer_for_everybody(world)
    with in_the_tunnel(appliance) as check, dhcp(world, mask="128.0.0.0"):
        world.router.ip(f"addr flush dev {at.WAN_DEVICE} to 203.0.113.0/24\n")
        lease(world)
        assert "128.0.0.0/1 dev eth1" in world.router.run(["ip", "route"]).stdout
        appliance.until_state("connected")
        check()


def test_the_houses_own_network_on_link_at_the_wan_changes_nothing(appliance: Appliance) -> None:
    """A modem, or an attacker, with the addresses of the LAN."""
    with in_the_tunnel(appliance) as check:
        appliance.world.router.ip(
            "addr add 192.168.1.66/24 dev eth1\nroute add 192.168.1.10/32 dev eth1\n"
            "addr add 2001:db8:1::66/64 dev eth1 nodad\nroute add 2001:db8:1::10/128 dev eth1\n"
        )
        check()


# IPv6 and redirects -------------------------------------------------------------------------------


def test_ipv6_that_appears_after_connecting_changes_nothing(appliance: Appliance) -> None:
    """Advertisements bring a default route, addresses, the house's own prefix on-link, more
    specific routes and resolvers to a line that had no IPv6."""
    world = appliance.world
    with in_the_tunnel(appliance) as check:
        world.router.ip(f"route del ::/0\naddr del {at.ROUTER_WAN.v6}/64 dev eth1\n")
        obey(world)
        advertise(
            world,
            on_link=["2001:db8:ffff::/64", at.LAN6],
            routes=["2000::/3", f"{at.FRIENDLY.v6}/128", "2001:db8:1::/65"],
            resolvers=[at.ISP.v6],
        )
        shown = ["ip", "-6", "route", "show", "default"]
        appliance.until(lambda: "proto ra" in world.router.run(shown).stdout, "a default route")
        check()


def test_redirects_lead_nothing_astray(appliance: Appliance) -> None:
    world = appliance.world
    world.isp.ip(f"addr add {ATTACKER}/24 dev {world.access}\n")
    obey(world)

    def astray(target: str) -> bool:
        """Whether the router follows a redirect; the new gateway is looked for at the first."""
        for _ in range(3):
            onto(world, "isp", redirect(target, ATTACKER))
            world.router.run(["ping", "-c1", "-W1", "-m", "0x50430000", ATTACKER], check=False)
        way = world.router.run(["ip", "route", "get", target, "mark", "0x50430000"])
        return ATTACKER in way.stdout

    with in_the_tunnel(appliance) as check:
        world.firewall.stop()
        assert not astray(at.VPN1.v4)
        assert not astray(at.FRIENDLY.v4)
        for target in (at.VPN1.v6, at.FRIENDLY.v6):
            onto(world, "isp", redirect(target, ISP_LINK_LOCAL))
        check()
    with asleep(appliance):  # the guard's routes have another gateway, so the kernel heeds none
        leave_the_filter_alone(appliance)
        assert not astray(at.FRIENDLY.v4)
    appliance.disconnect()
    assert astray(at.FRIENDLY.v4), "no positive control"


# The server's name (TunnelCrack's ServerIP, CVE-2023-36673, CVE-2023-36671) -----------------------

FORGER = "198.51.100.54"


def forge(appliance: Appliance, address: str) -> None:
    """The resolver that is asked for the server's address says `address`."""
    world = appliance.world
    world.inet.ip(f"addr add {FORGER}/24 dev eth0\n")
    answers = {"*": {}, world.vpn1.hostname: {"1": address}}
    service = Service("dns", "udp", world.inet.name, FORGER, 53, "public-dns", answers)
    world.servers.serve([service])
    appliance.add_profile("named", world.vpn1.profile(world.vpn1.hostname))
    assert appliance.call("set", name="bootstrap_dns", value=FORGER)["ok"]


def test_a_forged_server_address_gets_nothing_but_knocks_on_its_port(appliance: Appliance) -> None:
    """The victim of the forgery is the very host that devices talk to."""
    world = appliance.world
    forge(appliance, at.FRIENDLY.v4)
    allowed = Allowed.of(Endpoint(at.FRIENDLY.v4), resolvers=[FORGER], names=[world.vpn1.hostname])
    with proven(appliance) as probes:
        port = Udp(world.lana, at.FRIENDLY.v4, at.WIREGUARD_PORT)
        with Capture(world.isp, world.access) as wan:
            assert appliance.call("connect", profile="named")["ok"]
            active = time.time()  # before that the held flows of the control may still say ACK
            appliance.until(lambda: appliance.status()["endpoints"], "the forged address is tried")
            result = measure(world, [*probes, port], allowed)
        assert not result.leaks, f"leaked: {result}"
        assert not result.on_wan
        verdict = judge([f for f in wan.frames if f.time >= active], allowed)
        assert verdict.clean, str(verdict)
        assert judge(wan.frames, allowed).passed["tunnel"], "the victim is knocked at"
    assert appliance.call("set", name="bootstrap_dns", value=at.PUBLIC_DNS.v4)["ok"]
    appliance.connect("named")  # asks anew
    assert at.FRIENDLY.v4 not in (appliance.home / "endpoints").read_text()


def tried(appliance: Appliance) -> bool:
    """Whether what the resolver said has been looked at."""
    found = appliance.status()
    return bool(found["tunnel"]["attempt"] > 1 or found["state"] == "connection_failed")


@pytest.mark.parametrize(
    "address", [at.LAN_A.v4, at.ROUTER_WAN.v4, "127.0.0.1", "224.0.0.5", at.CLIENT1.v4]
)
def test_a_forged_server_address_inside_the_house_is_refused(
    appliance: Appliance, address: str
) -> None:
    world = appliance.world
    forge(appliance, address)
    with Capture(world.isp, world.access) as wan, Capture(world.lana, "eth0") as lan:
        assert appliance.call("connect", profile="named")["ok"]
        appliance.until(lambda: tried(appliance), "the forged address is looked at")
    verdict = judge(wan.frames, Allowed.of(resolvers=[FORGER], names=[world.vpn1.hostname]))
    assert verdict.clean, str(verdict)
    assert verdict.passed["bootstrap"], "no positive control"
    assert not [f for f in lan.frames if b"\xca\x6c" in f.raw[36:38]], "the device was knocked at"


# The server's own address -------------------------------------------------------------------------


def test_what_goes_to_the_servers_own_address_goes_into_the_tunnel(appliance: Appliance) -> None:
    """MUL-02-002 and MUL-02-004: neither a device nor a process of the router can be told apart
    outside by what it sends to the VPN server."""
    world = appliance.world
    plain = [
        Udp(space, address, port)
        for space in (world.lana, world.guest, world.router)
        for address in (at.VPN1.v4, at.VPN1.v6)
        for port in (7, at.WIREGUARD_PORT, 443)
    ]
    assert not measure(world, plain).unseen(), "no positive control"
    appliance.connect()
    with Capture(world.vpn1.netns, "wg0") as inside:
        result = measure(world, plain, ALLOWED)
    assert not result.leaks, f"leaked: {result}"
    assert not result.on_wan
    missing = [str(r) for r in result.results if not any(map(inside.having, r.tokens))]
    assert not missing, missing
    appliance.disconnect()
    world.vpn1.blackhole()
    appliance.call("connect", profile="vpn1")
    bound = Udp(world.router, at.VPN1.v4, at.WIREGUARD_PORT, device="eth1")
    result = measure(world, [bound, *plain], ALLOWED)
    assert not result.leaks, f"leaked: {result}"
    assert not result.on_wan
