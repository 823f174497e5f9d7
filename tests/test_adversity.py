# SPDX-License-Identifier: GPL-2.0-or-later
"""What once was wrong: hung services, damaged memories, a house nobody told us about."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from router import addresses as at
from router.appliance import Appliance, interfaces
from router.capture import Capture
from router.judge import judge
from router.leaktest import ALLOWED, every_probe, leaks, proven
from router.measurement import measure
from router.probe import run
from router.probes import Icmp, Udp


@pytest.fixture
def idle() -> Iterator[Appliance]:
    """A router on which the daemon does not run yet."""
    with Appliance() as found:
        yield found


def lan_reaches_the_router(appliance: Appliance) -> bool:
    lan = appliance.world.lana
    question = ["dig", "+short", "+time=1", "+tries=1", "@192.168.1.1", "lana.lan"]
    answered = lan.run(question, check=False).stdout.strip() == at.LAN_A.v4
    ping = lan.run(["ping", "-c1", "-W1", "192.168.1.1"], check=False)
    ula = lan.run(["ping", "-c1", "-W1", at.ROUTER_LAN.ula], check=False)
    return answered and not ping.returncode and not ula.returncode


def dump_without(what: dict[str, Any]) -> dict[str, Any]:
    """netifd's dump with the interface lan changed."""
    found = interfaces()
    (lan,) = [i for i in found["interface"] if i["interface"] == "lan"]
    lan |= what
    return found


UNKNOWN_HOUSES = {
    "netifd knows nothing": ("interfaces.json", json.dumps({"interface": []})),
    "no firewall": ("config/firewall", ""),
    "lan has nonsense for an address": (
        "interfaces.json",
        json.dumps(dump_without({"ipv4-address": [{"address": "nonsense", "mask": 24}]})),
    ),
    "lan is forwarded nowhere": (
        "config/firewall",
        "config zone\n\toption name 'lan'\n\tlist network 'lan'\n\toption input 'ACCEPT'\n",
    ),
    "lan is a DHCP client": ("interfaces.json", json.dumps(dump_without({"proto": "dhcp"}))),
}


@pytest.mark.parametrize("kind", UNKNOWN_HOUSES)
def test_the_router_answers_the_house_whatever_is_known_of_it(idle: Appliance, kind: str) -> None:
    """K14: nobody is locked out, and still nothing leaves."""
    name, text = UNKNOWN_HOUSES[kind]
    (idle.bus.directory / name).write_text(text)
    idle.world.vpn1.blackhole()
    (idle.home / "intent").write_text("connected\nvpn1\n")
    probes = every_probe(idle)
    assert not measure(idle.world, probes).unseen(), "no positive control"
    idle.start()
    assert idle.status()["kill_switch"]["active"]
    leaks(idle, probes)
    assert lan_reaches_the_router(idle)


def test_the_house_is_answered_without_ubus_and_without_memory(idle: Appliance) -> None:
    idle.bus.stop_others()
    idle.bus.stop_broker()
    (idle.home / "intent").write_text("connected\nvpn1\n")
    probes = every_probe(idle)
    assert not measure(idle.world, probes).unseen(), "no positive control"
    idle.start(wait=False)
    table = ["nft", "list", "table", "inet", "portcullis"]
    idle.until(lambda: not idle.world.router.run(table, check=False).returncode, "the table")
    leaks(idle, probes)
    assert lan_reaches_the_router(idle)


def test_a_dump_gone_empty_does_not_make_the_networks_forgotten(appliance: Appliance) -> None:
    appliance.connect()
    appliance.bus.interfaces.write_text(json.dumps({"interface": []}))
    appliance.call("reload")
    assert [n["name"] for n in appliance.status()["networks"]] == ["lan", "guest"]
    assert any("networks" in fault for fault in appliance.status()["faults"])


def test_a_tunnel_address_that_is_the_routers_in_any_of_its_networks_is_refused(
    appliance: Appliance,
) -> None:
    """K14: what devices send to the router under it would count as forged (K11)."""
    appliance.connect()
    device = appliance.status()["networks"][0]["device"]
    found = dump_without({"proto": "dhcp", "ipv4-address": [{"address": "10.64.1.2", "mask": 31}]})
    appliance.world.router.ip(f"addr add 10.64.1.2/31 dev {device}\n")
    appliance.bus.interfaces.write_text(json.dumps(found))
    appliance.call("reload")
    appliance.until_state("connection_failed")
    assert "10.64.1.2 lies in the network lan" in appliance.status()["reason"]
    appliance.world.lana.ip("addr add 10.64.1.3/31 dev eth0\n")
    assert not appliance.world.lana.run(["ping", "-c1", "-W2", "10.64.1.2"]).returncode


def test_a_prefix_that_is_delegated_later_is_known_without_an_event(appliance: Appliance) -> None:
    """netifd's broadcast tells of interfaces that go up and down; this is neither."""
    local = {"local-address": {"address": "2001:db8:77::1", "mask": 64}}
    found = dump_without({"ipv6-prefix-assignment": [local]})
    appliance.bus.interfaces.write_text(json.dumps(found))
    appliance.world.router.ip("addr add 2001:db8:77::1/64 dev br-lan nodad\n")
    table = ["ip", "-6", "route", "show", "table", "706"]
    appliance.until(
        lambda: "2001:db8:77::/64 dev br-lan" in appliance.world.router.run(table).stdout,
        "devices with such addresses get their answers",
    )


