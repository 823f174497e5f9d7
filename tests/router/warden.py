# SPDX-License-Identifier: GPL-2.0-or-later
"""Clears a virtual router away when whoever made it closes the pipe, or dies.

A process of its own (`warden.py OWNER STATE_DIR NETNS...`), because a test that is killed with
SIGKILL cannot clean up. Being the only way to clean up, it is exercised by every test."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

LIMIT = 10.0  # seconds for everything


def _inhabitants(paths: list[str], spared: set[int]) -> list[tuple[int, int]]:
    """(pid, pidfd) of each process in one of the namespaces."""
    wanted = set()
    for path in paths:
        with suppress(OSError):
            wanted.add(os.stat(path).st_ino)
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) in spared:
            continue
        with suppress(OSError):
            fd = os.pidfd_open(int(entry))
            # looked at only after the descriptor is held: the pid cannot be another's by now
            if os.stat(f"/proc/{entry}/ns/net").st_ino in wanted:
                found.append((int(entry), fd))
            else:
                os.close(fd)
    return found


def _clear(owner: int, state: str, names: list[str]) -> None:
    paths = [f"/run/netns/{name}" for name in names]
    deadline = time.monotonic() + LIMIT
    while found := _inhabitants(paths, {owner, os.getpid()}):
        for _pid, fd in found:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        waiting = select.poll()
        for _pid, fd in found:
            waiting.register(fd, select.POLLIN)
        left = len(found)
        while left and (rest := deadline - time.monotonic()) > 0:
            for fd, _event in waiting.poll(rest * 1000):
                waiting.unregister(fd)
                left -= 1
        for _pid, fd in found:
            os.close(fd)
        if time.monotonic() >= deadline:
            print(f"warden: {[pid for pid, _ in found]} would not die", file=sys.stderr)
            break
    batch = "".join(f"netns del {name}\n" for name in names if os.path.exists(f"/run/netns/{name}"))
    subprocess.run(["ip", "-force", "-batch", "-"], input=batch, text=True, timeout=LIMIT)
    shutil.rmtree(state, ignore_errors=True)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    print("watching", flush=True)
    sys.stdin.read()
    _clear(int(sys.argv[1]), sys.argv[2], sys.argv[3:])


if __name__ == "__main__":
    main()
