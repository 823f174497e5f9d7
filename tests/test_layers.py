# SPDX-License-Identifier: GPL-2.0-or-later
"""K9: each layer stops everything by itself; K6: nothing uninvited comes out of the tunnel."""

from __future__ import annotations

import contextlib
import socket

import pytest
from router import addresses as at
from router.appliance import Appliance
from router.capture import Capture
from router.leaktest import asleep, has_egress_hook, leaks, leave_the_filter_alone, proven
from router.measurement import flows, lan_probes, measure, questions
from router.probe import Probe, run
from router.probes import Icmp, PacketSocket, Tcp, Udp


def ordinary(appliance: Appliance) -> list[Probe]:
    """Forwarded traffic, and the router's sockets that are bound to no device."""
    world = appliance.world
    router = [*flows(world.router, at.PUBLIC_DNS), *questions(world.router, *at.ISP.addresses)]
    return [*lan_probes(world), *router]


@pytest.mark.parametrize("tunnel", ["connected", "server unreachable", "none"])
def test_the_routing_guard_alone_stops_everything_ordinary(
    appliance: Appliance, tunnel: str
) -> None:
    probes = ordinary(appliance)
    assert not measure(appliance.world, probes).unseen(), "no positive control"
    if tunnel == "connected":
        appliance.connect()
    elif tunnel == "none":
        appliance.add_profile("home", appliance.world.vpn1.profile(at.LAN_A.v4))
        appliance.call("connect", profile="home")
        appliance.until_state("connection_failed")
    else:
        appliance.world.vpn1.blackhole()
        appliance.call("connect", profile="vpn1")
    with asleep(appliance):
        for table in ("inet", "netdev") if has_egress_hook() else ("inet",):
            appliance.delete_table(f"{table} portcullis")
        leaks(appliance, probes)


@pytest.mark.parametrize("connected", [True, False], ids=["connected", "server unreachable"])
def test_the_packet_filter_alone_stops_everything(appliance: Appliance, connected: bool) -> None:
    with proven(appliance) as probes:
        if connected:
            appliance.connect()
        else:
            appliance.world.vpn1.blackhole()
            appliance.call("connect", profile="vpn1")
        with asleep(appliance):
            leave_the_filter_alone(appliance)
            leaks(appliance, [p for p in probes if not isinstance(p, PacketSocket)])


def test_a_sleeping_daemon_changes_nothing(appliance: Appliance) -> None:
    with proven(appliance) as probes:
        appliance.connect()
        with asleep(appliance):
            assert leaks(appliance, probes).tunnelled


def test_nothing_uninvited_comes_out_of_the_tunnel(appliance: Appliance) -> None:
    """The provider, or another of its customers, tries the router and the devices behind it."""
    world = appliance.world
    appliance.connect()
    world.firewall.stop()  # which would stop most of it as well
    world.vpn1.reach_behind(at.LAN4)
    server = world.vpn1.netns
    inward = [
        *(Icmp(server, address) for address in at.CLIENT1.addresses),
        *(kind(server, at.LAN_A.v4) for kind in (Udp, Tcp, Icmp)),
    ]
    before = appliance.status()["blocked"]["blocked_tunnel"]
    results = run(inward, 2, 1.0)
    assert not [str(result) for result in results if result.answered]
    assert appliance.status()["blocked"]["blocked_tunnel"] >= before + 2 * len(inward)
    with asleep(appliance):
        appliance.delete_table("inet portcullis")
        control = run(inward, 2, 1.0)
    assert all(result.answered for result in control), "no positive control"


@pytest.mark.parametrize("place", ["isp", "lana"])
def test_the_tunnels_address_answers_nobody_outside(appliance: Appliance, place: str) -> None:
    """CVE-2019-14899: who asks for the tunnel's address from beside it learns nothing."""
    world = appliance.world
    space = world.spaces[place]
    if place == "isp":
        space.ip("route add 10.64.1.2 via 203.0.113.2\nroute add fd64:1::2 via 2001:db8:ffff::2\n")
    appliance.connect()
    probes = [Icmp(space, "10.64.1.2"), Icmp(space, "fd64:1::2"), Udp(space, "10.64.1.2", 7)]
    results = run(probes, 2, 0.5)
    assert not [str(result) for result in results if result.answered or result.refused]


