# SPDX-License-Identifier: GPL-2.0-or-later
"""A router's root file system: what the package installs at its own paths, the host's programs
under it, and stand-ins for what OpenWrt has: uci, rc.common, logger and ubus.

Scripts run in a chroot, by the shell of one's choice. With busybox every program is busybox's
that it has, as on a router. With PORTCULLIS_REAL_UCI=PATH that uci is used, and not the stand-in.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from portcullis.policy import CLOSED
from portcullis.ruleset import render

from .namespace import Namespace

FILES = Path(__file__).resolve().parents[2] / "files"
PACKAGE = FILES.parent / "package/portcullis"
SHELLS = ("dash", "busybox")
STANDIN = Path(__file__).parent / "standin"
_FOLDERS = (
    *("bin", "dev", "etc/config", "lib", "proc", "sbin", "stand-in", "sys", "tmp/run", "tmp/lock"),
    *("usr/lib", "usr/share", "var"),
)
_DEVICES = ("null", "zero", "full", "random", "urandom")
# What OpenWrt's busybox brings, of what our scripts use; Debian's has all of it but flock.
_APPLETS = (
    *("basename", "cat", "chmod", "cmp", "cp", "cut", "find", "flock", "grep", "head", "ip"),
    *("kill", "killall", "ls", "mkdir", "mktemp", "mv", "printf", "readlink", "rm", "rmdir"),
    *("sed", "sleep", "sort", "sync", "tr"),
)
_HERE, _END = b"here", b"end"
# With processes of its own alone: some of these scripts end what they find.
_IN_CHROOT = 'mount -t proc proc "$1/proc" && mount -t sysfs sysfs "$1/sys" && exec chroot "$@"'
_ALONE = ("unshare", "-m", "-p", "-f", "--kill-child", "sh", "-c", _IN_CHROOT, "sh")
# Neither the packages' __init__ nor the site: each call is a process.
UCI = """#!/usr/bin/python3 -ISB
import sys, types
package = types.ModuleType("standin")
package.__path__ = ["/stand-in/python"]
sys.modules["standin"] = package
from standin.uci import run
sys.exit(run(sys.argv[1:]))
"""
_UBUS = '#!/bin/sh\necho "$@" >> /tmp/ubus\n[ ! -e /tmp/ubus-dead ]\n'

NETWORK = """
config interface 'loopback'
	option device 'lo'
	option proto 'static'
	list ipaddr '127.0.0.1/8'

config device
	option name 'br-lan'
	option type 'bridge'
	list ports 'lan1'

config interface 'lan'
	option device 'br-lan'
	option proto 'static'
	list ipaddr '192.168.1.1/24'

config interface 'wan'
	option device 'eth1'
	option proto 'dhcp'
"""
FIREWALL = """
config defaults
	option input 'REJECT'

config zone
	option name 'lan'
	list network 'lan'
	option input 'ACCEPT'

config zone
	option name 'wan'
	list network 'wan'
	option input 'REJECT'
	option masq '1'

config forwarding
	option src 'lan'
	option dest 'wan'
