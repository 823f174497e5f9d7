# SPDX-License-Identifier: GPL-2.0-or-later
"""From the threads that answer browsers to the one thread that may speak ubus (platform.md)."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from portcullis.bus import Bus, BusError
from portcullis.loop import Loop
from portcullis.rights import OBJECT

_PATIENCE = 8.0
Reply = dict[str, Any]


class Bridge:
    def __init__(self, loop: Loop, bus: Bus) -> None:
        self._bus = bus
        self._jobs: deque[Callable[[], None]] = deque()
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        loop.add(self._read, self._run)

    def post(self, job: Callable[[], None]) -> None:
        """Have the loop do `job`, from any thread."""
        self._jobs.append(job)
        with suppress(BlockingIOError):  # a full pipe wakes as well
            os.write(self._write, b"\0")

    def core(self, method: str, **arguments: Any) -> Reply:
        """Ask the core, from a thread that is not the loop's. Raises BusError."""
        return self.call(OBJECT, method, arguments)

    def call(self, name: str, method: str, arguments: Reply) -> Reply:
        """Ask anybody, from a thread that is not the loop's. Raises BusError."""
        answered = threading.Event()
        found: list[Reply] = []
        failed: list[BusError] = []

        def ask() -> None:
            try:
                found.append(self._bus.call(name, method, arguments))
            except BusError as error:
                failed.append(error)
            finally:
                answered.set()

        self.post(ask)
        if not answered.wait(_PATIENCE):
            raise BusError("the router is too busy to answer")
        if failed:
            raise failed[0]
        if not found:
            raise BusError("no answer came")
        return found[0]

    def _run(self) -> None:
        os.read(self._read, 4096)
        while self._jobs:
            self._jobs.popleft()()
