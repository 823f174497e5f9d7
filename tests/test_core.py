# SPDX-License-Identifier: GPL-2.0-or-later
"""The core, where something of ours is broken half-way through a change of state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from portcullis import core as module
from portcullis.bus import BusError
from portcullis.core import Core
from portcullis.driver import DriverError
from portcullis.intent import Intent, save
from portcullis.loop import Loop
from portcullis.paths import Paths
from portcullis.states import Event, State

pytestmark = pytest.mark.usefixtures("namespace")


class NoBus:
    up = False

    def connect(self) -> None: ...

    def call(self, *_arguments: object) -> dict[str, Any]:
        raise BusError("there is none")

    def send(self, *_event: object) -> None: ...

    def close(self) -> None: ...


class NoTunnel:
    implementation = ""

    def start(self, *_arguments: object) -> None:
        raise DriverError("there is none")

    def reading(self) -> None: ...

    def stop(self) -> None: ...


class Broken:
    """Whoever is told of a change of state, and breaks `times` times."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self, *_transition: object) -> None:
        self.left -= 1
        if self.left >= 0:
            raise RuntimeError("broken part")


def wait(loop: Loop, seconds: float, done: Callable[[], bool]) -> None:
    """Run the loop until `done`, which must hold within `seconds`."""

    def look() -> None:
        if done():
            loop.stop()
        else:
            loop.after(0.01, look)

    late = loop.after(seconds, loop.stop)
    loop.after(0, look)
    loop.run()
    late.cancel()
    assert done()


@pytest.mark.parametrize("times", [0, 1, 3])
def test_what_breaks_half_way_is_carried_out_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    monkeypatch.setattr(module, "_REPAIR_AFTER", 0.02)
    paths = Paths(tmp_path / "home", tmp_path / "run", tmp_path / "share")
    paths.run.mkdir()
    save(paths.intent, Intent(True, "vpn1"))
    parts: Any = (NoBus(), NoTunnel(), paths, Broken(0), lambda _alarm: None)
    loop = Loop(lambda error: core.recover(error))
    core = Core(loop, *parts)
    core.start()
    assert core.state is State.CONNECTING
    core._on_transition = Broken(times)
    core.happen(Event.DISCONNECT, "the owner disconnected")
    assert ("internal error" in core.faults) == bool(times)
    wait(loop, 10, lambda: core.state is State.NOT_CONNECTED)
    wait(loop, 10, lambda: "internal error" not in core.faults)
    core.shutdown()