"""


# What netifd makes of the sections in files/usr/share/portcullis/network.uci: lines for `ip`.
NETIFD4 = """
rule add pref 800 lookup 706
rule add pref 830 not from all fwmark 0x50430000/0x7fff0000 lookup 707
route add unreachable default table 707 metric 2147483647
"""
NETIFD6 = """
rule add pref 800 lookup 706
rule add pref 810 to fe80::/10 lookup main
rule add pref 830 not from all fwmark 0x50430000/0x7fff0000 lookup 707
rule add pref 831 not from all fwmark 0x50430000/0x7fff0000 unreachable
"""


class RootFilesystem:
    """Use inside `with`. `shell` is who runs the scripts, one of SHELLS."""

    package = PACKAGE

    def __init__(self, shell: str = "dash") -> None:
        self._shell = shell

    def __enter__(self) -> RootFilesystem:
        self.root = Path(tempfile.mkdtemp(prefix="root-"))
        self._mounted: list[Path] = []
        for folder in _FOLDERS:
            self.path(folder).mkdir(parents=True)
        self._mount("--rbind", Path("/usr"), self.path("host"))
        for folder in ("bin", "sbin", "lib64"):
            self.path("usr", folder).symlink_to(f"/host/{folder}")
        for folder in ("lib", "usr/lib"):
            for library in Path("/usr/lib").iterdir():
                self.path(folder, library.name).symlink_to(f"/host/lib/{library.name}")
        self.path("lib64").symlink_to("host/lib64")
        self.path("bin/sh").symlink_to(f"/host/bin/{self._shell}")
        for folder in ("run", "lock"):
            self.path("var", folder).symlink_to(f"/tmp/{folder}")
        for name in ("protocols", "services"):
            shutil.copy(Path("/etc", name), self.path("etc", name))
        self.path("etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        self.path("etc/group").write_text("root:x:0:\n")
        for name in _DEVICES:
            self.path("dev", name).touch()
            self._mount("--bind", Path("/dev", name), self.path("dev", name))
        self._syslog = _Syslog(self.path("dev/log"))
        self.install()
        self._mount("--rbind", STANDIN, self.path("stand-in/python"))
        self.path("etc/rc.common").write_text((STANDIN / "rc_common.sh").read_text())
        self.program("sbin/uci", UCI)
        if real := os.environ.get("PORTCULLIS_REAL_UCI"):
            self._bring_uci(real)
        self.program("stand-in/ubus", _UBUS)
        for name in ("network", "firewall", "rpcd"):
            self.program(f"etc/init.d/{name}", f'#!/bin/sh\necho {name} "$@" >> /tmp/services\n')
        if self._shell == "busybox":
            listed = subprocess.run(
                ["busybox", "--list"], check=True, capture_output=True, text=True
            )
            for applet in set(_APPLETS) & set(listed.stdout.split()):
                self.path("stand-in", applet).symlink_to("/host/bin/busybox")
        self.config("network", NETWORK)
        self.config("firewall", FIREWALL)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._syslog.close()
        for place in reversed(self._mounted):
            subprocess.run(["umount", "-l", place], check=True)
        # Never through to the host's own files.
        assert str(self.root) not in Path("/proc/self/mountinfo").read_text()
        shutil.rmtree(self.root)

    def path(self, *parts: str) -> Path:
        return self.root.joinpath(*(part.lstrip("/") for part in parts))

    def program(self, name: str, text: str) -> None:
        self.path(name).write_text(text)
        self.path(name).chmod(0o755)

    def config(self, name: str, text: str | None = None) -> str:
        """A configuration's text, or a new one."""
        if text is not None:
            self.path("etc/config", name).write_text(text)
        return self.path("etc/config", name).read_text()

    def install(self) -> None:
        """Put the package's files where they belong."""
        for folder in ("etc", "usr/share"):
            shutil.copytree(FILES / folder, self.path(folder), dirs_exist_ok=True)
        self.path("usr/share/portcullis/table.nft").write_text(render(CLOSED))

    def uninstall(self) -> None:
        """Take them away, as a package manager does; what was made since stays."""
        for file in FILES.rglob("*"):
            place = self.path(str(file.relative_to(FILES)))
            if file.is_file() and "config" not in file.parts and "bin" not in file.parts:
                place.unlink(missing_ok=True)
        self.path("usr/share/portcullis/table.nft").unlink()

    def run(
        self,
        *argv: str,
        space: Namespace | None = None,
        check: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in it, in a network namespace or where the caller is."""
        settings = {"PATH": "/stand-in:/usr/sbin:/usr/bin:/sbin:/bin", **(env or {})}
        inside = ["env", "-i", *(f"{key}={value}" for key, value in settings.items()), *argv]
        command = [*_ALONE, str(self.root), *inside]
        if space is not None:
            return space.run(command, check=check, timeout=60)
        return subprocess.run(command, check=check, text=True, capture_output=True, timeout=60)

    @contextmanager
    def network(self) -> Iterator[Namespace]:
        """An empty network namespace, for as long as it is needed."""
        space = Namespace(f"{self.root.name}")
        subprocess.run(["ip", "netns", "add", space.name], check=True)
        try:
            yield space
        finally:
            subprocess.run(["ip", "netns", "del", space.name], check=True)

    def script(self, text: str, **options: object) -> subprocess.CompletedProcess[str]:
        return self.run("/bin/sh", "-c", text, **options)  # type: ignore[arg-type]

    def log(self) -> str:
        """What was logged."""
        return self._syslog.text

    def told(self, name: str) -> str:
        """What `ubus`, `procd` or the `services` were told, a line a call."""
        file = self.path("tmp", name)
        return file.read_text() if file.exists() else ""

    def _bring_uci(self, program: str) -> None:
        listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True)
        self.path("uci").mkdir()
        for file in (program, *re.findall(r"=> (\S+)", listed.stdout)):
            shutil.copy(file, self.path("uci"))
        self.program("sbin/uci", '#!/bin/sh\nLD_LIBRARY_PATH=/uci exec /uci/uci "$@"\n')

    def _mount(self, how: str, source: Path, target: Path) -> None:
        if source.is_dir():
            target.mkdir(parents=True)
        subprocess.run(["mount", how, source, target], check=True)
        self._mounted.append(target)


class _Syslog:
    """What is said to /dev/log: a line a message, priority and time left out."""

    def __init__(self, path: Path) -> None:
        self._text = ""
        self._path, self._reached = path, threading.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        """Everything that was said before this was asked."""
        self._reached.clear()
        self._send(_HERE)
        assert self._reached.wait(5)
        return self._text

    def close(self) -> None:
        self._send(_END)
        self._thread.join(5)
        self._socket.close()

    def _send(self, message: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(message, str(self._path))

    def _listen(self) -> None:
        while (message := self._socket.recv(65536)) != _END:
            if message == _HERE:
                self._reached.set()
                continue
            _, _, said = message.decode(errors="replace").partition("portcullis: ")
            self._text += said.rstrip("\n\0") + "\n"
