# SPDX-License-Identifier: GPL-2.0-or-later
"""The packet filter's text: golden files, the rules of the house, and what nft makes of it.

PORTCULLIS_GOLDEN=1 writes the golden files anew; read the difference before you commit it.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from router.namespace import Namespace

from portcullis.policy import CLOSED, MARK, Lan, Link, Network, Policy, Socket
from portcullis.ruleset import (
    APART,
    COUNTERS,
    FREE,
    INET,
    LAYER2,
    STRUCTURE,
    elements,
    refill,
    render,
)

GOLDEN = Path(__file__).parent / "golden"

LAN = Network("lan", "br-lan", ("192.168.1.0/24", "fd00:1::/64"))
GUEST = Network("guest", "br-guest", ("192.168.2.0/24",))
HOUSE = Policy(lan_access=True, networks=(LAN, GUEST))
SERVERS = (Socket("198.51.100.10", "udp", 51820), Socket("2001:db8:51::10", "udp", 51820))
RESOLVERS = (Socket("9.9.9.9", "udp", 53), Socket("2620:fe::fe", "udp", 53))
LINK = Link(("10.64.0.2", "fd64::2"), ("10.64.0.1", "fd64::1"), ("0.0.0.0/0", "::/0"))
EXCEPTED = Lan(
    free=(("02:00:5e:00:53:10", "lan1"), ("02:00:5e:00:53:20", "br-guest")),
    apart=("02:00:5e:00:53:11",),
    open=("br-lan",),
    addressed=(
        ("192.168.2.10", "br-guest", True),
        ("fd00:2::10", "br-guest", True),
        ("192.168.2.11", "br-guest", False),
    ),
)
CONNECTED = HOUSE._replace(link=LINK, flowing=True, endpoints=SERVERS[:1])

POLICIES = {
    "closed": (CLOSED, "Nothing is known and nothing passes: where everything starts and ends."),
    "released": (
        HOUSE._replace(released=True),
        "The owner has disconnected in standard mode: the gate accepts both families.",
    ),
    "connecting": (
        HOUSE._replace(endpoints=SERVERS, bootstrap=RESOLVERS),
        "Before there is a tunnel only its server and those who name it can be talked to.",
    ),
    "handshaking": (
        CONNECTED._replace(flowing=False),
        "The tunnel stands and nothing is proven: the router probes it, no device's packet enters.",
    ),
    "connected": (CONNECTED, "The house's IPv4 and IPv6 pass into the tunnel, replies come back."),
    "connected_resolver_chosen": (
        CONNECTED._replace(chosen=("192.168.1.11",)),
        "A resolver of the house is asked by the router, and asks the tunnel's; IPv6 has none.",
    ),
    "connected_lan_denied": (
        CONNECTED._replace(lan_access=False),
        "Devices reach the tunnel and not each other.",
    ),
    "connected_lan_exceptions": (
        CONNECTED._replace(lan_access=False, lan=EXCEPTED),
        "Devices are apart but for two; br-lan is a bridge, br-guest is none.",
    ),
    "released_lan_denied": (
        HOUSE._replace(released=True, lan_access=False),
        "The owner has disconnected, and devices are apart all the same.",
    ),
    "disconnected_at_all_times": (
        HOUSE,
        "The owner has disconnected, the mode is at all times: the house talks to itself alone.",
    ),
}
TYPICAL = [policy for policy, _ in POLICIES.values()]
NAMES = list(POLICIES)


def chains(text: str = STRUCTURE) -> dict[str, list[str]]:
    """The lines of each chain."""
    return {
        name: [line.strip() for line in body.splitlines()]
        for name, body in re.findall(r"\tchain (\w+) \{\n(.*?)\n\t\}", text, re.DOTALL)
    }


def rules() -> list[tuple[str, str]]:
    """Every rule with its chain's name."""
    return [
        (name, line)
        for name, lines in chains().items()
        for line in lines
        if not line.startswith("type ")
    ]


