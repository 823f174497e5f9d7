# SPDX-License-Identifier: GPL-2.0-or-later
"""The last transitions, newest first: what a page or a person looking back may want to know."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from portcullis.clock import Moment
from portcullis.states import State

MOST = 100


class Transition(NamedTuple):
    time: Moment
    old: State
    new: State
    reason: str
    active: bool


class History:
    """Kept in memory alone: flash wears, and who was connected when is nobody else's business."""

    def __init__(self) -> None:
        self._kept: deque[Transition] = deque(maxlen=MOST)

    def note(self, transition: Transition) -> None:
        self._kept.appendleft(transition)

    def newest_first(self) -> tuple[Transition, ...]:
        return tuple(self._kept)
