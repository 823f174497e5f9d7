# SPDX-License-Identifier: GPL-2.0-or-later
"""What one device of the house may try upon another: frames by hand, so that neither the
sender's own routing nor its neighbour cache is in the way, and what of it arrives."""

from __future__ import annotations

import secrets
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from . import addresses as at
from . import craft
from .capture import Capture
from .frame import ETH_ARP, ICMP6, UDP, mac
from .namespace import Namespace
from .servers import echo
from .topology import VirtualRouter

BROADCAST = "ff:ff:ff:ff:ff:ff"
NOBODY = "192.168.1.77"
EXPERIMENTAL = 0x88B5  # IEEE's local experimental ethertype
LAN_C = at.Host("lanc", "192.168.1.12", "2001:db8:1::12", "fd27:70fa:5c1d::12")
LAN_C_MAC = "02:00:5e:00:53:12"


class Station(NamedTuple):
    """A device of the house, and the router's address in its network."""

    space: Namespace
    host: at.Host
    mac: str
    gateway: at.Host
    gateway_mac: str

    def __str__(self) -> str:
        return self.host.name


class Shot(NamedTuple):
    """One frame with a token of its own."""

    name: str
    token: bytes
    frame: bytes


def stations(world: VirtualRouter) -> dict[str, Station]:
    lan, guest = (at.ROUTER_LAN, at.BR_LAN_MAC), (at.ROUTER_GUEST, at.BR_GUEST_MAC)
    return {
        "lana": Station(world.lana, at.LAN_A, at.LAN_A_MAC, *lan),
        "lanb": Station(world.lanb, at.LAN_B, at.LAN_B_MAC, *lan),
        "guest": Station(world.guest, at.GUEST, at.GUEST_MAC, *guest),
    }


@contextmanager
def third_station(world: VirtualRouter) -> Iterator[Station]:
    """One more host on the LAN's bridge, at a port of its own (lan3)."""
    with _namespace(world, LAN_C.name) as space:
        world.router.ip(
            f"link add name lan3 type veth peer name eth0 netns {space.name} address {LAN_C_MAC}\n"
            f"link set lan3 master {at.LAN_BRIDGE} up\n"
        )
        yield _settle(world, space, LAN_C, LAN_C_MAC)
        # Its services' sockets keep the namespace alive beyond its name, and this device in it.
        world.router.ip("link del lan3\n")


@contextmanager
def stations_at_one_port(world: VirtualRouter) -> Iterator[tuple[Station, Station]]:
    """Two more hosts on the LAN, both behind a switch at the port lan4."""
    d, e = (
        at.Host(f"lan{letter}", f"192.168.1.{n}", f"2001:db8:1::{n}", f"fd27:70fa:5c1d::{n}")
        for letter, n in (("d", 13), ("e", 14))
    )
    macs = "02:00:5e:00:53:13", "02:00:5e:00:53:14"
    with ExitStack() as stack:
        switch = stack.enter_context(_namespace(world, "switch"))
        spaces = [stack.enter_context(_namespace(world, host.name)) for host in (d, e)]
        switch.ip("link add sw type bridge stp_state 0 mcast_snooping 0\nlink set sw up\n")
        world.router.ip(
            f"link add name lan4 type veth peer name uplink netns {switch.name}\n"
            f"link set lan4 master {at.LAN_BRIDGE} up\n"
        )
        switch.ip("link set uplink master sw up\n")
        for number, (space, mac_) in enumerate(zip(spaces, macs, strict=True)):
            switch.ip(
                f"link add name p{number} type veth"
                f" peer name eth0 netns {space.name} address {mac_}\n"
                f"link set p{number} master sw up\n"
            )
        yield _settle(world, spaces[0], d, macs[0]), _settle(world, spaces[1], e, macs[1])