def base_chains() -> list[str]:
    return [name for name, lines in chains().items() if lines[0].startswith("type ")]


def listed(namespace: Namespace) -> list[dict[str, Any]]:
    text = namespace.run(["nft", "-j", "list", "table", "inet", "portcullis"]).stdout
    return [entry for entry in json.loads(text)["nftables"] if "metainfo" not in entry]


def golden(name: str, shows: str, text: str) -> str:
    """The golden file's text; written first where that was asked for."""
    path = GOLDEN / name
    if os.environ.get("PORTCULLIS_GOLDEN") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"# {shows}\n{text}")
    return path.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_state_is_these_elements(name: str) -> None:
    policy, shows = POLICIES[name]
    assert golden(f"{name}.nft", shows, refill(policy)) == f"# {shows}\n{refill(policy)}"


def test_the_whole_table_is_this_text() -> None:
    shows = "The table as it is loaded into an empty kernel, closed."
    assert golden("table.nft", shows, render(CLOSED)) == f"# {shows}\n{render(CLOSED)}"


def test_every_golden_file_belongs_to_a_test() -> None:
    files = {path.stem for path in GOLDEN.iterdir() if not path.stem.startswith("bridge_")}
    assert files == {*NAMES, "table"}


@pytest.mark.parametrize("policy", TYPICAL, ids=NAMES)
def test_a_load_is_one_constant_structure_and_the_elements_of_a_refill(policy: Policy) -> None:
    added = [line for line in refill(policy).splitlines() if line.startswith("add")]
    assert render(policy) == render(CLOSED) + "".join(f"{line}\n" for line in added)


@pytest.mark.parametrize("policy", TYPICAL, ids=NAMES)
def test_a_refill_empties_every_set_and_map_first(policy: Policy) -> None:
    flushed = re.findall(r"^flush (set|map) inet portcullis (\w+)$", refill(policy), re.MULTILINE)
    declared = re.findall(r"^\t(set|map) (\w+) \{$", STRUCTURE, re.MULTILINE)
    assert flushed == [each for each in declared if each[1] not in INET.meters]


def test_a_plain_table_is_replaced_without_any_word_nft_1_0_6_lacks() -> None:
    head = render(CLOSED).splitlines()[:3]
    assert head == [
        "add table inet portcullis",
        "delete table inet portcullis",
        "table inet portcullis {",
    ]


def test_an_owned_table_is_destroyed_and_made_in_one_transaction() -> None:
    head = render(CLOSED, "owner, persist").splitlines()[:3]
    assert head == [
        "destroy table inet portcullis",
        "table inet portcullis {",
        "\tflags owner, persist;",
    ]


@pytest.mark.parametrize(("chain", "rule"), rules())
def test_every_rule_has_a_comment(chain: str, rule: str) -> None:
    assert re.search(r' comment "[^"]{6,}"$', rule), chain


@pytest.mark.parametrize("name", base_chains())
def test_every_base_chain_ends_in_a_drop_without_a_condition(name: str) -> None:
    assert re.fullmatch(r'(counter name \w+ )?drop comment "the end: .*"', chains()[name][-1])


def test_every_filter_chain_drops_by_policy_too() -> None:
    declared = [lines[0] for lines in chains().values() if lines[0].startswith("type filter")]
    assert [line.rpartition("; ")[2] for line in declared] == ["policy drop;"] * 4


def test_the_filter_hooks_are_forward_input_and_output_before_fw4() -> None:
    found = re.findall(r"type filter hook (\w+) priority filter - 10;", STRUCTURE)
    assert sorted(found) == ["forward", "input", "output"]


def test_no_set_is_an_interval_set() -> None:
    assert "interval" not in STRUCTURE


def test_forward_begins_with_one_look_up_of_both_interfaces() -> None:
    assert chains()["forward"][1].startswith("iifname . oifname vmap @forwards ")


def test_established_flows_are_accepted_out_of_the_tunnel_alone() -> None:
    found = [name for name, rule in rules() if re.search(r"ct state \S*established", rule)]
    assert found == ["from_tunnel", "input_tunnel"]


