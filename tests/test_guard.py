# SPDX-License-Identifier: GPL-2.0-or-later
"""The routing guard in the kernel: what stands there, what is healed, and where packets go."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from router.namespace import Namespace

from portcullis.guard import GuardError, RoutingGuard
from portcullis.policy import CLOSED, Link, Network, Policy

pytestmark = pytest.mark.pyroute2

LAN = Network("lan", "br-lan", ("192.168.1.0/24", "fd00:1::/64"))
GUEST = Network("guest", "br-guest", ("192.168.2.0/24",))
ROUTED = LAN._replace(routes=(("10.9.0.0/16", "192.168.1.2"), ("fd00:9::/64", "fd00:1::2")))
HOUSE = Policy(networks=(LAN, GUEST))
LINK = Link(("10.64.0.2", "fd64::2"), ("10.64.0.1",), ("0.0.0.0/0", "::/0"))
CONNECTED = HOUSE._replace(link=LINK, flowing=True)
RELEASED = HOUSE._replace(released=True)
POLICIES = {
    "empty": CLOSED,
    "closed": HOUSE,
    "connected": CONNECTED,
    "released": RELEASED,
    "routed": CONNECTED._replace(networks=(ROUTED, GUEST)),
}

_WORLD = """
link add br-lan type bridge
link add br-guest type bridge
link add wan type veth peer name isp
tuntap add pc0 mode tun
tuntap add usb0 mode tap
link set lo up
link set br-lan up
link set br-guest up
link set wan up
link set isp up
link set pc0 up
link set usb0 up
addr add 192.168.1.1/24 dev br-lan
addr add fd00:1::1/64 dev br-lan nodad
addr add 192.168.2.1/24 dev br-guest
addr add 203.0.113.2/24 dev wan
addr add 2001:db8:113::2/64 dev wan nodad
route add default via 203.0.113.1
route add default via 2001:db8:113::1 dev wan
"""


@pytest.fixture
def router(namespace: Namespace) -> Namespace:
    """A router with a LAN, a guest network, a WAN and a tunnel; the test runs inside it."""
    namespace.ip(_WORLD)
    return namespace


@pytest.fixture
def guard(router: Namespace) -> Iterator[RoutingGuard]:
    found = RoutingGuard()
    yield found
    found.close()


def ip(*lines: str) -> None:
    """Each line as a command; unlike a batch's, they may begin with -4 or -6."""
    for line in lines:
        subprocess.run(["ip", *line.split()], check=True)


def asked(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *command], check=False, capture_output=True, text=True)


def rules(version: int) -> list[str]:
    """Our rules of a family in words."""
    return [
        line.strip().replace("\t", " ")
        for line in asked(f"-{version}", "rule").stdout.splitlines()
        if 800 <= int(line.partition(":")[0]) <= 831
    ]


def routes(version: int, table: int) -> set[str]:
    """A table's routes in words, apart from what says nothing about where packets go."""
    # A table that never was is an error, and as good as an empty one.
    text = asked("-N", "-d", f"-{version}", "route", "show", "table", str(table)).stdout
    lines = re.sub(r" (proto \d+|scope \d+|pref medium|linkdown|error -?\d+)", "", text)
    return {line.strip() for line in lines.splitlines()}


def standing() -> list[object]:
    """All of the guard, to be compared."""
    return [rules(v) for v in (4, 6)] + [
        routes(version, table) for version in (4, 6) for table in (706, 707)
    ]


def way(address: str, *selectors: str) -> str:
    """The device that the router's packets to `address` leave by, or "unreachable"."""
    done = asked("route", "get", address, *selectors)
    if found := re.search(r" dev (\S+)", done.stdout):
        return "unreachable" if "unreachable" in done.stdout else found.group(1)
    assert "No route to host" in done.stderr, done
    return "unreachable"


