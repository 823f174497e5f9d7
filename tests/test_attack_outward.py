# SPDX-License-Identifier: GPL-2.0-or-later
"""K1, K2, K4: packets of every odd kind that devices and the router's own programs try to get
out. What can leave at all is seen on the WAN while the kill switch is inactive."""

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
from router.frame import ETH_ARP, mac
from router.hostile import onto, raw
from router.judge import judge
from router.leaktest import ALLOWED, has_egress_hook
from router.measurement import flows, measure
from router.multicast import MulticastRouting
from router.namespace import Namespace
from router.oddities import oddities
from router.probe import run
from router.probes import DnsUdp, Udp
from router.topology import VirtualRouter

STATES = ("connected", "connecting")


def block(appliance: Appliance, state: str) -> None:
    if state == "connected":
        appliance.connect()
    else:
        appliance.world.vpn1.blackhole()
        assert appliance.call("connect", profile="vpn1")["ok"]


def settle(world: VirtualRouter) -> None:
    """What was sent before has been through the router when this returns."""
    for address in at.ROUTER_LAN.addresses[:2]:
        world.lana.run(["ping", "-c1", "-W2", address])


# Devices ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
def test_odd_packets_of_devices_do_not_leave(appliance: Appliance, state: str) -> None:
    world = appliance.world
    world.router.sysctl({"ipv4/conf/all/accept_source_route": 1, "ipv4/conf/all/bc_forwarding": 1})
    world.router.sysctl({"ipv4/conf/br-lan/bc_forwarding": 1}, optional=True)
    world.firewall.stop()  # which would stop some of them by itself
    found = oddities()

    def fire() -> set[str]:
        with MulticastRouting(world.router), Capture(world.isp, world.access) as wan:
            for odd in found:
                raw(world, "lana", *odd.frames)
            settle(world)
        nonlocal seen
        seen = wan
        return {odd.name for odd in found if wan.having(odd.token)}

    seen: Capture
    control = fire()
    assert not {odd.name for odd in found if not odd.stray} - control, "no positive control"
    block(appliance, state)
    assert not fire()
    assert judge(seen.frames, ALLOWED).clean, str(judge(seen.frames, ALLOWED))


@pytest.mark.parametrize("state", STATES)
def test_what_the_router_says_to_a_forged_sender_does_not_leave(
    appliance: Appliance, state: str
) -> None:
    """A device speaks in a stranger's name. What the router rejects it answers at once, and the
    answer is the stranger's."""
    world = appliance.world

    def provoke() -> tuple[Capture, Capture]:
        packets = []
        for source, to in ((at.HOSTILE.v4, at.FRIENDLY.v4), (at.HOSTILE.v6, at.FRIENDLY.v6)):
            packets.append(craft.sealed(craft.udp(source, 4000, to, 5001, b"strange", hops=1)))
            packets.append(craft.sealed(craft.udp(source, 4001, to, 53, b"strange")))
            packets.append(craft.tcp(source, 4002, to, 853, craft.SYN))
        with (
            Capture(world.isp, world.access) as wan,
            Capture(world.vpn1.netns, "wg0") as inside,
        ):
            onto(world, "lana", *packets)
            settle(world)
        return wan, inside

    wan, _ = provoke()
    assert wan.having(b"strange"), "no positive control"
    block(appliance, state)
    wan, inside = provoke()
    assert judge(wan.frames, ALLOWED).clean, str(judge(wan.frames, ALLOWED))
    stranger = [socket.inet_aton(at.HOSTILE.v4), socket.inet_pton(socket.AF_INET6, at.HOSTILE.v6)]
    assert not [frame for frame in inside.frames if any(s in frame.raw for s in stranger)]


