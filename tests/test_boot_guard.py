# SPDX-License-Identifier: GPL-2.0-or-later
"""K8: the boot guard. Shell and nft alone, whatever else is broken, and closed where in doubt."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator

import pytest
from router import VirtualRouter
from router import addresses as at
from router.measurement import BatchResult, lan_probes, measure, router_probes
from router.namespace import Namespace
from router.probe import Probe
from router.probes import PacketSocket
from router.rootfs import NETIFD4, NETIFD6, SHELLS, RootFilesystem

from portcullis import lanruleset
from portcullis.policy import Lan, Network, Policy
from portcullis.ruleset import boot

LAN, GUEST = (
    Network(name, device, (prefix,))
    for name, device, prefix in (
        ("lan", at.LAN_BRIDGE, at.LAN4),
        ("guest", at.GUEST_BRIDGE, at.GUEST4),
    )
)
REMEMBERED = boot(Policy(lan_access=True, networks=(LAN, GUEST)))
GATE = "elements = { ipv4 : accept, ipv6 : accept }"  # nft 1.1 takes two lines for it
DISCONNECTED, CONNECTED = "disconnected\nvpn1\n", "connected\nvpn1\n"


class Router(RootFilesystem):
    """A root file system on a network, with nothing running yet."""

    space: Namespace

    def remember(self, intent: str | bytes, elements: str | None = REMEMBERED) -> None:
        """What the daemon left behind: an intent, the networks, and traces of a connection."""
        home = self.path("etc/portcullis")
        home.mkdir(exist_ok=True)
        (home / "intent").write_bytes(intent if isinstance(intent, bytes) else intent.encode())
        (home / "endpoints").write_text("")
        if elements is not None:
            (home / "boot.nft").write_text(elements)

    def sh(self, text: str) -> str:
        return self.script(text, space=self.space, check=False).stdout

    def guard(self, action: str = "start") -> None:
        assert "!" not in self.sh(f"/etc/init.d/portcullis-guard {action} || echo !")

    def hotplug(self, action: str = "ifup", device: str = "lo") -> None:
        """As OpenWrt's hotplug-call does it, for an interface that netifd brought up."""
        call = f"ACTION={action} DEVICE={device}; . /etc/hotplug.d/iface/15-portcullis"
        self.sh(f"({call})")

    def holds(self, name: str) -> str:
        """A set or map of the table, as nft prints it; empty where there is none."""
        kind = "map" if name in ("gate", "forwards") else "set"
        return self.sh(f"nft list {kind} inet portcullis {name}")

    @property
    def guard_released(self) -> bool:
        """Whether the routing guard's parts that release it stand, both or none."""
        parts = {"throw" in self.sh("ip route show table 707"), "820:" in self.sh("ip -6 rule")}
        assert len(parts) == 1
        return parts == {True}

    @property
    def released(self) -> bool:
        """Whether everything is released, or nothing; there must be a table."""
        assert "chain forward" in self.sh("nft list table inet portcullis"), self.log()
        assert self.guard_released == (GATE in " ".join(self.holds("gate").split()))
        return self.guard_released


@pytest.fixture(params=SHELLS)
def router(request: pytest.FixtureRequest) -> Iterator[Router]:
    with Router(request.param) as found, found.network() as found.space:
        yield found


@pytest.fixture
def busybox() -> Iterator[Router]:
    """Where the shell makes no difference."""
    with Router("busybox") as found, found.network() as found.space:
        yield found


# The decision.


def test_a_fresh_installation_is_released(router: Router) -> None:
    router.guard()
    assert router.released


def test_the_owner_who_disconnected_stays_so(router: Router) -> None:
    router.remember(DISCONNECTED)
    router.guard()
    assert router.released
    assert f'"{at.LAN_BRIDGE}"' in router.holds("protected")
    assert "elements" not in router.holds("forwards"), "fw4's to decide while released"


def test_the_owner_who_is_connected_is_blocked_from_the_start(router: Router) -> None:
    router.remember(CONNECTED)
    router.guard()
    assert not router.released
    assert at.GUEST_BRIDGE in router.holds("protected")
    assert "goto to_local" in router.holds("forwards")
    assert "blocking, as it was left" in router.log()


APART = boot(Policy(networks=(LAN, GUEST)))


