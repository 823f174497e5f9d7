# SPDX-License-Identifier: GPL-2.0-or-later
"""K16, LAN device access for all: real hosts try to reach each other by every way there is.

Every refusal has its positive control in the same test: the very same kinds of frames arrive
while access is allowed.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from typing import Any

import pytest
from router import addresses as at
from router import craft
from router.appliance import Appliance
from router.capture import Capture
from router.frame import UDP
from router.lan import (
    BROADCAST,
    Station,
    answers,
    arrived,
    bridged,
    fire,
    forget_neighbours,
    join_networks,
    routed,
    stations,
    third_station,
)
from router.probe import Probe, run
from router.probes import Icmp, Tcp, Udp
from router.servers import Service

from portcullis.netlink import IPRoute

MODES = ("standard", "at_all_times")
STATES = ("not_connected", "connected", "connection_failed")
PAIRS = (("lana", "lanb"), ("lanb", "lana"), ("lana", "guest"), ("guest", "lanb"))


def set_access(appliance: Appliance, allowed: bool) -> None:
    assert appliance.call("set", name="lan_access", value="1" if allowed else "0")["ok"]


def bring_to(appliance: Appliance, state: str) -> None:
    if state == "connected":
        appliance.connect()
    elif state == "connection_failed":
        appliance.add_profile("home", appliance.world.vpn1.profile("192.168.1.10"))
        assert appliance.call("connect", profile="home")["ok"]
    appliance.until_state(state)


def tries(appliance: Appliance, source: Station, to: Station) -> set[str]:
    """What arrives of all that one device can send to another."""
    same = source.gateway is to.gateway
    return arrived(
        appliance.world, source, to, (bridged(source, to) if same else []) + routed(source, to)
    )


def every(source: Station, to: Station) -> set[str]:
    same = source.gateway is to.gateway
    return {s.name for s in (bridged(source, to) if same else []) + routed(source, to)}


def probes(source: Station, to: Station) -> list[Probe]:
    """As programs do it: through the sender's own stack, cold caches included."""
    kinds = (Udp, Tcp, Icmp)
    return [kind(source.space, address) for kind in kinds for address in to.host.addresses[:2]]


def answered(source: Station, to: Station) -> list[str]:
    forget_neighbours(source.space, to.space)
    return [str(result) for result in run(probes(source, to), 1) if result.answered]


def allow_everything(appliance: Appliance) -> dict[str, Station]:
    """The positive control: every way of every pair leads somewhere."""
    found = stations(appliance.world)
    join_networks(appliance.world)
    for source, to in PAIRS:
        missing = every(found[source], found[to]) - tries(appliance, found[source], found[to])
        assert not missing, f"no positive control from {source} to {to}: {missing}"
        assert len(answered(found[source], found[to])) == len(probes(found[source], found[to]))
    return found


def assert_apart(appliance: Appliance, found: dict[str, Station]) -> None:
    for source, to in PAIRS:
        came = tries(appliance, found[source], found[to])
        assert not came, f"from {source} to {to} came: {came}"
        assert not answered(found[source], found[to])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("state", STATES)
def test_denied_devices_do_not_reach_each_other(
    appliance: Appliance, state: str, mode: str
) -> None:
    found = allow_everything(appliance)
    assert appliance.call("set", name="mode", value=mode)["ok"]
    bring_to(appliance, state)
    for source, to in PAIRS:
        assert tries(appliance, found[source], found[to]) == every(found[source], found[to])
    set_access(appliance, False)
    assert_apart(appliance, found)
    assert not appliance.status()["faults"]
    set_access(appliance, True)
    for source, to in PAIRS:
        assert tries(appliance, found[source], found[to]) == every(found[source], found[to])


