# SPDX-License-Identifier: GPL-2.0-or-later
"""Which networks are protected: on positive evidence, and on no other."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portcullis.networks import Corrections, Surroundings, derive, dump, load
from portcullis.policy import Network

quick = settings(max_examples=300, deadline=None, derandomize=True, database=None)
Interface = dict[str, Any]
Firewall = dict[str, dict[str, Any]]


def interface(name: str, device: str, *addresses: str, **more: Any) -> Interface:
    """An entry as netifd's `network.interface dump` has it."""
    lists: Interface = {key: [] for key in ("ipv4-address", "ipv6-address", "route")}
    split = [address.split("/") for address in addresses]
    found: Interface = {
        "interface": name,
        "up": True,
        "pending": False,
        "available": True,
        "dynamic": False,
        "l3_device": device,
        "proto": "static",
        "device": device,
        **lists,
        "ipv4-address": [{"address": a, "mask": int(m)} for a, m in split if ":" not in a],
        "ipv6-address": [{"address": a, "mask": int(m)} for a, m in split if ":" in a],
        "ipv6-prefix": [],
        "ipv6-prefix-assignment": [],
        "inactive": {key: list[Any]() for key in lists},
        "data": {},
    }
    return {**found, **more}


def route(target: str, mask: int, nexthop: str) -> dict[str, Any]:
    return {"target": target, "mask": mask, "nexthop": nexthop, "source": ""}


def zone(name: str, *networks: str, **more: str) -> dict[str, Any]:
    """A section as rpcd's `uci get` has it."""
    return {".type": "zone", ".name": f"cfg_{name}", "name": name, "network": [*networks], **more}


def forwarding(source: str, to: str) -> dict[str, Any]:
    return {".type": "forwarding", ".name": f"cfg_{source}_{to}", "src": source, "dest": to}


def firewall(*sections: dict[str, Any]) -> Firewall:
    defaults = {".type": "defaults", ".name": "cfg01", "forward": "REJECT"}
    return {f"cfg{n}": section for n, section in enumerate((defaults, *sections))}


# As recorded on OpenWrt (network.interface-dump.json, uci-get-firewall.json), cut to what counts.
ULA = {
    "address": "fd27:70fa:5c1d::",
    "mask": 60,
    "local-address": {"address": "fd27:70fa:5c1d::1", "mask": 60},
}
LAN = interface("lan", "br-lan", "192.168.1.1/24", **{"ipv6-prefix-assignment": [ULA]})
LOOPBACK = interface("loopback", "lo", "127.0.0.1/8")
WAN = interface("wan", "eth1", "203.0.113.2/24", route=[route("0.0.0.0", 0, "203.0.113.1")])
WAN6 = interface("wan6", "eth1", "2001:db8:ffff::2/64", route=[route("::", 0, "2001:db8:ffff::1")])
GUEST = interface("guest", "br-guest", "192.168.2.1/24")
STANDARD = [LAN, LOOPBACK, WAN, WAN6]
LAN_ZONE, WAN_ZONE = zone("lan", "lan"), zone("wan", "wan", "wan6", masq="1", mtu_fix="1")
LAN_TO_WAN = forwarding("lan", "wan")
FW4 = firewall(LAN_ZONE, WAN_ZONE, LAN_TO_WAN)

LAN_NETWORK = Network("lan", "br-lan", ("192.168.1.0/24", "fd27:70fa:5c1d::/60"))
GUEST_NETWORK = Network("guest", "br-guest", ("192.168.2.0/24",))


def names(found: Surroundings) -> list[str]:
    return [network.name for network in found.networks]


def test_on_a_standard_router_the_lan_is_protected_and_the_wan_is_upstream() -> None:
    interfaces = (("lan", "br-lan"), ("loopback", "lo"), ("wan", "eth1"), ("wan6", "eth1"))
    wanted = Surroundings((LAN_NETWORK,), (), ("eth1",), (), ("lan",), interfaces)
    assert derive(STANDARD, FW4, ("eth1",)) == wanted


def test_a_zone_stays_known_while_its_network_is_down() -> None:
    down = {"interface": "lan", "up": False, "proto": "static", "data": {}}
    assert derive([down, WAN], FW4).zones == ("lan",)


# The owner's word