MARKED = ("mark", "0x50430000")
ALL_RULES = {
    4: ["800: from all lookup 706", "830: not from all fwmark 0x50430000/0x7fff0000 lookup 707"],
    6: [
        "800: from all lookup 706",
        "810: from all to fe80::/10 lookup main",
        "830: not from all fwmark 0x50430000/0x7fff0000 lookup 707",
        "831: not from all fwmark 0x50430000/0x7fff0000 unreachable",
    ],
}
RELEASE = "820: from all lookup main"


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("version", [4, 6])
def test_the_rules_are_those_of_the_platform_notes(
    router: Namespace, guard: RoutingGuard, name: str, version: int
) -> None:
    guard.reconcile(POLICIES[name])
    released = [RELEASE] if name == "released" and version == 6 else []
    assert rules(version) == sorted([*ALL_RULES[version], *released])


LAST4, LAST6 = "7 default metric 2147483647", "7 default dev lo metric 2147483647"
T_ROUTES: dict[str, tuple[set[str], set[str]]] = {
    "empty": ({LAST4}, {LAST6}),
    "closed": ({LAST4}, {LAST6}),
    "connected": (
        {LAST4, "1 default dev pc0"},
        {LAST6, "1 default dev pc0 metric 1024"},
    ),
    "released": ({LAST4, "9 default"}, {LAST6}),
}


@pytest.mark.parametrize("name", T_ROUTES)
@pytest.mark.parametrize("version", [4, 6])
def test_table_707_holds_the_tunnel_or_nothing(
    router: Namespace, guard: RoutingGuard, name: str, version: int
) -> None:
    guard.reconcile(POLICIES[name])
    assert routes(version, 707) == T_ROUTES[name][0 if version == 4 else 1]


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("empty", 4, set()),
        ("empty", 6, set()),
        ("closed", 4, {"1 192.168.1.0/24 dev br-lan", "1 192.168.2.0/24 dev br-guest"}),
        ("closed", 6, {"1 fd00:1::/64 dev br-lan metric 1024"}),
        (
            "routed",
            4,
            {
                "1 192.168.1.0/24 dev br-lan",
                "1 192.168.2.0/24 dev br-guest",
                "1 10.9.0.0/16 via 192.168.1.2 dev br-lan",
            },
        ),
        (
            "routed",
            6,
            {
                "1 fd00:1::/64 dev br-lan metric 1024",
                "1 fd00:9::/64 via fd00:1::2 dev br-lan metric 1024",
            },
        ),
    ],
)
def test_table_706_holds_the_protected_networks(
    router: Namespace, guard: RoutingGuard, name: str, version: int, expected: set[str]
) -> None:
    guard.reconcile(POLICIES[name])
    assert routes(version, 706) == expected


@pytest.mark.parametrize("name", POLICIES)
def test_a_second_reconcile_finds_nothing_to_do(guard: RoutingGuard, name: str) -> None:
    guard.reconcile(POLICIES[name])
    assert guard.reconcile(POLICIES[name]) == ()


@pytest.mark.parametrize("one", POLICIES)
@pytest.mark.parametrize("other", POLICIES)
def test_every_policy_follows_every_other(
    router: Namespace, guard: RoutingGuard, one: str, other: str
) -> None:
    guard.reconcile(POLICIES[other])
    wanted = standing()
    guard.reconcile(POLICIES[one])
    guard.reconcile(POLICIES[other])
    assert standing() == wanted


FULL = POLICIES["routed"]
DELETIONS = [
    "-4 rule del priority 800",
    "-4 rule del priority 830",
    "-6 rule del priority 800",
    "-6 rule del priority 810",
    "-6 rule del priority 830",
    "-6 rule del priority 831",
    "-4 route del default dev pc0 table 707",
    "-4 route del unreachable default metric 2147483647 table 707",
    "-6 route del default dev pc0 table 707",
    "-6 route del unreachable default metric 2147483647 table 707",
    "-4 route del 192.168.1.0/24 table 706",
    "-4 route del 192.168.2.0/24 table 706",
    "-4 route del 10.9.0.0/16 table 706",
    "-6 route del fd00:1::/64 table 706",
    "-6 route del fd00:9::/64 table 706",
    "-4 route flush table 706",
    "-6 route flush table 706",
    "-4 route flush table 707",
    "-6 route flush table 707",
    "-4 rule flush",
    "-6 rule flush",
]


