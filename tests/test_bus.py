# SPDX-License-Identifier: GPL-2.0-or-later
"""The connection to ubus is tried again, whatever keeps it from being made."""

from __future__ import annotations

import resource
import socket
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


def test_a_library_that_opens_nothing_but_its_socket_is_connected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[socket.socket] = []
    library = SimpleNamespace(
        connect=lambda _path: opened.append(socket.socket()), loop=lambda _timeout: None
    )
    monkeypatch.setitem(sys.modules, "ubus", library)
    monkeypatch.setattr(module, "_knock", lambda _path: None)
    bus = Bus(Loop(lambda _error: None), "", lambda _ubus: {}, {}, lambda: None)
    bus.connect()
    assert bus.up, bus.problem
    assert bus._descriptor == opened[0].fileno()
    opened[0].close()


def test_it_is_connected_again_though_what_was_half_made_cannot_be_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries: list[str] = []

    def disconnect(_deregister: bool) -> None:
        raise OSError(9, "Bad file descriptor")

    library = SimpleNamespace(connect=tries.append, disconnect=disconnect)
    monkeypatch.setitem(sys.modules, "ubus", library)
    monkeypatch.setattr(module, "_knock", lambda _path: None)
    monkeypatch.setattr(module, "_AGAIN_AFTER", 0.01)
    errors: list[Exception] = []
    loop = Loop(errors.append)
    bus = Bus(loop, "", lambda _ubus: {}, {}, lambda: None)
    loop.after(0, bus.connect)
    loop.after(0.2, loop.stop)
    loop.run()
    assert "opened no socket" in bus.problem
    assert len(tries) > 1
    assert not errors