@pytest.mark.parametrize("chain", ["from_tunnel", "input_tunnel"])
def test_out_of_the_tunnel_come_replies_and_nothing_else(chain: str) -> None:
    reply, rest = chains()[chain][-2:]
    assert reply.startswith("ct state established,related ct direction reply ")
    assert rest.startswith("counter name blocked_tunnel drop ")


def test_a_mark_alone_opens_nothing() -> None:
    """It spares the bootstrap's queries the DNAT, and leads to a chain that refuses the rest."""
    marked = [
        (name, rule.partition(" comment ")[0]) for name, rule in rules() if "mark & 0x7fff" in rule
    ]
    assert marked == [
        ("output", "meta mark & 0x7fff0000 == 0x50430000 goto output_marked"),
        ("dns_router", "meta mark & 0x7fff0000 == 0x50430000 accept"),
    ]
    assert chains()["output_marked"][-1].startswith("counter name blocked_router goto refuse ")


@pytest.mark.parametrize("rule", [rule for _, rule in rules() if " @endpoints" in rule])
def test_the_server_is_pinned_by_address_protocol_and_port(rule: str) -> None:
    assert re.match(r"ip6? [sd]addr \. meta l4proto \. th [sd]port @endpoints[46] accept ", rule)


@pytest.mark.parametrize("name", COUNTERS)
def test_every_counter_counts_somewhere(name: str) -> None:
    assert f" counter name {name} " in " " + " ".join(rule for _, rule in rules())


def test_a_blocked_device_is_answered_at_once() -> None:
    assert [rule.partition(" comment ")[0] for rule in chains()["refuse"]] == [
        "iifname @protected update @blocked_by_device { ether saddr counter }",
        "meta l4proto tcp reject with tcp reset",
        "reject with icmpx type admin-prohibited",
    ]


def test_a_closed_policy_fills_nothing() -> None:
    assert {name for name, values in elements(CLOSED).items() if values} == set()


def test_only_a_released_policy_opens_the_gate() -> None:
    gates = {name: bool(elements(policy)["gate"]) for name, (policy, _) in POLICIES.items()}
    assert gates == {name: name.startswith("released") for name in NAMES}


def test_denied_lan_access_leaves_the_tunnels_ways_alone() -> None:
    denied = elements(CONNECTED._replace(lan_access=False))["forwards"]
    assert {element for element in denied if "pc0" in element} == {
        '"br-lan" . "pc0" : goto to_tunnel',
        '"pc0" . "br-lan" : goto from_tunnel',
        '"br-guest" . "pc0" : goto to_tunnel',
        '"pc0" . "br-guest" : goto from_tunnel',
    }


def test_allowed_lan_access_is_every_pair_of_protected_devices() -> None:
    assert elements(HOUSE)["forwards"] == {
        f'"{one}" . "{other}" : goto to_local'
        for one in ("br-lan", "br-guest")
        for other in ("br-lan", "br-guest")
    }


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize(
    "restricted", [{"lan_access": False}, {"lan": EXCEPTED}], ids=["denied", "an exception"]
)
def test_restricted_lan_access_is_decided_for_every_pair_in_every_state(
    restricted: dict[str, Any], released: bool
) -> None:
    assert elements(HOUSE._replace(released=released, **restricted))["forwards"] == {
        f'"{one}" . "{other}" : goto between'
        for one in ("br-lan", "br-guest")
        for other in ("br-lan", "br-guest")
    }


def test_released_and_unrestricted_networks_are_left_to_fw4() -> None:
    assert elements(HOUSE._replace(released=True))["forwards"] == frozenset()


def test_plain_dns_is_decided_before_any_exception() -> None:
    """No exception accepts by itself: all of them lead to `to_local`, whose first word is DNS."""
    between = [rule.partition(" comment ")[0] for rule in chains()["between"]]
    assert not [rule for rule in between if rule.endswith("accept")]
    assert chains()["let"][-1].startswith("goto to_local ")
    assert chains()["to_local"][0].startswith("th dport 53 ")


