# SPDX-License-Identifier: GPL-2.0-or-later
"""The time of day where nobody keeps it: routers have no battery-backed clock (K13).

WireGuard's server refuses every handshake that is not later than the last one it saw, and
certificates have a first day. So the time of the newest handshake is remembered in /etc as a
file's date, by which OpenWrt's `sysfixtime` sets the clock at boot, as it does by all others there.
It is written at most once in `EVERY` seconds, for the flash's sake: after a power cut the newest
handshake may have been that much later than what is remembered.

The clock is touched only where a server does not answer and time may be the reason: forward,
never back, and in small steps, so that it hardly gets ahead of the true time. NTP goes through the
tunnel and puts it right. No traffic leaves outside the tunnel for the time's sake.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger("portcullis")

EVERY = 300.0
STEP = 60.0


def _set(seconds: float) -> None:
    time.clock_settime(time.CLOCK_REALTIME, seconds)


class Clock:
    """`lasting` is the file whose date is remembered. `passing` is one that a reboot forgets: it
    has the date of the newest handshake since, and its being there shows that the clock serves."""

    def __init__(
        self,
        lasting: Path,
        passing: Path,
        now: Callable[[], float] = time.time,
        set_to: Callable[[float], None] = _set,
    ) -> None:
        self._lasting, self._passing, self._now, self._set = lasting, passing, now, set_to
        self._remembered, self._newest = _date(lasting), _date(passing)
        self._handshake = 0.0
        self._seen_at = 0.0
        self._refused = ""

    @property
    def handshake_age(self) -> float | None:
        """Seconds since the newest handshake was seen, however the clock was set meanwhile."""
        return time.monotonic() - self._seen_at if self._handshake else None

    def shaken(self, handshake: float) -> None:
        """A server answered: `handshake` is when, by this clock (UNIX seconds)."""
        if handshake in (0.0, self._handshake):
            return
        self._handshake, self._seen_at = handshake, time.monotonic()
        first = not self._newest
        self._newest = max(self._newest, handshake)
        _touch(self._passing, self._newest)
        if first or not self._remembered <= handshake < self._remembered + EVERY:
            self._remember()

    def unanswered(self) -> None:
        """No server answered: where the last one may have seen a later time than this, step."""
        now, known = self._now(), max(self._remembered, self._newest)
        if now <= known:
            self._step(known + 1)
        elif not self._newest and now < (latest := known + EVERY + STEP):
            self._step(min(now + STEP, latest))

    def close(self) -> None:
        """The end, by a reboot perhaps: what is known to the second need not be guessed then."""
        if self._handshake:
            self._remember()

    def _step(self, wanted: float) -> None:
        late = wanted - self._now()
        try:
            self._set(wanted)
        except (OSError, OverflowError, ValueError) as error:
            if str(error) != self._refused:
                log.warning("the clock is late and cannot be set: %s", error)
            self._refused = str(error)
            return
        log.warning(
            "the clock may be late, so that no server listens: set forward by %.0f s to %s UTC",
            late,
            time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(wanted)),
        )

    def _remember(self) -> None:
        now = self._now()
        if _touch(self._lasting, now):
            self._remembered = now


class Moment(NamedTuple):
    """A point in time, by the clock of that moment and by one that is never set."""

    wall: float
    monotonic: float

    @classmethod
    def now(cls) -> Moment:
        return cls(time.time(), time.monotonic())

    @property
    def shown(self) -> float:
        """When it was, by the clock as it is now (UNIX seconds)."""
        since_set = (time.time() - time.monotonic()) - (self.wall - self.monotonic)
        return self.wall + (since_set if abs(since_set) > 1 else 0.0)


def _touch(path: Path, seconds: float) -> bool:
    """Date a file; whether that was possible."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            os.utime(descriptor, (seconds, seconds))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except (OSError, OverflowError) as error:
        log.info("the time of a handshake is not remembered: %s", error)
        return False
    return True


def _date(path: Path) -> float:
    """The remembered time; 0.0 where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
