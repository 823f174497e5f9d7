# SPDX-License-Identifier: GPL-2.0-or-later
"""The state table: all of it, and every way through it up to six events."""

from __future__ import annotations

from itertools import product

import pytest

from portcullis.states import TABLE, Action, Event, Mode, Outcome, State, active, row, transition

STANDARD, ALL_TIMES = Mode.STANDARD, Mode.AT_ALL_TIMES
INACTIVE = {State.NOT_CONNECTED, State.DISCONNECTING}
ACTIVE = set(State) - INACTIVE
STARTS = (Event.START_CONNECTED, Event.START_DISCONNECTED)
OWNERS = (Event.CONNECT, Event.CHANGE_PROFILE, Event.DISCONNECT)
LENGTH = 6

# A life of the daemon: its state, and whether the owner's last word was "connect". A start takes
# up what was remembered, so it follows from the word and is one event here (None): crash, reboot
# and upgrade in one.
Life = tuple[State, bool]
NEWBORN: Life = (State.NOT_CONNECTED, False)
LIVED = (*(event for event in Event if event not in STARTS), None)


def lives_on(life: Life, event: Event | None) -> Life:
    state, connected = life
    if event is None:
        state, event = State.NOT_CONNECTED, STARTS[0 if connected else 1]
    if event in OWNERS:
        connected = event is not Event.DISCONNECT
    return transition(state, event).state, connected


def reachable() -> set[Life]:
    found, new = set[Life](), [NEWBORN]
    while new:
        life = new.pop()
        if life not in found:
            found.add(life)
            new += [lives_on(life, event) for event in LIVED]
    return found


def test_the_table_has_one_outcome_for_every_pair_of_a_state_and_an_event() -> None:
    assert set(TABLE) == set(product(State, Event))


@pytest.mark.parametrize(
    ("state", "standard"),
    [
        (State.NOT_CONNECTED, False),
        (State.CONNECTING, True),
        (State.CONNECTED, True),
        (State.DISCONNECTING, False),
        (State.RECONNECTING, True),
        (State.CONNECTION_FAILED, True),
    ],
)
def test_a_row_of_the_contract(state: State, standard: bool) -> None:
    assert (active(state, STANDARD), active(state, ALL_TIMES)) == (standard, True)


def test_the_states_have_the_contracts_names() -> None:
    assert [state.value for state in State] == [
        *("not_connected", "connecting", "connected"),
        *("disconnecting", "reconnecting", "connection_failed"),
    ]


def test_in_no_sequence_of_six_events_the_block_is_lifted_but_by_the_owners_last_word() -> None:
    lives = sorted(reachable())
    outcomes = [[lives.index(lives_on(life, event)) for event in LIVED] for life in lives]
    wrong = {n for n, (state, connected) in enumerate(lives) if state in INACTIVE and connected}
    sequences = 0
    stack = [(lives.index(NEWBORN), 1)]
    while stack:
        life, length = stack.pop()
        for after in outcomes[life]:
            sequences += 1
            assert after not in wrong
            if length < LENGTH:
                stack.append((after, length + 1))
    assert sequences == sum(len(LIVED) ** length for length in range(1, LENGTH + 1))


def test_in_no_sequence_of_any_length_the_block_is_lifted_but_by_the_owners_last_word() -> None:
    assert not [life for life in reachable() if life[0] in INACTIVE and life[1]]


def test_in_no_sequence_a_disconnected_owner_is_blocked_in_standard_mode() -> None:
    assert {state for state, connected in reachable() if not connected} == INACTIVE


def test_every_state_can_be_reached() -> None:
    assert {state for state, _ in reachable()} == set(State)


@pytest.mark.parametrize("state", State)
def test_connected_follows_a_handshake_only(state: State) -> None:
    entering = {
        event
        for event in Event
        if state is not State.CONNECTED and transition(state, event).state is State.CONNECTED
    }
    assert entering <= {Event.HANDSHAKE}


@pytest.mark.parametrize("state", sorted(INACTIVE))
def test_a_late_handshake_does_not_connect_a_disconnected_owner(state: State) -> None:
    assert transition(state, Event.HANDSHAKE) == Outcome(state, Action.NONE)


@pytest.mark.parametrize(
    "state", [State.CONNECTING, State.RECONNECTING, State.CONNECTION_FAILED, State.CONNECTED]
)
def test_a_handshake_proves_the_connection(state: State) -> None:
    assert transition(state, Event.HANDSHAKE).state is State.CONNECTED


@pytest.mark.parametrize("state", sorted(ACTIVE))
def test_a_failed_block_never_lifts_the_block_and_takes_the_tunnel_down(state: State) -> None:
    assert transition(state, Event.BLOCK_FAILED) == Outcome(State.CONNECTION_FAILED, Action.STOP)


@pytest.mark.parametrize("state", State)
def test_the_owners_connect_is_obeyed_in_every_state(state: State) -> None:
    after = transition(state, Event.CONNECT)
    assert after.state in ACTIVE
    assert after.action is (Action.NONE if state is State.CONNECTED else Action.START)


