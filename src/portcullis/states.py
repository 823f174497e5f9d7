# SPDX-License-Identifier: GPL-2.0-or-later
"""The state table: which state follows an event, and when the kill switch is active.

Pure. `transition` is total: every pair of a state and an event has an outcome written down in
`TABLE`. The one invariant everything rests on: `not_connected` and `disconnecting` are reached
by the owner's word alone, so in standard mode nothing else ever lifts the block (contract,
"The states").
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    NOT_CONNECTED = "not_connected"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    DISCONNECTING = "disconnecting"
    RECONNECTING = "reconnecting"
    CONNECTION_FAILED = "connection_failed"


class Mode(StrEnum):
    STANDARD = "standard"
    AT_ALL_TIMES = "at_all_times"


class Event(StrEnum):
    """What can happen. The first three are the owner's, the next two a start's."""

    CONNECT = "connect"
    DISCONNECT = "disconnect"
    CHANGE_PROFILE = "change_profile"
    START_CONNECTED = "start_connected"  # the daemon starts, remembered intent: connected
    START_DISCONNECTED = "start_disconnected"  # … intent: disconnected, or never connected
    TUNNEL_UP = "tunnel_up"  # the device is configured; nothing is proven yet
    HANDSHAKE = "handshake"  # the server has answered: proven data
    TUNNEL_LOST = "tunnel_lost"  # the device is gone, or nothing comes back any more
    TUNNEL_DOWN = "tunnel_down"  # taken down, as was asked
    DRIVER_FAILED = "driver_failed"  # a cause that trying again cannot cure
    EXHAUSTED = "exhausted"  # every profile was tried
    RETRY = "retry"  # the wait after a failure is over
    WAN_LOST = "wan_lost"
    WAN_BACK = "wan_back"
    SETTINGS_CHANGED = "settings_changed"  # one that the running tunnel depends on
    BLOCK_FAILED = "block_failed"  # the block could not be armed and verified (K5)
    SHUTDOWN = "shutdown"  # the service stops; not the owner's disconnect


class Action(StrEnum):
    """What the tunnel has to do after the new state's policy is in force."""

    NONE = "none"
    START = "start"  # begin attempts afresh, now
    STOP = "stop"  # take the tunnel down


class Outcome(NamedTuple):
    state: State
    action: Action


class Row(NamedTuple):
    """One row of the state table as people read it (K15)."""

    active: bool
    meaning: str
    advice: str


_CODES = {
    "NC": State.NOT_CONNECTED,
    "CG": State.CONNECTING,
    "CD": State.CONNECTED,
    "DG": State.DISCONNECTING,
    "RG": State.RECONNECTING,
    "CF": State.CONNECTION_FAILED,
}
_ACTIONS = {"": Action.NONE, "+": Action.START, "-": Action.STOP}

# Read a cell as "next state, then + to start the tunnel afresh or - to take it down".
_GRID = """
                     NC    CG    CD    DG    RG    CF
connect              CG+   CG+   CD    CG+   RG+   CG+
disconnect           NC    DG-   DG-   DG    DG-   DG-
change_profile       CG+   CG+   RG+   CG+   RG+   CG+
start_connected      CG+   CG    CD    DG    RG    CF
start_disconnected   NC-   CG    CD    DG    RG    CF
tunnel_up            NC    CG    CD    DG    RG    CF
handshake            NC    CD    CD    DG    CD    CD
tunnel_lost          NC-   CG+   RG+   DG-   RG+   CF
tunnel_down          NC    CG    RG+   NC    RG    CF
driver_failed        NC    CF-   CF-   NC    CF-   CF
exhausted            NC    CF    CD    DG    CF    CF
retry                NC    CG+   CD    DG    RG+   CG+
wan_lost             NC    CG    RG    DG    RG    CF
wan_back             NC    CG+   CD    DG    RG+   CG+
settings_changed     NC    CG+   RG+   DG    RG+   CG+
block_failed         NC    CF-   CF-   DG    CF-   CF-
shutdown             NC    CG    CD    DG    RG    CF
"""


def _parse(grid: str) -> dict[tuple[State, Event], Outcome]:
    lines = grid.split("\n")[1:-1]
    columns = [_CODES[code] for code in lines[0].split()]
    table = {}
    for line in lines[1:]:
        name, *cells = line.split()
        for state, cell in zip(columns, cells, strict=True):
            table[state, Event(name)] = Outcome(_CODES[cell[:2]], _ACTIONS[cell[2:]])
    return table


TABLE = _parse(_GRID)


def transition(state: State, event: Event) -> Outcome:
    """The state that follows `event` in `state`, and what the tunnel has to do."""
    return TABLE[state, event]


def active(state: State, mode: Mode) -> bool:
    """Whether the kill switch blocks: all but the two states a person chose, or all six."""
    if mode is Mode.STANDARD:
        return state not in (State.NOT_CONNECTED, State.DISCONNECTING)
    return True


_MEANING = {
    State.NOT_CONNECTED: "the VPN is off because its owner has not connected it",
    State.CONNECTING: "the tunnel is being set up; no data has come through it yet",
    State.CONNECTED: "data flows through the tunnel",
    State.DISCONNECTING: "the owner disconnected; the tunnel is being taken down",
    State.RECONNECTING: "the tunnel was up and is being set up again",
    State.CONNECTION_FAILED: "the tunnel could not be set up",
}
_ADVICE = {
    State.CONNECTING: "Wait a moment.",
    State.CONNECTED: "Nothing to do.",
    State.RECONNECTING: "Wait: it comes back by itself.",
    State.CONNECTION_FAILED: "See the reason, or choose another profile.",
}
_WAY_OUT = "Disconnect to use the internet without the VPN."


def row(state: State, mode: Mode) -> Row:
    """The row of the state table at work, in plain words."""
    blocking = active(state, mode)
    if not blocking:
        return Row(
            False,
            f"{_MEANING[state]}: the kill switch is inactive, traffic leaves unprotected",
            "Connect to be protected.",
        )
    if state is State.CONNECTED:
        return Row(True, f"{_MEANING[state]}: everything else is blocked", _ADVICE[state])
    if state in _ADVICE:
        advice = _ADVICE[state]
        if mode is Mode.STANDARD:
            advice = f"{advice} {_WAY_OUT}"
        return Row(True, f"{_MEANING[state]}: all internet traffic is blocked", advice)
    return Row(
        True,
        f"{_MEANING[state]}: blocked all the same, the kill switch is enabled at all times",
        "Connect, or set the mode to standard to use the internet without the VPN.",
    )
