# SPDX-License-Identifier: GPL-2.0-or-later
"""The bridge's table: golden files, the rules of the house, and what nft makes of it.

PORTCULLIS_GOLDEN=1 writes the golden files anew; read the difference before you commit it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from router.namespace import Namespace

from portcullis.lanruleset import BRIDGE, COUNTERS, STRUCTURE, boot, elements, solicited
from portcullis.nft import Nftables
from portcullis.packetfilter import PacketFilter, listed_chains, template_chains
from portcullis.policy import Lan

GOLDEN = Path(__file__).parent / "golden"
A, B = "02:00:5e:00:53:10", "02:00:5e:00:53:11"

STATES = {
    "denied": (Lan(isolated=("lan1", "lan2")), "No device reaches another: every set is empty."),
    "exceptions": (
        Lan(
            free=((A, "lan1"), (B, "wlan0")),
            passing=("iptv1",),
            heard=("lan1",),
            sought=(("192.168.1.11", "wlan0"), ("fd00:1::aabb:ccdd", "wlan0")),
            open=("br-lan",),
        ),
        "Devices are apart but for A, alone at lan1, and B, one of several at wlan0.",
    ),
    "kept_apart": (
        Lan(apart=(B,), closed=("lan2",), passing=("lan1", "wlan0"), open=("br-lan",)),
        "Devices reach each other, apart from B, which has lan2 to itself.",
    ),
}
NAMES = list(STATES)


@pytest.fixture
def packets(namespace: Namespace) -> Iterator[PacketFilter[Lan]]:
    nft = Nftables()
    nft.accepts = lambda commands: False  # type: ignore[method-assign]  # plain, so anybody can tamper
    yield PacketFilter(nft, BRIDGE)
    nft.close()


def chains() -> dict[str, list[str]]:
    """The lines of each chain."""
    found = re.findall(r"\tchain (\w+) \{\n(.*?)\n\t\}", STRUCTURE, re.DOTALL)
    return {name: [line.strip() for line in body.splitlines()] for name, body in found}


def rules() -> list[str]:
    return [r for lines in chains().values() for r in lines if not r.startswith("type ")]


def golden(name: str, shows: str, text: str) -> str:
    path = GOLDEN / f"bridge_{name}.nft"
    if os.environ.get("PORTCULLIS_GOLDEN") == "1":
        path.write_text(f"# {shows}\n{text}")
    return path.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_state_is_these_elements(name: str) -> None:
    lan, shows = STATES[name]
    text = BRIDGE.refill(elements(lan))
    assert golden(name, shows, text) == f"# {shows}\n{text}"


def test_the_whole_table_is_this_text() -> None:
    shows, text = "The table as it is first loaded, no exceptions.", BRIDGE.render(elements(Lan()))
    assert golden("table", shows, text) == f"# {shows}\n{text}"


def test_every_golden_file_belongs_to_a_test() -> None:
    files = {path.stem.removeprefix("bridge_") for path in GOLDEN.glob("bridge_*")}
    assert files == {*NAMES, "table"}


@pytest.mark.parametrize("rule", rules())
def test_every_rule_has_a_comment(rule: str) -> None:
    assert re.search(r' comment "[^"]{6,}"$', rule)


def test_every_base_chain_ends_in_a_verdict_without_a_condition() -> None:
    based = {name: lines for name, lines in chains().items() if lines[0].startswith("type ")}
    assert {name: lines[-1].split()[0] for name, lines in based.items()} == {
        "prerouting": "accept",
        "forward": "drop",
        "output": "accept",
    }


@pytest.mark.parametrize("name", ["to", "sought", "blocked"])
def test_a_chain_that_decides_ends_in_a_drop(name: str) -> None:
    assert re.match(r"goto blocked |counter name blocked_lan drop ", chains()[name][-1])


def test_the_router_itself_is_never_filtered() -> None:
    """K14: frames to it pass `input` alone, and its own are marked by nobody."""
    assert not re.search(r"hook (input|postrouting)", STRUCTURE)
    assert chains()["output"][1].startswith("meta mark & 0x01000000 == 0x01000000 goto to ")


def test_no_set_is_an_interval_set() -> None:
    assert "interval" not in STRUCTURE


def test_nothing_needs_a_module_beyond_nft_bridge() -> None:
    """`meta ibrname` and `reject` are modules of their own: ports are matched by name."""
    assert not re.search(r"ibr|obr|reject", STRUCTURE)


def test_devices_kept_apart_come_before_every_exception() -> None:
    first = [rule.partition(" goto ")[0] for rule in chains()["to"][:2]]
    assert first == ["oifname @closed", "ether daddr @apart"]


def test_a_device_is_excepted_at_its_port_alone() -> None:
    """A MAC address by itself is anybody's to claim."""
    assert all(re.search(r"ifname (!= )?@free", rule) for rule in rules() if "@free" in rule)


