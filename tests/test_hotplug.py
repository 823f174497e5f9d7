# SPDX-License-Identifier: GPL-2.0-or-later
"""Scripts that react: called one at a time, in order, and none of them holds anything up."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from portcullis import hotplug
from portcullis.hotplug import Hotplug
from portcullis.loop import Loop

LATE = 10.0


@pytest.fixture
def loop() -> Iterator[Loop]:
    errors: list[Exception] = []
    found = Loop(errors.append)
    found.after(LATE, found.stop)
    yield found
    signal.set_wakeup_fd(-1)
    assert errors == []


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    def write(body: str) -> str:
        path = tmp_path / "hotplug-call"
        path.write_text(f"#!/bin/sh\ntold={tmp_path}/told\n{body}\n")
        path.chmod(0o755)
        return str(path)

    return write


def until(loop: Loop, path: Path, text: str) -> None:
    def look() -> None:
        if path.exists() and path.read_text() == text:
            loop.stop()
        else:
            loop.after(0.01, look)

    look()
    loop.run()
    assert path.read_text() == text


def test_calls_come_one_after_another(
    loop: Loop, tmp_path: Path, script: Callable[[str], str]
) -> None:
    """Each is slower than the next; side by side they would end the other way round."""
    calls = Hotplug(loop, script('sleep "0.$((3 - N))"; echo "$1 $N" >> "$told"'))
    for number in (1, 2, 3):
        calls.call({"N": str(number)})
    until(loop, tmp_path / "told", "portcullis 1\nportcullis 2\nportcullis 3\n")


def test_a_script_that_hangs_is_ended_with_all_it_started_and_the_next_is_called(
    loop: Loop, tmp_path: Path, script: Callable[[str], str]
) -> None:
    body = 'if [ "$N" = 1 ]; then sleep 1000 & wait; fi; echo "$N" >> "$told"'
    calls = Hotplug(loop, script(body), ends_within=0.2)
    calls.call({"N": "1"})
    calls.call({"N": "2"})
    until(loop, tmp_path / "told", "2\n")


def test_values_are_handed_on_as_they_are(
    loop: Loop, tmp_path: Path, script: Callable[[str], str]
) -> None:
    calls = Hotplug(loop, script('printf "%s" "$REASON" > "$told"'))
    calls.call({"REASON": "$(reboot) ; 'x' \" ü\n\0end"})
    until(loop, tmp_path / "told", "$(reboot) ; 'x' \" ü\nend")


def test_no_more_than_the_last_calls_wait(
    loop: Loop, tmp_path: Path, script: Callable[[str], str]
) -> None:
    calls = Hotplug(loop, script('echo "$N" >> "$told"'))
    for number in range(100):
        calls.call({"N": str(number)})
    until(loop, tmp_path / "told", "".join(f"{n}\n" for n in (0, *range(80, 100))))


def test_a_router_without_hotplug_is_none_the_worse(loop: Loop, tmp_path: Path) -> None:
    calls = Hotplug(loop, str(tmp_path / "nothing"))
    calls.call({"N": "1"})
    calls.close()


@pytest.mark.parametrize("what", ["posix_spawn", "pidfd_open"])
def test_with_no_descriptor_left_nothing_is_lost_and_nothing_called_twice(
    loop: Loop,
    tmp_path: Path,
    script: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    monkeypatch.setattr(hotplug, "_AGAIN_AFTER", 0.02)
    calls = Hotplug(loop, script('echo "$N" >> "$told"'))
    with monkeypatch.context() as exhausted:
        exhausted.setattr(os, what, Mock(side_effect=OSError(errno.EMFILE, "too many")))
        calls.call({"N": "1"})
    until(loop, tmp_path / "told", "1\n")
    calls.call({"N": "2"})
    until(loop, tmp_path / "told", "1\n2\n")


def test_closing_waits_for_nobody(loop: Loop, script: Callable[[str], str]) -> None:
    calls = Hotplug(loop, script("sleep 2"))
    began = time.monotonic()
    calls.call({"N": "1"})
    calls.close()
    assert time.monotonic() - began < 1
