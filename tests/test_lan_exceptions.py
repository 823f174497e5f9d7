# SPDX-License-Identifier: GPL-2.0-or-later
"""K16, single devices excepted either way: who reaches whom, and who cannot pretend to."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from router import addresses as at
from router import appliance as appliance_module
from router import craft
from router.appliance import Appliance
from router.capture import Capture
from router.frame import ETH_ARP
from router.lan import (
    LAN_C_MAC,
    Station,
    about,
    arrived,
    bridged,
    fire,
    forget_neighbours,
    join_networks,
    routed,
    stations,
    stations_at_one_port,
    third_station,
)
from router.probe import Probe, run
from router.probes import Icmp, Tcp, Udp

CONFIG = "portcullis"


class House:
    """An appliance whose networks may be routed between, and a third host on the LAN."""

    def __init__(self, appliance: Appliance, lanc: Station) -> None:
        self.appliance = appliance
        found = stations(appliance.world)
        self.a, self.b, self.c, self.guest = found["lana"], found["lanb"], lanc, found["guest"]
        join_networks(appliance.world)

    def deny(self, *, but: Station | None = None) -> None:
        """Deny access, `but` one device."""
        assert self.appliance.call("set", name="lan_access", value="0")["ok"]
        if but:
            self.except_(but, "allowed")

    def except_(self, station: Station, access: str) -> None:
        answer = self.appliance.call("set_device", mac=station.mac, access=access)
        assert answer == {"ok": True, "warning": ""}, answer

    def device(self, station: Station) -> dict[str, object]:
        devices = self.appliance.call("devices")["devices"]
        return next(device for device in devices if device["mac"] == station.mac)

    def shots(self, source: Station, to: Station, as_mac: str = "") -> set[str]:
        """What arrives of everything that can be sent."""
        same = source.gateway is to.gateway
        shots = bridged(source, to, as_mac) if same else []
        return arrived(self.appliance.world, source, to, shots + routed(source, to, as_mac))

    def talk(self, source: Station, to: Station) -> bool:
        """Whether programs reach each other, every cache cold; all of them or none."""
        answered = self.answers(source, to)
        assert len(set(answered)) == 1, f"from {source} to {to}: {answered}"
        return answered[0]

    def answers(self, source: Station, to: Station) -> list[bool]:
        """Which programs reach each other, every cache cold."""
        forget_neighbours(source.space, to.space, self.appliance.world.router)
        tried: list[Probe] = [
            kind(source.space, address)
            for kind in (Udp, Tcp, Icmp)
            for address in to.host.addresses[:2]
        ]
        return [bool(result.answered) for result in run(tried, 1, timeout=2)]


@pytest.fixture
def house(appliance: Appliance) -> Iterator[House]:
    """Everybody reaches everybody: the positive control of all that follows."""
    with third_station(appliance.world) as lanc:
        found = House(appliance, lanc)
        assert found.talk(found.a, found.b)
        assert found.talk(found.a, found.c)
        assert found.talk(found.b, found.guest)
        assert found.talk(found.guest, found.a)
        yield found


@pytest.mark.parametrize("connected", [False, True], ids=["not connected", "connected"])
def test_an_allowed_device_reaches_all_and_is_reached_by_all(house: House, connected: bool) -> None:
    if connected:
        house.appliance.connect()
    house.deny(but=house.a)
    for other in (house.b, house.c, house.guest):
        assert house.talk(house.a, other), f"to {other}"
        assert house.talk(other, house.a), f"from {other}"
    assert not house.talk(house.b, house.c)
    assert not house.talk(house.b, house.guest)
    assert not house.talk(house.guest, house.c)
    assert not house.shots(house.b, house.c) | house.shots(house.c, house.b)


def test_an_allowed_device_is_heard_by_all_and_hears_all(house: House) -> None:
    """Multicast and broadcast too: a printer must be found."""
    house.deny(but=house.a)
    groups = {"multicast IPv4", "multicast IPv6", "broadcast IPv4"}
    assert groups <= house.shots(house.a, house.b)
    assert groups <= house.shots(house.b, house.a)


def test_at_a_shared_port_an_exception_opens_nothing_for_the_others(house: House) -> None:
    """Two devices behind a switch at one port, the one allowed: it is found by cold caches, and
    no frame for anybody else goes to that port."""
    with stations_at_one_port(house.appliance.world) as (one, other):
        assert house.talk(house.b, one)
        assert house.talk(house.b, other)
        house.deny(but=one)
        assert "could pretend to be it" in str(house.device(one)["note"])
        for station in (house.b, house.guest):
            assert house.talk(one, station), "by which its addresses are known"
            assert house.talk(station, one)
            assert not house.talk(station, other)
            assert not house.talk(other, station)
        assert not house.shots(house.b, other) | house.shots(other, house.b)
        world = house.appliance.world
        assert not arrived(world, house.b, other, about(house.b, one, other))
        asked = {"ARP request", "neighbour solicitation"}
        with Capture(other.space, "eth0", megabytes=4) as capture:
            shots = [shot for shot in bridged(house.b, one) if shot.name not in asked]
            assert arrived(world, house.b, one, shots) >= {"unicast IPv4"}
            capture.flush()
        heard = [shot.name for shot in shots if capture.having(shot.token)]
        assert not heard, "the others behind the port hear what is not asked of the one"
        held = house.device(other)
        assert (held["enforced"], "behind one port" in str(held["note"])) == (False, True)


def test_at_a_shared_port_a_denied_device_is_apart_by_its_address(house: House) -> None:
    with stations_at_one_port(house.appliance.world) as (one, other):
        assert house.talk(one, house.guest)
        assert house.talk(house.b, other)
        house.except_(one, "denied")
        for station in (house.b, house.guest):
            assert not house.talk(one, station)
            assert not house.talk(station, one)
            assert house.talk(other, station)
            assert house.talk(station, other)
        unicast = {"unicast IPv4", "unicast IPv6", "another ethertype", "routed IPv4"}
        assert not house.shots(one, house.b)
        assert not house.shots(house.b, one) & unicast


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """The guest network is no bridge: its device is guest1 itself."""
    text = json.dumps(appliance_module.interfaces()).replace(at.GUEST_BRIDGE, "guest1")
    monkeypatch.setattr(appliance_module, "interfaces", lambda: json.loads(text))
    with Appliance() as appliance:
        router = appliance.world.router
        router.ip(
            f"link set guest1 nomaster\nlink del {at.GUEST_BRIDGE}\n"
            f"link set guest1 address {at.BR_GUEST_MAC}\n"
            f"addr add {at.ROUTER_GUEST.v4}/24 dev guest1\n"
            f"addr add {at.ROUTER_GUEST.v6}/64 dev guest1 nodad\n"
        )
        both = f'{{ "{at.LAN_BRIDGE}", "guest1" }}'
        router.nft(
            f"insert rule inet fw4 forward iifname {both} oifname {both} accept\n"
            'insert rule inet fw4 input iifname "guest1" accept\n'
        )
        appliance.start()
        with third_station(appliance.world) as lanc:
            found = House(appliance, lanc)
            assert found.talk(found.guest, found.a)
            assert found.talk(found.a, found.guest)
            yield found


def test_without_a_bridge_an_allowed_device_is_told_by_port_and_address(plain: House) -> None:
    plain.deny()
    assert not plain.talk(plain.guest, plain.a)
    assert not plain.talk(plain.a, plain.guest)
    plain.except_(plain.guest, "allowed")
    # Only the router's own neighbours tell of it: it has to be heard before it can be found.
    plain.appliance.until(lambda: all(plain.answers(plain.guest, plain.a)), "it is known where")
    assert plain.talk(plain.a, plain.guest)
    assert not plain.talk(plain.a, plain.b)
    assert not plain.shots(plain.b, plain.a, as_mac=plain.guest.mac)


def test_without_a_bridge_a_denied_device_is_apart(plain: House) -> None:
    plain.except_(plain.guest, "denied")
    assert not plain.talk(plain.guest, plain.a)
    assert not plain.talk(plain.a, plain.guest)
    assert not plain.shots(plain.a, plain.guest)
    assert plain.talk(plain.a, plain.b)


def test_without_a_bridge_a_device_reaches_an_allowed_one_on_the_bridge(plain: House) -> None:
    plain.deny(but=plain.a)
    assert plain.talk(plain.guest, plain.a)
    assert plain.talk(plain.a, plain.guest)
    assert not plain.talk(plain.guest, plain.b)
    assert not plain.talk(plain.b, plain.guest)


def test_an_exception_ends(house: House) -> None:
    house.deny(but=house.a)
    assert house.talk(house.a, house.b)
    house.except_(house.a, "default")
    assert not house.talk(house.a, house.b)
    assert not house.shots(house.b, house.a)


@pytest.mark.parametrize("connected", [False, True], ids=["not connected", "connected"])
def test_a_denied_device_reaches_none_and_none_reaches_it(house: House, connected: bool) -> None:
    if connected:
        house.appliance.connect()
    house.except_(house.b, "denied")
    for other in (house.a, house.c, house.guest):
        assert not house.talk(house.b, other), f"to {other}"
        assert not house.talk(other, house.b), f"from {other}"
        assert not house.shots(house.b, other) | house.shots(other, house.b)
    assert house.talk(house.a, house.c)
    assert house.talk(house.a, house.guest)
    assert house.talk(house.guest, house.c)


def test_a_denied_device_keeps_the_internet(house: House) -> None:
    house.appliance.connect()
    house.except_(house.b, "denied")
    for address in at.FRIENDLY.addresses:
        (result,) = run([Tcp(house.b.space, address)], 1, timeout=3)
        assert result.answered, str(result)


def test_a_denial_wins_over_an_allowance(house: House) -> None:
    house.deny(but=house.a)
    house.except_(house.b, "denied")
    assert not house.talk(house.a, house.b)
    assert not house.talk(house.b, house.a)
    assert house.talk(house.a, house.c)


def test_an_allowed_devices_address_opens_nothing_at_another_port(house: House) -> None:
    """B under A's MAC address: to C on the bridge, and to the guest over the router."""
    house.deny(but=house.a)
    assert not house.shots(house.b, house.c, as_mac=house.a.mac)
    assert not house.shots(house.b, house.guest, as_mac=house.a.mac)
    assert house.shots(house.a, house.c), "and the device itself still reaches it"


