# SPDX-License-Identifier: GPL-2.0-or-later
"""What portcullisctl says of a status: the headline first, then what a person may want to know."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from portcullis.ctl import device_lines, status_lines
from portcullis.states import Mode, State, row

Status = dict[str, Any]


@pytest.fixture(autouse=True)
def greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def status(state: State, mode: Mode = Mode.STANDARD, **more: Any) -> Status:
    """A status as the daemon gives it."""
    explained = row(state, mode)
    found: Status = {
        "ok": True,
        "version": "0.1",
        "state": state.value,
        "since": 1_800_000_000,
        "reason": "",
        "intent": "connected",
        "kill_switch": {
            "enabled": True,
            "active": explained.active,
            "mode": mode.value,
            "verified": True,
            "meaning": explained.meaning,
            "advice": explained.advice,
        },
        "lan_access": True,
        "profile": "vpn1",
        "tunnel": {"attempt": 0, "next_attempt_in": 0, "notes": [], "implementation": ""},
        "networks": [{"name": "lan", "device": "br-lan", "prefixes": ["192.168.1.0/24"]}],
        "upstream": ["eth1"],
        "endpoints": [],
        "resolvers": [],
        "blocked": {},
        "restored": 0,
        "alarms": [],
        "layers": dict.fromkeys(("packet_filter", "routing_guard", "egress_hook"), "in force"),
        "faults": [],
    }
    return {**found, **more}


CONNECTED = status(
    State.CONNECTED,
    endpoints=["198.51.100.10 udp 51820"],
    resolvers=["10.64.0.1", "fd64::1"],
    blocked={"blocked_devices": 12, "blocked_ipv6": 0, "blocked_dns": 3},
    tunnel={
        "attempt": 0,
        "next_attempt_in": 0,
        "notes": [],
        "implementation": "kernel",
        "handshake_age": 42,
        "received": 1536,
        "sent": 5 * 1024**3,
    },
)


def value(found: Status, name: str) -> str | None:
    """What stands beside a row's name; None where there is no such row."""
    for line in status_lines(found)[1:]:
        if line.startswith(f"  {name:<12} "):
            return line[15:]
    return None


def test_a_connected_status_reads_like_this() -> None:
    assert status_lines(CONNECTED) == [
        "Protected: all traffic goes through vpn1",
        "  state        connected since 2027-01-15 08:00:00",
        "  kill switch  enabled, active and verified (standard mode)",
        "               data flows through the tunnel: everything else is blocked",
        "  advice       Nothing to do.",
        "  server       198.51.100.10 udp 51820",
        "  handshake    42 s ago",
        "  transfer     1.5 KiB received, 5.0 GiB sent",
        "  resolvers    10.64.0.1, fd64::1",
        "  protects     lan (br-lan)",
        "  lan access   allowed",
        "  blocked      12 devices, 3 dns (packets)",
    ]


def test_a_disconnected_status_reads_like_this() -> None:
    assert status_lines(status(State.NOT_CONNECTED, reason="the owner disconnected")) == [
        "Not connected",
        "  state        not_connected since 2027-01-15 08:00:00",
        "  reason       the owner disconnected",
        "  kill switch  enabled, inactive (standard mode)",
        "               the VPN is off because its owner has not connected it:"
        " the kill switch is inactive, traffic leaves unprotected",
        "  advice       Connect to be protected.",
        "  protects     lan (br-lan)",
        "  lan access   allowed",
    ]


@pytest.mark.parametrize(
    ("state", "headline"),
    [
        (State.CONNECTED, "Protected: all traffic goes through vpn1"),
        (State.CONNECTING, "Blocked: connecting to vpn1"),
        (State.RECONNECTING, "Blocked: reconnecting to vpn1"),
        (State.CONNECTION_FAILED, "Blocked: the connection failed"),
        (State.DISCONNECTING, "Disconnecting"),
        (State.NOT_CONNECTED, "Not connected"),
    ],
)
def test_the_headline_says_the_state_in_words(state: State, headline: str) -> None:
    assert status_lines(status(state))[0] == headline


@pytest.mark.parametrize(("state", "mode"), list(product(State, Mode)))
def test_the_row_of_the_state_table_at_work_is_told(state: State, mode: Mode) -> None:
    found, explained = status(state, mode), row(state, mode)
    assert value(found, "") == explained.meaning
    assert value(found, "advice") == explained.advice


@pytest.mark.parametrize("state", State)
def test_the_kill_switch_is_always_called_enabled(state: State) -> None:
    assert str(value(status(state), "kill switch")).startswith("enabled, ")


@pytest.mark.parametrize(
    ("state", "mode", "activity"),
    [
        (State.NOT_CONNECTED, Mode.STANDARD, "enabled, inactive (standard mode)"),
        (
            State.NOT_CONNECTED,
            Mode.AT_ALL_TIMES,
            "enabled, active and verified (at_all_times mode)",
        ),
        (State.CONNECTING, Mode.STANDARD, "enabled, active and verified (standard mode)"),
    ],
)
def test_the_kill_switchs_activity_and_mode_are_told(
    state: State, mode: Mode, activity: str
) -> None:
    assert value(status(state, mode), "kill switch") == activity