def test_a_firewall_that_is_reloaded_by_hand_is_read_again(appliance: Appliance) -> None:
    """Neither netifd nor procd tells of it."""
    assert "guest" in [network["name"] for network in appliance.status()["networks"]]
    config = appliance.bus.config_dir / "firewall"
    config.write_text(config.read_text().replace("list network 'guest'", ""))
    appliance.world.firewall.start()
    appliance.until(
        lambda: "guest" not in [network["name"] for network in appliance.status()["networks"]],
        "it is no protected network any more",
    )


def test_half_of_the_internet_behind_a_lan_router_is_refused(appliance: Appliance) -> None:
    """K4: two halves of a default route are a default route."""
    world, half = appliance.world, {"target": "0.0.0.0", "mask": 1, "nexthop": at.LAN_B.v4}
    private = {"target": "10.99.0.0", "mask": 16, "nexthop": at.LAN_B.v4}
    appliance.bus.interfaces.write_text(json.dumps(dump_without({"route": [private]})))
    appliance.call("reload")
    table = ["ip", "route", "show", "table", "706"]
    assert "10.99.0.0/16 via 192.168.1.11" in world.router.run(table).stdout
    appliance.bus.interfaces.write_text(json.dumps(dump_without({"route": [half]})))
    appliance.call("reload")
    assert "0.0.0.0/1" not in world.router.run(table).stdout
    assert "lan" not in [n["name"] for n in appliance.status()["networks"]]


def test_changes_of_profile_leave_nothing_behind(appliance: Appliance) -> None:
    """A descriptor of a dead wireguard-go that is left in the loop makes it spin for ever."""
    assert appliance.daemon
    process = Path(f"/proc/{appliance.daemon.pid}")

    def descriptors() -> int:
        return len(os.listdir(process / "fd"))

    appliance.connect("vpn1")
    appliance.connect_to("vpn2")
    before = descriptors()
    for profile in ("vpn1", "vpn2"):
        appliance.connect_to(profile)
    appliance.until(lambda: descriptors() <= before, "what ended is collected")
    ticks = _ticks(process)
    appliance.until(lambda: appliance.status()["tunnel"]["handshake_age"] >= 2, "two seconds")
    assert _ticks(process) - ticks < 100, "half of the processor's time"