def test_a_rogue_route_in_main_changes_nothing(appliance: Appliance) -> None:
    """TunnelVision (CVE-2024-3661): routes that a DHCP server pushes, more specific than any."""
    with proven(appliance) as probes:
        appliance.connect()
        world = appliance.world
        world.router.ip(
            "route add 0.0.0.0/1 via 203.0.113.1 dev eth1\n"
            "route add 128.0.0.0/1 via 203.0.113.1 dev eth1\n"
            "route add 198.51.100.7/32 via 203.0.113.1 dev eth1\n"
            "route add 192.168.1.0/25 via 203.0.113.1 dev eth1\n"
            "route add 2001:db8:64::/48 via 2001:db8:ffff::1 dev eth1\n"
        )
        result = leaks(appliance, probes)
        assert result.tunnelled, "traffic goes on in the tunnel"
        new = [r for r in result.results if r.label.startswith("UDP lana → 198.51.100.7")]
        assert new and all(r.answered for r in new)


def test_the_mark_alone_opens_nothing(appliance: Appliance) -> None:
    """A router process that carries the tunnel's mark: not the endpoint's port, nor others. The
    egress hook has tests of its own (test_egress_hook.py), the routing guard lets the mark pass."""
    world, mark = appliance.world, 0x50430000
    probes: list[Probe] = [
        Udp(world.router, at.VPN1.v4, 7, mark=mark),
        Udp(world.router, at.FRIENDLY.v4, 7, mark=mark),
        Tcp(world.router, at.VPN1.v4, 7, mark=mark),
        Icmp(world.router, at.VPN1.v4, mark=mark),
        Udp(world.router, at.PUBLIC_DNS.v4, 53, mark=mark),
        Udp(world.router, at.FRIENDLY.v6, 7, mark=mark),
    ]
    assert not measure(world, probes).unseen(), "no positive control"
    appliance.connect()
    leaks(appliance, probes)
    with asleep(appliance):
        leave_the_filter_alone(appliance)
        leaks(appliance, probes)


@pytest.mark.parametrize("guarded", [True, False], ids=["all layers", "the filter alone"])
def test_an_interface_that_appears_is_the_internet(appliance: Appliance, guarded: bool) -> None:
    """K4: nothing vouches for a second way out, so nothing leaves by it. Without fw4, which
    forwards to no device that it does not know either."""
    world = appliance.world
    appliance.connect()
    world.firewall.stop()
    world.router.ip(
        f"link add usb0 type veth peer name usb netns {world.isp.name}\n"
        "addr add 203.0.114.2/24 dev usb0\nlink set usb0 up\n"
    )
    world.isp.ip("addr add 203.0.114.1/24 dev usb\nlink set usb up\n")
    world.router.ip("route add 198.51.100.7 via 203.0.114.1 dev usb0\n")
    probes = [*flows(world.lana), *flows(world.router, device="usb0")]
    probes = [probe for probe in probes if not probe.held]
    with contextlib.ExitStack() as stack:
        if not guarded:
            stack.enter_context(asleep(appliance))
            leave_the_filter_alone(appliance)
        beyond = stack.enter_context(Capture(world.isp, "usb"))
        results = run(probes, 3, 1.0)
    tokens = {token for result in results for token in result.tokens}
    assert len(tokens) == 3 * len(probes)
    assert not [token for token in tokens if beyond.having(token)]
    appliance.disconnect()
    with Capture(world.isp, "usb") as beyond:
        control = run([Udp(s, at.FRIENDLY.v4) for s in (world.lana, world.router)], 3, 1.0)
    tokens = {token for result in control for token in result.tokens}
    assert all(beyond.having(token) for token in tokens), "no positive control"


@pytest.mark.parametrize("honest", [True, False], ids=["DHCP", "something in DHCP's ports"])
def test_dhcp_passes_by_its_content_not_by_its_ports(appliance: Appliance, honest: bool) -> None:
    """K2: the router's address must be renewed; its ports are no way out for anything else."""
    world = appliance.world
    request = b"\1\1\6\0" + b"\0" * 24 + b"\2\0\x5e\0\x53\2" + b"\0" * 202
    payload = request + b"\x63\x82\x53\x63\x35\1\3\xff" if honest else b"pc-secret" * 40
    world.vpn1.blackhole()
    appliance.call("connect", profile="vpn1")
    with world.router.socket() as client, Capture(world.isp, world.access) as wan:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth1\0")
        client.bind(("", 68))
        with contextlib.suppress(PermissionError):
            client.sendto(payload, (at.ISP.v4, 67))
        run([Icmp(world.router, at.ISP.v4)], 1, 0.3)
    assert bool(wan.having(payload)) == honest