def test_denied_devices_are_the_last_word_between_networks() -> None:
    assert chains()["between"][-1].startswith("goto refuse_lan ")


def test_a_bridges_ports_are_none_of_this_tables_business() -> None:
    """Only `bridge portcullis` sees them; here a pair names a network without a bridge."""
    assert elements(HOUSE._replace(lan=EXCEPTED))["free"] == {'02:00:5e:00:53:20 . "br-guest"'}


def test_the_tables_words_to_each_other_are_no_mark_of_the_tunnels() -> None:
    bits = (LAYER2, FREE, APART)
    assert [bit for bit in bits if bit & (MARK | 0x00FFFFFF)] == []


def test_a_device_without_a_tunnel_goes_nowhere() -> None:
    assert not any("pc0" in element for element in elements(HOUSE)["forwards"])


def test_plain_dns_goes_to_the_first_resolver_of_its_family() -> None:
    link = LINK._replace(resolvers=("fd64::9", "10.64.0.9", "10.64.0.1"))
    found = elements(CONNECTED._replace(link=link))
    assert found["dns4"] == {"tcp : 10.64.0.9", "udp : 10.64.0.9"}
    assert found["dns6"] == {"tcp : fd64::9", "udp : fd64::9"}


def test_every_resolver_of_the_tunnel_may_be_asked() -> None:
    link = LINK._replace(resolvers=("10.64.0.9", "10.64.0.1"))
    assert elements(CONNECTED._replace(link=link))["resolvers4"] == {"10.64.0.9", "10.64.0.1"}


def test_a_family_without_a_resolver_has_nowhere_to_send_dns() -> None:
    link = LINK._replace(resolvers=("10.64.0.1",))
    found = elements(CONNECTED._replace(link=link))
    assert not found["dns6"] | found["resolvers6"]


@pytest.mark.parametrize("policy", TYPICAL, ids=NAMES)
def test_the_text_loads(namespace: Namespace, policy: Policy) -> None:
    namespace.nft(render(policy))
    assert namespace.run(["nft", "list", "tables"]).stdout == "table inet portcullis\n"


def test_a_load_replaces_whatever_stood_there(namespace: Namespace) -> None:
    namespace.nft("table inet portcullis { chain evil { accept; }\n }")
    namespace.nft(render(CLOSED))
    assert {e["chain"]["name"] for e in listed(namespace) if "chain" in e} == set(chains())


def test_every_rule_and_chain_reads_back_as_written(namespace: Namespace) -> None:
    namespace.nft(render(CONNECTED))
    found: dict[str, list[str]] = {}
    for entry in listed(namespace):
        if "chain" in entry:
            found[entry["chain"]["name"]] = []
        elif "rule" in entry:
            found[entry["rule"]["chain"]].append(entry["rule"]["comment"])
    written: dict[str, list[str]] = {name: [] for name in chains()}
    for name, rule in rules():
        written[name].append(rule.rpartition('comment "')[2].rstrip('"'))
    assert found == written


@pytest.mark.parametrize("policy", TYPICAL, ids=NAMES)
def test_a_refill_of_a_standing_table_equals_a_load(namespace: Namespace, policy: Policy) -> None:
    def filled() -> list[str]:
        kept = [{**e, kind: {**e[kind], "handle": 0}} for e in listed(namespace) for kind in e]
        return sorted(json.dumps(entry, sort_keys=True) for entry in kept)

    namespace.nft(render(policy))
    loaded = filled()
    namespace.nft(render(CONNECTED))
    namespace.nft(refill(policy))
    assert filled() == loaded


@pytest.mark.parametrize("device", ["wlan0.sta1", "eth0.100", "br_lan-5", "usb0", "a" * 15, "7"])
def test_every_ordinary_name_of_a_device_loads(namespace: Namespace, device: str) -> None:
    namespace.nft(render(CONNECTED._replace(networks=(Network("x", device, ()),))))