@pytest.mark.parametrize("deletion", DELETIONS)
def test_what_is_deleted_is_put_back_and_told(
    router: Namespace, guard: RoutingGuard, deletion: str
) -> None:
    guard.reconcile(FULL)
    wanted = standing()
    ip(deletion)
    told = guard.reconcile(FULL)
    assert (told != (), standing()) == (True, wanted)


def test_the_kernels_own_local_rule_is_put_back(router: Namespace, guard: RoutingGuard) -> None:
    """K14: without it nobody reaches the router."""
    guard.reconcile(FULL)
    for family in ("-4", "-6"):
        ip(f"{family} rule del priority 0")
        assert guard.reconcile(FULL)
        assert asked(family, "rule").stdout.startswith("0:\tfrom all lookup local")


def test_rules_of_others_that_come_before_ours_are_named(
    router: Namespace, guard: RoutingGuard
) -> None:
    """netifd and `ip rule add` put those there that have no priority of their own."""
    guard.reconcile(FULL)
    assert not guard.preceded
    ip("-4 rule add from 192.168.1.10 lookup main", "-6 rule add priority 1 iif lan lookup main")
    assert guard.reconcile(FULL) == ()
    assert guard.preceded == "IPv4 799, IPv6 1"


def test_a_released_router_is_released_again(router: Namespace, guard: RoutingGuard) -> None:
    guard.reconcile(RELEASED)
    ip("-4 route del throw default table 707")
    assert guard.reconcile(RELEASED) == ("missing IPv4 route throw 0.0.0.0/0 in table 707",)


ADDITIONS = [
    "-4 route add default via 203.0.113.1 dev wan table 707 metric 5",
    "-4 route add 198.51.100.0/24 via 203.0.113.1 dev wan table 707",
    "-4 route add 198.51.100.0/24 dev wan table 706",
    "-4 route add 198.51.100.0/24 dev wan scope global table 706",
    "-4 route add throw 198.51.100.0/24 table 707",
    "-4 route add throw 198.51.100.0/24 table 706 metric 3",
    "-4 route add 192.168.1.128/25 dev wan table 706",
    "-4 route add unreachable 198.51.100.0/24 table 707",
    "-4 route add blackhole 198.51.100.0/24 table 707",
    "-4 route add prohibit 198.51.100.0/24 table 707",
    "-4 route add local 198.51.100.0/24 dev lo table 707",
    "-4 route add broadcast 198.51.100.255 dev wan table 707",
    "-4 route add multicast 239.0.0.0/8 dev wan table 707",
    "-4 route add default tos 0x10 via 203.0.113.1 dev wan table 707",
    "-4 route add 198.51.100.0/24 table 707 nexthop via 203.0.113.1 dev wan"
    " nexthop via 192.168.1.9 dev br-lan",
    "-4 route add 198.51.100.0/24 via inet6 fe80::1 dev wan table 707",
    "-4 route add 198.51.100.0/24 via 203.0.113.99 dev wan onlink table 707",
    "-6 route add default via fe80::1 dev wan table 707 metric 5",
    "-6 route add 2001:db8:51::/48 dev wan table 706",
    "-6 route add unreachable 2001:db8:51::/48 table 707 metric 7",
    "-6 route add blackhole 2001:db8:51::/48 table 707",
    "-6 route add prohibit 2001:db8:51::/48 table 707",
    "-6 route add throw 2001:db8:51::/48 table 707",
    "-6 route add local 2001:db8:51::5 dev lo table 707",
    "-6 route add 2001:db8:51::/48 from 2001:db8:77::/48 dev wan table 707",
    "-6 route add 2001:db8:51::/48 table 707 nexthop via fe80::1 dev wan"
    " nexthop via fe80::9 dev br-lan",
    "-4 rule add priority 805 lookup main",
    "-4 rule add priority 820 lookup main",
    "-4 rule add priority 801 from 192.168.1.0/24 lookup main",
    "-4 rule add priority 801 to 198.51.100.0/24 lookup main",
    "-4 rule add priority 801 iif lo lookup main",
    "-4 rule add priority 801 oif wan lookup main",
    "-4 rule add priority 801 fwmark 7 lookup main",
    "-4 rule add priority 801 ipproto udp dport 53 lookup main",
    "-4 rule add priority 801 uidrange 0-0 lookup main",
    "-4 rule add priority 801 tos 0x10 lookup main",
    "-4 rule add priority 801 blackhole",
    "-4 rule add priority 801 prohibit",
    "-4 rule add priority 801 goto 32766",
    "-4 rule add priority 800 iif lo lookup 706",
    "-4 rule add priority 800 from 192.168.1.0/24 lookup 706",
    "-4 rule add priority 800 lookup main",
    "-4 rule add priority 830 lookup 707",
    "-4 rule add priority 830 fwmark 0x50430000/0x7fff0000 lookup main",
    "-4 rule add priority 831 unreachable",
    "-6 rule add priority 820 lookup main",
    "-6 rule add priority 801 from fd00:1::/64 lookup main",
    "-6 rule add priority 801 dport 53 ipproto udp lookup main",
    "-6 rule add priority 810 to fe80::/10 iif lo lookup main",
    "-6 rule add priority 831 unreachable",
    "-6 rule add priority 831 prohibit",
    "-4 rule add priority 800 sport 5 ipproto udp lookup 706",
    "-4 rule add priority 830 not fwmark 0x50430000/0x7fff0000 tos 0x10 lookup 707",
]


