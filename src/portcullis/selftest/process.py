# SPDX-License-Identifier: GPL-2.0-or-later
"""The self-test as the core sees it: one process at a time, its findings as they come.

The process is bounded in time and its death is told. What it was asked under must hold to its
end: where blocking begins or ends meanwhile it is stopped, and proves nothing.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from portcullis.loop import Loop, Timer
from portcullis.selftest import (
    BLOCKING,
    FAIL,
    NOT_TESTABLE,
    PASS,
    PROPERTIES,
    RUNNING,
    WAITING,
)
from portcullis.states import row

if TYPE_CHECKING:
    from portcullis.core import Core

log = logging.getLogger("portcullis")

EVENT = "portcullis.selftest"
COMMAND = (sys.executable, "-m", "portcullis.selftest")
_LASTS_AT_MOST = 30.0  # more than the process gives itself
_LINE_MOST = 1 << 16


def question(core: Core) -> dict[str, Any]:
    """What the process has to know (`Properties`)."""
    policy, state = core.policy(), row(core.state, core.settings.mode)
    return {
        "active": not policy.released,
        "meaning": state.meaning,
        "networks": policy.devices,
        "managing": core.managing_devices(),
        "served": [network.device for network in policy.served],
        "upstream": core.upstream,
        "endpoints": policy.endpoints,
        "resolving": bool(policy.resolvers),
        "differences": core.block.standing(policy),
        "egress": core.block.layers["egress_hook"] == "in force",
    }


class SelfTest:
    """`tell` broadcasts an event."""

    def __init__(
        self,
        loop: Loop,
        tell: Callable[[str, dict[str, Any]], None],
        command: tuple[str, ...] = COMMAND,
        patience: float = _LASTS_AT_MOST,
    ) -> None:
        self._loop, self._tell = loop, tell
        self._command, self._patience = command, patience
        self._pid = self._descriptor = 0
        self._deadline: Timer | None = None
        self._rest = b""
        self._active = False
        self._started = self._finished = 0.0
        self._state = self._verdict = ""
        self._properties = _blank(NOT_TESTABLE, "never tested")

    @property
    def running(self) -> bool:
        return self._pid > 0

    def start(self, asked: dict[str, Any], state: str) -> None:
        """Begin one; where one runs already, that is it."""
        if self.running:
            return
        self._state, self._active = state, asked["active"]
        self._started, self._finished = time.time(), 0.0
        self._verdict, self._rest = "", b""
        self._properties = _blank(WAITING, "")
        try:
            self._spawn(json.dumps(asked).encode())
        except OSError as error:
            self._end(f"the self-test cannot be started: {error}")
            return
        self._broadcast()

    def policy_changed(self, *, active: bool) -> None:
        """Blocking began or ended: what was asked does not hold any more."""
        if self.running and active is not self._active:
            self._stop()
            self._end("the kill switch changed meanwhile: test again")

    def result(self) -> dict[str, Any]:
        return {
            "ok": True,
            "running": self.running,
            "started": int(self._started),
            "finished": int(self._finished),
            "state": self._state,
            "verdict": self._verdict,
            "properties": [dict(entry) for entry in self._properties],
        }

    def close(self) -> None:
        """End it; nobody is told."""
        if self.running:
            self._stop()

    def _spawn(self, asked: bytes) -> None:
        question, asking = os.pipe2(os.O_CLOEXEC)
        try:
            answers, answering = os.pipe2(os.O_CLOEXEC)
        except OSError:
            os.close(question)
            os.close(asking)
            raise
        actions = [(os.POSIX_SPAWN_DUP2, question, 0), (os.POSIX_SPAWN_DUP2, answering, 1)]
        try:
            # It must not wait for us, nor we for it: a question that does not fit is none.
            os.set_blocking(asking, False)
            os.write(asking, asked)
            self._pid = os.posix_spawn(
                self._command[0],
                self._command,
                dict(os.environ),
                file_actions=actions,
                setsigdef=[signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGALRM],
            )
        except OSError:
            os.close(answers)
            raise
        finally:
            for descriptor in (question, asking, answering):
                os.close(descriptor)
        os.set_blocking(answers, False)
        self._descriptor = answers
        self._loop.add(answers, self._readable)
        self._deadline = self._loop.after(self._patience, self._takes_too_long)

    def _readable(self) -> None:
        data = os.read(self._descriptor, _LINE_MOST)
        *lines, self._rest = (self._rest + data).split(b"\n")
        broken = not data or len(self._rest) > _LINE_MOST
        for line in lines:
            try:
                self._note(json.loads(line))
            except (ValueError, LookupError, TypeError):
                broken = True
        if broken:
            self._stop()
            self._end("the self-test ended early; the log may say why")

    def _note(self, found: dict[str, Any]) -> None:
        entry = next(e for e in self._properties if e["property"] == found["property"])
        entry.update({key: found[key] for key in ("result", "detail", "sent", "seen")})
        if found["result"] != RUNNING:
            self._broadcast()

    def _takes_too_long(self) -> None:
        self._deadline = None
        self._stop()
        self._end("the self-test took too long and was ended")

    def _stop(self) -> None:
        """Also where it has ended: what it made is gone with it."""
        if self._deadline:
            self._deadline.cancel()
        pid, descriptor = self._pid, self._descriptor
        self._pid = self._descriptor = 0  # whatever of the rest is refused
        self._loop.remove(descriptor)
        os.close(descriptor)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):  # the bus library reaps every child
            os.waitpid(pid, 0)

    def _end(self, reason: str) -> None:
        """`reason` is for what has not been tested."""
        for entry in self._properties:
            if entry["result"] in (WAITING, RUNNING):
                entry.update({"result": NOT_TESTABLE, "detail": reason})
        self._finished = time.time()
        self._verdict = verdict(self._properties)
        failed = [
            f"{e['property']}: {e['detail']}" for e in self._properties if e["result"] == FAIL
        ]
        for line in failed:
            log.error("self-test: %s", line)
        log.info("self-test: %s", self._verdict)
        self._broadcast()

    def _broadcast(self) -> None:
        self._tell(EVENT, self.result())


def verdict(properties: list[dict[str, Any]]) -> str:
    """One failure is enough; without any proof that something is blocked nothing is passed."""
    results = {entry["property"]: entry["result"] for entry in properties}
    if FAIL in results.values():
        return FAIL
    return PASS if any(results[name] == PASS for name in BLOCKING) else NOT_TESTABLE


def _blank(result: str, detail: str) -> list[dict[str, Any]]:
    return [
        {"property": name, "title": title, "result": result, "detail": detail, "sent": 0, "seen": 0}
        for name, title in PROPERTIES.items()
    ]
