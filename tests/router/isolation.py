# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole program in private namespaces, so that whatever happens, nothing is left behind."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Mapping, Sequence

MARK = "PORTCULLIS_TEST_ISOLATED"
OWN_CLOCK = "PORTCULLIS_TEST_OWN_CLOCK"
"""Set where the machine's clock is the tests' to change: in the virtual machine alone."""

_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _CAP_SYS_TIME = 23, 24, 25
_PREPARE = (
    "mount -t tmpfs -o mode=0755 tmpfs /run && mkdir -m 0755 /run/netns /run/lock"
    ' && ip link set lo up && exec "$@"'
)


def command(argv: Sequence[str], *, privileged: bool | None = None) -> list[str]:
    """argv as a command line in a private mount and network namespace with an empty /run.
    Without privileges in a user namespace too, where the caller is root."""
    if privileged is None:
        privileged = os.geteuid() == 0
    unshare = shutil.which("unshare")
    if unshare is None:
        raise RuntimeError("isolate: `unshare` (util-linux) is missing")
    flags = "-nm" if privileged else "-Urnm"
    return [unshare, flags, "--propagation", "private", "sh", "-c", _PREPARE, "sh", *argv]


def is_isolated(environ: Mapping[str, str] = os.environ) -> bool:
    return MARK in environ


def isolate() -> None:
    """Re-execute the current program under `command`, once; returns at once inside.

    From a conftest, end pytest's capture first, whose descriptors 1 and 2 are files that nobody
    reads after the exec: `pluginmanager.getplugin("capturemanager").stop_global_capturing()`."""
    if is_isolated():
        return
    if OWN_CLOCK not in os.environ:
        _give_up_the_clock()
    argv = command([sys.executable, *sys.orig_argv[1:]])
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvpe(argv[0], argv, {**os.environ, MARK: "1"})


def _give_up_the_clock() -> None:
    """No namespace covers the time of day: root in here must not be able to set it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_CAPBSET_READ, _CAP_SYS_TIME, 0, 0, 0) == 0 or os.geteuid():
        return
    if libc.prctl(_PR_CAPBSET_DROP, _CAP_SYS_TIME, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "isolate: the right to set the clock cannot be given up")