@pytest.mark.parametrize("addition", ADDITIONS)
def test_what_is_added_is_removed_and_told(
    router: Namespace, guard: RoutingGuard, addition: str
) -> None:
    guard.reconcile(FULL)
    wanted = standing()
    ip(addition)
    assert standing() != wanted
    told = guard.reconcile(FULL)
    assert (told != (), standing()) == (True, wanted)


@pytest.mark.parametrize(
    "instead",
    [
        "suppress_prefixlength 0",
        "ipproto udp",
        "ipproto udp dport 1",
        "ipproto udp sport 1",
        "tos 0x10",
        "iif br-lan",
        "from 192.168.1.0/24",
        "uidrange 5-5",
    ],
)
def test_a_rule_narrowed_in_place_is_put_right(
    router: Namespace, guard: RoutingGuard, instead: str
) -> None:
    """The rule that leads unmarked packets to the tunnel or nowhere, made to miss most of them."""
    guard.reconcile(FULL)
    wanted = standing()
    selector = "priority 830 not fwmark 0x50430000/0x7fff0000"
    ip("-4 rule del priority 830", f"-4 rule add {selector} {instead} lookup 707")
    guard.reconcile(FULL)
    assert standing() == wanted


def test_rules_and_tables_of_others_are_left_alone(router: Namespace, guard: RoutingGuard) -> None:
    ip(
        "-4 rule add priority 799 fwmark 9 lookup 100",
        "-4 rule add priority 832 lookup main",
        "-4 route add 198.51.100.0/24 dev wan table 705",
    )
    guard.reconcile(FULL)
    kept = {line.partition(":")[0] for line in asked("rule").stdout.splitlines()}
    assert (kept >= {"799", "832"}, routes(4, 705)) == (
        True,
        {"1 198.51.100.0/24 dev wan"},
    )


def test_routes_of_a_missing_tunnel_are_left_out_and_it_is_no_error(
    router: Namespace, guard: RoutingGuard
) -> None:
    ip("link del pc0")
    guard.reconcile(CONNECTED)
    assert (routes(4, 707), guard.standing(CONNECTED)) == ({LAST4}, ())


