# SPDX-License-Identifier: GPL-2.0-or-later
"""The connection to ubus, kept alive in the core's loop.

python-ubus has one context per process, gives no descriptor and says nothing when ubusd dies
(platform.md). So the descriptor is found by comparing /proc/self/fd, its hang-up is the sign of
ubusd's end, and we connect again until it is back. For a ubusd that hangs the library would wait
for ever, whatever time-out it is given: so we knock before anything is asked. The block does not
care.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from portcullis.loop import Loop, Timer

SOCKET = "/var/run/ubus/ubus.sock"
_TIMEOUT_MS = 2000
_AGAIN_AFTER = 1.0
_REST = 4.0  # after a time-out: whoever hangs must not hold up the core again and again
_GREETS_WITHIN = 0.5
_HUNG_UP = select.POLLHUP | select.POLLERR | select.POLLRDHUP

Methods = dict[str, dict[str, Any]]
"""Method → {"method": callable(handler, arguments), "signature": {argument: blobmsg type}}."""


class BusError(Exception):
    """A call failed; `status` is ubus's own word for it, or empty where there is no bus."""

    def __init__(self, reason: str, status: str = "") -> None:
        super().__init__(reason)
        self.status = status


class Bus:
    """`on_up` is called after each connection, when objects and listeners are registered."""

    def __init__(
        self,
        loop: Loop,
        path: str,
        objects: Callable[[Any], dict[str, Methods]],
        listeners: dict[str, Callable[[dict[str, Any]], None]],
        on_up: Callable[[], None],
        rest: float = _REST,
    ) -> None:
        self._loop, self._path = loop, path
        self._objects, self._listeners, self._on_up = objects, listeners, on_up
        self._ubus: Any = None
        self._descriptor = -1
        self._timer: Timer | None = None
        self._rest = rest
        self._resting_until = self._hangs_until = 0.0
        self._unanswered = ""
        self.problem = "not connected to ubus yet"

    @property
    def up(self) -> bool:
        return self._ubus is not None

    def connect(self) -> None:
        """Connect now, or say in `problem` why not and keep trying."""
        try:
            import ubus
        except ImportError as error:
            self._failed(f"python-ubus is not installed (package python3-ubus): {error}")
            return
        try:
            before = _descriptors()
            _knock(self._path)
            ubus.connect(self._path)
        except (OSError, RuntimeError) as error:
            self._failed(f"cannot reach ubusd: {str(error).strip()}")
            return
        try:
            for name, methods in self._objects(ubus).items():
                ubus.add(name, methods)
            if self._listeners:
                ubus.listen(*((name, self._listener(name)) for name in self._listeners))
            self._descriptor = _new_socket(before)
        except (OSError, RuntimeError, SystemError) as error:
            self._failed(f"ubusd refused our objects: {error}")
            with suppress(OSError, RuntimeError):  # of what is half made not all can be closed
                ubus.disconnect(False)
            return
        self._ubus, self.problem = ubus, ""
        self._loop.add(self._descriptor, self._readable)
        self._soon()
        self._on_up()

    def call(self, name: str, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """The answer of a method, {} where it gives none. Raises BusError."""
        if self._ubus is None:
            raise BusError(self.problem)
        if time.monotonic() < self._resting_until:
            raise BusError(f"{self._unanswered}; not waited for again yet")
        if problem := self._silent():
            raise BusError(problem)
        try:
            answers = self._ubus.call(name, method, arguments, _TIMEOUT_MS)
        except (OSError, RuntimeError, TypeError, SystemError) as error:
            text = str(error)
            silent = "timed out" in text
            status = text.partition("occured: ")[2] or ("No object" if "not found" in text else "")
            text = f"ubus call {name} {method}: {text}"
            if name in ("uci", "session") and (silent or status == "No object"):
                text = f"{text.rstrip('.')}. Is rpcd hanging? service rpcd restart"
            if silent:
                self._resting_until, self._unanswered = time.monotonic() + self._rest, text
            raise BusError(text, status) from None
        finally:
            self._soon()
        return answers[0] if answers and isinstance(answers[0], dict) else {}

    def send(self, event: str, data: dict[str, Any]) -> None:
        """Broadcast an event; nobody is told where there is no bus."""
        if self._ubus is not None and not self._silent():
            try:
                self._ubus.send(event, data)
            except (OSError, RuntimeError, TypeError):
                return
            finally:
                self._soon()

    def _silent(self) -> str:
        """Why ubusd would not answer, or nothing; one that hangs is left alone for a while."""
        if time.monotonic() < self._hangs_until:
            return "ubusd hangs"
        try:
            _knock(self._path)
        except TimeoutError:
            self._hangs_until = time.monotonic() + self._rest
            return "ubusd hangs"
        except OSError as error:
            return f"ubusd cannot be reached: {error}"
        return ""

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._drop()

    def _listener(self, name: str) -> Callable[[str, Any], None]:
        handle = self._listeners[name]
        return lambda _event, data: handle(data if isinstance(data, dict) else {})

    def _readable(self) -> None:
        self._pump()
        if self._ubus is not None and self._hung_up():
            self._drop()
            self._failed("ubusd has gone")

    def _soon(self) -> None:
        """Requests that came while we waited for an answer are in user space already: the
        descriptor stays silent about them."""
        self._loop.after(0, self._pump)

    def _pump(self) -> None:
        if self._ubus is not None:
            self._ubus.loop(0)

    def _hung_up(self) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLRDHUP)
        return any(events & _HUNG_UP for _, events in poll.poll(0))

    def _drop(self) -> None:
        if self._ubus is not None:
            self._loop.remove(self._descriptor)
            self._ubus.disconnect(False)
            self._ubus = None

    def _failed(self, problem: str) -> None:
        self.problem = problem
        self._timer = self._loop.after(_AGAIN_AFTER, self.connect)


def _knock(path: str) -> None:
    """Make sure that ubusd greets. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_GREETS_WITHIN)
        probe.connect(path)
        if not probe.recv(1):
            raise OSError("it hung up")


def _descriptors() -> set[str]:
    """What is open, without the descriptor by which it is listed: its number is the next one's."""
    names = os.listdir("/proc/self/fd")
    return {name for name in names if os.path.lexists(f"/proc/self/fd/{name}")}


def _new_socket(before: set[str]) -> int:
    for name in sorted(_descriptors() - before, key=int):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                return int(name)
        except OSError:
            continue
    raise OSError("python-ubus opened no socket")