@contextmanager
def _namespace(world: VirtualRouter, name: str) -> Iterator[Namespace]:
    space = Namespace(f"{world.prefix}-{name}")
    subprocess.run(["ip", "netns", "add", space.name], check=True)
    try:
        space.sysctl({"ipv6/conf/all/accept_dad": 0, "ipv6/conf/default/accept_dad": 0})
        yield space
    finally:
        subprocess.run(["ip", "netns", "del", space.name], check=True)


def _settle(world: VirtualRouter, space: Namespace, host: at.Host, address: str) -> Station:
    """Give a host its addresses, its routes and its services."""
    space.ip(
        f"link set lo up\naddr add {host.v4}/24 dev eth0\n"
        f"addr add {host.v6}/64 dev eth0 nodad\naddr add {host.ula}/64 dev eth0 nodad\n"
        f"link set eth0 up\nroute add default via {at.ROUTER_LAN.v4}\n"
        f"route add ::/0 via {at.ROUTER_LAN.v6}\n"
    )
    world.servers.serve(echo(space, host))
    return Station(space, host, address, at.ROUTER_LAN, at.BR_LAN_MAC)


def bridged(source: Station, to: Station, as_mac: str = "") -> list[Shot]:
    """Frames to a device of the same bridge, by every way there is; `as_mac` is whose they claim
    to be."""
    sender, a, b = as_mac or source.mac, source.host, to.host
    group4, group6 = "01:00:5e:01:02:03", "33:33:00:00:00:fb"
    ways: dict[str, Callable[[bytes], bytes]] = {
        "unicast IPv4": lambda t: _udp(sender, to.mac, a.v4, b.v4, t),
        "unicast IPv6": lambda t: _udp(sender, to.mac, a.v6, b.v6, t),
        "multicast IPv4": lambda t: _udp(sender, group4, a.v4, at.GROUP4, t),
        "multicast IPv6": lambda t: _udp(sender, group6, a.v6, "ff02::fb", t),
        "broadcast IPv4": lambda t: _udp(sender, BROADCAST, a.v4, "255.255.255.255", t),
        "IPv4 in a broadcast frame": lambda t: _udp(sender, BROADCAST, a.v4, b.v4, t),
        "ARP request": lambda t: _arp(sender, BROADCAST, 1, sender, a.v4, b.v4, t),
        "ARP request in a unicast frame": lambda t: _arp(sender, to.mac, 1, sender, a.v4, b.v4, t),
        "ARP reply": lambda t: _arp(sender, to.mac, 2, sender, NOBODY, b.v4, t),
        "gratuitous ARP": lambda t: _arp(sender, BROADCAST, 1, sender, a.v4, a.v4, t),
        "ARP in another's name": lambda t: _arp(sender, to.mac, 2, to.mac, b.v4, b.v4, t),
        "neighbour solicitation": lambda t: _nd(sender, solicited(b.v6), 135, a.v6, b.v6, t),
        "neighbour advertisement": lambda t: _nd(sender, to.mac, 136, a.v6, a.v6, t),
        "another ethertype": lambda t: craft.ethernet(
            t.ljust(46, b"."), EXPERIMENTAL, source=sender, target=to.mac
        ),
        "a VLAN tag": lambda t: _tagged(_udp(sender, to.mac, a.v4, b.v4, t)),
    }
    return [Shot(name, token, way(token)) for name, way in ways.items() for token in [_token()]]


def about(source: Station, one: Station, to: Station) -> list[Shot]:
    """Questions about one device in frames to another."""
    a, b, (first, second) = source.host, one.host, (_token(), _token())
    return [
        Shot("ARP", first, _arp(source.mac, to.mac, 1, source.mac, a.v4, b.v4, first)),
        Shot("ND", second, _nd(source.mac, to.mac, 135, a.v6, b.v6, second)),
    ]


def routed(source: Station, to: Station, as_mac: str = "") -> list[Shot]:
    """Packets to another device over the router's own MAC address: between networks, or back
    into the same one."""
    sender, gate = as_mac or source.mac, source.gateway_mac
    pairs = {
        "routed IPv4": (source.host.v4, to.host.v4),
        "routed IPv6": (source.host.v6, to.host.v6),
    }
    return [
        Shot(name, token, _udp(sender, gate, a, b, token))
        for name, (a, b) in pairs.items()
        for token in [_token()]
    ]