def test_the_routers_own_address_opens_nothing(house: House) -> None:
    house.deny(but=house.a)
    assert not house.shots(house.b, house.c, as_mac=at.BR_LAN_MAC)


@pytest.mark.parametrize("mac", ["02:00:5e:00:53:99", LAN_C_MAC])
def test_a_denied_device_gains_nothing_by_another_address(house: House, mac: str) -> None:
    """It was alone at its port, which is kept apart with it."""
    house.except_(house.b, "denied")
    assert not house.shots(house.b, house.a, as_mac=mac)
    assert not house.shots(house.b, house.guest, as_mac=mac)


def claim(house: House, thief: Station, victim: Station) -> None:
    """Tell the router that the victim's addresses are the thief's, as ARP spoofing does."""
    body = bytes.fromhex("0001080006040002") + bytes.fromhex(thief.mac.replace(":", ""))
    body += bytes(map(int, victim.host.v4.split(".")))
    body += bytes.fromhex(thief.gateway_mac.replace(":", ""))
    body += bytes(map(int, thief.gateway.v4.split(".")))
    frame = craft.ethernet(body, ETH_ARP, source=thief.mac, target=thief.gateway_mac)
    fire(thief, [frame] * 3)


def test_an_allowed_devices_ip_address_opens_nothing(house: House) -> None:
    """ARP spoofing: the router takes B for A and sends B what is for A. Not from a device."""
    house.deny(but=house.a)
    assert house.talk(house.guest, house.a)
    router = house.appliance.world.router
    router.sysctl({"ipv4/neigh/br-lan/locktime": 0})  # seconds in which an entry is not overwritten
    house.a.space.ip("link set eth0 down\n")  # or it would set the record straight

    def fooled() -> bool:
        claim(house, house.b, house.a)
        return house.b.mac in router.run(["ip", "neigh", "show", house.a.host.v4]).stdout

    house.appliance.until(fooled, "the router is fooled: the positive control")
    shots = routed(house.guest, house.a)
    with Capture(house.b.space, "eth0", megabytes=4) as capture:
        fire(house.guest, [shot.frame for shot in shots])
        router.run(["ping", "-c1", "-W2", house.b.host.v4])
        capture.flush()
    assert not [shot.name for shot in shots if capture.having(shot.token)]


