# SPDX-License-Identifier: GPL-2.0-or-later
"""Scripts that react: /etc/hotplug.d/portcullis/ is called at every transition.

One call at a time and in order, so that a script never sees the past after the present. The
core waits for none of them; one that hangs is ended, and the next is called.
"""

from __future__ import annotations

import logging
import os
import signal
from collections import deque
from collections.abc import Mapping
from contextlib import suppress

from portcullis.loop import Deferred, Loop, Timer

log = logging.getLogger("portcullis")

PROGRAM = "/sbin/hotplug-call"
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_ENDS_WITHIN = 30.0
_MOST_WAITING = 20
_AGAIN_AFTER = 1.0


class Hotplug:
    """Calls OpenWrt's `hotplug-call portcullis`; does nothing where there is none."""

    def __init__(self, loop: Loop, program: str = PROGRAM, ends_within: float = _ENDS_WITHIN):
        self._loop, self._program, self._ends_within = loop, program, ends_within
        self._waiting: deque[dict[str, str]] = deque(maxlen=_MOST_WAITING)
        self._running: tuple[int, int, Timer] | None = None  # pid, pidfd, its time's end
        self._again = Deferred(loop, self._next)

    def call(self, variables: Mapping[str, str]) -> None:
        """Call the scripts with `variables` in their environment, after those before."""
        # A NUL cannot stand in an environment; everything else is the script's to quote.
        self._waiting.append({name: value.replace("\0", "") for name, value in variables.items()})
        self._next()

    def close(self) -> None:
        """Wait for none; what runs may end by itself."""
        self._waiting.clear()
        self._again.cancel()
        if self._running:
            self._collected()

    def _next(self) -> None:
        if self._running or not self._waiting:
            return
        environment = {"PATH": _PATH, **self._waiting[0]}
        try:
            # A session of its own, so that whatever a hanging script started ends with it.
            pid = os.posix_spawn(
                self._program, [self._program, "portcullis"], environment, setsid=True
            )
            self._waiting.popleft()
            descriptor = os.pidfd_open(pid)
        except (FileNotFoundError, PermissionError) as error:
            log.debug("%s: %s", self._program, error.strerror)
            self._waiting.clear()  # there is nothing to call
            return
        except OSError as error:  # no descriptor or memory at the moment
            log.warning("%s: %s", self._program, error.strerror)
            self._again.within(_AGAIN_AFTER)
            return
        deadline = self._loop.after(self._ends_within, self._end)
        self._running = (pid, descriptor, deadline)
        self._loop.add(descriptor, self._ended)

    def _end(self) -> None:
        assert self._running
        log.warning("a script in /etc/hotplug.d/portcullis took too long and was ended")
        with suppress(ProcessLookupError):
            os.killpg(self._running[0], signal.SIGKILL)

    def _ended(self) -> None:
        assert self._running
        with suppress(ChildProcessError):  # the bus library reaps every child
            os.waitpid(self._running[0], 0)
        self._collected()
        self._next()

    def _collected(self) -> None:
        assert self._running
        _, descriptor, deadline = self._running
        self._running = None
        deadline.cancel()
        self._loop.remove(descriptor)
        os.close(descriptor)
