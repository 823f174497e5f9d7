# SPDX-License-Identifier: GPL-2.0-or-later
"""Goes on in the background: who waits for the program gets its exit code, and it stays."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType


def divide() -> Callable[[int], None]:
    """From here on the program runs in a session of its own; the caller waits for it until what
    is returned here is called with an exit code. Interrupting the waiting one ends both."""
    read, write = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child:
        os.close(write)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: os.kill(child, signal.SIGTERM))
        code = os.read(read, 1)  # nothing, where it died
        os._exit(code[0] if code else 1)
    os.close(read)
    os.setsid()
    signal.signal(signal.SIGTERM, _interrupted)
    # Whoever reads what we say must see its end with the exit code, so nothing that is started
    # here may inherit these.
    sys.stdout, sys.stderr = (os.fdopen(os.dup(ours), "w", buffering=1) for ours in (1, 2))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)

    def release(code: int) -> None:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno(), inheritable=False)
        os.write(write, bytes([code]))
        os.close(write)

    return release


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
