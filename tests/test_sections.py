# SPDX-License-Identifier: GPL-2.0-or-later
"""Sections in UCI: read from the text that is installed, and compared with what stands there."""

from __future__ import annotations

from typing import Any

import pytest
from router.appliance import SHARE

from portcullis.guard import LAST, LT, T
from portcullis.policy import MARK, MASK, TUNNEL
from portcullis.sections import (
    Change,
    Section,
    forwardings,
    missing_in_firewall,
    missing_in_network,
    parse,
)

RULE = Section("portcullis_tunnel", "rule", {"priority": "830", "lookup": "707"})
ZONE = Section("portcullis", "zone", {"name": "vpn", "device": ["pc0"], "masq": "1"})


def present(section: Section, **options: Any) -> dict[str, Any]:
    """A section as rpcd shows it."""
    shown = {".anonymous": False, ".type": section.type, ".name": section.name, ".index": 3}
    return {section.name: {**shown, **section.options, **options}}


def test_a_text_is_read() -> None:
    text = "# why\nc.a=zone\nc.a.name=vpn\nc.a.device+=pc0\nc.a.device+=pc1\n\nc.b=rule\n"
    options: dict[str, Any] = {"name": "vpn", "device": ["pc0", "pc1"]}
    assert parse(text) == (Section("a", "zone", options), Section("b", "rule", {}))


@pytest.mark.parametrize(
    "line", ["c", "c.a", "c.a.b=1", "c=1", "c.a.b.d=1", "c.a=x\nc.a.b=1\nc.a.b+=2"]
)
def test_what_is_no_section_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="c"):
        parse(line)


def test_nothing_changes_where_all_is_there() -> None:
    assert missing_in_network([RULE], present(RULE)) == []
    assert missing_in_firewall([ZONE], present(ZONE)) == []


@pytest.mark.parametrize("missing", [missing_in_network, missing_in_firewall])
def test_a_missing_section_is_added_whole(missing: Any) -> None:
    values = {"type": "zone", "name": "portcullis", "values": ZONE.options}
    assert missing([ZONE], {}) == [Change("add", values)]


@pytest.mark.parametrize("missing", [missing_in_network, missing_in_firewall])
def test_a_changed_option_is_set_back(missing: Any) -> None:
    values = {"section": "portcullis_tunnel", "values": {"lookup": "707"}}
    assert missing([RULE], present(RULE, lookup="main")) == [Change("set", values)]


@pytest.mark.parametrize("missing", [missing_in_network, missing_in_firewall])
def test_a_section_of_another_type_is_replaced(missing: Any) -> None:
    other = present(Section("portcullis_tunnel", "route", {}))
    methods = [change.method for change in missing([RULE], other)]
    assert methods == ["delete", "add"]


def test_an_option_that_makes_another_rule_of_it_is_deleted() -> None:
    gone = {"section": "portcullis_tunnel", "options": ["disabled"]}
    assert missing_in_network([RULE], present(RULE, disabled="1")) == [Change("delete", gone)]


def test_options_that_the_owner_added_to_the_zone_stay() -> None:
    assert missing_in_firewall([ZONE], present(ZONE, log="1", device=["pc0", "tun9"])) == []


def test_a_zone_of_the_owners_with_our_name_has_ours_called_otherwise() -> None:
    """fw4 loads nothing at all where two zones have one name."""
    own = {"cfg07": {".type": "zone", ".name": "cfg07", "name": "vpn"}}
    zone, forwarding = missing_in_firewall([ZONE, *forwardings(["lan"])], own)
    assert zone.arguments["values"]["name"] == "portcullis"
    assert forwarding.arguments["values"] == {"src": "lan", "dest": "portcullis"}
    renamed = missing_in_firewall([ZONE], {**own, **present(ZONE)})
    assert renamed == [Change("set", {"section": "portcullis", "values": {"name": "portcullis"}})]


def test_a_zone_with_a_list_for_a_name_is_no_hindrance() -> None:
    own = {"cfg07": {".type": "zone", ".name": "cfg07", "name": ["guest"]}}
    assert missing_in_firewall([ZONE], own) == missing_in_firewall([ZONE], {})


def test_a_forwarding_of_the_owners_own_is_enough() -> None:
    own = {"cfg01": {".type": "forwarding", ".name": "cfg01", "src": "lan", "dest": "vpn"}}
    assert missing_in_firewall(forwardings(["lan"]), own) == []


def test_a_forwarding_that_is_switched_off_is_not() -> None:
    own = {".type": "forwarding", ".name": "cfg01", "src": "lan", "dest": "vpn", "enabled": "0"}
    assert missing_in_firewall(forwardings(["lan"]), {"cfg01": own}) != []


def test_a_forwarding_of_a_zone_that_is_protected_no_more_goes() -> None:
    (section,) = forwardings(["iot"])
    gone = Change("delete", {"section": "portcullis_iot"})
    assert missing_in_firewall([], present(section)) == [gone]


def test_a_zones_name_becomes_a_sections() -> None:
    (section,) = forwardings(["my-lan", "my-lan"])
    assert section == Section("portcullis_my_lan", "forwarding", {"src": "my-lan", "dest": "vpn"})


def test_the_installed_sections_are_the_routing_guards_rules() -> None:
    found = parse((SHARE / "network.uci").read_text())
    rules = {(s.type, s.options["priority"]) for s in found if s.type in ("rule", "rule6")}
    both = {(kind, str(p)) for kind in ("rule", "rule6") for p in (800, 830)}
    assert rules == both | {("rule6", "810"), ("rule6", "831")}
    lookups = {s.options.get("lookup") for s in found if s.options.get("priority") != "810"}
    assert lookups == {str(LT), str(T), None}
    marks = {s.options["mark"] for s in found if "mark" in s.options}
    assert marks == {f"{MARK:#010x}/{MASK:#010x}"}
    assert all(s.options["invert"] == "1" for s in found if "mark" in s.options)
    (route,) = (s for s in found if s.type == "route")
    assert (route.options["table"], route.options["metric"]) == (str(T), str(LAST))


def test_the_installed_zone_is_the_tunnels() -> None:
    (zone,) = parse((SHARE / "firewall.uci").read_text())
    assert (zone.options["name"], zone.options["device"]) == ("vpn", [TUNNEL])
