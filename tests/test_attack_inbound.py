# SPDX-License-Identifier: GPL-2.0-or-later
"""K1, K2, K11: what strangers at the WAN and neighbours of the router send to it. An answer would
be a packet outside the tunnel; while the kill switch is inactive it is seen (positive control)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import suppress

import pytest
from router import addresses as at
from router import craft
from router.appliance import Appliance
from router.capture import Capture
from router.frame import ETH_ARP, ETH_IP6, UDP, mac
from router.hostile import onto, raw
from router.judge import judge
from router.lan import solicited
from router.leaktest import ALLOWED
from router.topology import VirtualRouter
from router.upstream import ISP_LINK_LOCAL

WAN, WAN6 = at.ROUTER_WAN.addresses
IN, IN6 = at.LAN_A.v4, at.LAN_A.v6
OUT, OUT6 = at.HOSTILE.addresses

STRANGERS: dict[str, Callable[[bytes], bytes]] = {
    "ping": lambda t: craft.icmp(OUT, WAN, 8, 0, b"\0\1\0\1" + t),
    "ping, IPv6": lambda t: craft.icmp(OUT6, WAN6, 128, 0, b"\0\1\0\1" + t),
    "ping to a device": lambda t: craft.icmp(OUT6, IN6, 128, 0, b"\0\2\0\1" + t),
    "a closed port": lambda t: craft.sealed(craft.udp(OUT, 4000, WAN, 4000, t)),
    "a closed port, IPv6": lambda t: craft.sealed(craft.udp(OUT6, 4000, WAN6, 4000, t)),
    "an open port": lambda t: craft.sealed(craft.udp(OUT, 4000, WAN, 9999, t)),
    "a forwarded port": lambda t: craft.sealed(craft.udp(OUT, 4000, WAN, 8080, t)),
    "a device's port, IPv6": lambda t: craft.sealed(craft.udp(OUT6, 4000, IN6, 7, t)),
    "a device's port": lambda t: craft.sealed(craft.udp(OUT, 4000, IN, 7, t)),
    "the router's address inside": lambda t: craft.sealed(
        craft.udp(OUT, 4000, at.ROUTER_LAN.v4, 9999, t)
    ),
    "the last hop": lambda t: craft.sealed(craft.udp(OUT6, 4000, IN6, 7, t, hops=1)),
    "no such way": lambda t: craft.sealed(craft.udp(OUT, 4000, "192.168.1.99", 7, t, hops=1)),
    "an unknown protocol": lambda t: craft.ip(OUT, WAN, 253, t),
    "from the VPN server, another port": lambda t: craft.sealed(
        craft.udp(at.VPN1.v4, 53, WAN, 9999, t)
    ),
}
PORTS = (
    'insert rule inet fw4 forward iifname "eth1" accept\n'
    'insert rule inet fw4 input iifname "eth1" accept\n'
    'add rule inet fw4 dstnat iifname "eth1" udp dport 8080 dnat ip to 192.168.1.10:7\n'
)
"""As an owner who forwards a port (UPnP does the same) and lets everything in."""


def answered(world: VirtualRouter) -> tuple[set[str], Capture]:
    """Which of the strangers get an answer on the WAN that has something of theirs in it."""
    tokens = {name: b"stranger%02d." % number for number, name in enumerate(STRANGERS)}
    with (
        world.router.socket() as service,
        Capture(world.isp, world.access) as wan,
    ):
        service.bind(("0.0.0.0", 9999))
        for name, make in STRANGERS.items():
            onto(world, "isp", make(tokens[name]))
        service.settimeout(0.5)
        with suppress(TimeoutError):
            while True:
                data, peer = service.recvfrom(100)
                service.sendto(data, peer)
    return {name for name in STRANGERS if wan.having(tokens[name])}, wan


@pytest.mark.parametrize("state", ["connected", "connecting"])
def test_strangers_get_no_answer(appliance: Appliance, state: str) -> None:
    """Nor by way of the tunnel: that would show which VPN server the house uses."""
    world = appliance.world
    world.router.nft(PORTS)
    world.router.sysctl({"ipv4/icmp_ratelimit": 0, "ipv6/icmp/ratelimit": 0})
    control: set[str] = set()
    for _ in range(5):  # a first answer may wait for a neighbour to be found
        control |= answered(world)[0]
        if control == STRANGERS.keys():
            break
    assert control == STRANGERS.keys(), f"no positive control: {STRANGERS.keys() - control}"
    if state == "connected":
        appliance.connect()
    else:
        world.vpn1.blackhole()
        assert appliance.call("connect", profile="vpn1")["ok"]
    with Capture(world.inet, "eth0") as beyond, Capture(world.vpn1.netns, "wg0") as inside:
        found, wan = answered(world)
    assert not found
    assert judge(wan.frames, ALLOWED).clean, str(judge(wan.frames, ALLOWED))
    assert not beyond.having(b"stranger")
    assert not inside.having(b"stranger")


@pytest.mark.parametrize("version", [4, 6])
def test_connections_from_outside_that_were_open_before_are_over(
    appliance: Appliance, version: int
) -> None:
    """A forwarded port, or a device's public IPv6 address: established in fw4's eyes."""
    world = appliance.world
    world.router.nft(PORTS)
    source, target = (OUT, (WAN, 8080)) if version == 4 else (OUT6, (IN6, 7))
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with world.inet.socket(family) as stranger:
        stranger.bind((source, 0))
        stranger.connect(target)
        stranger.settimeout(2)
        stranger.send(b"before")
        assert stranger.recv(100).startswith(b"before"), "no positive control"
        appliance.connect()
        stranger.settimeout(0.5)
        with Capture(world.isp, world.access) as wan:
            for _ in range(3):
                stranger.send(b"after")
            with pytest.raises(TimeoutError):
                stranger.recv(100)
        assert judge(wan.frames, ALLOWED).clean, str(judge(wan.frames, ALLOWED))


def test_a_forged_sender_inside_the_house_gets_nobody_an_answer(appliance: Appliance) -> None:
    """The WAN speaks in a device's name, and `rp_filter` is off, as OpenWrt has it."""
    world = appliance.world
    world.router.nft(PORTS)
    packets = [
        craft.sealed(craft.udp(at.LAN_B.v4, 4000, at.LAN_A.v4, 7, b"insider")),
        craft.sealed(craft.udp(at.LAN_B.v6, 4000, at.LAN_A.v6, 7, b"insider")),
        craft.sealed(craft.udp(at.LAN_A.v4, 4000, at.FRIENDLY.v4, 7, b"insider")),
        craft.sealed(craft.udp(at.LAN_A.v6, 4000, at.FRIENDLY.v6, 7, b"insider")),
    ]

    def fire() -> tuple[bool, Capture]:
        with (
            Capture(world.isp, world.access) as wan,
            Capture(world.lana, "eth0") as device,
            Capture(world.inet, "eth0") as beyond,
        ):
            onto(world, "isp", *packets)
            world.lana.run(["ping", "-c1", "-W2", at.ROUTER_LAN.v4])
        return bool(device.having(b"insider") or beyond.having(b"insider")), wan

    assert fire()[0], "no positive control"
    appliance.connect()
    arrived, wan = fire()
    assert not arrived
    assert judge(wan.frames, ALLOWED).clean, str(judge(wan.frames, ALLOWED))