def corrected(
    *interfaces: Interface, protected: str = "", internet: str = "", gateways: str = ""
) -> Surroundings:
    words = (tuple(text.split()) for text in (protected, internet))
    return derive([*interfaces], FW4, tuple(gateways.split()), Corrections(*words))


def test_a_network_that_the_owner_excludes_is_the_internet() -> None:
    found = corrected(LAN, WAN, internet="lan")
    assert (names(found), found.served, found.upstream) == ([], (), ("br-lan", "eth1"))


def test_a_network_that_the_owner_vouches_for_is_protected() -> None:
    assert names(corrected(LAN, GUEST, WAN, protected="guest")) == ["lan", "guest"]


def test_the_owners_own_wireguard_server_can_be_protected() -> None:
    server = interface("road", "wg0", "10.9.0.1/24", proto="wireguard")
    assert names(corrected(LAN, WAN, server, protected="road")) == ["lan", "road"]
    assert names(corrected(LAN, WAN, server)) == ["lan"]


@pytest.mark.parametrize("proto", ["dhcp", "dhcpv6", "pppoe", "qmi", "6in4"])
def test_no_word_protects_a_client_of_somebody_elses_network(proto: str) -> None:
    found = corrected(LAN, WAN, {**GUEST, "proto": proto}, protected="guest")
    assert (names(found), "guest" in found.notes[0]) == (["lan"], True)


@pytest.mark.parametrize("name", ["wan", "guest"])
def test_no_word_protects_what_the_way_to_the_internet_is_on(name: str) -> None:
    found = corrected(LAN, GUEST, WAN, protected=name, gateways="br-guest eth1")
    assert (names(found), name in found.notes[0]) == (["lan"], True)


def test_a_correction_of_an_interface_that_is_not_there_is_told() -> None:
    (note,) = corrected(LAN, WAN, protected="iot").notes
    assert note == "there is no interface iot, which the setting protected_networks names"


def test_a_guest_network_with_its_way_to_the_internet_is_protected() -> None:
    sections = (LAN_ZONE, WAN_ZONE, LAN_TO_WAN, zone("guest", "guest"), forwarding("guest", "wan"))
    found = derive([*STANDARD, GUEST], firewall(*sections))
    assert found.networks == (LAN_NETWORK, GUEST_NETWORK)


def test_a_network_that_may_not_go_out_is_not_protected() -> None:
    zones = firewall(LAN_ZONE, WAN_ZONE, LAN_TO_WAN, zone("g", "guest"))
    found = derive([*STANDARD, GUEST], zones)
    assert (names(found), "br-guest" in found.upstream) == (["lan"], True)
    assert "guest (br-guest) forwards nowhere and counts as the internet" in " ".join(found.notes)
    for decided in (Corrections(("guest",)), Corrections((), ("guest",))):
        assert not derive([*STANDARD, GUEST], zones, (), decided).notes


def test_a_zone_that_forwards_to_the_vpn_alone_is_protected() -> None:
    vpn = zone("vpn", masq="1")
    sections = (LAN_ZONE, WAN_ZONE, LAN_TO_WAN, vpn, zone("g", "guest"), forwarding("g", "vpn"))
    assert names(derive([*STANDARD, GUEST], firewall(*sections))) == ["lan", "guest"]


def test_a_wan_without_masquerading_does_not_slip_in() -> None:
    bare = zone("wan", "wan", "wan6")
    sections = (LAN_ZONE, bare, LAN_TO_WAN, forwarding("wan", "lan"), forwarding("wan", "wan"))
    assert names(derive(STANDARD, firewall(*sections))) == ["lan"]


@pytest.mark.parametrize("option", ["masq", "masq6"])
@pytest.mark.parametrize("value", ["1", "on", "true", "yes", "enabled", "2", "TRUE"])
def test_a_masqueraded_zone_is_not_protected(option: str, value: str) -> None:
    sections = (zone("lan", "lan", **{option: value}), WAN_ZONE, LAN_TO_WAN)
    assert names(derive(STANDARD, firewall(*sections))) == []


@pytest.mark.parametrize("value", ["0", "off", "false", "no", "disabled", ""])
def test_a_zone_whose_masquerading_is_off_is_not_masqueraded(value: str) -> None:
    sections = (zone("lan", "lan", masq=value), WAN_ZONE, LAN_TO_WAN)
    assert names(derive(STANDARD, firewall(*sections))) == ["lan"]


