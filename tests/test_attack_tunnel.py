# SPDX-License-Identifier: GPL-2.0-or-later
"""K6 and K11: attacks on what is in the tunnel, from beside it (CVE-2019-14899) and out of it."""

from __future__ import annotations

import socket
from socket import AF_INET, AF_INET6

import pytest
from router import addresses as at
from router import craft
from router.appliance import Appliance
from router.capture import Capture
from router.hostile import Conversation, onto, out_of_the_tunnel
from router.lan import join_networks
from router.leaktest import asleep
from router.probe import run
from router.probes import Udp

IP_RECVERR = 11
TUNNEL_ADDRESS = {4: at.CLIENT1.v4, 6: at.CLIENT1.v6}
SERVER = {4: at.FRIENDLY.v4, 6: at.FRIENDLY.v6}


def connect(appliance: Appliance) -> None:
    """Connected, and the server knows it: what it sends from now on comes through."""
    appliance.connect()
    (sound,) = run([Udp(appliance.world.lana, at.TUNNEL1.v4)], 1)
    assert sound.answered


# CVE-2019-14899: into a connection that is in the tunnel, from beside it -------------------------


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("where", ["isp", "lanb", "guest"])
def test_a_forged_reset_from_beside_the_tunnel_ends_no_connection_in_it(
    appliance: Appliance, where: str, version: int
) -> None:
    world = appliance.world
    if version == 4:
        with Conversation(world) as outside:
            onto(world, "isp", outside.forged(at.ROUTER_WAN.v4, craft.RST | craft.ACK))
            assert not outside.goes_on(), "no positive control"
    appliance.connect()
    with Conversation(world, SERVER[version]) as inside:
        onto(world, where, inside.forged(TUNNEL_ADDRESS[version], craft.RST | craft.ACK))
        assert inside.goes_on()


@pytest.mark.parametrize("where", ["isp", "lanb", "guest"])
def test_forged_data_from_beside_the_tunnel_comes_to_nobody(
    appliance: Appliance, where: str
) -> None:
    world = appliance.world
    appliance.connect()
    with Conversation(world) as inside:
        forged = inside.forged(at.CLIENT1.v4, craft.PSH | craft.ACK, b"forged\n")
        onto(world, where, forged)
        assert inside.goes_on()
        assert not inside.heard(b"forged")


# K6: out of the tunnel come replies to what was begun inside, and nothing else --------------------


def test_what_a_helper_expects_is_no_reply(appliance: Appliance) -> None:
    """NAT slipstreaming: a helper (FTP, SIP, H.323) that reads along lets the other side begin a
    connection of its own. nft's expectation object stands for the helper."""
    world = appliance.world
    world.router.nft(
        "table inet helper {\n ct expectation any {\n  protocol udp; dport 7; timeout 1m; size 9;"
        " l3proto ip;\n }\n chain forward {\n  type filter hook forward priority -200;\n"
        f'  iifname "{at.LAN_BRIDGE}" udp dport 5001 ct expectation set "any"\n }}\n}}\n'
    )
    world.vpn1.reach_behind(at.LAN4)
    connect(appliance)
    inward = Udp(world.vpn1.netns, at.LAN_A.v4, 7)

    def expected() -> bool:
        (begun,) = run([Udp(world.lana, at.TUNNEL1.v4, 5001)], 1)
        assert begun.answered
        (result,) = run([inward], 1, 0.5)
        return bool(result.answered)

    assert not expected()
    with asleep(appliance):
        appliance.delete_table("inet portcullis")
        assert expected(), "no positive control"


@pytest.mark.parametrize("version", [4, 6])
def test_the_provider_gets_into_no_flow_inside_the_house(
    appliance: Appliance, version: int
) -> None:
    """Packets out of the tunnel that pretend to be a guest's answer to a device of the LAN."""
    world = appliance.world
    source, target = (host.addresses[version == 6] for host in (at.GUEST, at.LAN_A))
    world.vpn1.reach_behind(at.LAN4 if version == 4 else at.LAN6)
    join_networks(world)
    connect(appliance)
    with world.lana.socket(AF_INET if version == 4 else AF_INET6) as device:
        device.connect((source, 7))
        device.send(b"hello")
        assert _received(device).startswith(b"hello")
        port = device.getsockname()[1]
        forged = craft.sealed(craft.udp(source, 7, target, port, b"forged"))
        out_of_the_tunnel(world.vpn1, forged)
        assert not _received(device)
        with asleep(appliance):
            appliance.delete_table("inet portcullis")
            out_of_the_tunnel(world.vpn1, forged)
            assert _received(device) == b"forged", "no positive control"