@pytest.mark.skipif(
    not os.path.exists("/proc/sys/net/bridge/bridge-nf-call-iptables"),
    reason="this kernel has no br_netfilter",
)
def test_denied_devices_stay_apart_with_br_netfilter(appliance: Appliance) -> None:
    nf = ("arptables", "iptables", "ip6tables")
    appliance.world.router.sysctl({f"bridge/bridge-nf-call-{which}": 1 for which in nf})
    found = allow_everything(appliance)
    set_access(appliance, False)
    assert_apart(appliance, found)
    assert appliance.call("set_device", mac=at.LAN_A_MAC, access="allowed")["ok"]
    for source, to in PAIRS[:2]:
        assert len(answered(found[source], found[to])) == len(probes(found[source], found[to]))
    assert not answered(found["guest"], found["lanb"])


def test_denied_devices_keep_the_internet(appliance: Appliance) -> None:
    appliance.connect()
    set_access(appliance, False)
    for station in stations(appliance.world).values():
        tried = [k(station.space, a) for k in (Udp, Tcp) for a in at.FRIENDLY.addresses]
        for result in run(tried, 3):
            assert result.answered == result.sent, str(result)
            assert set(result.sources) <= {*at.VPN1.addresses}, str(result)


def offer(station: Station) -> bool:
    """Whether a DHCP server answers this device."""
    ident = os.urandom(4)
    message = struct.pack("!BBBB4sHH", 1, 1, 6, 0, ident, 0, 0x8000) + b"\0" * 16
    message += bytes.fromhex(station.mac.replace(":", "")).ljust(16, b"\0") + b"\0" * 192
    message += bytes.fromhex("63825363") + b"\x35\x01\x01\xff"
    packet = struct.pack("!4H", 68, 67, 8 + len(message), 0) + message
    frame = craft.ethernet(
        craft.ip("0.0.0.0", "255.255.255.255", UDP, packet), source=station.mac, target=BROADCAST
    )
    with Capture(station.space, "eth0", megabytes=4) as capture:
        fire(station, [frame])
        try:
            capture.wait_for(b"\x02\x01\x06\x00" + ident)
        except TimeoutError:
            return False
    return True


@pytest.mark.parametrize("state", STATES)
def test_the_router_stays_reachable(appliance: Appliance, state: str) -> None:
    """K14: ARP, neighbour discovery, ping, DHCP, DNS, SSH and the web pages."""
    world, router = appliance.world, at.ROUTER_LAN
    services = [
        Service("echo", "tcp", world.router.name, address, port, "router")
        for address in router.addresses[:2]
        for port in (22, 80, 443)
    ]
    world.servers.serve(services)
    bring_to(appliance, state)
    set_access(appliance, False)
    found = stations(world)
    for name in ("lana", "lanb"):
        space = found[name].space
        forget_neighbours(space, world.router)
        assert answers(found[name])
        tried = [Tcp(space, a, port) for a in router.addresses[:2] for port in (22, 80, 443)]
        for result in run(tried, 1, timeout=3):
            assert result.answered, str(result)
        dig = ["dig", "+short", "+time=2", "+tries=1", f"@{router.v4}", "lana.lan"]
        assert space.run(dig).stdout.strip() == at.LAN_A.v4
    for station in found.values():
        assert offer(station), f"no DHCP offer for {station}"


def test_a_refused_packet_is_told_at_once_and_counted(appliance: Appliance) -> None:
    """K15, where there is somebody to tell: over the router."""
    join_networks(appliance.world)
    set_access(appliance, False)
    (result,) = run([Tcp(appliance.world.lana, at.GUEST.v4)], 1, timeout=2)
    assert result.refused, str(result)
    assert appliance.status()["blocked"]["blocked_lan"] > 0
    appliance.until(lambda: at.LAN_A_MAC in listed(appliance), "it is seen")
    devices = listed(appliance)
    assert devices[at.LAN_A_MAC]["blocked"]["packets"] > 0
    assert devices[at.GUEST_MAC]["blocked"]["packets"] == 0