@pytest.mark.parametrize("first", [0, 1])
def test_a_network_that_is_in_a_masqueraded_zone_as_well_is_not_protected(first: int) -> None:
    zones = [LAN_ZONE, zone("also", "lan", masq="1")]
    sections = (zones[first], zones[1 - first], WAN_ZONE, LAN_TO_WAN)
    assert names(derive(STANDARD, firewall(*sections))) == []


@pytest.mark.parametrize("first", [0, 1])
def test_a_network_that_is_in_the_wans_zone_as_well_is_not_protected(first: int) -> None:
    zones = [LAN_ZONE, zone("wan", "wan", "wan6", "lan", masq="1")]
    sections = (zones[first], zones[1 - first], LAN_TO_WAN)
    assert names(derive(STANDARD, firewall(*sections))) == []


def test_an_interface_in_no_zone_is_the_internet() -> None:
    usb = interface("usb", "usb0", "192.168.42.2/24")
    found = derive([*STANDARD, usb], FW4)
    assert (names(found), found.upstream) == (["lan"], ("eth1", "usb0"))


def test_an_interface_that_no_zone_knows_by_name_is_the_internet() -> None:
    found = derive(STANDARD, firewall(zone("lan", "home"), WAN_ZONE, LAN_TO_WAN))
    assert names(found) == []


def test_without_a_firewall_nothing_is_protected() -> None:
    assert names(derive(STANDARD, {})) == []


ACCESS_POINT = {**LAN, "route": [route("0.0.0.0", 0, "192.168.1.254")]}


@pytest.mark.parametrize(
    ("interfaces", "sections"),
    [
        ([ACCESS_POINT, WAN], FW4),
        ([ACCESS_POINT, interface("wan", "", up=False)], FW4),
        ([ACCESS_POINT, LOOPBACK], FW4),
        ([ACCESS_POINT, LOOPBACK], firewall(LAN_ZONE)),
    ],
    ids=["two gateways", "wan down", "wan deleted", "wan's zone deleted"],
)
def test_a_dumb_access_point_is_told_that_nothing_is_protected(
    interfaces: list[Interface], sections: Firewall
) -> None:
    found = derive(interfaces, sections)
    assert found.networks == ()
    assert "nothing to protect here" in " ".join(found.notes)


@pytest.mark.parametrize(
    "proto", ["dhcp", "dhcpv6", "pppoe", "pppoa", "l2tp", "6in4", "map", "wwan", "wireguard", "qmi"]
)
def test_an_interface_of_a_client_protocol_is_the_internet(proto: str) -> None:
    lan = {**LAN, "proto": proto}
    assert names(derive([lan, WAN], FW4)) == []


def test_the_line_of_pppoe_is_the_internet_by_its_own_device() -> None:
    wan = {**WAN, "l3_device": "pppoe-wan", "proto": "pppoe"}
    found = derive([LAN, wan], FW4)
    assert (names(found), found.upstream) == (["lan"], ("pppoe-wan",))


def test_an_inactive_default_route_counts_too() -> None:
    inactive = {"route": [route("0.0.0.0", 0, "192.168.1.254")]}
    assert names(derive([{**LAN, "inactive": inactive}, WAN], FW4)) == []


def test_a_default_route_that_the_kernel_has_counts_though_netifd_knows_none() -> None:
    found = derive(STANDARD, FW4, ("br-lan", "eth1"))
    assert (names(found), len(found.notes)) == ([], 1)


def test_a_gateway_that_netifd_does_not_know_is_upstream() -> None:
    assert derive(STANDARD, FW4, ("usb0",)).upstream == ("eth1", "usb0")


def test_a_second_network_on_the_wans_device_is_not_protected() -> None:
    modem = interface("modem", "eth1", "192.168.100.2/24")
    sections = (zone("lan", "lan", "modem"), WAN_ZONE, LAN_TO_WAN)
    assert names(derive([*STANDARD, modem], firewall(*sections))) == ["lan"]


def test_a_second_network_on_the_device_of_a_client_without_a_lease_is_not_protected() -> None:
    modem = interface("modem", "eth1", "192.168.100.2/24")
    wan = interface("wan", "eth1", proto="dhcp")
    sections = (zone("lan", "lan", "modem"), WAN_ZONE, LAN_TO_WAN)
    assert names(derive([LAN, modem, wan], firewall(*sections))) == ["lan"]


