# SPDX-License-Identifier: GPL-2.0-or-later
"""What may pass, as a value: closed unless every part says otherwise."""

from __future__ import annotations

from itertools import product

import pytest

from portcullis.policy import (
    CLOSED,
    Link,
    Network,
    Policy,
    Socket,
    decide,
    endpoint_objection,
    within,
)
from portcullis.states import Mode, State, active

LAN = Network("lan", "br-lan", ("192.168.1.0/24", "fd00:1::/64"))
GUEST = Network("guest", "br-guest", ("192.168.2.0/24",))
LINK = Link(("10.64.0.2", "fd64::2"), ("10.64.0.1",), ("0.0.0.0/0", "::/0"))
SERVER = Socket("198.51.100.10", "udp", 51820)
RESOLVER = Socket("9.9.9.9", "udp", 53)

FLOWING = Policy(link=LINK, flowing=True)

EVERY = list(product(State, Mode, (False, True), ((), (LAN, GUEST)), (None, LINK)))
GOING = (State.NOT_CONNECTED, State.DISCONNECTING)


def decided(
    state: State,
    mode: Mode = Mode.STANDARD,
    lan_access: bool = True,
    networks: tuple[Network, ...] = (LAN, GUEST),
    link: Link | None = LINK,
) -> Policy:
    return decide(state, mode, lan_access, networks, link, (SERVER,), (RESOLVER,))


def test_an_empty_policy_is_the_closed_one() -> None:
    assert not any(CLOSED)


def test_an_empty_policy_names_no_device_and_no_resolver() -> None:
    assert (CLOSED.devices, CLOSED.resolvers) == ((), ())


def test_every_combination_has_a_policy_released_as_the_state_table_says() -> None:
    wrong = [case for case in EVERY if decided(*case).released is active(case[0], case[1])]
    assert wrong == []


def test_no_policy_is_released_while_it_carries_a_tunnel() -> None:
    found = [decided(*case) for case in EVERY]
    assert not [policy for policy in found if policy.released and policy.link]


@pytest.mark.parametrize("state", GOING)
@pytest.mark.parametrize("mode", Mode)
def test_a_tunnel_that_goes_carries_nothing_and_opens_nothing(state: State, mode: Mode) -> None:
    found = decided(state, mode)
    assert (found.link, found.flowing, found.endpoints, found.bootstrap) == (None, False, (), ())


@pytest.mark.parametrize("state", [state for state in State if state not in GOING])
@pytest.mark.parametrize("mode", Mode)
def test_a_tunnel_that_comes_or_stands_keeps_its_openings(state: State, mode: Mode) -> None:
    found = decided(state, mode)
    assert (found.link, found.endpoints, found.bootstrap) == (LINK, (SERVER,), (RESOLVER,))


@pytest.mark.parametrize("mode", Mode)
def test_devices_flow_into_a_tunnel_from_its_first_handshake_on(mode: Mode) -> None:
    flowing = {state for state in State if decided(state, mode).flowing}
    assert flowing == {State.CONNECTED, State.RECONNECTING}


def test_nothing_flows_without_a_link() -> None:
    assert not any(decided(state, link=None).flowing for state in State)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("lan_access", [False, True])
def test_networks_and_lan_access_are_the_owners_in_every_state(
    state: State, lan_access: bool
) -> None:
    found = decided(state, lan_access=lan_access)
    assert (found.networks, found.lan_access) == ((LAN, GUEST), lan_access)


def test_a_device_with_two_networks_is_named_once() -> None:
    second = Network("lan2", "br-lan", ("10.0.0.0/24",))
    assert Policy(networks=(LAN, GUEST, second)).devices == ("br-lan", "br-guest")


def test_the_links_resolvers_answer_while_the_block_is_active() -> None:
    assert Policy(link=LINK, flowing=True).resolvers == ("10.64.0.1",)


def test_the_links_resolvers_are_not_asked_before_it_flows() -> None:
    assert Policy(link=LINK).resolvers == ()


def test_no_resolver_is_forced_on_a_released_router() -> None:
    assert Policy(released=True, link=LINK, flowing=True).resolvers == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Policy(), Policy(released=True)),
        (Policy(), Policy(link=LINK)),
        (FLOWING, FLOWING._replace(link=LINK._replace(addresses=("10.64.0.9",)))),
        (FLOWING, FLOWING._replace(link=LINK._replace(resolvers=("10.64.0.9",)))),
        (Policy(link=LINK), FLOWING),
    ],
    ids=["released", "tunnel", "address", "resolver", "flowing"],
)
def test_flows_do_not_outlive_what_they_began_under(one: Policy, other: Policy) -> None:
    assert one.flow_key() != other.flow_key()


@pytest.mark.parametrize(
    "other",
    [
        FLOWING._replace(lan_access=True),
        FLOWING._replace(networks=(LAN,)),
        FLOWING._replace(endpoints=(SERVER,)),
        FLOWING._replace(bootstrap=(RESOLVER,)),
    ],
    ids=["lan access", "networks", "endpoints", "bootstrap"],
)
def test_flows_in_the_tunnel_live_on_where_the_tunnel_is_the_same(other: Policy) -> None:
    assert FLOWING.flow_key() == other.flow_key()


@pytest.mark.parametrize("address", ["198.51.100.10", "2001:db8::10", "10.9.9.9", "192.168.3.1"])
def test_an_address_out_there_can_be_an_endpoint(address: str) -> None:
    assert endpoint_objection(address, (LAN, GUEST), ("203.0.113.2", "10.64.0.2")) is None


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("192.168.1.20", "protected network lan"),
        ("192.168.2.255", "protected network guest"),
        ("fd00:1::20", "protected network lan"),
        ("203.0.113.2", "router's or the tunnel's own"),
        ("10.64.7.1", "router's or the tunnel's own"),
        ("127.0.0.1", "a loopback address"),
        ("0.0.0.0", "an unspecified address"),
        ("224.0.0.1", "a multicast address"),
        ("255.255.255.255", "the broadcast address"),
        ("169.254.1.1", "a link-local address"),
        ("fe80::1", "a link-local address"),
        ("::1", "a loopback address"),
        ("::ffff:192.168.1.20", "an IPv4-mapped address"),
    ],
)
def test_an_address_of_the_house_can_be_no_endpoint(address: str, reason: str) -> None:
    found = endpoint_objection(address, (LAN, GUEST), ("203.0.113.2", "10.64.0.0/16"))
    assert reason in str(found)


def test_an_address_behind_a_router_on_the_lan_can_be_no_endpoint() -> None:
    """A host there is reached by the LAN's own routes, so it is part of the house."""
    routed = LAN._replace(routes=(("10.9.0.0/16", "192.168.1.2"),))
    assert endpoint_objection("10.9.1.1", (routed,), ()) is not None


@pytest.mark.parametrize(
    ("address", "inside"),
    [("10.0.0.1", True), ("11.0.0.1", False), ("fd00::1", True), ("2001:db8::1", False)],
)
def test_an_address_lies_within_prefixes_of_its_own_family(address: str, inside: bool) -> None:
    assert within(address, ("10.0.0.0/8", "fd00::/8")) is inside


def test_ipv4_does_not_lie_within_all_of_ipv6() -> None:
    assert not within("10.0.0.1", ("::/0",))