def test_a_static_arp_entry_opens_nothing(house: House) -> None:
    house.deny(but=house.a)
    for one, other in ((house.b, house.c), (house.c, house.b)):
        one.space.ip(f"neigh replace {other.host.v4} lladdr {other.mac} dev eth0 nud permanent\n")
    (result,) = run([Udp(house.b.space, house.c.host.v4)], 3, timeout=1)
    assert not result.answered


def test_a_host_route_over_the_router_opens_nothing(house: House) -> None:
    """Hairpin: everything in the network sent to the router, both ways."""
    for one, other in ((house.b, house.c), (house.c, house.b)):
        one.space.ip(f"route add {other.host.v4}/32 via {one.gateway.v4}\n")
    (control,) = run([Udp(house.b.space, house.c.host.v4)], 3, timeout=1)
    assert control.answered, "no positive control"
    house.deny(but=house.a)
    (result,) = run([Udp(house.b.space, house.c.host.v4)], 3, timeout=1)
    assert not result.answered


def test_plain_dns_is_no_exception(house: House) -> None:
    """K12 comes before K16: an allowed device is no way around the tunnel's resolver."""
    query = [Udp(house.guest.space, house.a.host.v4, 53)]
    house.deny(but=house.a)
    house.appliance.connect()
    assert house.talk(house.guest, house.a)
    (result,) = run(query, 1, timeout=1)
    assert not result.answered
    blocked = house.appliance.status()["blocked"]
    with Capture(house.a.space, "eth0", megabytes=4) as capture:
        run(query, 1, timeout=1)
        capture.flush()
    assert not capture.having(query[0].token)
    assert house.appliance.status()["blocked"]["blocked_lan"] == blocked["blocked_lan"]