def listed(appliance: Appliance) -> dict[str, dict[str, Any]]:
    return {device["mac"]: device for device in appliance.call("devices")["devices"]}


@pytest.mark.pyroute2
def test_devices_are_listed_with_what_is_known_of_them(appliance: Appliance) -> None:
    def all_seen() -> bool:
        for station in stations(appliance.world).values():
            run([Udp(station.space, a) for a in station.gateway.addresses[:2]], 1, timeout=1)
        found = listed(appliance).values()
        return len(found) > 2 and all(d["ipv4"] and len(d["ipv6"]) > 1 for d in found)

    appliance.until(all_seen, "each is known with its addresses")
    found = listed(appliance)
    assert set(found) == {at.LAN_A_MAC, at.LAN_B_MAC, at.GUEST_MAC}
    device = found[at.GUEST_MAC]
    assert device["ipv4"] == [at.GUEST.v4]
    assert at.GUEST.v6 in device["ipv6"]
    assert (device["network"], device["device"], device["wireless"]) == ("guest", "guest1", False)
    assert (device["online"], device["access"], device["enforced"]) == (True, "default", True)
    assert 0 < device["first_seen"] <= device["last_seen"]


def test_a_restart_does_not_forget_since_when_a_device_is_known(appliance: Appliance) -> None:
    def known() -> dict[str, Any]:
        found = {d["mac"]: d for d in appliance.call("devices")["devices"]}
        return dict(found.get(at.LAN_A_MAC, {}))

    def seen() -> dict[str, Any]:
        forget_neighbours(appliance.world.lana)
        assert answers(stations(appliance.world)["lana"])
        appliance.until(known, "it is known")
        return known()

    first = seen()["first_seen"]
    appliance.until(lambda: time.time() > first + 2, "two seconds later")
    appliance.stop()
    appliance.start()
    again = seen()
    assert abs(again["first_seen"] - first) <= 1
    assert again["last_seen"] > first


def test_a_flood_of_invented_devices_is_survived(appliance: Appliance) -> None:
    """20,000 MAC addresses, more than the inventory and the reader of the bridge hold."""
    station = stations(appliance.world)["lana"]
    assert appliance.call("set_device", mac=at.LAN_B_MAC, access="denied")["ok"]
    rest = bytes.fromhex("88b5") + b"flood".ljust(46)
    fire(
        station,
        [b"\xff" * 6 + b"\x02\xaa" + n.to_bytes(4, "big") + rest for n in range(20_000)],
    )
    began = time.monotonic()
    found = listed(appliance)
    assert time.monotonic() - began < 2
    assert len(found) <= 1001, "the inventory's capacity, and who is excepted"
    assert found[at.LAN_B_MAC]["access"] == "denied"
    assert answers(station)
    assert not appliance.status()["faults"]


def isolated(appliance: Appliance) -> dict[str, bool]:
    """Ports of the router's bridges, and whether they are isolated."""
    with appliance.world.router.inside(), IPRoute() as ip:
        found = {}
        for link in list(ip.get_links()):
            if slave := link.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA"):
                flag = slave.get_attr("IFLA_BRPORT_ISOLATED")
                found[link.get_attr("IFLA_IFNAME")] = bool(flag)
    return found


@pytest.mark.pyroute2
def test_bridge_ports_are_isolated_while_all_is_denied_and_given_back(appliance: Appliance) -> None:
    appliance.world.router.run(["bridge", "link", "set", "dev", "guest1", "isolated", "on"])
    before = isolated(appliance)
    assert before == {"lan1": False, "lan2": False, "guest1": True}
    set_access(appliance, False)
    assert isolated(appliance) == {"lan1": True, "lan2": True, "guest1": True}
    set_access(appliance, True)
    assert isolated(appliance) == before, "the owner's own isolation is not ours to end"