def _ticks(process: Path) -> int:
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@contextmanager
def without_descriptors(appliance: Appliance) -> Iterator[None]:
    """The core can open nothing more, whatever it closes."""
    assert appliance.daemon
    limit, pid = resource.RLIMIT_NOFILE, appliance.daemon.pid
    soft, hard = resource.prlimit(pid, limit)
    resource.prlimit(pid, limit, (3, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, limit, (soft, hard))


def in_order(appliance: Appliance, state: str) -> None:
    def found() -> bool:
        status = appliance.status()
        return status["state"] == state and not status["faults"]

    appliance.until(found, f"{state}, and nothing is wrong", patience=15)


def test_a_core_without_descriptors_carries_out_what_is_asked(appliance: Appliance) -> None:
    """Whatever cannot be read or done meanwhile is tried again, not only when something happens."""

    def faults() -> str:
        return str(appliance.status()["faults"])

    appliance.connect()
    with without_descriptors(appliance):
        appliance.until(lambda: appliance.call("devices") and "devices: " in faults(), "a control")
        assert appliance.call("set", name="lan_access", value="0")["ok"]
        assert appliance.call("disconnect")["ok"]
        appliance.until_state("not_connected")
        appliance.world.router.ip("addr add 203.0.113.77/24 dev eth1\n")
        appliance.until(lambda: "uplink: " in faults(), "a second control")
    in_order(appliance, "not_connected")
    device = ["ip", "link", "show", "pc0"]
    appliance.until(
        lambda: appliance.world.router.run(device, check=False).returncode, "the device has gone"
    )
    assert not appliance.call("get")["lan_access"]
    appliance.connect()
    in_order(appliance, "connected")


def test_a_core_without_descriptors_keeps_denied_what_was_denied(appliance: Appliance) -> None:
    appliance.connect()
    assert appliance.call("set_device", mac="02:00:00:00:00:0a", access="denied")["ok"]

    def denied() -> bool:
        table = appliance.world.router.run(["nft", "list", "table", "inet", "portcullis"]).stdout
        return "goto between" in table.partition("map forwards")[2].partition("}")[0]

    appliance.until(denied, "the exception")
    with without_descriptors(appliance):
        assert appliance.call("set", name="mode", value="at_all_times")["ok"]
        appliance.until(lambda: "LAN access" in str(appliance.status()["faults"]), "a control")
        assert denied()
    in_order(appliance, "connected")
    assert denied()


def test_a_connect_that_cannot_be_saved_is_told_and_outlives_a_crash(appliance: Appliance) -> None:
    obstacle = appliance.home / ".intent.new"  # the temporary file cannot be made
    obstacle.mkdir()
    answer = appliance.call("connect", profile="vpn1")
    assert answer["ok"]
    assert "holds until reboot" in answer["warning"]
    appliance.until_state("connected")
    appliance.kill()
    appliance.start()
    assert appliance.status()["intent"] == "connected"
    assert appliance.status()["kill_switch"]["active"]
    obstacle.rmdir()
    intent = appliance.home / "intent"
    appliance.until(intent.exists, "saved after all, by the process that came after")
    assert intent.read_text() == "connected\nvpn1\n"


@pytest.mark.parametrize(
    "text",
    [
        '{"vpn1.example.net": "198.51.100.101"}',
        '{"vpn1.example.net": ["nonsense", 7, null]}',
        '{"vpn1.example.net": []}',
        '{"vpn1.example.net": ["127.0.0.1", "fe80::1%eth1", "192.168.1.10"]}',
        '["vpn1.example.net"]',
        "\x00",
    ],
)
def test_a_damaged_memory_of_endpoints_is_as_good_as_none(idle: Appliance, text: str) -> None:
    (idle.home / "endpoints").write_text(text)
    (idle.home / "intent").write_text("disconnected\n\n")
    idle.add_profile("named", idle.world.vpn1.profile(idle.world.vpn1.hostname))
    idle.start()
    assert idle.call("set", name="bootstrap_dns", value="198.51.100.53")["ok"]
    idle.connect("named")
    assert "state UP" in idle.world.router.run(["ip", "link", "show", "eth1"]).stdout


def test_a_remembered_address_of_the_wrong_family_is_looked_up_again(idle: Appliance) -> None:
    (idle.home / "endpoints").write_text(json.dumps({"vpn1.example.net": [at.VPN1.v6]}))
    (idle.home / "intent").write_text("disconnected\n\n")
    idle.add_profile("named", idle.world.vpn1.profile(idle.world.vpn1.hostname))
    idle.world.router.run(["ip", "-6", "route", "del", "default"])
    idle.start()
    assert idle.call("set", name="bootstrap_dns", value="198.51.100.53")["ok"]
    idle.connect("named")
    assert idle.status()["endpoints"] == [f"{at.VPN1.v4} udp 51820"]


@contextmanager
def hung(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_hung_ubusd_keeps_nobody_waiting(idle: Appliance) -> None:
    (idle.home / "intent").write_text("connected\nvpn1\n")
    probes = every_probe(idle)
    assert not measure(idle.world, probes).unseen(), "no positive control"
    router = idle.world.router
    table = ["nft", "list", "table", "inet", "portcullis"]

    def stands() -> bool:
        return not router.run(table, check=False).returncode

    assert idle.bus.broker_pid
    with hung(idle.bus.broker_pid):
        idle.start(wait=False)
        idle.until(stands, "the table", patience=5)
        leaks(idle, probes)
        idle.delete_table("inet portcullis")
        idle.until(stands, "the table is back", patience=5)
        idle.stop()  # and SIGTERM is heard
    idle.start()
    idle.until_state("connected")


def test_a_ubusd_that_hangs_later_keeps_nobody_waiting_either(appliance: Appliance) -> None:
    """The library waits for ever for one that hangs: an event, an alarm, a call."""
    appliance.connect()
    router, log = appliance.world.router, appliance.log
    assert appliance.bus.broker_pid
    with hung(appliance.bus.broker_pid):
        router.ip("link del pc0\n")
        appliance.until(lambda: "connected -> reconnecting" in log.read_text(), "it is noticed", 5)
        router.run(["ip", "rule", "del", "pref", "830"])
        rules = ["ip", "rule", "show", "pref", "830"]
        appliance.until(lambda: router.run(rules).stdout.strip(), "the rule is put back", 5)
        appliance.stop()  # which fails where SIGTERM does not do in five seconds


def test_a_server_that_only_shakes_hands_is_not_connected_for_long(appliance: Appliance) -> None:
    """*Connected* means that data flows."""
    world = appliance.world
    world.vpn1.netns.nft(
        "table inet mute {\n chain in {\n  type filter hook prerouting priority -500;\n"
        '  iifname "wg0" drop\n }\n}\n'
    )
    with proven(appliance) as probes:
        appliance.call("connect", profile="vpn1")
        appliance.until(lambda: appliance.status()["tunnel"].get("handshake_age", -1) >= 0, "hands")
        assert appliance.state == "connecting"
        leaks(appliance, probes)


def test_what_answers_the_house_opens_nothing(idle: Appliance) -> None:
    """The devices that the router only answers cannot be used as a way out."""
    (idle.bus.directory / "config/firewall").write_text("")
    idle.world.vpn1.blackhole()
    idle.start()
    idle.call("connect", profile="vpn1")
    probes = [Udp(idle.world.router, at.LAN_A.v4), Icmp(idle.world.router, at.LAN_A.v4)]
    with Capture(idle.world.isp, idle.world.access) as wan:
        run(probes, 2, 0.5)
    assert judge(wan.frames, ALLOWED).clean