def test_exceptions_are_remembered(house: House) -> None:
    house.deny(but=house.a)
    house.except_(house.b, "denied")
    text = (house.appliance.bus.config_dir / CONFIG).read_text()
    assert f"option mac '{house.a.mac}'\n\toption access 'allowed'\n\toption port 'lan1'" in text
    assert f"option mac '{house.b.mac}'\n\toption access 'denied'\n\toption port 'lan2'" in text
    house.appliance.kill()
    house.appliance.start()
    assert house.talk(house.a, house.c)
    assert not house.talk(house.a, house.b)
    assert not house.talk(house.guest, house.c)


def test_an_exception_that_ended_leaves_nothing_behind(house: House) -> None:
    house.except_(house.a, "denied")
    house.except_(house.a, "default")
    assert house.a.mac not in (house.appliance.bus.config_dir / CONFIG).read_text()


def test_an_exception_of_the_owners_own_hand_holds(house: House) -> None:
    path = house.appliance.bus.config_dir / CONFIG
    section = f"\nconfig device\n\toption mac '{house.a.mac.upper()}'\n\toption access 'allowed'\n"
    path.write_text(path.read_text() + section + "\toption name 'Printer'\n")
    house.deny()
    assert house.appliance.call("reload")["ok"]
    house.appliance.until(lambda: house.device(house.a)["hostname"] == "Printer", "it is read")
    house.appliance.until(lambda: house.talk(house.a, house.b), "it holds where it was seen")
    assert "option name 'Printer'" in path.read_text()


def test_an_allowed_device_that_moves_is_told_about(house: House) -> None:
    house.deny(but=house.a)
    router = house.appliance.world.router
    router.ip("link set lan1 nomaster\nlink set lan1 name lan9\nlink set lan9 master br-lan up\n")
    fire(house.a, [shot.frame for shot in bridged(house.a, house.b)][:1])

    def moved() -> bool:
        return house.device(house.a)["device"] == "lan9"

    house.appliance.until(moved, "it is seen at its new port")
    device = house.device(house.a)
    assert (device["enforced"], "lan9" in str(device["note"])) == (False, True)
    assert not house.talk(house.a, house.b)
    house.except_(house.a, "allowed")
    assert house.talk(house.a, house.b)


@pytest.mark.parametrize(
    ("mac", "access", "code", "word"),
    [
        ("nonsense", "allowed", "bad_mac", "six pairs"),
        ("ff:ff:ff:ff:ff:ff", "allowed", "bad_mac", "group's"),
        ("00:00:00:00:00:00", "denied", "bad_mac", "no device's"),
        ("", "denied", "bad_mac", "six pairs"),
        (at.LAN_A_MAC, "maybe", "bad_access", "default, allowed or denied"),
        (at.LAN_A_MAC, "", "bad_access", "default, allowed or denied"),
        ("\x00" * 3000, "\x00", "bad_mac", "six pairs"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(
    appliance: Appliance, mac: str, access: str, code: str, word: str
) -> None:
    before = (appliance.bus.config_dir / CONFIG).read_text()
    answer = appliance.call("set_device", mac=mac, access=access)
    assert (answer["ok"], answer["code"], word in answer["reason"]) == (False, code, True)
    assert (appliance.bus.config_dir / CONFIG).read_text() == before
