# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may reach whom: the whole of it for three devices, and what the hardware cannot hold."""

from __future__ import annotations

from itertools import permutations, product

import pytest

from portcullis.devices import Device, Inventory, Sighting
from portcullis.lanaccess import (
    WIRELESS,
    Access,
    Exemption,
    Exemptions,
    Judgement,
    World,
    bind,
    decide,
    judge,
)
from portcullis.policy import Lan
from portcullis.topology import Port, Segment, Topology

A, B, C, D = (f"02:00:5e:00:53:{n:02x}" for n in (16, 17, 18, 19))
AT = {A: "lan1", B: "lan2", C: "lan3"}
ALLOWED, DENIED, DEFAULT = Access.ALLOWED, Access.DENIED, Access.DEFAULT


def world(
    *ports: Port,
    at: dict[str, str] | None = None,
    foreign: tuple[str, ...] = (),
    bridged: bool = True,
) -> World:
    """One network, and who was seen at which of its ports; by default three devices, each at a
    port of its own."""
    found = ports or tuple(Port(name) for name in AT.values())
    device = "br-lan" if bridged else found[0].name
    segment = Segment("lan", device, bridged, found, device if bridged else "")
    inventory = Inventory()
    wireless = {port.name: port.wireless for port in found}
    for number, (mac, port) in enumerate((AT if at is None else at).items(), start=10):
        v4, v6 = f"192.168.1.{number}", f"fd00::{number}"
        seen = Sighting(mac, device, port, v4, wireless=wireless.get(port), age=0.0)
        inventory.update([seen, Sighting(mac, address=v6)], 1000.0)
    return World(Topology((segment,), foreign), inventory)


def excepted(*entries: tuple[str, Access] | tuple[str, Access, str]) -> Exemptions:
    return {entry[0]: Exemption(*entry) for entry in entries}


def bound(where: World, *entries: tuple[str, Access]) -> Exemptions:
    return {mac: bind(Exemption(mac, access), where) for mac, access in entries}


def lan(allowed: bool, exemptions: Exemptions, where: World) -> Lan:
    found = decide(allowed, exemptions, where)
    assert found is not None
    return found


def passes(found: Lan | None, source: str, to: str) -> bool:
    """What the bridge's table and its isolated ports make of a unicast frame."""
    if found is None:
        return True
    here, there = AT[source], AT[to]
    if {here, there} <= set(found.isolated):
        return False
    if {here, there} & set(found.closed) or {source, to} & set(found.apart):
        return False
    free = {(source, here), (to, there)} & set(found.free)
    return there in found.passing or bool(free)


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("accesses", list(product(Access, repeat=3)))
def test_every_pair_meets_as_it_was_told(allowed: bool, accesses: tuple[Access, ...]) -> None:
    where = world()
    told = dict(zip(AT, accesses, strict=True))
    found = decide(allowed, bound(where, *told.items()), where)
    for source, to in permutations(AT, 2):
        both = {told[source], told[to]}
        meant = DENIED not in both and (allowed or ALLOWED in both)
        assert passes(found, source, to) is meant, f"{told[source]} to {told[to]}"


def test_nothing_is_restricted_where_all_may_meet() -> None:
    where = world()
    assert decide(True, {}, where) is None
    assert decide(True, bound(where, (A, ALLOWED)), where) is None


def test_denied_without_exceptions_isolates_every_port_and_fills_nothing() -> None:
    assert lan(False, {}, world()) == Lan(isolated=("lan1", "lan2", "lan3"))


def test_foreign_bridges_go_on() -> None:
    assert lan(False, {}, world(foreign=("veth1",))).passing == ("veth1",)


def test_an_allowed_device_that_was_never_seen_opens_nothing() -> None:
    found = lan(False, excepted((D, ALLOWED)), world())
    assert (found.free, found.isolated) == ((), ("lan1", "lan2", "lan3"))