def test_containers_on_the_router_do_not_get_out(appliance: Appliance) -> None:
    """Docker's own rules accept and translate whatever its bridge sends (K4)."""
    world = appliance.world
    world.router.nft(
        "table ip docker {\n chain forward {\n  type filter hook forward priority -100;\n"
        '  iifname "docker0" accept\n  oifname "docker0" accept\n }\n'
        " chain srcnat {\n  type nat hook postrouting priority srcnat - 50;\n"
        "  ip saddr 172.17.0.0/16 masquerade\n }\n}\n"
        'insert rule inet fw4 forward iifname "docker0" accept\n'
    )
    world.router.ip(
        "link add docker0 type bridge\naddr add 172.17.0.1/16 dev docker0\n"
        f"link add veth0 type veth peer name docker netns {world.lanb.name}\n"
        "link set veth0 master docker0 up\nlink set docker0 up\n"
    )
    world.lanb.ip(
        "addr add 172.17.0.2/16 dev docker\nlink set docker up\n"
        f"route add {at.FRIENDLY.v4} via 172.17.0.1 dev docker\n"
    )
    probes = [probe for probe in flows(world.lanb) if not (probe.v6 or probe.held)]
    assert not measure(world, probes).unseen(), "no positive control"
    for state in STATES:
        block(appliance, state)
        result = measure(world, probes, ALLOWED)
        assert not result.leaks, f"leaked: {result}"
        appliance.disconnect()


def test_rules_and_marks_of_other_packages_lead_nowhere(appliance: Appliance) -> None:
    """mwan3 and pbr mark packets and have routing tables of their own for them."""
    world = appliance.world
    world.router.ip(
        "rule add fwmark 0x100/0x3f00 pref 1001 lookup 100\n"
        "rule add fwmark 0x10000/0xff0000 pref 30000 lookup 100\n"
        "rule add from 192.168.1.0/24 pref 5210 lookup 100\n"
        f"route add default via {at.ISP.v4} dev eth1 table 100\n"
    )
    world.router.nft(
        "table inet pbr {\n chain prerouting {\n  type filter hook prerouting priority mangle;\n"
        '  iifname "br-lan" meta mark set meta mark | 0x10100\n }\n}\n'
    )
    probes = [probe for probe in flows(world.lana) if not probe.held]
    assert not measure(world, probes).unseen(), "no positive control"
    appliance.connect()
    result = measure(world, probes, ALLOWED)
    assert not result.leaks, f"leaked: {result}"
    assert not result.untunnelled(), "traffic goes on in the tunnel"


@pytest.mark.parametrize("state", STATES)
def test_untracked_packets_get_no_further(appliance: Appliance, state: str) -> None:
    """As where the connection table is full or somebody has switched tracking off: nothing of
    the block rests upon it, and what is not translated goes nowhere."""
    world = appliance.world
    world.router.nft(
        "table inet raw {\n chain prerouting {\n  type filter hook prerouting priority -400;\n"
        '  iifname "br-lan" ip daddr 198.51.100.7 notrack\n'
        '  iifname "br-lan" ip6 daddr 2001:db8:64::7 notrack\n }\n}\n'
    )
    world.firewall.stop()
    probes = [probe for probe in flows(world.lana) if not probe.held]
    assert not measure(world, probes).unseen(), "no positive control"
    block(appliance, state)
    result = measure(world, probes, ALLOWED)
    assert not result.leaks, f"leaked: {result}"
    assert not result.tunnelled


@pytest.mark.skipif(not has_egress_hook(), reason="no egress hook in this kernel")
def test_a_wan_port_in_the_houses_bridge_carries_nothing_of_the_house(appliance: Appliance) -> None:
    """A bridge asks neither routing nor layer 3, and a device's ARP keeps up no line of ours."""
    world, everybody = appliance.world, "ff:ff:ff:ff:ff:ff"
    frames = [
        craft.ethernet(packet, kind, source=at.LAN_A_MAC, target=target)
        for packet, kind, target in (
            (craft.udp(at.LAN_A.v4, 1, "255.255.255.255", 2, b"bridged"), None, everybody),
            (craft.udp(at.LAN_A.v4, 1, at.FRIENDLY.v4, 2, b"bridged"), None, at.ISP_MAC),
            (b"\0\1\x08\0\6\4\0\1" + b"\0" * 20, ETH_ARP, everybody),
        )
    ]

    def of_the_device() -> int:
        world.router.ip("link set eth1 master br-lan\n")
        with Capture(world.isp, world.access) as wan:
            raw(world, "lana", *frames)
            settle(world)
        world.router.ip("link set eth1 nomaster\n")
        return sum(frame.raw[6:12] == mac(at.LAN_A_MAC) for frame in wan.frames)

    assert of_the_device() >= len(frames), "no positive control"
    appliance.connect()
    assert not of_the_device()


# The router's own programs ------------------------------------------------------------------------

