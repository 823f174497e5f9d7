# SPDX-License-Identifier: GPL-2.0-or-later
"""The egress hook on the virtual router: frames written to the device itself, what the line needs,
devices that come and go, and what follows where it cannot be had."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from router import addresses as at
from router import craft
from router.appliance import Appliance, interfaces
from router.capture import Capture
from router.frame import mac
from router.judge import judge
from router.leaktest import ALLOWED, has_egress_hook
from router.measurement import lan_probes, measure, raw_frames
from router.probe import SO_MARK, Probe, run
from router.probes import Icmp, PacketSocket
from router.sabotage import Sabotage

MARK = 0x50430000
COOKIE = b"\x63\x82\x53\x63"
DHCP = b"\1\1\6\0" + b"\0" * 24 + mac(at.WAN_MAC) + b"\0" * 202 + COOKIE + b"\x35\1\3\xff"
ARP = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac(at.WAN_MAC) + b"\xcb\0\x71\2" + b"\0" * 10
# behind a hop-by-hop header with a router alert (RFC 3810)
LISTENER_REPORT = b"\x3a\0\5\2\0\0\1\0" + b"\x8f" + b"\0" * 7
HOST, SERVER, WAN, V6 = at.FRIENDLY.v4, at.VPN1.v4, at.ROUTER_WAN.v4, at.FRIENDLY.v6


@pytest.fixture(autouse=True)
def kernel_with_the_hook() -> None:
    if not has_egress_hook():
        pytest.skip("this kernel has no egress hook")


def layer(appliance: Appliance) -> str:
    return str(appliance.status()["layers"]["egress_hook"])


def block(appliance: Appliance) -> None:
    """Active, the server silent but pinned."""
    appliance.world.vpn1.blackhole()
    assert appliance.call("connect", profile="vpn1")["ok"]
    appliance.until(lambda: appliance.status()["endpoints"], "the server is pinned")


def write(
    appliance: Appliance, frame: bytes, device: str = at.WAN_DEVICE, *, mark: int = 0, kind: int = 0
) -> None:
    """A frame on the WAN device; `kind` is what the kernel is told that it carries."""
    with appliance.world.router.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as out:
        out.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
        with contextlib.suppress(OSError):  # a drop at egress is told to the sender
            out.sendto(frame, (device, kind, 0, 0, b""))


def passes(
    appliance: Appliance, frame: bytes, device: str = at.WAN_DEVICE, *, mark: int = 0, kind: int = 0
) -> bool:
    """Whether a frame with an unmistakable end comes out; ARP is what tells that it had time to."""
    with Capture(appliance.world.isp, appliance.world.access) as wan:
        write(appliance, frame, device, mark=mark, kind=kind)
        write(appliance, craft.ethernet(ARP + b"the end", 0x0806), device)
        wan.wait_for(b"the end")
    return bool(wan.having(frame))


def udp(target: str, dport: int, sport: int = 40000) -> bytes:
    source = at.ROUTER_WAN.v6 if ":" in target else WAN
    return craft.ethernet(craft.udp(source, sport, target, dport, b"pc-secret"))


def vlan(frame: bytes) -> bytes:
    return frame[:12] + b"\x81\0\0\7" + frame[12:]


def pppoe(kind: int) -> bytes:
    return craft.ethernet(b"\x11\x09\0\0\0\4\1\1\0\0", kind)


LATER4 = craft.ethernet(craft.ip(WAN, SERVER, 17, b"pc-secret" * 4, offset=1480))
KEEP_THE_LINE = {
    "ARP": (craft.ethernet(ARP, 0x0806), 0),
    "EAPOL": (craft.ethernet(b"\1\1\0\0", 0x888E), 0),
    "DHCP, raw and unmarked": (
        craft.ethernet(craft.udp("0.0.0.0", 68, "255.255.255.255", 67, DHCP)),
        0,
    ),
    "DHCPv6": (
        craft.ethernet(craft.udp("fe80::2", 546, "ff02::1:2", 547, b"\1\0\0\1" + b"\0" * 8)),
        0,
    ),
    "neighbour solicitation": (
        craft.ethernet(
            craft.ip("fe80::2", "ff02::1:ff00:1", 58, b"\x87\0\0\0" + b"\0" * 20, hops=255)
        ),
        0,
    ),
    "multicast listener report": (
        craft.ethernet(craft.ip("fe80::2", "ff02::16", 0, LISTENER_REPORT, hops=1)),
        0,
    ),
    "router solicitation": (
        craft.ethernet(craft.ip("fe80::2", "ff02::2", 58, b"\x85\0\0\0\0\0\0\0", hops=255)),
        0,
    ),
    "the tunnel's own": (udp(SERVER, at.WIREGUARD_PORT), MARK),
    "a later fragment of the tunnel's own": (LATER4, MARK),
}
NOTHING_ELSE = {
    "IPv4": (udp(HOST, 7), 0),
    "IPv6": (udp(V6, 7), 0),
    "IPv4 with the mark": (udp(HOST, 7), MARK),
    "IPv6 with the mark": (udp(V6, 7), MARK),
    "to the server without the mark": (udp(SERVER, at.WIREGUARD_PORT), 0),
    "to another port of the server": (udp(SERVER, 7), MARK),
    "to the server by TCP": (
        craft.ethernet(craft.ip(WAN, SERVER, 6, struct.pack("!2H16x", 4, at.WIREGUARD_PORT))),
        MARK,
    ),
    "a later fragment without the mark": (LATER4, 0),
    "a later fragment to another host": (
        craft.ethernet(craft.ip(WAN, HOST, 17, b"pc-secret" * 4, offset=1480)),
        MARK,
    ),
    "6in4 with the mark where there is no such line": (
        craft.ethernet(craft.ip(WAN, HOST, 41, b"\x60pc-secret")),
        MARK,
    ),
    "DS-Lite with the mark where there is no such line": (
        craft.ethernet(craft.ip(at.ROUTER_WAN.v6, V6, 4, b"\x45pc-secret")),
        MARK,
    ),
    "something in DHCP's ports": (udp(HOST, 67, 68), 0),
    "something in DHCPv6's ports": (udp(V6, 547, 546), 0),
    "a neighbour solicitation from afar": (
        craft.ethernet(craft.ip("fe80::2", V6, 58, b"\x87\0\0\0" + b"\0" * 20, hops=64)),
        0,
    ),
    "an echo request to a link-local address": (
        craft.ethernet(craft.ip("fe80::2", "fe80::1", 58, b"\x80\0\0\0pc-secret", hops=255)),
        0,
    ),
    "ARP that carries something": (craft.ethernet(ARP + b"pc-secret" * 9, 0x0806), 0),
    "PPPoE discovery where there is no PPPoE": (pppoe(0x8863), 0),
    "PPPoE session where there is no PPPoE": (pppoe(0x8864), 0),
    "a VLAN that is nobody's": (vlan(udp(HOST, 7)), 0),
    "LLDP": (craft.ethernet(b"\2\7\4" + mac(at.WAN_MAC), 0x88CC), 0),
    "802.3": (craft.ethernet(b"\x42\x42\3" + b"\0" * 40, 43), 0),
}


@pytest.fixture
def idle() -> Iterator[Appliance]:
    """A router on which the daemon does not run yet."""
    with Appliance() as found:
        yield found


@pytest.fixture(scope="module")
def blocking() -> Iterator[Appliance]:
    """One router for all frames: active, its server pinned and silent."""
    with Appliance() as found:
        found.start()
        block(found)
        yield found


@pytest.mark.parametrize("name", KEEP_THE_LINE)
def test_what_keeps_the_line_passes(blocking: Appliance, name: str) -> None:
    frame, mark = KEEP_THE_LINE[name]
    assert passes(blocking, frame, mark=mark)


@pytest.mark.parametrize("name", NOTHING_ELSE)
def test_nothing_else_passes_and_it_is_counted(blocking: Appliance, name: str) -> None:
    frame, mark = NOTHING_ELSE[name]
    before = blocking.status()["blocked"]["blocked_frames"]
    assert not passes(blocking, frame, mark=mark)
    assert blocking.status()["blocked"]["blocked_frames"] > before


@pytest.mark.parametrize("kind", [0x0806, 0x888E, 0x8863, 0x0800, 0x0003])
def test_what_the_sender_says_of_a_frame_opens_nothing(blocking: Appliance, kind: int) -> None:
    """The kernel believes the sender of a raw frame what it carries."""
    assert not passes(blocking, udp(HOST, 7), kind=kind)
    assert not passes(blocking, udp(V6, 7), kind=kind)


def test_all_of_it_passes_while_released(appliance: Appliance) -> None:
    """The positive control of the test above."""
    frames = {**KEEP_THE_LINE, **NOTHING_ELSE}
    assert [n for n, (f, mark) in frames.items() if not passes(appliance, f, mark=mark)] == []
    appliance.connect()
    appliance.disconnect()
    assert passes(appliance, udp(HOST, 7))


def add_interface(appliance: Appliance, **entry: object) -> None:
    known = interfaces()
    known["interface"].append({**known["interface"][-1], **entry})
    appliance.bus.interfaces.write_text(json.dumps(known))
    appliance.call("reload")


def test_frames_of_pppoe_pass_where_the_line_is_made_of_them(appliance: Appliance) -> None:
    block(appliance)
    assert not passes(appliance, pppoe(0x8863))
    add_interface(appliance, interface="line", proto="pppoe", device=at.WAN_DEVICE)
    assert passes(appliance, pppoe(0x8863))
    assert passes(appliance, pppoe(0x8864))
    assert passes(appliance, pppoe(0x8864), mark=MARK)  # the tunnel's own are inside
    assert not passes(appliance, udp(HOST, 7))


def test_tagged_frames_pass_where_the_vlans_device_has_a_hook_of_its_own(
    appliance: Appliance,
) -> None:
    world = appliance.world
    add = ["ip", "link", "add", "link", "eth1", "name", "eth1.7", "type", "vlan", "id", "7"]
    if world.router.run(add, check=False).returncode:
        pytest.skip("no VLAN devices in this kernel")
    world.router.ip("link set eth1.7 up\n")
    block(appliance)
    tagged = vlan(craft.ethernet(ARP, 0x0806))
    assert not passes(appliance, tagged)
    add_interface(appliance, interface="tv", up=True, proto="static", l3_device="eth1.7")
    assert passes(appliance, tagged)
    with Capture(world.isp, world.access) as wan:
        run([PacketSocket(world.router, HOST, WAN, device="eth1.7")], 3, 0.3)
    assert not wan.having(b"pc"), "the VLAN's own hook"


def test_a_line_that_appears_has_the_hook_at_once(appliance: Appliance) -> None:
    world = appliance.world
    appliance.connect()
    router, isp = world.router, world.isp

    def plug() -> None:
        router.ip(
            f"link add usb0 type veth peer name usb netns {isp.name}\n"
            "addr add 203.0.114.2/24 dev usb0\nlink set usb0 up\n"
            "route add default via 203.0.114.1 dev usb0 metric 900\n"
        )
        isp.ip("addr add 203.0.114.1/24 dev usb\nlink set usb up\n")

    def seen(device: str = "usb0") -> int:
        probes: list[Probe] = [PacketSocket(router, HOST, "203.0.114.2", device=device)]
        with Capture(isp, "usb") as beyond:
            (result,) = run(probes, 3, 0.3)
        assert result.sent == 3
        return sum(bool(beyond.having(token)) for token in result.tokens)

    def on(*devices: str) -> bool:
        text = router.run(["nft", "list", "table", "netdev", "portcullis"]).stdout
        return all(f"{device}" in text for device in devices)

    plug()
    appliance.until(lambda: on("usb0", "eth1"), "a hook on both")
    assert not seen()
    router.ip("link del usb0\n")
    plug()
    appliance.until(lambda: on("usb0"), "a hook on the new one")
    appliance.until(lambda: not seen(), "the new one's hook works")
    router.ip("link set usb0 down\nlink set usb0 name usb7\nlink set usb7 up\n")
    router.ip("route add default via 203.0.114.1 dev usb7 metric 900\n")
    appliance.until(lambda: on("usb7"), "a hook under the new name")
    assert not seen("usb7")
    assert not measure(world, raw_frames(world), ALLOWED).leaks
    assert appliance.status()["alarms"] == [], "a device that goes is nobody's tampering"
    appliance.disconnect()
    assert seen("usb7") == 3, "no positive control"


def test_a_device_that_nobody_knows_by_its_new_name_has_the_hook(appliance: Appliance) -> None:
    """No route leads there and netifd has never heard of it, but frames would go out."""
    router, wan = appliance.world.router, at.WAN_DEVICE
    appliance.connect()
    router.ip(f"link set {wan} down\nlink set {wan} name wan9\nlink set wan9 up\n")
    show = ["nft", "list", "table", "netdev", "portcullis"]
    appliance.until(lambda: "wan9" in router.run(show, check=False).stdout, "the new name")
    assert not passes(appliance, udp(HOST, 7), "wan9")
    appliance.disconnect()
    assert passes(appliance, udp(HOST, 7), "wan9"), "no positive control"


def test_an_access_point_is_not_locked_out(appliance: Appliance) -> None:
    """K14: where the gateway is on the LAN itself, nothing of the house is hooked."""
    world = appliance.world
    world.router.ip(
        "route del default\nroute del ::/0\n"
        f"route add default via {at.LAN_B.v4}\nlink set eth1 down\n"
    )
    block(appliance)
    appliance.until(lambda: "br-lan" in layer(appliance), "the house's device is told")
    (answer,) = run([Icmp(world.lana, at.ROUTER_LAN.v4)], 3, 1.0)
    assert answer.answered == 3
    tables = world.router.run(["nft", "list", "table", "netdev", "portcullis"], check=False).stdout
    assert "br-lan" not in tables


def test_the_hook_is_replaced_under_a_flood_of_frames_without_a_gap(appliance: Appliance) -> None:
    """Each other set of devices is another chain."""
    world = appliance.world
    appliance.connect()
    frame, over, sent = udp(HOST, 7), threading.Event(), 0

    def flood() -> None:
        nonlocal sent
        with world.router.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as out:
            out.bind((at.WAN_DEVICE, 0))
            while not over.is_set():
                with contextlib.suppress(OSError):
                    out.send(frame)
                sent += 1

    def hooked(device: str) -> bool:
        show = ["nft", "list", "chain", "netdev", "portcullis", "egress"]
        return device in world.router.run(show).stdout

    with Capture(world.isp, world.access) as wan, ThreadPoolExecutor(1) as threads:
        threads.submit(flood)
        try:
            for _ in range(10):
                world.router.ip("link add usb0 type veth peer name usb1\nlink set usb0 up\n")
                world.router.ip("route add default dev usb0 metric 900\n")
                appliance.until(lambda: hooked("usb0"), "a hook on both")
                world.router.ip("link del usb0\n")
                appliance.until(lambda: not hooked("usb0"), "a hook on one")
        finally:
            over.set()
    assert sent > 1000
    assert judge(wan.frames, ALLOWED).clean, f"of {sent}: {judge(wan.frames, ALLOWED)}"


def test_a_router_without_the_hook_says_so_and_blocks_all_the_same(idle: Appliance) -> None:
    Sabotage(idle, "netdev portcullis")
    assert layer(idle).startswith("not available: Operation not supported (it takes package ")
    idle.connect()
    assert idle.status()["faults"] == []
    assert idle.status()["kill_switch"]["verified"]
    assert not measure(idle.world, lan_probes(idle.world), ALLOWED).leaks


def test_a_hook_that_fails_alone_is_a_fault_and_takes_no_line_down(idle: Appliance) -> None:
    """A lesser layer: no reason for K5's last resort, but tried again."""
    sabotage = Sabotage(idle)
    idle.connect()
    sabotage.refuse("netdev portcullis")
    idle.delete_table("netdev portcullis")
    idle.until(lambda: layer(idle) == "nft: Operation not supported", "the fault is told")
    assert any(fault.startswith("egress hook: ") for fault in idle.status()["faults"])
    assert "state UP" in idle.world.router.run(["ip", "link", "show", at.WAN_DEVICE]).stdout
    found = measure(idle.world, lan_probes(idle.world), ALLOWED)
    assert found.tunnelled
    assert not found.leaks
    sabotage.allow("netdev portcullis")
    idle.until(lambda: layer(idle) == "in force", "the hook is back", patience=5)
    assert not measure(idle.world, raw_frames(idle.world), ALLOWED).leaks
    assert idle.state == "connected"