@pytest.mark.parametrize("state", State)
def test_the_owners_other_profile_is_connected_in_every_state(state: State) -> None:
    after = transition(state, Event.CHANGE_PROFILE)
    assert after.state in ACTIVE
    assert after.action is Action.START


@pytest.mark.parametrize("state", State)
def test_the_owners_disconnect_is_obeyed_in_every_state(state: State) -> None:
    after = transition(state, Event.DISCONNECT)
    assert after.state in INACTIVE
    assert after.action is (Action.NONE if state in INACTIVE else Action.STOP)


@pytest.mark.parametrize("state", sorted(set(State) - {State.NOT_CONNECTED}))
def test_not_connected_is_entered_after_the_owners_disconnect_alone(state: State) -> None:
    entering = {e for e in Event if transition(state, e).state is State.NOT_CONNECTED}
    ends = {Event.TUNNEL_DOWN, Event.DRIVER_FAILED} if state is State.DISCONNECTING else set()
    assert entering == ends


@pytest.mark.parametrize("state", State)
def test_a_stop_of_the_service_changes_nothing(state: State) -> None:
    assert transition(state, Event.SHUTDOWN) == Outcome(state, Action.NONE)


def test_a_start_takes_up_the_remembered_connection() -> None:
    after = transition(State.NOT_CONNECTED, Event.START_CONNECTED)
    assert after == Outcome(State.CONNECTING, Action.START)


def test_a_start_finishes_the_owners_disconnect() -> None:
    """Whoever was killed before the tunnel was down has left it up."""
    after = transition(State.NOT_CONNECTED, Event.START_DISCONNECTED)
    assert after == Outcome(State.NOT_CONNECTED, Action.STOP)


@pytest.mark.parametrize(
    ("state", "event", "after", "action"),
    [
        (State.CONNECTING, Event.TUNNEL_UP, State.CONNECTING, Action.NONE),
        (State.CONNECTING, Event.EXHAUSTED, State.CONNECTION_FAILED, Action.NONE),
        (State.CONNECTING, Event.DRIVER_FAILED, State.CONNECTION_FAILED, Action.STOP),
        (State.CONNECTION_FAILED, Event.RETRY, State.CONNECTING, Action.START),
        (State.CONNECTION_FAILED, Event.SETTINGS_CHANGED, State.CONNECTING, Action.START),
        (State.CONNECTION_FAILED, Event.WAN_BACK, State.CONNECTING, Action.START),
        (State.CONNECTED, Event.TUNNEL_LOST, State.RECONNECTING, Action.START),
        (State.CONNECTED, Event.TUNNEL_DOWN, State.RECONNECTING, Action.START),
        (State.CONNECTED, Event.CHANGE_PROFILE, State.RECONNECTING, Action.START),
        (State.CONNECTED, Event.SETTINGS_CHANGED, State.RECONNECTING, Action.START),
        (State.CONNECTED, Event.WAN_LOST, State.RECONNECTING, Action.NONE),
        (State.RECONNECTING, Event.WAN_BACK, State.RECONNECTING, Action.START),
        (State.RECONNECTING, Event.EXHAUSTED, State.CONNECTION_FAILED, Action.NONE),
        (State.DISCONNECTING, Event.TUNNEL_DOWN, State.NOT_CONNECTED, Action.NONE),
        (State.DISCONNECTING, Event.TUNNEL_LOST, State.DISCONNECTING, Action.STOP),
    ],
)
def test_a_step_people_know(state: State, event: Event, after: State, action: Action) -> None:
    assert transition(state, event) == Outcome(after, action)


ROWS = list(product(State, Mode))


@pytest.mark.parametrize(("state", "mode"), ROWS)
def test_a_rows_text_says_what_the_kill_switch_does(state: State, mode: Mode) -> None:
    text = row(state, mode)
    assert text.active is active(state, mode)
    assert ("blocked" in text.meaning) is text.active
    assert ("traffic leaves unprotected" in text.meaning) is not text.active


@pytest.mark.parametrize(("state", "mode"), ROWS)
def test_a_rows_advice_is_whole_sentences(state: State, mode: Mode) -> None:
    advice = row(state, mode).advice
    assert advice[:1].isupper()
    assert advice.endswith(".")


@pytest.mark.parametrize("state", sorted(ACTIVE - {State.CONNECTED}))
def test_the_way_out_is_named_where_it_is_one(state: State) -> None:
    named = [mode for mode in Mode if "Disconnect to use the internet" in row(state, mode).advice]
    assert named == [STANDARD]


@pytest.mark.parametrize("state", sorted(INACTIVE))
def test_a_disconnected_owner_blocked_at_all_times_is_told_the_mode(state: State) -> None:
    text = row(state, ALL_TIMES)
    assert "at all times" in text.meaning
    assert "set the mode to standard" in text.advice


def test_no_two_states_read_the_same() -> None:
    assert len({row(state, mode).meaning for state, mode in ROWS}) == len(ROWS) - 4