def arrived(world: VirtualRouter, source: Station, to: Station, shots: list[Shot]) -> set[str]:
    """Names of the shots that came to the other device. The router asks it something in the end:
    whatever was on its way, be it for want of the device's address, has been there by then."""
    with Capture(to.space, "eth0", megabytes=4) as capture:
        fire(source, [shot.frame for shot in shots])
        for address in to.host.addresses[:2]:
            world.router.run(["ping", "-c1", "-W2", address])
        capture.flush()
    return {shot.name for shot in shots if capture.having(shot.token)}


def fire(source: Station, frames: list[bytes]) -> None:
    with source.space.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind(("eth0", 0))
        for frame in frames:
            sock.send(frame)


def answers(station: Station, *addresses: str) -> bool:
    """Whether the router (or another address) answers a ping of this device."""
    return all(
        not station.space.run(["ping", "-c1", "-W1", "-I", "eth0", address], check=False).returncode
        for address in addresses or station.gateway.addresses[:2]
    )


def forget_neighbours(*spaces: Namespace) -> None:
    for space in spaces:
        space.ip("neigh flush all\n")


def join_networks(world: VirtualRouter) -> None:
    """As an owner who lets LAN and guests into each other: fw4 has no objection any more."""
    both = f'{{ "{at.LAN_BRIDGE}", "{at.GUEST_BRIDGE}" }}'
    world.router.nft(f"insert rule inet fw4 forward iifname {both} oifname {both} accept\n")


def solicited(address: str) -> str:
    return "33:33:ff:" + socket.inet_pton(socket.AF_INET6, address)[-3:].hex(":")


def _token() -> bytes:
    return b"lan" + secrets.token_hex(6).encode()


def _udp(sender: str, target: str, source: str, to: str, token: bytes) -> bytes:
    port = 20000 + secrets.randbelow(20000)
    packet = craft.udp(source, port, to, 5001, token)
    if ":" in to:  # without a checksum it is nothing (RFC 8200)
        body = packet[40:]
        pseudo = packet[8:40] + struct.pack("!II", len(body), UDP)
        body = body[:6] + struct.pack("!H", craft.checksum(pseudo + body) or 0xFFFF) + body[8:]
        packet = packet[:40] + body
    return craft.ethernet(packet, source=sender, target=target)


def _arp(
    sender: str, target: str, operation: int, claims: str, source: str, to: str, token: bytes
) -> bytes:
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    body += mac(claims) + socket.inet_aton(source) + b"\0" * 6 + socket.inet_aton(to)
    return craft.ethernet(body + token, ETH_ARP, source=sender, target=target)


def _nd(sender: str, target: str, kind: int, source: str, about: str, token: bytes) -> bytes:
    """Solicitation or advertisement; the token stands in an option that nobody knows."""
    low = socket.inet_pton(socket.AF_INET6, about)[-3:].hex()
    to = about if kind == 136 else f"ff02::1:ff{low[:2]}:{low[2:]}"
    option = bytes([253, 3]) + token.ljust(22, b"\0")
    body = struct.pack("!BBHI", kind, 0, 0, 0) + socket.inet_pton(socket.AF_INET6, about) + option
    packet = craft.ip(source, to, ICMP6, body, hops=255)
    pseudo = packet[8:40] + struct.pack("!II", len(body), ICMP6)
    body = body[:2] + struct.pack("!H", craft.checksum(pseudo + body)) + body[4:]
    return craft.ethernet(craft.ip(source, to, ICMP6, body, hops=255), source=sender, target=target)


def _tagged(frame: bytes) -> bytes:
    return frame[:12] + struct.pack("!HH", 0x8100, 7) + frame[12:]
