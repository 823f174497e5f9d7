# SPDX-License-Identifier: GPL-2.0-or-later
"""One thread, one selector: descriptors, timers and signals."""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import signal
import time
from collections.abc import Callable
from types import FrameType

Callback = Callable[[], None]


class Timer:
    """A call to come; `cancel` it or let it happen once."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callback) -> None:
        self.when = when
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        self.callback = None


class Deferred:
    """A call that several ask for: it comes once, at the soonest of the times asked for."""

    def __init__(self, loop: Loop, callback: Callback) -> None:
        self._loop, self._callback = loop, callback
        self._timer: Timer | None = None

    def within(self, seconds: float) -> None:
        """Have it come so many seconds from now at the latest."""
        if self._timer is None or time.monotonic() + seconds < self._timer.when:
            self.cancel()
            self._timer = self._loop.after(seconds, self._come)

    def cancel(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _come(self) -> None:
        self._timer = None
        self._callback()


class Pace:
    """How long work has to wait that is done again and again (`with` it): not at all as long as
    `burst` seconds of it are not exceeded, then half of the time it rests."""

    def __init__(self, burst: float) -> None:
        self._burst = burst
        self._began = self._rested = 0.0

    def wait(self) -> float:
        """Seconds from now until it may be done."""
        return max(0.0, self._rested - self._burst - time.monotonic())

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_exception: object) -> None:
        took = time.monotonic() - self._began
        self._rested = max(self._rested, self._began) + 2 * took


class Loop:
    """Calls back when a descriptor is ready, a time has come or a signal was sent.

    An exception in a callback goes to `on_error`, and the loop goes on: one broken part must
    not take the others with it.
    """

    def __init__(self, on_error: Callable[[Exception], None]) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._signals: dict[int, Callback] = {}
        self._pending: list[int] = []
        self._running = False
        self._on_error = on_error
        self._wake, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self.add(self._wake, self._signalled)

    def add(self, descriptor: int, callback: Callback) -> None:
        """Call back whenever `descriptor` is readable or hung up."""
        self._selector.register(descriptor, selectors.EVENT_READ, callback)

    def remove(self, descriptor: int) -> None:
        """Forget a descriptor; to be called before it is closed."""
        self._selector.unregister(descriptor)

    def after(self, seconds: float, callback: Callback) -> Timer:
        """Call back once, `seconds` from now."""
        timer = Timer(time.monotonic() + seconds, callback)
        heapq.heappush(self._timers, (timer.when, next(self._order), timer))
        return timer

    def on_signal(self, number: int, callback: Callback) -> None:
        """Call back, from the loop, after a signal."""
        self._signals[number] = callback
        signal.signal(number, self._note)

    def run(self) -> None:
        """Until `stop`."""
        self._running = True
        while self._running:
            for key, _ in self._selector.select(self._due_in()):
                # One that was removed by another's callback has nothing to say any more.
                if self._selector.get_map().get(key.fd) is key:
                    self._call(key.data)
            self._run_timers()

    def stop(self) -> None:
        self._running = False

    def _due_in(self) -> float | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if timer.callback is not None:
                callback, timer.callback = timer.callback, None
                self._call(callback)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._pending.append(number)

    def _signalled(self) -> None:
        os.read(self._wake, 4096)
        while self._pending:
            self._call(self._signals[self._pending.pop(0)])

    def _call(self, callback: Callback) -> None:
        try:
            callback()
        except Exception as error:
            self._on_error(error)