def test_errors_about_what_devices_sent_come_back(appliance: Appliance) -> None:
    """And none about flows inside the house, which the provider has no part in."""
    world = appliance.world
    world.vpn1.reach_behind(at.LAN4)
    join_networks(world)
    connect(appliance)
    with world.lana.socket() as probe, world.lana.socket() as device:
        probe.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 2)  # the VPN server is the second hop
        probe.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        probe.settimeout(2)
        probe.sendto(b"how far", (at.FRIENDLY.v4, 33434))
        with pytest.raises(OSError, match="No route to host"):
            probe.recv(100)
        device.connect((at.GUEST.v4, 7))
        device.send(b"hello")
        assert _received(device).startswith(b"hello")
        port = device.getsockname()[1]
        quoted = craft.udp(at.LAN_A.v4, port, at.GUEST.v4, 7, b"quoted")
        forged = craft.icmp(at.GUEST.v4, at.LAN_A.v4, 3, 1, b"\0" * 4 + quoted)

        def comes_in() -> bool:
            with Capture(world.lana, "eth0") as seen:
                out_of_the_tunnel(world.vpn1, forged)
                run([Udp(world.router, at.TUNNEL1.v4)], 1)
                world.router.run(["ping", "-c1", "-W2", at.LAN_A.v4])
            return bool(seen.having(b"quoted"))

        assert not comes_in()
        with asleep(appliance):
            appliance.delete_table("inet portcullis")
            assert comes_in(), "no positive control"


def test_the_provider_gets_into_no_flow_with_the_router(appliance: Appliance) -> None:
    """Packets out of the tunnel that pretend to be a device's that talks with the router (SSH,
    its pages): they come in the direction in which the flow was begun."""
    world = appliance.world
    world.vpn1.reach_behind(at.LAN4)
    connect(appliance)
    with world.router.socket() as service, world.lana.socket() as device:
        service.bind((at.ROUTER_LAN.v4, 9999))
        device.connect((at.ROUTER_LAN.v4, 9999))
        device.send(b"hello")
        data, peer = service.recvfrom(100)
        service.sendto(data, peer)
        assert _received(device) == b"hello"
        forged = craft.udp(peer[0], peer[1], at.ROUTER_LAN.v4, 9999, b"forged")
        out_of_the_tunnel(world.vpn1, forged)
        assert not _received(service)
        with asleep(appliance):
            appliance.delete_table("inet portcullis")
            out_of_the_tunnel(world.vpn1, forged)
            assert _received(service) == b"forged", "no positive control"


def _received(sock: socket.socket, patience: float = 0.5) -> bytes:
    """What comes, or nothing within `patience` seconds."""
    sock.settimeout(patience)
    try:
        return sock.recv(100)
    except TimeoutError:
        return b""


# What goes into the tunnel carries our address in it ----------------------------------------------


def test_no_address_of_the_house_goes_into_the_tunnel(appliance: Appliance) -> None:
    """What connection tracking makes nothing of is not translated. fw4 drops it towards its
    zones, and so does our table where fw4 is not there."""
    world = appliance.world
    world.vpn1.reach_behind(at.LAN4)  # or the server would not even accept it
    connect(appliance)
    world.firewall.stop()
    stray = craft.tcp(at.LAN_A.v4, 40001, at.FRIENDLY.v4, 80, craft.RST, payload=b"stray")
    with Capture(world.vpn1.netns, "wg0") as inside:
        onto(world, "lana", stray)
        (sound,) = run([Udp(world.lana, at.FRIENDLY.v4)], 1)
        assert sound.answered
    assert not inside.having(b"stray")
    with asleep(appliance), Capture(world.vpn1.netns, "wg0") as inside:
        appliance.delete_table("inet portcullis")
        onto(world, "lana", stray)
        inside.wait_for(b"stray")  # the positive control


def test_the_routers_errors_about_strangers_packets_do_not_come_out_of_the_tunnel(
    appliance: Appliance,
) -> None:
    """Whoever sends packets that die at the router must not be told so from inside the tunnel:
    the answer would show which VPN server the house uses."""
    world = appliance.world
    connect(appliance)
    dying = craft.udp(at.HOSTILE.v4, 40000, at.LAN_A.v4, 40000, b"dying", hops=1)
    with Capture(world.vpn1.netns, "wg0") as inside, Capture(world.isp, world.access) as wan:
        onto(world, "isp", dying)
        (sound,) = run([Udp(world.lana, at.FRIENDLY.v4)], 1)
        assert sound.answered
    assert not inside.having(b"dying")
    assert not wan.having(b"dying")
    appliance.disconnect()
    with Capture(world.isp, world.access) as wan:
        onto(world, "isp", dying)
        wan.wait_for(b"dying")  # the positive control
