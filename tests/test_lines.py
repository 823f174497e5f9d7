# SPDX-License-Identifier: GPL-2.0-or-later
"""K2: lines of every kind come up and stay up while the kill switch is active, and carry nothing
but the tunnel. PPPoE, 6in4 and DS-Lite, in the virtual machine (`make test-vm`)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from importlib.metadata import version

import pytest
from router import addresses as at
from router.appliance import Appliance
from router.capture import Capture
from router.judge import judge
from router.leaktest import asleep
from router.line import LINES, Line, Pppoe, SixInFour
from router.measurement import flows, measure
from router.namespace import Namespace
from router.probe import Probe, opened
from router.probes import DnsUdp, Icmp, Tcp, Udp

from portcullis.policy import MARK

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(
        version("pyroute2").startswith("0.7"), reason="what is tried here has no part of pyroute2"
    ),
]
PATIENCE = 60.0  # the virtual machine is slow


class Carried(Probe):
    """A packet as the line's own: the line's protocol, to the line's remote end."""

    answerable = False

    def __init__(self, netns: Namespace, line: Line, target: str, mark: int = 0) -> None:
        super().__init__(netns, target, mark=mark)
        self.number = 41 if line.family == 6 else 4
        self.protocol = f"IP protocol {self.number}"

    def _new_flow(self) -> socket.socket:
        sock = self._socket(socket.SOCK_RAW, self.number)
        sock.connect((self.target, 0))
        return sock


def tunnels(line: Line) -> bool:
    return not isinstance(line, Pppoe)


def through(line: Line, netns: Namespace, device: str = "") -> list[Probe]:
    """Probes of the family that the line carries."""
    return [p for p in flows(netns, device=device) if p.v6 == (line.family == 6)]


def pretenders(line: Line) -> list[Probe]:
    """Who sends what looks like the line's own, or anything else, to its remote end."""
    world = line.world
    found: list[Probe] = [kind(world.router, line.end) for kind in (Udp, Tcp, Icmp)]
    if tunnels(line):
        found += [
            Carried(world.router, line, line.end),
            Carried(world.lana, line, line.end),
        ]
    return found


def everything(line: Line) -> list[Probe]:
    world = line.world
    found = [*through(line, world.lana), *through(line, world.router)]
    found += [*through(line, world.router, line.device), *pretenders(line)]
    return found


@pytest.fixture(scope="module", params=LINES, ids=[kind.__name__ for kind in LINES])
def line(request: pytest.FixtureRequest) -> Iterator[Line]:
    with Appliance(masquerade=False) as router:
        found: Line = request.param(router)
        router.add_profile("line", router.world.vpn1.profile(found.to))
        found.lay()
        router.start(wait=False)
        router.until(router.answers, "the daemon answers", PATIENCE)
        yield found


@pytest.fixture
def connected(line: Line) -> Line:
    connect(line)
    return line


def connect(line: Line) -> None:
    assert line.appliance.call("connect", profile="line")["ok"]
    line.appliance.until_state("connected", patience=PATIENCE)


def flows_again(line: Line) -> None:
    """Devices reach the internet through the tunnel, and nothing of it is seen outside."""
    router = line.appliance
    router.until_state("connected", patience=PATIENCE)
    probes = [kind(line.world.lana, at.FRIENDLY.v4) for kind in (Udp, Tcp)]

    def answered() -> bool:
        batch = measure(line.world, probes, line.allowed, count=1, timeout=5.0)
        assert batch.verdict.clean, str(batch.verdict)
        return not batch.unanswered() and not batch.untunnelled()

    router.until(answered, "traffic in the tunnel", PATIENCE)


def test_nothing_leaves_but_the_tunnel(line: Line) -> None:
    """The positive control comes first, with the owner disconnected."""
    router = line.appliance
    if router.state != "not_connected":
        router.disconnect()
    probes = everything(line)
    with opened(probes, timeout=15.0):
        control = measure(line.world, probes, line.allowed, timeout=5.0)
        assert not control.unseen(), f"no positive control: {control}"
        connect(line)
        batch = measure(line.world, probes, line.allowed, count=20, timeout=3.0)
        assert batch.verdict.clean, str(batch)
        assert batch.verdict.passed["tunnel"]
        print(f"{batch.sent} sent, of the line: {dict(batch.verdict.passed)}")


@pytest.mark.parametrize("layer", ["packet filter", "routing guard"])
def test_each_layer_alone_stops_what_only_looks_like_the_line(connected: Line, layer: str) -> None:
    """K9. The daemon sleeps, so nothing is repaired."""
    router = connected.world.router
    with asleep(connected.appliance):
        if layer == "packet filter":
            for family, priorities in (("-4", (800, 830)), ("-6", (800, 810, 830, 831))):
                for priority in priorities:
                    router.run(["ip", family, "rule", "del", "pref", f"{priority}"])
        else:
            connected.appliance.delete_table("inet portcullis")
        probes = pretenders(connected)
        batch = measure(connected.world, probes, connected.allowed, count=5, timeout=2.0)
    assert batch.verdict.clean, str(batch.verdict)
    flows_again(connected)