@pytest.mark.parametrize("intent", [DISCONNECTED, CONNECTED])
def test_networks_that_must_not_meet_do_not_in_any_state(busybox: Router, intent: str) -> None:
    busybox.remember(intent, APART)
    busybox.guard()
    assert busybox.released == (intent == DISCONNECTED)
    assert f'"{at.LAN_BRIDGE}" . "{at.GUEST_BRIDGE}" : goto between' in busybox.holds("forwards")


def bridge_table(router: Router) -> str:
    return router.sh("nft list table bridge portcullis 2> /dev/null")


@pytest.mark.parametrize("intent", [DISCONNECTED, CONNECTED])
def test_devices_that_must_not_meet_are_apart_from_the_start(router: Router, intent: str) -> None:
    router.remember(intent)
    lan = Lan(free=((at.LAN_A_MAC, "lan1"),), heard=("lan1",), isolated=("lan2",))
    router.path("etc/portcullis/lan.nft").write_text(lanruleset.boot(lan))
    router.guard()
    assert f'{at.LAN_A_MAC} . "lan1"' in bridge_table(router)
    assert router.released == (intent == DISCONNECTED)


def test_devices_that_may_meet_are_left_alone(busybox: Router) -> None:
    busybox.remember(CONNECTED)
    busybox.guard()
    assert bridge_table(busybox) == ""


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        lanruleset.boot(Lan())[:-200],
        lanruleset.boot(Lan()) + "add element inet portcullis gate { ipv4 : accept }\n",
        lanruleset.boot(Lan()) + 'include "/etc/passwd"\n',
    ],
    ids=["nonsense", "cut short", "another table", "another file"],
)
def test_a_broken_memory_of_who_is_apart_never_weakens_the_block(
    busybox: Router, text: str
) -> None:
    busybox.remember(CONNECTED)
    busybox.path("etc/portcullis/lan.nft").write_text(text)
    busybox.guard()
    assert not busybox.released
    assert bridge_table(busybox) == ""
    assert "lan.nft is refused" in busybox.log()


def test_a_bridges_table_that_stands_is_left_alone(busybox: Router) -> None:
    busybox.remember(CONNECTED)
    busybox.path("etc/portcullis/lan.nft").write_text(lanruleset.boot(Lan()))
    busybox.sh("nft add table bridge portcullis")
    busybox.guard()
    assert "chain" not in bridge_table(busybox)


def _mode(text: str) -> Callable[[Router], object]:
    return lambda router: router.config("portcullis", text)


def _gone(path: str) -> Callable[[Router], object]:
    return lambda router: router.path(path).unlink()


DOUBTS: dict[str, Callable[[Router], object]] = {
    "at all times": _mode("config portcullis 'main'\n\toption mode 'at_all_times'\n"),
    "a mode nobody knows": _mode("config portcullis 'main'\n\toption mode 'Standard '\n"),
    "no mode": _mode("config portcullis 'main'\n"),
    "a section of another type": _mode("config other 'main'\n\toption mode 'standard'\n"),
    "an empty configuration": _mode(""),
    "a broken configuration": _mode("config portcullis 'main\n\toption mode 'standard'\n"),
    "a binary configuration": _mode("\0\1\2\3" * 99),
    "no configuration": _gone("etc/config/portcullis"),
    "no uci": _gone("sbin/uci"),
    "a uci that crashes": lambda router: router.program("sbin/uci", "#!/bin/sh\nkill -9 $$\n"),
    "no released.sh": _gone("usr/share/portcullis/released.sh"),
    "a broken released.sh": lambda router: router.path(
        "usr/share/portcullis/released.sh"
    ).write_text("portcullis_released() { if then"),
}


@pytest.mark.parametrize("doubt", DOUBTS)
def test_a_doubt_about_the_mode_closes(router: Router, doubt: str) -> None:
    router.remember(DISCONNECTED)
    DOUBTS[doubt](router)
    router.guard()
    assert not router.released


def test_a_staged_mode_is_no_mode_yet(router: Router) -> None:
    router.remember(DISCONNECTED)
    router.config("portcullis", "config portcullis 'main'\n\toption mode 'at_all_times'\n")
    router.sh("uci set portcullis.main.mode=standard")
    router.guard()
    assert not router.released


INTENTS = {
    "empty": b"",
    "another word": b"yes\n",
    "a word more": b"disconnected now\n",
    "a word that goes on": b"disconnectedness\n",
    "blanks": b" disconnected\n",
    "upper case": b"DISCONNECTED\n",
    "on the second line": b"connected\ndisconnected\n",
    "a NUL inside": b"dis\0connected\n",
    "a NUL behind": b"disconnected\0\n",
    "zeros, as a power cut leaves them": b"\0" * 4096,
    "binary": bytes(range(256)) * 16,
    "huge": b"disconnected" * 1_000_000,
}