def test_a_port_that_is_kept_apart_is_so_for_an_excepted_device_too() -> None:
    found = elements(Lan(free=((A, "lan1"),), closed=("lan1",)))
    assert found["ports"] == {'"lan1" : goto port_kept_apart'}


def test_without_exceptions_every_set_is_empty() -> None:
    assert not any(elements(Lan(isolated=("lan1",))).values())


@pytest.mark.parametrize(
    ("address", "mac"),
    [("fd00:1::aabb:ccdd", "33:33:ff:bb:cc:dd"), ("fe80::1", "33:33:ff:00:00:01")],
)
def test_an_ipv6_address_is_sought_at_its_solicited_node(address: str, mac: str) -> None:
    assert solicited(address) == mac


@pytest.mark.parametrize("name", NAMES)
def test_the_kernel_holds_what_was_asked_for(packets: PacketFilter[Lan], name: str) -> None:
    lan, _ = STATES[name]
    packets.reconcile(Lan(free=((A, "x"),)))
    packets.reconcile(lan)
    assert (packets.reconcile(lan), packets.counters()) == ((), dict.fromkeys(COUNTERS, 0))


def test_the_boot_guard_needs_no_table_where_all_may_meet() -> None:
    assert boot(None) == ""


def test_the_boot_guard_gets_what_the_owner_said_and_not_who_was_seen() -> None:
    lan, _ = STATES["exceptions"]
    text = boot(lan)
    assert (f'{A} . "lan1"' in text, "add element bridge portcullis sought" in text) == (
        True,
        False,
    )


def test_what_the_kernel_lists_equals_the_template(packets: PacketFilter[Lan]) -> None:
    packets.reconcile(Lan())
    nft = Nftables()
    listed = listed_chains(nft.list_table("bridge", "portcullis") or [])
    nft.close()
    assert listed == template_chains(BRIDGE)


@pytest.mark.parametrize(
    "deed", ["delete table bridge portcullis", 'add element bridge portcullis passing { "lan1" }']
)
def test_tampering_is_undone_and_told(
    namespace: Namespace, packets: PacketFilter[Lan], deed: str
) -> None:
    packets.reconcile(Lan())
    namespace.nft(deed)
    assert (packets.reconcile(Lan()) != (), packets.reconcile(Lan())) == (True, ())


def test_a_table_is_taken_away_by_its_deletion_alone(
    packets: PacketFilter[Lan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """nft 1.1: an owned table takes no `add table` without its flags."""
    packets.reconcile(Lan())
    told: list[str] = []
    monkeypatch.setattr(Nftables, "run", lambda _nft, commands: told.append(commands))
    packets.remove()
    assert told == [BRIDGE.clear(BRIDGE.fence), "delete table bridge portcullis\n"]


def test_a_table_that_is_not_needed_is_taken_away(packets: PacketFilter[Lan]) -> None:
    packets.reconcile(Lan())
    assert (packets.remove(), packets.remove()) == (True, False)
