# SPDX-License-Identifier: GPL-2.0-or-later
"""The connection to ubus is tried again, whatever keeps it from being made."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from portcullis import bus as module
from portcullis.bus import Bus
from portcullis.loop import Loop


def test_a_bus_that_comes_back_while_nothing_can_be_opened_is_found_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AGAIN_AFTER", 0.05)
    monkeypatch.setitem(sys.modules, "ubus", SimpleNamespace())
    errors: list[Exception] = []
    loop = Loop(errors.append)
    bus = Bus(loop, str(tmp_path / "ubus.sock"), lambda _ubus: {}, {}, lambda: None)
    problems: list[str] = []
    limit = resource.RLIMIT_NOFILE
    soft, hard = resource.getrlimit(limit)
    bus.connect()
    try:
        resource.setrlimit(limit, (3, hard))
        loop.after(0.2, lambda: problems.append(bus.problem))
        loop.after(0.2, lambda: resource.setrlimit(limit, (soft, hard)))
        loop.after(0.4, loop.stop)
        loop.run()
    finally:
        resource.setrlimit(limit, (soft, hard))
    assert "Too many open files" in problems[0]
    assert "No such file" in bus.problem
    assert not errors