@pytest.mark.parametrize("kind", INTENTS)
def test_an_intent_that_makes_no_sense_closes(router: Router, kind: str) -> None:
    router.remember(INTENTS[kind])
    router.guard()
    assert not router.released


@pytest.mark.parametrize("kind", ["folder", "dangling link", "pipe"])
def test_an_intent_that_cannot_be_read_closes(busybox: Router, kind: str) -> None:
    busybox.remember("")
    intent = busybox.path("etc/portcullis/intent")
    intent.unlink()
    if kind == "folder":
        intent.mkdir()
    elif kind == "pipe":
        os.mkfifo(intent)
    else:
        intent.symlink_to("nowhere")
    busybox.guard()
    assert not busybox.released


@pytest.mark.parametrize("name", ["boot.nft", "lan.nft"])
def test_what_never_ends_does_not_hold_up_the_boot(busybox: Router, name: str) -> None:
    busybox.remember(CONNECTED)
    memory = busybox.path("etc/portcullis") / name
    memory.unlink(missing_ok=True)
    os.mkfifo(memory)
    busybox.guard()
    assert not busybox.released


def test_a_lost_intent_is_no_fresh_installation(busybox: Router) -> None:
    busybox.remember("")
    busybox.path("etc/portcullis/intent").unlink()
    busybox.guard()
    assert not busybox.released


# What is loaded.

