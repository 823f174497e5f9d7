# SPDX-License-Identifier: GPL-2.0-or-later
"""The page's certificate where it cannot be had for a moment: nobody is asked for his password in
plain HTTP because of that, and it is had as soon as it can be."""

from __future__ import annotations

import errno
import os
import signal
import ssl
import subprocess
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from portcullis.door import certificate
from portcullis.web.__main__ import Web

UI = Path(__file__).parent.parent / "www/ui"
EXHAUSTED = OSError(errno.EMFILE, "Too many open files")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    cert, key = folder / "uhttpd.crt", folder / "uhttpd.key"
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=x"
    command = [*made.split(), "-days", "9", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


@pytest.fixture
def web(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The process without a loop that turns; the core hands out `pair`, as a file of that date."""
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)}
    found: Any = Web(Namespace(ubus="/nowhere", ui=UI, name=[]))
    found.stamp = "1/1"

    def call(_name: str, method: str, _arguments: object) -> dict[str, Any]:
        if method == "certificate":
            return certificate(*pair)
        return {"ok": True, "devices": [], "port": 8443, "certificate": found.stamp}

    found.bus.call = call
    yield found
    signal.set_wakeup_fd(-1)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("whose", ["core", "web"])
@pytest.mark.parametrize("before", [False, True])
def test_a_certificate_that_cannot_be_had_for_a_moment_is_had_later(
    web: Any, monkeypatch: pytest.MonkeyPatch, whose: str, before: bool
) -> None:
    if before:
        web._look()
        web.stamp = "2/2"
    tls = web.server.tls
    assert (tls is not None) is before
    with monkeypatch.context() as exhausted:
        if whose == "core":
            exhausted.setattr(Path, "read_bytes", Mock(side_effect=EXHAUSTED))
        else:
            exhausted.setattr(os, "memfd_create", Mock(side_effect=EXHAUSTED))
        web._look()
    assert web.server.tls is tls, "what there was stays"
    web._look()
    assert isinstance(web.server.tls, ssl.SSLContext)
    assert web.server.tls is not tls


def test_a_look_that_fails_is_not_the_last(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    after = Mock()
    monkeypatch.setattr(web.loop, "after", after)
    monkeypatch.setattr(web._listeners, "follow", Mock(side_effect=MemoryError))
    with pytest.raises(MemoryError):
        web._look()
    assert after.call_args[0][1] == web._look
