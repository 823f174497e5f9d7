# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts and stops a bus with everything on it, stand-in or real."""

import ctypes
import ctypes.util
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .context import Context
from .wire import Status, decode, encode, status_text

MODULE_DIR = Path(__file__).resolve().parent
"""What goes on PYTHONPATH so that `import ubus` finds the stand-in."""
PLUGINS = MODULE_DIR.parents[2] / "files/usr/share/rpcd/ucode"
"""Ours, which a real rpcd runs as it does on a router."""
_LOGIN = """
config login
	option username 'root'
	option password '$p$root'
	list read '*'
	list write '*'

"""
_UNAUTHENTICATED = {"unauthenticated": {"read": {"ubus": {"session": ["access", "login"]}}}}


class NotReal(RuntimeError):
    """The real programs are wanted and not there."""


def real_wanted() -> bool:
    return os.environ.get("PORTCULLIS_REAL_UBUS") == "1"


def _real_program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise NotReal(f"PORTCULLIS_REAL_UBUS=1, but there is no `{name}` on PATH")
    return path


def _check_real_module() -> None:
    spec = importlib.util.find_spec("ubus")
    if spec is None or (spec.origin and Path(spec.origin).parent == MODULE_DIR):
        raise NotReal("PORTCULLIS_REAL_UBUS=1, but `import ubus` does not find python-ubus")