def test_an_allowed_device_hears_broadcasts_where_it_is_alone() -> None:
    where = world()
    found = lan(False, bound(where, (A, ALLOWED)), where)
    assert (found.heard, found.sought) == (("lan1",), ())


def test_at_a_shared_port_only_the_question_for_it_is_let_through() -> None:
    where = world(at={**AT, D: "lan1"})
    found = lan(False, bound(where, (A, ALLOWED)), where)
    assert found.heard == ()
    assert found.sought == (("192.168.1.10", "lan1"), ("fd00::10", "lan1"))
    assert found.isolated == ("lan2", "lan3"), "else it could reach nobody"


AP0, AP1 = Port("phy0-ap0", wireless=True), Port("phy1-ap0", wireless=True)


def test_a_wireless_device_roams_between_the_access_points() -> None:
    where = world(Port("lan1"), AP0, AP1, at={A: "phy0-ap0", B: "lan1"})
    exemptions = bound(where, (A, ALLOWED))
    assert exemptions[A].port == WIRELESS
    found = lan(False, exemptions, where)
    assert found.free == ((A, "phy0-ap0"), (A, "phy1-ap0"))
    assert found.heard == (), "the air is shared, whoever was seen so far"
    assert found.isolated == ("lan1",)


SWITCH = (Port("lan1", switch="00"), Port("lan2", switch="00"), Port("lan3", switch="00"))


def test_a_switch_chips_port_with_an_allowed_device_alone_is_opened() -> None:
    where = world(*SWITCH)
    assert lan(False, bound(where, (A, ALLOWED)), where).isolated == ("lan2", "lan3")


def test_a_switch_chips_port_that_is_shared_stays_isolated() -> None:
    """The chip forwards by itself: the others at that port would be let out as well."""
    where = world(*SWITCH, at={**AT, D: "lan1"})
    exemptions = bound(where, (A, ALLOWED))
    assert lan(False, exemptions, where).isolated == ("lan1", "lan2", "lan3")
    verdict = judge(where.inventory.devices[A], False, exemptions, where)
    assert (verdict.enforced, "cannot tell them apart" in verdict.note) == (False, True)


def test_a_denied_device_takes_the_port_with_it_that_it_has_alone() -> None:
    where = world()
    found = lan(True, bound(where, (B, DENIED)), where)
    assert (found.closed, found.apart) == (("lan2",), (B,))


def test_a_denied_device_at_a_shared_port_is_apart_by_its_address_alone() -> None:
    where = world(at={**AT, D: "lan2"})
    found = lan(True, bound(where, (B, DENIED)), where)
    assert (found.closed, found.apart) == ((), (B,))


def test_a_routed_packet_is_decided_by_the_bridge_where_a_receiver_may_be_excepted() -> None:
    where = world()
    assert lan(False, bound(where, (A, ALLOWED)), where).open == ("br-lan",)
    assert lan(False, {}, where).open == ()


def test_without_a_filter_on_bridges_no_routed_packet_is_let_through_for_it() -> None:
    where = world()._replace(layer2=False)
    assert lan(False, bound(where, (A, ALLOWED)), where).open == ()


def test_without_a_bridge_the_address_decides() -> None:
    where = world(Port("eth0"), at={A: "eth0", B: "eth0"}, bridged=False)
    exemptions = bound(where, (A, ALLOWED), (B, DENIED))
    assert exemptions[B].port == "", "no port of a bridge to be closed"
    found = lan(False, exemptions, where)
    assert found.free == ((A, "eth0"),)
    assert found.addressed == (
        ("192.168.1.10", "eth0", True),
        ("fd00::10", "eth0", True),
        ("192.168.1.11", "eth0", False),
        ("fd00::11", "eth0", False),
    )
    assert (found.closed, found.heard, found.sought, found.isolated) == ((), (), (), ())