def test_isolation_alone_keeps_devices_apart(appliance: Appliance) -> None:
    found = stations(appliance.world)
    set_access(appliance, False)
    appliance.kill()
    appliance.world.router.nft("delete table bridge portcullis\n")
    assert not arrived(
        appliance.world, found["lana"], found["lanb"], bridged(found["lana"], found["lanb"])
    )


def test_what_somebody_takes_away_is_put_back(appliance: Appliance) -> None:
    found = stations(appliance.world)
    set_access(appliance, False)
    router = appliance.world.router
    appliance.delete_table("bridge portcullis")
    router.run(["bridge", "link", "set", "dev", "lan1", "isolated", "off"])
    appliance.until(lambda: isolated(appliance)["lan1"], "the port is isolated again")

    def stands() -> bool:
        return "bridge portcullis" in router.run(["nft", "list", "tables"]).stdout

    appliance.until(stands, "the table is back")
    assert not arrived(
        appliance.world, found["lana"], found["lanb"], bridged(found["lana"], found["lanb"])
    )


def test_a_port_that_joins_later_is_kept_apart_too(appliance: Appliance) -> None:
    found = stations(appliance.world)
    with third_station(appliance.world) as lanc:
        assert tries(appliance, lanc, found["lana"]) == every(lanc, found["lana"])
    set_access(appliance, False)
    with third_station(appliance.world) as lanc:
        assert not tries(appliance, lanc, found["lana"])
        assert not tries(appliance, found["lana"], lanc)
        appliance.until(lambda: isolated(appliance).get("lan3"), "the new port is isolated")


@pytest.mark.parametrize("end", ["killed", "stopped"])
def test_denied_outlives_the_daemon(appliance: Appliance, end: str) -> None:
    found = stations(appliance.world)
    set_access(appliance, False)
    if end == "killed":
        appliance.kill()
    else:
        appliance.stop()
    assert not tries(appliance, found["lana"], found["lanb"])
    appliance.start()
    assert not tries(appliance, found["lana"], found["lanb"])
    set_access(appliance, True)
    assert tries(appliance, found["lana"], found["lanb"]) == every(found["lana"], found["lanb"])


def test_the_boot_guard_is_told_who_is_apart(appliance: Appliance) -> None:
    remembered = appliance.home / "lan.nft"
    assert not remembered.exists()
    set_access(appliance, False)
    assert "table bridge portcullis {" in remembered.read_text()
    assert "goto between" in (appliance.home / "boot.nft").read_text()
    appliance.stop()
    written = remembered.stat().st_mtime_ns
    appliance.start()
    assert remembered.stat().st_mtime_ns == written, "the flash is spared"
    set_access(appliance, True)
    assert not remembered.exists()


def test_a_restart_does_not_part_devices_that_may_meet(appliance: Appliance) -> None:
    """Closed settings hold until the owner's have been read, but not on the bridge."""
    found = stations(appliance.world)
    lana, lanb = found["lana"], found["lanb"]
    appliance.stop()
    appliance.start(wait=False)
    ready = False
    while not ready:
        ready = appliance.answers()
        shots = bridged(lana, lanb)
        assert len(arrived(appliance.world, lana, lanb, shots)) == len(shots)
    assert not any(isolated(appliance).values())


def test_a_bridge_of_somebody_elses_is_left_alone(appliance: Appliance) -> None:
    """A bridge that carries no protected network goes on as it did."""
    router = appliance.world.router
    router.ip(
        "link add other type bridge\nlink set other up\n"
        "link add x0 type veth peer name x1\nlink add y0 type veth peer name y1\n"
        "link set x0 master other up\nlink set y0 master other up\n"
        "link set x1 up\nlink set y1 up\n"
    )
    set_access(appliance, False)
    frame = bytes.fromhex("ffffffffffff02005e005399") + b"\x88\xb5" + b"between others".ljust(46)
    with Capture(router, "y1", megabytes=4) as capture:
        with router.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
            sock.bind(("x1", 0))
            sock.send(frame)
        capture.wait_for(b"between others")