def test_routes_of_a_device_that_is_down_are_left_out_and_it_is_no_error(
    router: Namespace, guard: RoutingGuard
) -> None:
    ip("link set br-guest down")
    guard.reconcile(CONNECTED)
    assert routes(4, 706) == {"1 192.168.1.0/24 dev br-lan"}


def test_routes_follow_when_their_device_comes_up(router: Namespace, guard: RoutingGuard) -> None:
    ip("link set br-guest down")
    guard.reconcile(CONNECTED)
    ip("link set br-guest up")
    told = guard.reconcile(CONNECTED)
    assert told == ("missing IPv4 route unicast 192.168.2.0/24 dev br-guest in table 706",)


def test_a_tunnel_made_anew_is_routed_into_anew(router: Namespace, guard: RoutingGuard) -> None:
    guard.reconcile(CONNECTED)
    wanted = standing()
    ip("link del pc0", "tuntap add pc0 mode tun", "link set pc0 up")
    guard.reconcile(CONNECTED)
    assert standing() == wanted


def test_ipv6_switched_off_on_the_tunnel_leaves_ipv4_in_force(
    router: Namespace, guard: RoutingGuard
) -> None:
    router.sysctl({"ipv6/conf/pc0/disable_ipv6": 1})
    guard.reconcile(CONNECTED)
    assert routes(4, 707) == {LAST4, "1 default dev pc0"}


def test_a_gateway_that_is_nowhere_leaves_the_rest_in_force(
    router: Namespace, guard: RoutingGuard
) -> None:
    astray = LAN._replace(routes=(("10.9.0.0/16", "172.16.5.5"),))
    guard.reconcile(HOUSE)
    with suppress(GuardError):  # it may say so
        guard.reconcile(CONNECTED._replace(networks=(astray,)))
    assert "1 default dev pc0" in routes(4, 707)


def test_a_guard_that_cannot_be_set_up_says_so(
    guard: RoutingGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "_apply", lambda addition, item: None)
    with pytest.raises(GuardError, match="read back: missing"):
        guard.reconcile(HOUSE)


def test_a_closed_socket_is_opened_again(guard: RoutingGuard) -> None:
    guard.reconcile(HOUSE)
    guard.close()
    assert guard.reconcile(HOUSE) == ()


def test_looking_again_and_again_takes_no_memory(router: Namespace, guard: RoutingGuard) -> None:
    guard.reconcile(CONNECTED)

    def resident() -> int:
        for _ in range(150):
            assert not guard.standing(CONNECTED)
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    resident()  # what is cached
    former = resident()
    assert resident() < former + 500, "kB"


def test_standing_changes_nothing(router: Namespace, guard: RoutingGuard) -> None:
    before = standing()
    assert (guard.standing(HOUSE) != (), standing()) == (True, before)


OUT4, OUT6 = "198.51.100.10", "2001:db8:51::10"


