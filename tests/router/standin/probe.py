# SPDX-License-Identifier: GPL-2.0-or-later
"""What the stand-in's tests share: buses to ask, and programs that use the module `ubus`."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .bus import Bus, CallFailed, running
from .context import Context
from .wire import Status

PRELUDE = """
import json, os, signal, subprocess, sys, time, ubus
def out(*values): print(json.dumps(values), flush=True)
def attempt(function, *args, **kwargs):
    try: return function(*args, **kwargs)
    except Exception as error: return [type(error).__name__, str(error)]
SOCKET = {socket!r}
ubus.connect(SOCKET)
"""


@contextmanager
def open_directory() -> Iterator[Path]:
    """One in which users without privileges can reach the socket."""
    with tempfile.TemporaryDirectory(prefix="standin-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def shared_bus() -> Iterator[Bus]:
    with open_directory() as directory, running(directory) as bus:
        yield bus


@pytest.fixture
def bus(shared_bus: Bus) -> Iterator[Bus]:
    """The bus with a fresh, empty configuration `test` and nothing staged."""
    (shared_bus.config_dir / "test").write_text("")
    yield shared_bus
    for path in shared_bus.save_dir.iterdir():
        path.unlink()


@pytest.fixture
def own_bus(tmp_path: Path) -> Iterator[Bus]:
    """A bus the test may break."""
    with running(tmp_path) as bus:
        yield bus


class Program:
    """A Python program on the bus; what it hands to `out` are the lines here."""

    def __init__(self, bus: Bus, code: str) -> None:
        text = PRELUDE.replace("{socket!r}", repr(str(bus.socket))) + code
        self.process = subprocess.Popen(
            [sys.executable, "-c", text],
            env=bus.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> Any:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline() or '["ended"]')

    def go_on(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self) -> tuple[list[Any], str]:
        output, errors = self.process.communicate(timeout=20)
        return [json.loads(line) for line in output.splitlines()], errors


@contextmanager
def program(bus: Bus, code: str) -> Iterator[Program]:
    """Runs beside the test, once it has said `out("ready")`."""
    running_program = Program(bus, code)
    try:
        assert running_program.line() == ["ready"]
        yield running_program
    finally:
        running_program.process.kill()
        running_program.process.communicate()


def run(bus: Bus, code: str) -> list[Any]:
    lines, errors = Program(bus, code).finish()
    assert not errors, errors
    return lines


def context(bus: Bus) -> Context:
    return Context(str(bus.socket))


def status_of(bus: Bus, name: str, method: str, arguments: dict[str, Any]) -> int:
    try:
        bus.call(name, method, arguments)
    except CallFailed as error:
        return error.status
    return Status.OK