class Bus:
    """Everything of a bus in one directory:

    `ubus.sock`, `config/` (/etc/config), `tmp-uci/` (/tmp/.uci), `run-rpcd/` (/var/run/rpcd),
    `acl.d/` (ubusd's), `rpcd-acl.d/` (rpcd's), `interfaces.json`, `board.json` if there is one.
    A program has to be up within `patience` seconds.
    """

    patience = 20.0

    def __init__(
        self,
        directory: Path,
        *,
        prefix: Sequence[str] = (),
        users: Mapping[str, str] | None = None,
        interfaces: Mapping[str, Any] | None = None,
        services: Mapping[str, Path] | None = None,
    ) -> None:
        """`prefix` goes before each program's command line (`ip netns exec router`, say).

        `users`: passwords by name, "" lets anybody in (the default for root, as after flashing).
        `interfaces`: what `network.interface dump` answers. `services`: pid files by service.
        """
        self.real = real_wanted()
        self.directory = directory
        self.socket = directory / "ubus.sock"
        self.config_dir = directory / "config"
        self.save_dir = directory / "tmp-uci"
        self.run_dir = directory / "run-rpcd"
        self.acl_dir = directory / "acl.d"
        self.rpcd_acl_dir = directory / "rpcd-acl.d"
        self.interfaces = directory / "interfaces.json"
        self.board = directory / "board.json"
        self._prefix = list(prefix)
        self._users = {"root": ""} if users is None else dict(users)
        self._services = dict(services or {})
        self._broker: subprocess.Popen[bytes] | None = None
        self._others: list[subprocess.Popen[bytes]] = []
        self._lay_out(interfaces)

    def _lay_out(self, interfaces: Mapping[str, Any] | None) -> None:
        for path in (self.config_dir, self.acl_dir, self.rpcd_acl_dir):
            path.mkdir(parents=True, exist_ok=True)
        for path in (self.save_dir, self.run_dir):
            path.mkdir(mode=0o700, exist_ok=True)
        if not (self.config_dir / "rpcd").exists():
            (self.config_dir / "rpcd").write_text(_LOGIN)
        if not any(self.rpcd_acl_dir.iterdir()):
            text = json.dumps(_UNAUTHENTICATED)
            (self.rpcd_acl_dir / "unauthenticated.json").write_text(text)
        if interfaces is not None or not self.interfaces.exists():
            self.interfaces.write_text(json.dumps(interfaces or {"interface": []}))

    # Life and death

    def start(self) -> None:
        if self.real:
            _check_real_module()
        self.start_broker()
        self.start_others()

    def stop(self) -> None:
        self.stop_others()
        self.stop_broker()

    def start_broker(self) -> None:
        self.socket.unlink(missing_ok=True)
        if self.real:
            command = [_real_program("ubusd"), "-s", str(self.socket), "-A", str(self.acl_dir)]
        else:
            program = str(MODULE_DIR / "broker.py")
            command = [sys.executable, program, str(self.socket), "--acl-dir", str(self.acl_dir)]
        self._broker = self._spawn(command)
        self._await(self._broker, self._answers)

    @property
    def broker_pid(self) -> int:
        """0 while it does not run."""
        return self._broker.pid if self._broker else 0

    def stop_broker(self) -> None:
        if self._broker:
            _end(self._broker)
            self._broker = None

    def start_others(self) -> None:
        """rpcd, procd, netifd; to be called anew after the broker was started anew."""
        if self.real:
            rpcd = self._spawn(["sh", "-c", self._real_rpcd()])
            self._others.append(rpcd)
            self._await(rpcd, lambda: self._has("session") and self._has("uci"))
        command = [sys.executable, str(MODULE_DIR / "rpcd.py"), "--socket", str(self.socket)]
        command += ["--interfaces", str(self.interfaces)]
        for service, pid_file in self._services.items():
            command += ["--service", f"{service}={pid_file}"]
        if self.board.exists():
            command += ["--board", str(self.board)]
        command += ["--without-rpcd"] if self.real else self._rpcd_options()
        rpcd = self._spawn(command)
        self._others.append(rpcd)
        self._await(rpcd, lambda: self._has("standin"))

    def stop_others(self) -> None:
        for process in reversed(self._others):
            _end(process)
        self._others.clear()

    def _rpcd_options(self) -> list[str]:
        users = self.directory / "users"
        users.write_text("".join(f"{name}:{text}\n" for name, text in self._users.items()))
        return [
            *("--config-dir", str(self.config_dir), "--save-dir", str(self.save_dir)),
            *("--run-dir", str(self.run_dir), "--users", str(users)),
            *("--acl-dir", str(self.rpcd_acl_dir)),
        ]

    def _real_rpcd(self) -> str:
        """rpcd's paths are fixed, so it gets a mount namespace in which they lead here."""
        program = Path(_real_program("rpcd"))
        shadow = self.directory / "shadow"
        shadow.write_text(
            "".join(f"{name}:{_crypt(text)}:1:0:99999:7:::\n" for name, text in self._users.items())
        )
        shadow.chmod(0o600)
        mounts = {
            Path("/etc/config"): self.config_dir,
            Path("/tmp/.uci"): self.save_dir,
            Path("/var/run/rpcd"): self.run_dir,
            Path("/etc/shadow"): shadow,
            Path("/usr/share/rpcd/acl.d"): self.rpcd_acl_dir,
            Path("/usr/share/rpcd/ucode"): PLUGINS,
            Path("/var/run/ubus"): self.directory,  # plugins connect where ubusd always is
        }
        for target in mounts:
            if target.name != "shadow":
                target.mkdir(parents=True, exist_ok=True)
        lines = [
            shlex.join(["mount", "--bind", str(source.resolve()), str(target)])
            for target, source in mounts.items()
        ]
        lines.append(shlex.join(["exec", str(program), "-s", str(self.socket.resolve())]))
        inner = " && ".join(lines)
        return shlex.join(["exec", "unshare", "-m", "--propagation", "private", "sh", "-c", inner])

    def _spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*self._prefix, *command], stdin=subprocess.DEVNULL)

    def _await(self, process: subprocess.Popen[bytes], ready: Any) -> None:
        end = time.monotonic() + self.patience
        while not ready():
            if process.poll() is not None:
                raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
            if time.monotonic() > end:
                _end(process)
                raise TimeoutError(f"{process.args!r} did not come up in {self.patience:.0f} s")
            time.sleep(0.002)

    def _answers(self) -> bool:
        try:
            Context(str(self.socket)).close()
        except OSError:
            return False
        return True

    def _has(self, name: str) -> bool:
        context = Context(str(self.socket))
        try:
            return context.lookup_ident(name)[0] == Status.OK
        finally:
            context.close()

    # For tests

    def environment(self) -> dict[str, str]:
        """An environment in which `import ubus` finds the module that fits this bus."""
        environment = dict(os.environ)
        if not self.real:
            known = environment.get("PYTHONPATH")
            paths = [str(MODULE_DIR), *([known] if known else [])]
            environment["PYTHONPATH"] = os.pathsep.join(paths)
        return environment

    def call(
        self,
        name: str,
        method: str,
        arguments: Mapping[str, Any] | None = None,
        timeout: int = 5000,
    ) -> list[dict[str, Any]]:
        """Calls over a connection of its own, without python-ubus's limits."""
        context = Context(str(self.socket))
        answers: list[bytes] = []
        try:
            status, ident = context.lookup_ident(name)
            if not status:
                data = encode(arguments or {})
                status = context.invoke(ident, method, data, timeout, answers.append)
        finally:
            context.close()
        if status:
            raise CallFailed(name, method, status)
        return [decode(answer) for answer in answers]

    def send(self, event: str, data: Mapping[str, Any]) -> None:
        context = Context(str(self.socket))
        try:
            status = context.send_event(event, encode(data))
        finally:
            context.close()
        if status:
            raise CallFailed("event", event, status)

    def interface_event(self, interface: str, action: str) -> None:
        """Broadcasts `ifup` or `ifdown`, and marks the interface so."""
        self.call("standin", "interface_event", {"interface": interface, "action": action})

    def service_events(self) -> list[dict[str, Any]]:
        """What `service event` was told so far, `config.change` above all."""
        events: list[dict[str, Any]] = self.call("standin", "service_events")[0]["events"]
        return events


class CallFailed(RuntimeError):
    def __init__(self, name: str, method: str, status: int) -> None:
        super().__init__(f"{name} {method}: {status_text(status)}")
        self.status = status


def _crypt(password: str) -> str:
    if not password:
        return ""
    library = ctypes.CDLL(ctypes.util.find_library("crypt") or "libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    hashed: bytes = library.crypt(password.encode(), b"$5$portcullis$")
    return hashed.decode()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def running(directory: Path, **options: Any) -> Iterator[Bus]:
    """A started `Bus`; the options are its."""
    bus = Bus(directory, **options)
    try:
        bus.start()
        yield bus
    finally:
        bus.stop()