# Whose address is it (MLLVD-CR-24-03) -------------------------------------------------------------


def _who_has(sender: str, source: str, target: str) -> bytes:
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac(sender) + socket.inet_aton(source)
    body += b"\0" * 6 + socket.inet_aton(target)
    return craft.ethernet(body, ETH_ARP, source=sender, target="ff:ff:ff:ff:ff:ff")


def _solicit(sender: str, source: str, target: str) -> bytes:
    low = socket.inet_pton(socket.AF_INET6, target)[-3:].hex()
    body = b"\0" * 4 + socket.inet_pton(socket.AF_INET6, target) + b"\1\1" + mac(sender)
    packet = craft.icmp(source, f"ff02::1:ff{low[:2]}:{low[2:]}", 135, 0, body, hops=255)
    return craft.ethernet(packet, ETH_IP6, source=sender, target=solicited(target))


@pytest.mark.parametrize("where", ["isp", "lana"])
def test_nobody_is_told_the_tunnels_address(appliance: Appliance, where: str) -> None:
    """Neighbours who try address after address. OpenWrt's `arp_ignore` is what keeps Linux from
    answering for the address of another device."""
    world = appliance.world
    appliance.connect()
    if where == "isp":
        space, device, sender, source, source6 = (
            world.isp,
            world.access,
            at.ISP_MAC,
            at.ISP.v4,
            ISP_LINK_LOCAL,
        )
    else:
        space, device, sender = world.lana, "eth0", at.LAN_A_MAC
        source, source6 = at.LAN_A.v4, at.LAN_A.v6

    def told() -> bool:
        with Capture(space, device) as seen:
            raw(world, where, _who_has(sender, source, at.CLIENT1.v4))
            raw(world, where, _solicit(sender, source6, at.CLIENT1.v6))
            gate = at.ISP if where == "isp" else at.ROUTER_LAN
            address = at.ROUTER_WAN if where == "isp" else gate
            raw(world, where, _who_has(sender, source, address.v4))
            seen.wait_for(b"\0\2" + mac(_router(where)) + socket.inet_aton(address.v4))
        own = socket.inet_aton(at.CLIENT1.v4), socket.inet_pton(socket.AF_INET6, at.CLIENT1.v6)
        return any(address in frame.raw for frame in seen.frames for address in own)

    assert not told()
    world.router.sysctl({"ipv4/conf/all/arp_ignore": 0})
    world.router.sysctl({f"ipv4/conf/{d}/arp_ignore": 0 for d in ("eth1", "br-lan")})
    assert told(), "no positive control"


def _router(where: str) -> str:
    return at.WAN_MAC if where == "isp" else at.BR_LAN_MAC


# Forged errors ------------------------------------------------------------------------------------


def test_forged_errors_about_the_tunnel_do_not_stop_it(appliance: Appliance) -> None:
    """Somebody on the path says that the VPN server is unreachable, or takes small packets only."""
    world = appliance.world
    appliance.connect()
    with Capture(world.isp, world.access) as wan:
        world.lana.run(["ping", "-c1", "-W2", at.FRIENDLY.v4])
    outer = next(
        frame.raw[14:]
        for frame in wan.frames
        if frame.raw[30:34] == socket.inet_aton(at.VPN1.v4) and frame.raw[23] == UDP
    )
    errors = [(3, code, b"\0" * 4) for code in (0, 1, 2, 3, 9, 10, 13)]
    errors += [(3, 4, struct.pack("!HH", 0, size)) for size in (68, 576)] + [(4, 0, b"\0" * 4)]
    for kind, code, head in errors * 3:
        onto(world, "isp", craft.icmp(at.ISP.v4, at.ROUTER_WAN.v4, kind, code, head + outer[:60]))
    for size in (56, 1300):
        world.lana.run(["ping", "-c2", "-i0.2", "-W2", "-s", str(size), at.FRIENDLY.v4])
    assert appliance.state == "connected"
