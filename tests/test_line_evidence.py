# SPDX-License-Identifier: GPL-2.0-or-later
"""What counts as a line, and as its remote end: netifd's word and the kernel's, both (K4)."""

from __future__ import annotations

from typing import Any

import pytest

from portcullis.iptunnel import IpTunnel
from portcullis.lines import Line, listed, outer, sound
from portcullis.networks import derive
from portcullis.policy import Network, Outer

DSLITE = IpTunnel(7, "ds-wan_4", "ip6tnl", "2001:db8:ffff::1", 0, 1280, b"")
SIXRD = IpTunnel(8, "6rd-wan_6", "sit", "", 0, 1280, b"")


def interface(proto: str, device: str, *hops: str) -> dict[str, Any]:
    route = [{"target": "::", "mask": 0, "nexthop": hop, "source": ""} for hop in hops]
    return {"interface": "x", "up": True, "proto": proto, "l3_device": device, "route": route}


@pytest.mark.parametrize(
    ("proto", "kind"),
    [
        ("6in4", "sit"),
        ("6to4", "sit"),
        ("dslite", "ip6tnl"),
        ("ipip6", "ip6tnl"),
        ("map", "ip6tnl"),
        ("ipip", "ipip"),
    ],
)
def test_a_line_is_an_upstream_interface_of_such_a_protocol(proto: str, kind: str) -> None:
    assert listed([interface(proto, "a")], ["a"]) == (Line("a", kind),)


@pytest.mark.parametrize("proto", ["static", "none", "pppoe", "dhcp", "wireguard", "gre", ""])
def test_others_are_none(proto: str) -> None:
    assert listed([interface(proto, "a")], ["a"]) == ()


def test_what_does_not_lead_upstream_is_none() -> None:
    assert listed([interface("6in4", "a")], ["b"]) == ()
    assert listed([{"interface": "x", "proto": "6in4"}], [""]) == ()


def test_the_relay_of_6rd_stands_in_its_route() -> None:
    found = listed([interface("6rd", "6rd-wan_6", "::192.0.2.1", "::192.0.2.1")], ["6rd-wan_6"])
    assert outer(found, {SIXRD.device: SIXRD}) == (Outer("sit", "192.0.2.1"),)


@pytest.mark.parametrize("hop", ["", "::", "::1", "2001:db8::1", "192.0.2.1", "nonsense"])
def test_no_other_next_hop_is_a_relay(hop: str) -> None:
    found = listed([interface("6rd", "6rd-wan_6", hop)], ["6rd-wan_6"])
    assert outer(found, {SIXRD.device: SIXRD}) == ()


def test_a_remote_end_is_what_the_kernel_has() -> None:
    line = Line(DSLITE.device, "ip6tnl")
    assert outer([line], {DSLITE.device: DSLITE}) == (Outer("ip6tnl", DSLITE.remote),)


def test_a_tunnel_that_netifd_does_not_list_gets_nothing() -> None:
    assert outer([], {DSLITE.device: DSLITE}) == ()


@pytest.mark.parametrize("tunnels", [{}, {DSLITE.device: DSLITE._replace(kind="sit")}])
def test_nor_does_a_line_whose_device_is_another_or_none(tunnels: dict[str, IpTunnel]) -> None:
    assert outer([Line(DSLITE.device, "ip6tnl")], tunnels) == ()


def test_where_the_kernel_knows_the_end_routes_do_not_count() -> None:
    line = Line("6rd-wan_6", "sit", ("192.0.2.66",))
    known = SIXRD._replace(remote="192.0.2.1")
    assert outer([line], {"6rd-wan_6": known}) == (Outer("sit", "192.0.2.1"),)


def test_lines_are_among_what_is_known_of_the_surroundings() -> None:
    wan = interface("6in4", "6in4-wan6")
    assert derive([wan], {}).lines == (Line("6in4-wan6", "sit"),)


@pytest.mark.parametrize(
    "end", ["192.168.1.66", "203.0.113.2", "127.0.0.1", "224.0.0.1", "169.254.1.1"]
)
def test_no_line_ends_in_the_house_or_in_the_router(end: str) -> None:
    lan = Network("lan", "br-lan", ("192.168.1.0/24",))
    good = Outer("sit", "192.0.2.1")
    found, wrong = sound([Outer("sit", end), good], (lan,), ("203.0.113.2",))
    assert found == (good,)
    assert end in wrong[0]
