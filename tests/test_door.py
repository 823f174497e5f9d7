# SPDX-License-Identifier: GPL-2.0-or-later
"""The second door (K17): without a visitor's session the web process can do nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from router.appliance import Appliance
from router.standin.bus import CallFailed
from router.standin.wire import Status

from portcullis.bus import BusError
from portcullis.commands import Refusal
from portcullis.door import Door, certificate
from portcullis.rights import READ, WRITE
from portcullis.settings import DEFAULT

SESSION, OTHER, NOBODY = "a" * 32, "b" * 32, "0" * 32


class Rpcd:
    """What the door asks: the sessions it knows, and the functions each may use."""

    def __init__(self) -> None:
        self.sessions: dict[str, set[str]] = {SESSION: {"status", "connect"}}
        self.problem: BusError | None = None
        self.asked = 0

    def call(self, name: str, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        assert (name, method) == ("session", "access")
        assert (arguments["scope"], arguments["object"]) == ("ubus", "luci.portcullis")
        self.asked += 1
        if self.problem:
            raise self.problem
        known = self.sessions.get(arguments["ubus_rpc_session"])
        if known is None:
            raise BusError("…", "Not found")
        return {"access": arguments["function"] in known}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class House:
    """A door, the rpcd it asks, and the time."""

    def __init__(self) -> None:
        self.bus, self.clock, self.settings = Rpcd(), Clock(), DEFAULT
        self.door = Door(self, clock=self.clock)  # type: ignore[arg-type]

    def refusal(self, session: str, name: str = "status") -> str:
        try:
            self.door.check(session, name)
        except Refusal as refusal:
            return refusal.code
        return ""


@pytest.fixture
def house() -> House:
    return House()


def test_a_session_that_may_look_may_not_change(house: House) -> None:
    assert not house.refusal(SESSION, "status")
    assert house.refusal(SESSION, "disconnect") == "forbidden"


@pytest.mark.parametrize(
    "session", ["", NOBODY, "a" * 31, "a" * 33, "A" * 32, "../" + "a" * 29, "a" * 31 + "\n", OTHER]
)
def test_what_is_no_living_session_is_denied(house: House, session: str) -> None:
    house.bus.sessions[NOBODY] = {"status"}
    assert house.refusal(session) == "denied"


def test_a_dumb_rpcd_lets_nobody_in_and_is_not_taken_for_an_ended_session(house: House) -> None:
    house.bus.problem = BusError("timed out", "Request timed out")
    assert house.refusal(SESSION) == "unavailable"


@pytest.mark.parametrize("answer", [{}, {"access": 1}, {"access": "true"}, {"access": None}])
def test_only_a_plain_yes_lets_in(
    house: House, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]
) -> None:
    monkeypatch.setattr(house.bus, "call", lambda *_: answer)
    assert house.refusal(SESSION) == "forbidden"


def test_a_yes_is_believed_for_two_seconds_and_for_looking_only(house: House) -> None:
    assert not house.refusal(SESSION, "status")
    assert not house.refusal(SESSION, "connect")
    house.bus.sessions.clear()
    assert not house.refusal(SESSION, "status")
    assert house.refusal(SESSION, "connect") == "denied"
    house.clock.now += 2.1
    assert house.refusal(SESSION, "status") == "denied"


def test_a_no_is_never_believed(house: House) -> None:
    house.bus.sessions.clear()
    assert house.refusal(SESSION) == "denied"
    house.bus.sessions[SESSION] = {"status"}
    assert not house.refusal(SESSION)


def test_a_yes_for_one_thing_is_none_for_another(house: House) -> None:
    assert not house.refusal(SESSION, "status")
    assert house.refusal(SESSION, "profiles") == "forbidden"


def test_what_is_believed_does_not_pile_up(house: House) -> None:
    for number in range(200):
        session = f"{number:032x}"
        house.bus.sessions[session] = {"status"}
        house.refusal(session)
        house.clock.now += 0.1
    assert len(house.door._believed) <= 21


def test_a_token_hands_its_session_over_once(house: House) -> None:
    token = house.door.token(SESSION)["token"]
    assert house.door.redeem(token)["session"] == SESSION
    with pytest.raises(Refusal):
        house.door.redeem(token)


def test_a_token_lives_for_thirty_seconds(house: House) -> None:
    early, late = house.door.token(SESSION)["token"], house.door.token(SESSION)["token"]
    house.clock.now += 29
    assert house.door.redeem(early)["ok"]
    house.clock.now += 2
    with pytest.raises(Refusal):
        house.door.redeem(late)


def test_a_token_is_worth_nothing_once_its_session_has_ended(house: House) -> None:
    token = house.door.token(SESSION)["token"]
    house.clock.now += 3
    house.bus.sessions.clear()
    with pytest.raises(Refusal):
        house.door.redeem(token)


def test_no_token_without_a_session(house: House) -> None:
    with pytest.raises(Refusal):
        house.door.token(OTHER)


def test_tokens_do_not_pile_up(house: House) -> None:
    tokens = [house.door.token(SESSION)["token"] for _ in range(40)]
    assert len(set(tokens)) == 40
    assert len(house.door._tokens) == 32
    assert house.door.redeem(tokens[-1])["ok"]


def test_the_certificate_is_handed_over_whole_or_not_at_all(tmp_path: Path) -> None:
    here, key = tmp_path / "crt", tmp_path / "key"
    here.write_bytes(b"\x30\x82")
    assert certificate(here, key)["code"] == "no_certificate"
    key.write_text("KEY")
    assert certificate(here, key) == {"ok": True, "certificate": "3082", "key": b"KEY".hex()}


# On the bus, with rpcd's own sessions


@pytest.fixture(scope="module")
def running() -> Iterator[Appliance]:
    with Appliance() as found:
        found.start()
        yield found


def _login(running: Appliance) -> str:
    who = {"username": "root", "password": "whatever"}
    return str(running.bus.call("session", "login", who)[0]["ubus_rpc_session"])


def _web(running: Appliance, method: str, **arguments: Any) -> dict[str, Any]:
    return running.bus.call("portcullis.web", method, arguments)[0]


def test_a_visitor_looks_and_connects_through_the_door(running: Appliance) -> None:
    session = _login(running)
    assert _web(running, "status", session=session)["state"] == "not_connected"
    assert _web(running, "traffic", session=session)["step"] == 300
    assert _web(running, "connect", session=session, profile="vpn1")["ok"]
    running.until_state("connected")
    assert _web(running, "disconnect", session=session)["ok"]
    running.until_state("not_connected")


def test_a_taken_over_web_process_cannot_disconnect_anybody(running: Appliance) -> None:
    running.connect()
    for session in ("", NOBODY, "f" * 32):
        assert _web(running, "disconnect", session=session)["code"] == "denied"
        assert _web(running, "set", session=session, name="mode", value="standard")["ok"] is False
    assert running.state == "connected"
    running.disconnect()


def test_nothing_but_these_four_answers_without_a_session(running: Appliance) -> None:
    session = _login(running)
    for name in (*READ, *WRITE):
        with pytest.raises(CallFailed) as failed:
            running.bus.call("portcullis.web", name, {})
        assert failed.value.status in (Status.INVALID_ARGUMENT, Status.METHOD_NOT_FOUND)
    with pytest.raises(CallFailed):
        running.bus.call("portcullis.web", "token", {"session": session})
    for name in ("why", "listen", "certificate"):
        assert "ok" in _web(running, name)
    assert _web(running, "redeem", token="x")["code"] == "denied"


def test_the_block_page_learns_the_state_and_no_name(running: Appliance) -> None:
    running.connect()
    found = _web(running, "why")
    assert set(found) == {"ok", "state", "since", "blocked", "sentence"}
    assert "vpn1" not in json.dumps(found)
    running.disconnect()


def test_the_web_listens_in_networks_that_may_manage_the_router(running: Appliance) -> None:
    found = _web(running, "listen")
    assert (found["devices"], found["port"]) == (["br-lan"], 8443)


def test_luci_hands_a_session_over(running: Appliance) -> None:
    session = _login(running)
    token = running.call("token", session=session)["token"]
    assert _web(running, "redeem", token=token) == {"ok": True, "session": session}
    assert _web(running, "redeem", token=token)["code"] == "denied"


def test_a_destroyed_session_is_denied(running: Appliance) -> None:
    session = _login(running)
    running.bus.call("session", "destroy", {"ubus_rpc_session": session})
    assert _web(running, "status", session=session)["code"] == "denied"


@given(method=st.sampled_from((*READ, "connect", "disconnect", "set", "redeem")), words=st.data())
@effort(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_random_arguments_are_refused_and_break_nothing(
    running: Appliance, method: str, words: st.DataObject
) -> None:
    names = ("session", "profile", "name", "value", "token", "x")
    value = st.one_of(st.text(max_size=80), st.integers(-(2**31), 2**31 - 1), st.booleans())
    arguments = words.draw(st.dictionaries(st.sampled_from(names), value, max_size=4))
    try:
        assert _web(running, method, **arguments)["ok"] is False
    except CallFailed as failed:
        assert failed.status in (Status.INVALID_ARGUMENT, Status.METHOD_NOT_FOUND)
    assert running.state == "not_connected"