def test_two_networks_on_one_device_are_both_protected() -> None:
    lan2 = interface("lan2", "br-lan", "10.0.0.1/16")
    sections = (zone("lan", "lan", "lan2"), WAN_ZONE, LAN_TO_WAN)
    found = derive([*STANDARD, lan2], firewall(*sections))
    assert found.networks[1] == Network("lan2", "br-lan", ("10.0.0.0/16",))


def test_a_network_that_is_down_is_not_protected() -> None:
    assert names(derive([{**LAN, "up": False}, WAN], FW4)) == []


def test_an_unmanaged_interface_is_not_protected() -> None:
    assert names(derive([{**LAN, "proto": "none"}, WAN], FW4)) == []


@pytest.mark.parametrize("device", ["pc0", "lo", ""])
def test_tunnel_and_loopback_are_neither_protected_nor_upstream(device: str) -> None:
    found = derive([interface("lan", device, "10.64.0.2/32"), WAN], FW4)
    assert (found.networks, found.upstream) == ((), ("eth1",))


def test_static_routes_behind_a_router_on_the_lan_are_kept() -> None:
    lan = {
        **LAN,
        "route": [
            route("10.9.0.0", 16, "192.168.1.2"),
            route("fd00:9::", 64, "fd27:70fa:5c1d::2"),
            route("192.168.1.0", 24, "0.0.0.0"),
            route("fd27:70fa:5c1d::", 64, "::"),
        ],
    }
    (found,) = derive([lan, WAN], FW4).networks
    assert found.routes == (("10.9.0.0/16", "192.168.1.2"), ("fd00:9::/64", "fd27:70fa:5c1d::2"))


def test_a_zone_may_list_its_networks_as_words() -> None:
    sections = ({**LAN_ZONE, "network": "home lan"}, WAN_ZONE, LAN_TO_WAN)
    assert names(derive(STANDARD, firewall(*sections))) == ["lan"]


def test_interfaces_with_nothing_but_a_name_are_skipped() -> None:
    assert names(derive([*STANDARD, {"interface": "new"}], FW4)) == ["lan"]


BROKEN: list[Any] = [
    {"interface": "lan", "l3_device": "br-lan", "up": True, "proto": "static", "route": None},
    {**LAN, "ipv4-address": [{"address": "192.168.1.1"}]},
    {**LAN, "ipv4-address": [{"address": "nonsense", "mask": 24}]},
    {**LAN, "ipv4-address": [{"address": "192.168.1.1", "mask": 99}]},
    {**LAN, "ipv4-address": [{"address": "192.168.1.1", "mask": 0}]},
    {**LAN, "route": [route("10.9.0.0", 16, "nonsense")]},
    {**LAN, "route": ["nonsense"]},
    {"l3_device": "br-lan"},
    "nonsense",
    None,
    7,
]
CLEAN = (AttributeError, KeyError, TypeError, ValueError)  # what openwrt.py turns into a BusError


@pytest.mark.parametrize("broken", BROKEN, ids=range(len(BROKEN)))
def test_a_malformed_interface_is_skipped_or_a_clean_error(broken: Any) -> None:
    try:
        found = derive([broken, WAN], FW4)
    except CLEAN:
        return
    assert found.networks == ()


@pytest.mark.parametrize(
    "section", [None, "zone", {".type": "zone"}, {".type": "zone", "network": 7}, {}]
)
def test_a_malformed_section_is_skipped_or_a_clean_error(section: Any) -> None:
    try:
        found = derive(STANDARD, {"cfg1": section})
    except CLEAN:
        return
    assert found.networks == ()


HOSTILE = ['br"lan', "br*", "a b", "a\nb", "a/b", "a\\b", "a\0b", "x" * 16, "ü" * 10]


@pytest.mark.parametrize("device", HOSTILE)
def test_a_devices_name_that_is_none_never_reaches_the_packet_filter(device: str) -> None:
    """netifd repeats what /etc/config/network says, and one wrong word breaks the whole ruleset."""
    try:
        found = derive([{**LAN, "l3_device": device}, WAN], FW4)
    except CLEAN:
        return
    assert found.networks == ()


