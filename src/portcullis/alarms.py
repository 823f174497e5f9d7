# SPDX-License-Identifier: GPL-2.0-or-later
"""What somebody changed behind our back and we put back, told so that it is noticed (K10).

Every repair is done at once and counted. What one look found is told as one alarm, what follows
within a second as another, so that whoever tampers in a loop fills neither log, bus nor memory.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from portcullis.loop import Loop, Timer

log = logging.getLogger("portcullis")

KEPT = 20
_MOST = 8  # different things, and different processes, that one alarm names
_SETTLE, _PAUSE = 0.02, 1.0


class Alarm(NamedTuple):
    """`what` was put back, `by` whom it had been changed as far as the kernel tells, `times`: how
    many repairs this stands for; `time` is UNIX seconds by the router's clock."""

    time: float
    what: tuple[str, ...]
    by: str
    times: int


class Alarms:
    """The last alarms, newest first in `recent`; `restored` is how many repairs there were."""

    def __init__(self, loop: Loop, tell: Callable[[Alarm], None]) -> None:
        self._loop, self._tell = loop, tell
        self._suspects: dict[str, None] = {}
        self._waiting: list[tuple[str, ...]] = []
        self._pause: Timer | None = None
        self.recent: deque[Alarm] = deque(maxlen=KEPT)
        self.restored = 0

    def suspect(self, who: str) -> None:
        """Somebody has changed something: what is found wrong now is theirs."""
        if who and len(self._suspects) < _MOST:
            self._suspects[who] = None

    def acquit(self) -> None:
        """All has been looked at, and nothing was found."""
        if not self._waiting:
            self._suspects.clear()

    def restored_what(self, what: tuple[str, ...]) -> None:
        """This had been changed, and is as it should be again."""
        self.restored += 1
        self._waiting.append(what)
        if self._pause is None:  # the other layers, and the kernel's word on who it was, come yet
            self._pause = self._loop.after(_SETTLE, self._raise)

    def close(self) -> None:
        """Tell what has not been told yet."""
        if self._pause:
            self._pause.cancel()
        self._raise()

    def _raise(self) -> None:
        self._pause = None
        if not self._waiting:
            return
        what = tuple(dict.fromkeys(one for found in self._waiting for one in found))
        alarm = Alarm(time.time(), what[:_MOST], ", ".join(self._suspects), len(self._waiting))
        self._waiting.clear()
        self._suspects.clear()
        self.recent.appendleft(alarm)
        self._pause = self._loop.after(_PAUSE, self._raise)
        log.warning("put back what was changed%s: %s", _circumstances(alarm), ", ".join(alarm.what))
        self._tell(alarm)


def _circumstances(alarm: Alarm) -> str:
    by = f" by {alarm.by}" if alarm.by else ""
    return by + (f", {alarm.times} times" if alarm.times > 1 else "")