_Trick = Callable[[Namespace, bytes], None]
SO_BINDTODEVICE, IP_PKTINFO, IP_OPTIONS, IP_TRANSPARENT, IP_UNICAST_IF = 25, 8, 4, 19, 50


def _send(
    space: Namespace,
    token: bytes,
    target: tuple[str, int],
    *options: tuple[int, int, int | bytes],
    source: str = "",
    kind: int = socket.SOCK_DGRAM,
    protocol: int = 0,
) -> None:
    family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
    with space.socket(family, kind, protocol) as sock:
        for option in options:
            sock.setsockopt(*option)
        if source:
            sock.bind((source, 0))
        with suppress(OSError):  # it is told, too
            sock.sendto(token, target)


def _index(space: Namespace) -> int:
    with space.inside():
        return socket.if_nametoindex(at.WAN_DEVICE)


def _by_packet_info(space: Namespace, token: bytes) -> None:
    info = struct.pack("=I4s4s", _index(space), socket.inet_aton(at.ROUTER_WAN.v4), b"\0" * 4)
    with space.socket() as sock, suppress(OSError):
        sock.sendmsg([token], [(socket.IPPROTO_IP, IP_PKTINFO, info)], 0, (at.FRIENDLY.v4, 5001))


def _by_packet_info6(space: Namespace, token: bytes) -> None:
    info = socket.inet_pton(socket.AF_INET6, at.ROUTER_WAN.v6) + struct.pack("=I", _index(space))
    with space.socket(socket.AF_INET6) as sock, suppress(OSError):
        control = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, info)]
        sock.sendmsg([token], control, 0, (at.FRIENDLY.v6, 5001))


def _by_whole_header(source: str) -> _Trick:
    def send(space: Namespace, token: bytes) -> None:
        packet = craft.udp(source, 4000, at.FRIENDLY.v4, 5001, token)
        device = (socket.SOL_SOCKET, SO_BINDTODEVICE, b"eth1\0")
        whole = {"kind": socket.SOCK_RAW, "protocol": socket.IPPROTO_RAW}
        _send(space, packet, (at.FRIENDLY.v4, 0), device, **whole)

    return send