def test_devices_are_served_through_the_tunnel(connected: Line) -> None:
    world = connected.world
    targets = at.FRIENDLY.v4, at.FRIENDLY.v6
    probes = [kind(world.lana, to) for to in targets for kind in (Udp, Tcp, Icmp)]
    probes += [Udp(world.lana, to, size=3000) for to in targets]
    probes += [DnsUdp(world.lana, at.ROUTER_LAN.v4)]
    with opened(probes, timeout=15.0):
        batch = measure(world, probes, connected.allowed, count=5, timeout=10.0)
    assert [str(result) for result in batch.unanswered()] == []
    assert [str(result) for result in batch.untunnelled()] == []
    assert batch.verdict.clean, str(batch.verdict)


def test_the_mtu_fits_the_line(connected: Line) -> None:
    """But IPv6 in the tunnel needs 1280, whatever the line leaves."""
    shown = connected.world.router.run(["ip", "-o", "link", "show", "dev", "pc0"]).stdout
    assert f"mtu {max(1280, connected.mtu - 80)} " in shown


def test_the_line_comes_up_while_active(connected: Line) -> None:
    router = connected.appliance
    with Capture(connected.world.isp, connected.world.access) as wan:
        connected.down()
        router.until(lambda: router.state != "connected", "the loss is noticed", PATIENCE)
        assert router.status()["kill_switch"]["active"]
        connected.up()
        flows_again(connected)
    verdict = judge(wan.frames, connected.allowed)
    assert verdict.clean, str(verdict)


def test_the_remote_end_may_move(connected: Line) -> None:
    former = connected.end
    connected.move()
    flows_again(connected)
    if tunnels(connected):
        table = connected.world.router.run(["nft", "list", "table", "inet", "portcullis"]).stdout
        assert connected.end != former
        assert connected.end in table
        assert former not in table


def test_it_stays_up(connected: Line) -> None:
    router = connected.appliance
    router.world.firewall.restart()
    flows_again(connected)
    router.kill()
    router.start(wait=False)
    router.until(router.answers, "the daemon answers", PATIENCE)
    flows_again(connected)
    connect(connected)
    flows_again(connected)


def test_its_mark_is_put_back(connected: Line) -> None:
    if not tunnels(connected):
        pytest.skip("PPPoE needs no mark")
    kind = "sit" if isinstance(connected, SixInFour) else "ip6tnl"
    router = connected.world.router
    change = ["ip", "link", "set", connected.device, "type", kind, "remote", connected.end]
    local = at.ROUTER_WAN.v4 if kind == "sit" else at.ROUTER_WAN.v6
    router.run([*change, "local", local, "fwmark", "0"])

    def marked() -> bool:
        shown = router.run(["ip", "-d", "link", "show", "dev", connected.device]).stdout
        return f"fwmark {MARK:#x}" in shown

    connected.appliance.until(marked, "the mark is back", PATIENCE)
    flows_again(connected)


def test_a_tunnel_made_by_hand_gets_nothing(line: Line) -> None:
    """It has no mark, and where root gives it one, no remote end in the filter."""
    if not tunnels(line):
        pytest.skip("PPPoE has no remote end")
    world, router = line.world, line.appliance
    v6 = isinstance(line, SixInFour)
    kind, local = ("sit", at.ROUTER_WAN.v4) if v6 else ("ip6tnl mode ipip6", at.ROUTER_WAN.v6)
    default = "::/0" if v6 else "default"
    probes = []
    for metric, (device, host, mark) in enumerate(
        (("hand0", at.HOSTILE, 0), ("hand1", at.FRIENDLY, MARK)), 9000
    ):
        to = host.v4 if v6 else host.v6
        world.router.ip(
            f"link add {device} type {kind} local {local} remote {to} fwmark {mark}\n"
            f"link set {device} up\nroute add {default} dev {device} metric {metric}\n"
        )
        probes.append(Udp(world.router, line.to, at.WIREGUARD_PORT, device=device, mark=MARK))
    try:
        if router.state != "not_connected":
            router.disconnect()
        control = measure(world, probes, line.allowed, timeout=2.0)
        assert not control.unseen(), f"no positive control: {control}"
        connect(line)
        batch = measure(world, probes, line.allowed, count=10, timeout=2.0)
        assert batch.verdict.clean, str(batch.verdict)
        assert not batch.on_wan
        shown = world.router.run(["ip", "-d", "link", "show", "dev", "hand0"]).stdout
        assert "fwmark" not in shown
    finally:
        world.router.ip("link del hand0\nlink del hand1\n")