BROKEN = {
    "missing": None,
    "empty": "",
    "cut off": REMEMBERED[:40],
    "not of the closed policy": REMEMBERED + "add element inet portcullis gate { ipv4 : accept }\n",
    "a verdict that opens": REMEMBERED.replace("goto to_local", "accept"),
    "a rule": REMEMBERED + "add rule inet portcullis forward accept\n",
    "a command more": REMEMBERED.replace("}\n", "}; flush ruleset\n"),
    "a rule behind an element": REMEMBERED.replace(
        "}\n", "}; insert rule inet portcullis forward accept\n", 1
    ),
    "a set that is not there": REMEMBERED.replace(" protected ", " nowhere "),
    "a name too long": REMEMBERED.replace(at.LAN_BRIDGE, "x" * 40),
    "binary": "\1\2\3",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_without_what_was_remembered_the_lan_is_known_from_uci(router: Router, kind: str) -> None:
    router.remember(CONNECTED, BROKEN[kind])
    router.guard()
    assert not router.released
    assert '"br-lan"' in router.holds("served")
    assert "eth1" not in router.holds("served") and "elements" not in router.holds("protected")
    assert "boot.nft is missing or broken" in router.log()


@pytest.mark.parametrize("kind", BROKEN)
def test_the_owner_who_disconnected_needs_nothing_remembered(busybox: Router, kind: str) -> None:
    busybox.remember(DISCONNECTED, BROKEN[kind])
    busybox.guard()
    assert busybox.released


def test_without_uci_too_the_lan_has_its_usual_name(busybox: Router) -> None:
    busybox.remember(CONNECTED, None)
    busybox.path("sbin/uci").unlink()
    busybox.guard()
    assert not busybox.released
    assert '"br-lan"' in busybox.holds("served")


def test_a_table_that_stands_is_left_alone(router: Router) -> None:
    router.remember(CONNECTED)
    router.sh("nft add table inet portcullis")
    for action in ("start", "stop", "restart", "reload"):
        router.guard(action)
        assert router.sh("nft list table inet portcullis").split() == [
            *("table", "inet", "portcullis", "{", "}")
        ]


@pytest.mark.parametrize("intent", [CONNECTED, DISCONNECTED])
def test_no_action_on_the_service_changes_anything(router: Router, intent: str) -> None:
    router.remember(intent)
    router.guard()
    released = router.released
    # Whatever is asked for meanwhile, the daemon does it, not this.
    router.remember(DISCONNECTED if intent == CONNECTED else CONNECTED)
    for action in ("stop", "restart", "reload", "start"):
        router.guard(action)
        assert router.released == released


@pytest.mark.parametrize("damage", ["no table.nft", "a table.nft cut off", "no nft"])
def test_where_nothing_can_be_loaded_nothing_is_forwarded(router: Router, damage: str) -> None:
    router.remember(CONNECTED)
    template = router.path("usr/share/portcullis/table.nft")
    if damage == "no nft":
        router.program("stand-in/nft", "#!/bin/sh\nexit 127\n")
    else:
        template.write_text("" if damage == "no table.nft" else template.read_text()[:-100])
    forwarding = "/proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding"
    router.sh(f"for switch in {forwarding}; do echo 1 > $switch; done")
    router.guard()
    assert router.sh(f"cat {forwarding}").split() == ["0", "0"]
    assert "forwarding is switched off" in router.log()
    # By this record the daemon gives it back (lastresort.py), and so does removal.
    record = router.path("tmp/run/portcullis/last-resort").read_text()
    assert record == (
        '{"devices": [], "switches": ["/proc/sys/net/ipv4/ip_forward",'
        ' "/proc/sys/net/ipv6/conf/all/forwarding"]}\n'
    )


def test_what_the_daemon_had_taken_is_given_back_with_it(router: Router) -> None:
    """An upgrade starts the guard while nft refuses the daemon, too."""
    router.remember(CONNECTED)
    router.program("stand-in/nft", "#!/bin/sh\nexit 127\n")
    router.sh("echo 1 > /proc/sys/net/ipv4/ip_forward")
    router.sh("echo 0 > /proc/sys/net/ipv6/conf/all/forwarding")
    run = router.path("tmp/run/portcullis")
    run.mkdir(parents=True, exist_ok=True)
    (run / "last-resort").write_text('{"devices": ["eth1"], "switches": []}')
    for _ in range(2):
        router.guard()
    taken = json.loads((run / "last-resort").read_text())
    assert taken == {"devices": ["eth1"], "switches": ["/proc/sys/net/ipv4/ip_forward"]}


def test_the_owner_who_disconnected_keeps_the_internet_without_nft(busybox: Router) -> None:
    busybox.remember(DISCONNECTED)
    busybox.program("stand-in/nft", "#!/bin/sh\nexit 127\n")
    busybox.sh("echo 1 > /proc/sys/net/ipv4/ip_forward")
    busybox.guard()
    assert busybox.sh("cat /proc/sys/net/ipv4/ip_forward").split() == ["1"]
    assert "cannot be loaded" in busybox.log()


# After netifd's start, which deletes every rule.


def netifd_starts(router: Router) -> None:
    router.sh("ip route del default table 707; ip -6 rule del pref 820")
    assert not router.guard_released


def test_hotplug_releases_the_owner_who_disconnected(router: Router) -> None:
    router.remember(DISCONNECTED)
    router.guard()
    netifd_starts(router)
    router.hotplug("ifdown")
    assert not router.guard_released
    for _ in range(2):
        router.hotplug()
        assert router.guard_released
    assert router.sh("ip -6 rule").count("820:") == 1


def test_hotplug_does_so_with_the_packet_filter_gone(busybox: Router) -> None:
    busybox.remember(DISCONNECTED)
    busybox.hotplug()
    assert busybox.guard_released


@pytest.mark.parametrize("why", ["connected", "at all times", "a doubt", "not saved yet"])
def test_hotplug_never_releases_what_is_closed(router: Router, why: str) -> None:
    router.remember(CONNECTED if why == "connected" else DISCONNECTED)
    if why == "at all times":
        router.config("portcullis", "config portcullis 'main'\n\toption mode 'at_all_times'\n")
    elif why == "a doubt":
        router.config("portcullis", "")
    elif why == "not saved yet":  # the flash is full; the daemon has noted it in RAM
        router.path("tmp/run/portcullis").mkdir()
        router.path("tmp/run/portcullis/intent").write_text(CONNECTED)
    router.guard()
    router.hotplug()
    assert not router.released


def test_hotplug_follows_the_packet_filter_before_any_file(router: Router) -> None:
    """A change of mode that could not be saved is in force all the same."""
    router.remember(CONNECTED)
    router.guard()
    router.remember(DISCONNECTED)
    router.hotplug()
    assert not router.released


def test_hotplug_leaves_it_to_the_daemon_while_that_lives(router: Router) -> None:
    router.remember(DISCONNECTED)
    router.guard()
    netifd_starts(router)
    router.path("tmp/run/portcullis").mkdir()
    hotplug = "ACTION=ifup; . /etc/hotplug.d/iface/15-portcullis"
    router.sh(f"exec 9> /var/run/portcullis/lock; flock 9; ({hotplug})")
    assert not router.guard_released
    router.hotplug()  # the lock's file is there still, and nobody holds it
    assert router.guard_released


HOUSE = f"""
ip link add {at.LAN_BRIDGE} type veth peer name lan1
ip link add eth1 type veth peer name isp
ip link set {at.LAN_BRIDGE} up; ip link set lan1 up; ip link set eth1 up; ip link set isp up
ip addr add 192.168.1.1/24 dev {at.LAN_BRIDGE}
ip addr add 203.0.113.2/24 dev eth1
ip -6 addr add fd27:70fa:5c1d::1/64 dev {at.LAN_BRIDGE} nodad
ip route add 10.9.0.0/16 via 192.168.1.7
ip route add default via 203.0.113.1
"""


@pytest.mark.parametrize("known", ["by the packet filter", "as remembered"])
def test_hotplug_brings_the_way_to_the_house_back(router: Router, known: str) -> None:
    """K14, where the daemon that knows the ways is dead: on-link prefixes, and none upstream."""
    router.sh(HOUSE.replace("ip ", "/usr/bin/ip "))
    router.remember(CONNECTED)
    router.guard()
    if known == "as remembered":
        router.sh("nft delete table inet portcullis")
    for device in (at.LAN_BRIDGE, "eth1", "lo", ""):
        router.hotplug("ifup", device)
        router.hotplug("ifupdate", device)
    ways = router.sh("/usr/bin/ip route show table 706; /usr/bin/ip -6 route show table 706")
    assert [line.split()[:3] for line in ways.splitlines()] == [
        ["192.168.1.0/24", "dev", at.LAN_BRIDGE],
        ["fd27:70fa:5c1d::/64", "dev", at.LAN_BRIDGE],
    ]


def test_a_network_that_leads_to_the_internet_is_none_of_the_house(busybox: Router) -> None:
    busybox.sh(HOUSE.replace("ip ", "/usr/bin/ip "))
    busybox.sh("/usr/bin/ip route replace default via 192.168.1.254")
    busybox.remember(CONNECTED)
    busybox.guard()
    busybox.hotplug("ifup", at.LAN_BRIDGE)
    assert not busybox.sh("/usr/bin/ip route show table 706 2> /dev/null")


# Packets.


@pytest.fixture
def house() -> Iterator[VirtualRouter]:
    with VirtualRouter() as found:
        yield found


def every_probe(house: VirtualRouter) -> list[Probe]:
    found = (*lan_probes(house), *router_probes(house))
    return [probe for probe in found if not isinstance(probe, PacketSocket)]


NETIFD = "".join(
    f"/usr/bin/ip {family} {line}\n"
    for family, lines in (("-4", NETIFD4), ("-6", NETIFD6))
    for line in lines.split("\n")
    if line
)


def reaches_the_router(lan: Namespace) -> bool:
    """Whether the router answers a device, and its dnsmasq does."""
    pings = [["ping", "-c1", "-W1", address] for address in at.ROUTER_LAN.addresses]
    ask = ["dig", "+short", "+tries=1", "+time=1", f"@{at.ROUTER_LAN.v4}", "router.lan"]
    done = [lan.run(command, check=False) for command in (*pings, ask)]
    return not any(result.returncode for result in done) and bool(done[-1].stdout.strip())


@pytest.mark.parametrize("elements", [REMEMBERED, None], ids=["as remembered", "nothing known"])
@pytest.mark.parametrize("shell", SHELLS)
def test_a_router_without_python_boots_closed_and_answers_the_house(
    house: VirtualRouter, shell: str, elements: str | None
) -> None:
    """The guard, netifd with the sections in UCI, hotplug; and no daemon, ever (K7, K8, K14)."""
    with Router(shell) as router:
        router.space = house.router

        def boot(intent: str) -> BatchResult:
            router.remember(intent, elements)
            router.guard()
            router.sh(NETIFD)
            for device in ("lo", at.LAN_BRIDGE, at.GUEST_BRIDGE, at.WAN_DEVICE):
                router.hotplug("ifup", device)
            assert router.released == (intent == DISCONNECTED)
            return measure(house, every_probe(house))

        control = boot(DISCONNECTED)
        assert not control.unseen(), f"no positive control: {control}"
        assert reaches_the_router(house.lana)
        netifd_starts(router)
        router.sh("nft delete table inet portcullis; /usr/bin/ip route flush table 706")
        assert not reaches_the_router(house.lana), "the routing guard alone knows no house"
        closed = boot(CONNECTED)
        assert closed.sent >= len(closed.results) and not closed.leaks, str(closed)
        assert reaches_the_router(house.lana)