def unverified(state: State) -> Status:
    found = status(state, faults=["packet filter: nft: Operation not permitted"])
    return {**found, "kill_switch": {**found["kill_switch"], "verified": False}}


def test_a_block_that_is_not_verified_is_told_loudly() -> None:
    assert "ACTIVE BUT NOT VERIFIED" in str(value(unverified(State.CONNECTED), "kill switch"))


@pytest.mark.parametrize("state", [state for state in State if row(state, Mode.STANDARD).active])
def test_no_headline_promises_a_block_that_is_not_verified(state: State) -> None:
    """K5: the state says so loudly. The headline is what people read."""
    headline = status_lines(unverified(state))[0]
    assert not headline.startswith(("Protected", "Blocked"))


def test_every_fault_and_note_has_a_line() -> None:
    found = status(State.CONNECTED, faults=["one", "two"])
    found["tunnel"]["notes"] = ["The tunnel carries only IPv4."]
    assert status_lines(found)[-3:] == [
        "  note         The tunnel carries only IPv4.",
        "  fault        one",
        "  fault        two",
    ]


@pytest.mark.parametrize(
    ("attempt", "wait", "text"), [(0, 0, None), (3, 0, "3"), (4, 17, "4, the next in 17 s")]
)
def test_attempts_are_told_while_there_are_any(attempt: int, wait: int, text: str | None) -> None:
    found = status(State.CONNECTION_FAILED)
    found["tunnel"] |= {"attempt": attempt, "next_attempt_in": wait}
    assert value(found, "attempt") == text


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536 * 1024, "1.5 MiB"),
        (1024**3, "1.0 GiB"),
        (1024**4 * 2000, "2000.0 TiB"),
    ],
)
def test_octets_are_told_in_a_fitting_unit(octets: int, text: str) -> None:
    found = status(State.CONNECTED)
    found["tunnel"] |= {"received": octets, "sent": 1}
    assert value(found, "transfer") == f"{text} received, 1 B sent"


@pytest.mark.parametrize(("age", "text"), [(-1, None), (0, "0 s ago"), (42, "42 s ago")])
def test_a_handshake_is_told_where_there_was_one(age: int, text: str | None) -> None:
    found = status(State.CONNECTED)
    found["tunnel"]["handshake_age"] = age
    assert value(found, "handshake") == text


@pytest.mark.parametrize(
    ("counters", "text"),
    [
        ({}, None),
        ({"blocked_dns": 0}, None),
        ({"blocked_dns": 10, "blocked_router": 0, "blocked_ipv6": 1}, "10 dns, 1 ipv6 (packets)"),
    ],
)
def test_what_was_blocked_is_told_where_anything_was(
    counters: dict[str, int], text: str | None
) -> None:
    assert value(status(State.CONNECTED, blocked=counters), "blocked") == text


def test_no_profile_is_called_the_vpn() -> None:
    headline = status_lines(status(State.CONNECTING, profile=""))[0]
    assert headline == "Blocked: connecting to the VPN"


def test_a_profiles_name_is_taken_as_it_is() -> None:
    headline = status_lines(status(State.CONNECTING, profile="{0.__class__}"))[0]
    assert headline == "Blocked: connecting to {0.__class__}"


def test_denied_lan_access_is_told() -> None:
    assert value(status(State.CONNECTED, lan_access=False), "lan access") == "denied"


def test_every_protected_network_is_named_with_its_device() -> None:
    found = [{"name": "lan", "device": "br-lan"}, {"name": "guest", "device": "br-guest"}]
    assert value(status(State.CONNECTED, networks=found), "protects") == (
        "lan (br-lan), guest (br-guest)"
    )


def test_that_nothing_is_protected_is_told() -> None:
    """K15: a missing line is easily overlooked."""
    assert value(status(State.CONNECTED, networks=[]), "protects") is not None


def device(**more: Any) -> dict[str, Any]:
    return {
        **{"mac": "02:00:5e:00:53:10", "hostname": "laptop", "network": "lan", "device": "lan1"},
        **{"ipv4": ["192.168.1.10"], "ipv6": ["fd00::10"], "online": True, "access": "default"},
        **{"enforced": True, "note": ""},
        **more,
    }


def test_a_device_is_one_line() -> None:
    lines = device_lines({"lan_access": False, "devices": [device()]})
    assert lines == [
        "LAN access: denied",
        f"02:00:5e:00:53:10  default  online   {'lan/lan1':<16}  {'laptop':<24}  192.168.1.10",
    ]


def test_a_device_that_was_never_seen_is_listed() -> None:
    never = device(hostname="", network="", device="", ipv4=[], ipv6=[], online=False)
    assert device_lines({"lan_access": True, "devices": [never]})[1].split() == [
        *("02:00:5e:00:53:10", "default", "offline", "not", "seen", "?"),
    ]


@pytest.mark.parametrize(("enforced", "mark"), [(True, "others"), (False, "NOT ENFORCED: others")])
def test_what_the_hardware_cannot_hold_stands_under_the_device(enforced: bool, mark: str) -> None:
    noted = device(enforced=enforced, note="others at lan1")
    found = device_lines({"lan_access": True, "devices": [noted]})[2]
    assert found.strip() == f"{mark} at lan1"