@pytest.mark.parametrize("broken", [{**LAN, "l3_device": 'br"lan'}, BROKEN[2], BROKEN[4]])
def test_one_broken_interface_does_not_cost_the_others_their_protection(broken: Any) -> None:
    """K14: what is not protected is locked out."""
    sections = (zone("lan", "lan", "guest"), WAN_ZONE, LAN_TO_WAN)
    assert names(derive([broken, GUEST, WAN], firewall(*sections))) == ["guest"]


ROUTED = LAN_NETWORK._replace(routes=(("10.9.0.0/16", "192.168.1.2"),))


def test_networks_are_remembered_as_they_were() -> None:
    assert load(dump((ROUTED, GUEST_NETWORK))) == (ROUTED, GUEST_NETWORK)


def test_no_networks_are_remembered_as_none() -> None:
    assert load(dump(())) == ()


def test_a_remembered_network_with_the_internet_behind_it_is_forgotten() -> None:
    assert load(dump((LAN_NETWORK, GUEST_NETWORK)), ("br-lan",)) == (GUEST_NETWORK,)


@pytest.mark.parametrize("device", ["lo", "pc0"])
def test_tunnel_and_loopback_are_not_remembered(device: str) -> None:
    assert load(dump((LAN_NETWORK._replace(device=device),))) == ()


JUNK: list[Any] = [None, [], {}, 7]


def entry(**more: Any) -> str:
    whole = {"name": "lan", "device": "br-lan", "prefixes": ["192.168.1.0/24"], "routes": []}
    return json.dumps([{**whole, **more}])


@pytest.mark.parametrize(
    "text",
    [
        *("", "null", "7", '"lan"', "[7]", "[null]", "{}x", "[[]]", '["lan"]', '{"lan": 1}'),
        *(entry(device=device) for device in (*HOSTILE, "", 7 * "xyz")),
        *(entry(prefixes=[text]) for text in ("0.0.0.0/0", "::/0", "x")),
        *(entry(prefixes=[value]) for value in JUNK),
        *(entry(prefixes=prefixes) for prefixes in (None, 7, "10.0.0.0/8")),
        *(entry(routes=routes) for routes in (None, 7, ["x"], [["10.0.0.0/8"]], [["x", "y"]])),
        entry(routes=[["0.0.0.0/0", "192.168.1.2"]]),
        entry(routes=[["10.0.0.0/8", "192.168.1.2; rm"]]),
        '[{"name": "lan"}]',
        "[" * 100_000,
    ],
)
def test_a_text_that_dump_did_not_write_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        load(text)


json_values = st.recursive(
    st.none() | st.integers() | st.text(max_size=12) | st.sampled_from(HOSTILE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@quick
@given(
    st.dictionaries(st.sampled_from(["name", "device", "prefixes", "routes"]), json_values),
)
def test_whatever_is_remembered_is_networks_or_a_value_error(found: dict[str, Any]) -> None:
    try:
        networks = load(json.dumps([found]))
    except ValueError:
        return
    assert all(0 < len(network.device.encode()) < 16 for network in networks)


@pytest.mark.parametrize(
    ("address", "answered"), [("203.0.113.2/24", set()), ("192.168.0.2/24", {"eth1"})]
)
def test_an_open_wan_is_answered_only_where_it_may_be_another_network_of_the_owners(
    address: str, answered: set[str]
) -> None:
    """An access point with guests is such a router, too: its LAN is masqueraded and leads on."""
    modem = interface("modem", "eth1", "192.168.100.2/24")
    wan = interface("wan", "eth1", address, route=[route("0.0.0.0", 0, "203.0.113.1")])
    home, open_wan = zone("lan", "lan"), zone("wan", "wan", "modem", input="ACCEPT", masq="1")
    found = derive([LAN, modem, wan], firewall(home, open_wan, LAN_TO_WAN), ("eth1",))
    assert {network.device for network in found.served} == answered
    assert set(found.upstream) == {"eth1"} - answered


def test_the_router_is_managed_from_networks_whose_zone_takes_input_and_leads_nowhere() -> None:
    home, guest = zone("lan", "lan", input="ACCEPT"), zone("guest", "guest", input="REJECT")
    open_wan = zone("wan", "wan", "wan6", input="ACCEPT", masq="1")
    found = derive([*STANDARD, GUEST], firewall(home, guest, open_wan, LAN_TO_WAN), ("eth1",))
    assert found.managing == ("br-lan",)
    assert derive([*STANDARD, GUEST], firewall(home, guest), ("br-lan",)).managing == ()