@pytest.mark.parametrize(
    ("name", "address", "selectors", "device"),
    [
        ("closed", OUT4, (), "unreachable"),
        ("closed", OUT6, (), "unreachable"),
        ("empty", OUT4, (), "unreachable"),
        ("empty", OUT6, (), "unreachable"),
        ("closed", OUT4, MARKED, "wan"),
        ("closed", OUT6, MARKED, "wan"),
        ("closed", OUT4, ("mark", "0x50420000"), "unreachable"),
        ("closed", OUT4, ("mark", "0xd0430001"), "wan"),  # other bits are others'
        ("connected", OUT4, (), "pc0"),
        ("connected", OUT6, (), "pc0"),
        ("connected", OUT4, MARKED, "wan"),
        ("connected", OUT6, MARKED, "wan"),
        ("connected", "203.0.113.1", (), "pc0"),  # the line's own gateway
        ("connected", "192.168.1.9", (), "br-lan"),
        ("connected", "192.168.2.9", (), "br-guest"),
        ("connected", "fd00:1::9", (), "br-lan"),
        ("closed", "192.168.1.9", (), "br-lan"),
        ("closed", "fd00:1::9", (), "br-lan"),
        ("closed", "192.168.1.1", (), "lo"),
        ("closed", "fe80::1", ("oif", "wan"), "wan"),
        ("routed", "10.9.1.1", (), "br-lan"),
        ("routed", "fd00:9::1", (), "br-lan"),
        ("connected", "10.9.1.1", (), "pc0"),
        ("released", OUT4, (), "wan"),
        ("released", OUT6, (), "wan"),
        ("released", "192.168.1.9", (), "br-lan"),
        ("connected", OUT4, ("from", "192.168.1.9", "iif", "br-lan"), "pc0"),
        ("closed", OUT4, ("from", "192.168.1.9", "iif", "br-lan"), "unreachable"),
        ("closed", OUT6, ("from", "fd00:1::9", "iif", "br-lan"), "unreachable"),
    ],
)
def test_a_packet_finds_its_way_or_none(
    router: Namespace,
    guard: RoutingGuard,
    name: str,
    address: str,
    selectors: tuple[str, ...],
    device: str,
) -> None:
    router.sysctl({"ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1})
    guard.reconcile(POLICIES[name])
    assert way(address, *selectors) == device


ROGUE = [
    "-4 route add 192.168.1.128/25 via 203.0.113.1 dev wan",
    "-4 route add 0.0.0.0/1 via 203.0.113.1 dev wan",
    "-4 route add 128.0.0.0/1 via 203.0.113.1 dev wan",
    "-4 route add 198.51.100.10 via 203.0.113.1 dev wan",
    "-4 route add 198.51.100.11 dev wan",
    "-6 route add fd00:1::8/125 via 2001:db8:113::1 dev wan",
    "-6 route add 8000::/1 via 2001:db8:113::1 dev wan",
    "-6 route add 2000::/3 via 2001:db8:113::1 dev wan",
    "-6 route add 2001:db8:51::10 via 2001:db8:113::1 dev wan",
]


@pytest.mark.parametrize(
    ("name", "address", "device"),
    [
        ("connected", "192.168.1.200", "br-lan"),
        ("connected", "fd00:1::9", "br-lan"),
        ("connected", OUT4, "pc0"),
        ("connected", "198.51.100.11", "pc0"),
        ("connected", OUT6, "pc0"),
        ("closed", OUT4, "unreachable"),
        ("closed", OUT6, "unreachable"),
        ("closed", "8.8.8.8", "unreachable"),
    ],
)
def test_routes_pushed_by_the_upstream_network_mislead_nobody(
    router: Namespace, guard: RoutingGuard, name: str, address: str, device: str
) -> None:
    guard.reconcile(POLICIES[name])
    ip(*ROGUE)
    assert way(address) == device


def test_the_rogue_routes_would_have_misled_without_the_guard(router: Namespace) -> None:
    """The positive control."""
    ip(*ROGUE)
    assert [way(a) for a in ("192.168.1.200", "fd00:1::9", OUT4)] == ["wan"] * 3


def test_the_upstreams_own_default_route_can_still_be_set(
    router: Namespace, guard: RoutingGuard
) -> None:
    guard.reconcile(CONNECTED)
    ip("-4 route replace default via 203.0.113.254 dev wan")
    assert way(OUT4, *MARKED) == "wan"


def test_while_it_changes_nothing_is_more_open_than_both_ends(
    router: Namespace, guard: RoutingGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From released to connected: what opens goes before the tunnel comes."""
    guard.reconcile(RELEASED)
    steps: list[bool] = []
    apply = guard._apply

    def noted(addition: bool, item: Any) -> None:
        steps.append(addition)
        apply(addition, item)

    monkeypatch.setattr(guard, "_apply", noted)
    guard.reconcile(CONNECTED)
    assert steps == [False, False, True, True]