_DEVICE = (socket.SOL_SOCKET, SO_BINDTODEVICE, b"eth1\0")
_BROADCAST = (socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
_LOCAL = (socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
_MARK = (socket.SOL_SOCKET, 36, 0x50430000)
_ROUTED = (
    socket.IPPROTO_IP,
    IP_OPTIONS,
    b"\x83\x07\x04" + socket.inet_aton(at.FRIENDLY.v4) + b"\1",
)
_RAW = {"kind": socket.SOCK_RAW}
_OUT, _OUT6 = (at.FRIENDLY.v4, 5001), (at.FRIENDLY.v6, 5001)
TRICKS: dict[str, _Trick] = {
    "bound to the device": lambda r, t: _send(r, t, _OUT, _DEVICE),
    "bound to the device, IPv6": lambda r, t: _send(r, t, _OUT6, _DEVICE),
    "IP_PKTINFO": _by_packet_info,
    "IPV6_PKTINFO": _by_packet_info6,
    "IP_UNICAST_IF": lambda r, t: _send(
        r, t, _OUT, (socket.IPPROTO_IP, IP_UNICAST_IF, struct.pack("!I", _index(r)))
    ),
    "from the WAN's address": lambda r, t: _send(r, t, _OUT, source=at.ROUTER_WAN.v4),
    "from the WAN's address, IPv6": lambda r, t: _send(r, t, _OUT6, source=at.ROUTER_WAN.v6),
    "from a device's address": lambda r, t: _send(
        r, t, _OUT, _DEVICE, (socket.IPPROTO_IP, IP_TRANSPARENT, 1), source=at.LAN_A.v4
    ),
    "SO_DONTROUTE to the ISP": lambda r, t: _send(r, t, (at.ISP.v4, 5001), _LOCAL),
    "to the ISP": lambda r, t: _send(r, t, (at.ISP.v4, 5001), _DEVICE),
    "a source route": lambda r, t: _send(r, t, (at.ISP.v4, 5001), _ROUTED, _DEVICE),
    "with the tunnel's mark": lambda r, t: _send(r, t, _OUT, _MARK),
    "with the tunnel's mark, bound": lambda r, t: _send(r, t, _OUT6, _MARK, _DEVICE),
    "marked, to the server, another port": lambda r, t: _send(r, t, (at.VPN1.v4, 443), _MARK),
    "unmarked, to the server's port": lambda r, t: _send(
        r, t, (at.VPN1.v4, at.WIREGUARD_PORT), _DEVICE
    ),
    "broadcast": lambda r, t: _send(r, t, ("255.255.255.255", 5001), _BROADCAST, _DEVICE),
    "the WAN's broadcast": lambda r, t: _send(r, t, ("203.0.113.255", 5001), _BROADCAST),
    "mDNS": lambda r, t: _send(r, t, ("224.0.0.251", 5353), _DEVICE),
    "mDNS, IPv6": lambda r, t: _send(r, t, ("ff02::fb", 5353), _DEVICE),
    "SSDP": lambda r, t: _send(r, t, ("239.255.255.250", 1900), _DEVICE),
    "IGMP": lambda r, t: _send(
        r, b"\x16\0\0\0" + t, ("224.0.0.22", 0), _DEVICE, **_RAW, protocol=2
    ),
    "GRE": lambda r, t: _send(r, t, (at.FRIENDLY.v4, 0), _DEVICE, **_RAW, protocol=47),
    "6in4": lambda r, t: _send(r, t, (at.FRIENDLY.v4, 0), **_RAW, protocol=41),
    "ESP, IPv6": lambda r, t: _send(r, t, (at.FRIENDLY.v6, 0), _DEVICE, **_RAW, protocol=50),
    "a whole header": _by_whole_header(at.ROUTER_WAN.v4),
    "a whole header of a device's": _by_whole_header(at.LAN_A.v4),
    "a whole header of the server's": _by_whole_header(at.VPN1.v4),
    "DHCP's ports": lambda r, t: _send(r, t, ("255.255.255.255", 67), _BROADCAST, _DEVICE),
    "DHCPv6's port": lambda r, t: _send(r, t, ("ff02::1:2", 547), _DEVICE),
}


@pytest.mark.parametrize("state", STATES)
def test_tricks_of_the_routers_own_programs_do_not_leave(appliance: Appliance, state: str) -> None:
    world = appliance.world

    def fire() -> tuple[set[str], Capture]:
        tokens = {name: b"trick%02d." % number for number, name in enumerate(TRICKS)}
        with Capture(world.isp, world.access) as wan:
            for name, trick in TRICKS.items():
                trick(world.router, tokens[name])
            settle(world)
        return {name for name in TRICKS if wan.having(tokens[name])}, wan

    assert not TRICKS.keys() - fire()[0], "no positive control"
    block(appliance, state)
    leaked, wan = fire()
    assert not leaked
    assert judge(wan.frames, ALLOWED).clean, str(judge(wan.frames, ALLOWED))


def test_a_device_that_has_the_tunnels_name_before_we_come_is_no_way_out() -> None:
    """Only root can give it that name. Devices' traffic does not take it for the tunnel."""
    with Appliance() as appliance:
        world = appliance.world
        world.router.ip(
            f"link add pc0 type veth peer name stranger netns {world.isp.name}\n"
            "addr add 203.0.114.2/24 dev pc0\nlink set pc0 up\n"
            "route add 198.51.100.7 via 203.0.114.1 dev pc0\n"
        )
        world.isp.ip("addr add 203.0.114.1/24 dev stranger\nlink set stranger up\n")
        with Capture(world.isp, "stranger") as beyond:
            (control,) = run([Udp(world.lana, at.FRIENDLY.v4)])
        assert all(map(beyond.having, control.tokens)), "no positive control"
        appliance.start()
        assert appliance.call("connect", profile="vpn1")["ok"]
        appliance.until(lambda: appliance.status()["tunnel"]["attempt"] > 1, "tried in vain")
        probes = [*flows(world.lana), *flows(world.router, at.PUBLIC_DNS)]
        probes += [DnsUdp(world.lana, at.ROUTER_LAN.v4), DnsUdp(world.router, at.ISP.v4)]
        probes = [probe for probe in probes if not probe.held]
        with Capture(world.isp, "stranger") as beyond:
            result = measure(world, probes, ALLOWED)
        assert not result.leaks, f"leaked: {result}"
        tokens = [token for found in result.results for token in found.tokens]
        assert not [token for token in tokens if beyond.having(token)]
