# SPDX-License-Identifier: GPL-2.0-or-later
"""One named network namespace: run programs in it, or step into it with the current thread."""

from __future__ import annotations

import ctypes
import os
import shlex
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

CLONE_NEWNET = 0x40000000
NETNS_DIR = Path("/run/netns")

_libc = ctypes.CDLL(None, use_errno=True)


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


class Namespace:
    """A named network namespace. `binds` (target path: source path) are what programs started by
    `run` and `popen` find mounted over their files, as /etc/resolv.conf or /run/wireguard."""

    def __init__(self, name: str, binds: Mapping[str, Path] | None = None) -> None:
        self.name = name
        self.path = NETNS_DIR / name
        self.binds: dict[str, Path] = dict(binds or {})

    def __repr__(self) -> str:
        return f"Namespace({self.name!r})"

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The calling thread is in the namespace. Sockets made here stay in it for good, programs
        started here inherit it (but see this process's mounts), other threads notice nothing."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            there = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _setns(there)
            finally:
                os.close(there)
            try:
                yield
            finally:
                _setns(home)
        finally:
            os.close(home)

    def socket(
        self, family: int = socket.AF_INET, kind: int = socket.SOCK_DGRAM, protocol: int = 0
    ) -> socket.socket:
        with self.inside():
            return socket.socket(family, kind, protocol)

    def command(self, argv: Sequence[str]) -> list[str]:
        """argv as a command line that runs in the namespace, with its /sys and its binds. The
        process keeps its pid through all of it (every step is an exec)."""
        prefix = ["ip", "netns", "exec", self.name]
        if self.binds:
            steps = []
            for target, source in self.binds.items():
                place = Path(os.path.realpath(target))
                if not place.exists():
                    if source.is_dir():
                        place.mkdir(parents=True)
                    else:
                        place.parent.mkdir(parents=True, exist_ok=True)
                        place.touch()
                steps.append(f"mount --bind {shlex.quote(str(source))} {shlex.quote(str(place))}")
            prefix += ["sh", "-ec", "; ".join(steps) + '; exec "$@"', "sh"]
        return [*prefix, *argv]

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        check: bool = True,
        timeout: float = 30,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end and give its output. With `check`, a failure raises with its stderr."""
        return _finish(self.command(argv), stdin, check, timeout, env)

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program. What still lives in the namespace when the router is torn down is
        killed then."""
        return subprocess.Popen(self.command(argv), **options)

    def ip(self, commands: str) -> None:
        """Lines for `ip -batch`, any error raises."""
        self._quick(["ip", "-batch", "-"], commands)

    def nft(self, rules: str) -> str:
        """Load rules in one transaction (nft -f); gives what nft printed."""
        return self._quick(["nft", "-f", "-"], rules)

    def _quick(self, argv: Sequence[str], stdin: str) -> str:
        # ip and nft care for neither /sys nor the binds; inheriting the namespace saves three execs
        with self.inside():
            return _finish(argv, stdin, True, 30, None).stdout

    def sysctl(self, settings: Mapping[str, int | str], *, optional: bool = False) -> None:
        """Set net.* values, keys relative to /proc/sys/net ("ipv4/ip_forward")."""
        with self.inside():
            for key, value in settings.items():
                try:
                    Path("/proc/sys/net", key).write_text(str(value))
                except OSError:
                    if not optional:
                        raise

    def counters(self, device: str) -> tuple[int, int]:
        """Packets received and sent by the device, (0, 0) when there is none."""
        with self.inside():
            table = Path("/proc/thread-self/net/dev").read_text()
        for line in table.splitlines():
            name, found, rest = line.partition(":")
            if found and name.strip() == device:
                fields = rest.split()
                return int(fields[1]), int(fields[9])
        return 0, 0

    def pids(self) -> list[int]:
        """Processes whose (main thread's) network namespace this is."""
        try:
            wanted = self.path.stat()
        except FileNotFoundError:
            return []
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with suppress(OSError):
                    seen = os.stat(f"/proc/{entry}/ns/net")
                    if (seen.st_ino, seen.st_dev) == (wanted.st_ino, wanted.st_dev):
                        found.append(int(entry))
        return found


def _finish(
    argv: Sequence[str],
    stdin: str | None,
    check: bool,
    timeout: float,
    env: Mapping[str, str] | None,
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        argv,
        input=stdin if stdin is not None else "",
        capture_output=True,
        text=True,
        timeout=timeout,
        env=env,
        check=False,
    )
    if check and done.returncode != 0:
        raise RuntimeError(
            f"{shlex.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return done