def test_an_exception_for_a_port_that_has_gone_holds_nowhere() -> None:
    found = lan(False, excepted((A, ALLOWED, "lan9")), world())
    assert found.free == ()


def judged(mac: str, allowed: bool, exemptions: Exemptions, where: World) -> Judgement:
    return judge(where.inventory.devices.get(mac, Device(mac)), allowed, exemptions, where)


def test_what_is_held_needs_no_words() -> None:
    where = world()
    assert judged(A, True, {}, where) == Judgement(True, "")
    assert judged(A, False, {}, where) == Judgement(True, "")
    assert judged(A, False, bound(where, (A, ALLOWED)), where) == Judgement(True, "")


CLOSED_AP = frozenset({"phy0-ap0"})


@pytest.mark.parametrize(
    ("where", "allowed", "access", "words"),
    [
        (world(at={**AT, D: "lan1"}), False, DEFAULT, "1 more at lan1"),
        (world(AP0, at={A: "phy0-ap0"}), False, DEFAULT, "option isolate '1'"),
        (world(*SWITCH), True, DENIED, "switch chip, which forwards to its other ports"),
        (
            world(*SWITCH)._replace(unisolated=frozenset({"lan1"})),
            False,
            DEFAULT,
            "cannot be isolated",
        ),
        (world()._replace(layer2=False), False, DEFAULT, "kmod-nft-bridge"),
        (world()._replace(layer2=False), False, ALLOWED, "kmod-nft-bridge"),
        (
            world(AP0, at={A: "phy0-ap0"})._replace(isolating=CLOSED_AP),
            False,
            ALLOWED,
            "keeps its Wi-Fi clients from each other",
        ),
    ],
    ids=[
        *(
            "shared port",
            "access point",
            "switch chip",
            "refused",
            "no filter",
            "no filter, allowed",
        ),
        "client isolation",
    ],
)
def test_what_the_hardware_cannot_hold_is_said(
    where: World, allowed: bool, access: Access, words: str
) -> None:
    exemptions = {} if access is DEFAULT else bound(where, (A, access))
    verdict = judged(A, allowed, exemptions, where)
    assert (verdict.enforced, words in verdict.note) == (False, True), verdict


def test_client_isolation_of_the_access_point_holds_for_the_air() -> None:
    where = world(AP0, at={A: "phy0-ap0", B: "phy0-ap0"})._replace(isolating=CLOSED_AP)
    assert judged(A, False, {}, where) == Judgement(True, "")


def test_a_device_of_a_network_that_is_not_protected_is_not_held() -> None:
    where = world()
    verdict = judge(Device(D, network="br-iptv", port="x"), False, {}, where)
    assert (verdict.enforced, "br-iptv" in verdict.note) == (False, True)


def test_an_allowed_device_elsewhere_is_told_to_be_set_once_more() -> None:
    where = world()
    verdict = judged(A, False, excepted((A, ALLOWED, "lan2")), where)
    assert not verdict.enforced
    assert "at lan1 now and its exception holds at lan2" in verdict.note


@pytest.mark.parametrize(
    ("where", "exemption", "words"),
    [
        (world(at={}), (A, ALLOWED), "from its first appearance on"),
        (world(at={**AT, D: "lan1"}), (A, ALLOWED, "lan1"), "could pretend to be it"),
    ],
)
def test_what_is_worth_knowing_of_an_allowance_is_said(
    where: World, exemption: tuple[str, Access], words: str
) -> None:
    verdict = judged(A, False, excepted(exemption), where)
    assert (verdict.enforced, words in verdict.note) == (True, True)


@pytest.mark.parametrize(
    ("port", "words"), [("", "another MAC address"), ("lan1", "Whatever is behind lan1")]
)
def test_what_is_worth_knowing_of_a_denial_is_said(port: str, words: str) -> None:
    verdict = judged(A, True, excepted((A, DENIED, port)), world())
    assert (verdict.enforced, words in verdict.note) == (True, True)
