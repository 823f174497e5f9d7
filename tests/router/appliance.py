# SPDX-License-Identifier: GPL-2.0-or-later
"""Portcullis on the virtual router: the bus, OpenWrt's services on it, and the daemon."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from portcullis import sections

from . import addresses as at
from .ownership import delete_table
from .standin import netifd
from .standin.bus import Bus
from .standin.context import Call, Context
from .standin.wire import decode
from .topology import VirtualRouter

SOURCE = Path(__file__).resolve().parents[2] / "src"
FILES = SOURCE.parent / "files"
DEFAULT_CONFIG = FILES / "etc/config/portcullis"
SHARE = FILES / "usr/share/portcullis"
UI = SOURCE.parent / "www/ui"
RIGHTS = SOURCE.parent / "files/usr/share/rpcd/acl.d/portcullis.json"
WEB_PORT = 8443
PATIENCE = 20.0

_FIREWALL = """
config zone 'lan'
	option name 'lan'
	list network 'lan'
	option input 'ACCEPT'
	option output 'ACCEPT'
	option forward 'ACCEPT'

config zone 'guest'
	option name 'guest'
	list network 'guest'
	option input 'REJECT'
	option output 'ACCEPT'
	option forward 'REJECT'

config zone 'wan'
	option name 'wan'
	list network 'wan'
	list network 'wan6'
	option input 'REJECT'
	option output 'ACCEPT'
	option forward 'DROP'
	option masq '1'
	option mtu_fix '1'
"""
_FORWARDINGS = "".join(
    f"\nconfig forwarding\n\toption src '{source}'\n\toption dest 'wan'\n"
    for source in ("lan", "guest")
)


class Appliance:
    """A router with Portcullis on it, off until `start`. Use inside `with`.

    `world` is the router and what is around it, `home` the daemon's /etc/portcullis.
    `answers_within` are seconds; an emulated machine needs more.
    """

    answers_within = 5

    def __init__(
        self,
        *,
        config: str | None = None,
        users: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        self.world = VirtualRouter(**options)
        self._config = DEFAULT_CONFIG.read_text() if config is None else config
        self._users = users
        self.daemon: subprocess.Popen[bytes] | None = None
        self.web: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Appliance:
        with ExitStack() as undo:
            undo.enter_context(self.world)
            state = self.world.state
            self.home, self.run_dir, self.log = state / "home", state / "run", state / "core.log"
            self.hotplug = state / "hotplug-call"
            self.certificate, self.key = state / "uhttpd.crt", state / "uhttpd.key"
            self.web_log = state / "web.log"
            (self.home / "profiles").mkdir(parents=True)
            self.bus = Bus(
                state / "bus",
                prefix=self.world.router.command([]),
                users=self._users,
                interfaces=interfaces(),
                services={"dnsmasq": self.world.dnsmasq.pidfile},
            )
            (self.bus.config_dir / "portcullis").write_text(self._config)
            routes = installed("firewall") + forwardings("lan", "guest")
            (self.bus.config_dir / "firewall").write_text(_FIREWALL + _FORWARDINGS + routes)
            (self.bus.config_dir / "network").write_text(installed("network"))
            for server in self.world.vpn_servers:
                self.add_profile(server.name, server.profile())
            shutil.copy(RIGHTS, self.bus.rpcd_acl_dir)
            undo.callback(self.bus.stop)
            self.bus.start()
            undo.callback(self._end)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and self.log.exists():
            sys.stderr.write(f"--- the daemon's log\n{self.log.read_text()[-8000:]}\n")
        self._undo.close()

    def add_profile(self, name: str, text: str) -> Path:
        path = self.home / "profiles" / f"{name}.conf"
        path.write_text(text)
        return path

    # The web page

    def start_web(self, *, prefix: Sequence[str] = (), wait: bool = True) -> None:
        """Start the web process; the page is to be had when this returns, unless told not to
        wait."""
        command = [*prefix, sys.executable, "-m", "portcullis.web", "--ubus", str(self.bus.socket)]
        with self.web_log.open("ab") as log:
            told = log.tell()
            self.web = self.world.router.popen(
                [*command, "--ui", str(UI)],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        # Knocking again and again would use up the connections that fw4 lets a device begin.
        if wait:
            self.until(lambda: self._web_listens(told), "the web page is to be had")

    def stop_web(self) -> None:
        assert self.web
        self.web.terminate()
        self.web.wait(5)

    def make_certificate(self) -> None:
        """As uhttpd's init script does: the certificate in DER, the key in PEM (openssl)."""
        command = ["openssl", "req", "-x509", "-sha256", "-outform", "der", "-nodes"]
        command += ["-days", "3", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        command += ["-subj", "/CN=OpenWrt", "-keyout", str(self.key)]
        subprocess.run([*command, "-out", str(self.certificate)], check=True, capture_output=True)

    def _web_listens(self, told: int) -> bool:
        text = self.web_log.read_bytes()[told:]
        assert self.web
        assert self.web.poll() is None, f"the web ended:\n{text.decode()[-4000:]}"
        return b"INFO: listening on" in text

    # The daemon

    def start(self, *, wait: bool = True, environment: Mapping[str, str] | None = None) -> None:
        """Start the daemon; it answers on the bus when this returns, unless told not to wait."""
        command = [
            *(sys.executable, "-m", "portcullis", "--debug", "--ubus", str(self.bus.socket)),
            *("--home", str(self.home), "--run", str(self.run_dir)),
            *("--certificate", str(self.certificate), "--key", str(self.key)),
            *("--share", str(SHARE), "--hotplug", str(self.hotplug)),
        ]
        with self.log.open("ab") as log:
            self.daemon = self.world.router.popen(
                command,
                env={**self.environment(), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        if wait:
            self.until(self.answers, "the daemon answers")

    def stop(self) -> None:
        """As procd ends a service: SIGTERM, and SIGKILL five seconds later."""
        assert self.daemon
        self.daemon.terminate()
        try:
            self.daemon.wait(5)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()
            raise AssertionError("the daemon does not end at SIGTERM") from None

    def kill(self) -> None:
        """kill -9."""
        assert self.daemon
        self.daemon.kill()
        self.daemon.wait()

    def delete_table(self, table: str) -> None:
        """Delete a table of the daemon's (family and name), though only the daemon may."""
        assert self.daemon
        delete_table(self.world.router, self.daemon.pid, table)

    def environment(self) -> dict[str, str]:
        found = self.bus.environment()
        found["PYTHONPATH"] = os.pathsep.join(
            [str(SOURCE), *([found["PYTHONPATH"]] if found.get("PYTHONPATH") else [])]
        )
        return found

    def ctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run portcullisctl on the router."""
        command = [sys.executable, "-m", "portcullis.ctl", "--ubus", str(self.bus.socket)]
        return self.world.router.run(
            [*command, *arguments], check=check, env=self.environment(), timeout=60
        )

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Call the daemon's ubus object."""
        timeout = self.answers_within * 1000
        (answer,) = self.bus.call("portcullis", method, arguments, timeout=timeout)
        return answer

    def status(self) -> dict[str, Any]:
        return self.call("status")

    @property
    def state(self) -> str:
        return str(self.status()["state"])

    def answers(self) -> bool:
        try:
            self.status()
        except (OSError, RuntimeError):
            assert self.daemon
            assert self.daemon.poll() is None, f"the daemon died:\n{self.log.read_text()[-4000:]}"
            return False
        return True

    def until(self, done: Callable[[], object], what: str, patience: float = PATIENCE) -> float:
        """Wait until `done()` holds; the seconds it took."""
        began = time.monotonic()
        while not done():
            if time.monotonic() - began > patience:
                raise AssertionError(f"not within {patience:.0f} s: {what}")
            time.sleep(0.01)
        return time.monotonic() - began

    def until_state(self, *states: str, patience: float = PATIENCE) -> float:
        """Wait for one of `states`; the seconds it took."""
        return self.until(lambda: self.state in states, f"state {' or '.join(states)}", patience)

    def connect(self, profile: str = "vpn1") -> None:
        answer = self.call("connect", profile=profile)
        assert answer["ok"], answer
        self.until_state("connected")

    def connect_to(self, profile: str) -> None:
        """Change the profile, and wait until the new one is in use."""
        assert self.call("connect", profile=profile)["ok"]

        def there() -> bool:
            found = self.status()
            return bool(found["state"] == "connected" and found["profile"] == profile)

        self.until(there, f"connected to {profile}")

    def disconnect(self) -> None:
        answer = self.call("disconnect")
        assert answer["ok"], answer
        self.until_state("not_connected")

    @contextmanager
    def events(
        self, name: str = "portcullis.state"
    ) -> Iterator[Callable[[], list[dict[str, Any]]]]:
        """Inside, calling it gives the events of this name broadcast so far."""
        context = Context(str(self.bus.socket))
        seen: list[dict[str, Any]] = []

        def note(_call: Call, data: bytes) -> int:
            seen.append(decode(data))
            return 0

        def gather() -> list[dict[str, Any]]:
            context.handle_data()
            return seen

        try:
            status, _ = context.listen(name, note)
            assert not status
            yield gather
        finally:
            context.close()

    def _end(self) -> None:
        for process in (self.web, self.daemon):
            if process and process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()


def installed(config: str) -> str:
    """What the package's installation adds to a configuration, as UCI's files have it."""
    return _written(sections.parse((SHARE / f"{config}.uci").read_text()))


def forwardings(*zones: str) -> str:
    """The forwardings into the tunnel that the installation adds."""
    return _written(sections.forwardings(zones))


def _written(found: Iterable[sections.Section]) -> str:
    text = ""
    for section in found:
        text += f"\nconfig {section.type} '{section.name}'\n"
        for option, value in section.options.items():
            kind, values = ("list", value) if isinstance(value, list) else ("option", [value])
            text += "".join(f"\t{kind} {option} '{one}'\n" for one in values)
    return text


def interfaces() -> dict[str, Any]:
    """What netifd's `network.interface dump` says of the virtual router."""
    empty = ("dns-server", "dns-search", "neighbors", "ipv6-prefix", "ipv6-prefix-assignment")

    def one(name: str, device: str, v4: list[str], v6: list[str], gateways: list[str]) -> Any:
        return {
            **{key: [] for key in empty},
            **{"interface": name, "up": True, "pending": False, "available": True},
            **{"autostart": True, "dynamic": False, "uptime": 35, "proto": "static"},
            **{"l3_device": device, "device": device, "metric": 0, "dns_metric": 0},
            "ipv4-address": [{"address": a, "mask": 24} for a in v4],
            "ipv6-address": [{"address": a, "mask": 64} for a in v6],
            "route": [
                {"target": "::" if ":" in g else "0.0.0.0", "mask": 0, "nexthop": g, "source": ""}
                for g in gateways
            ],
            "inactive": {**{key: [] for key in empty}, "route": []},
            "data": {},
        }

    lan, guest, wan = at.ROUTER_LAN, at.ROUTER_GUEST, at.ROUTER_WAN
    return {
        "interface": [
            one("lan", at.LAN_BRIDGE, [lan.v4], [lan.v6, lan.ula], []),
            one("guest", at.GUEST_BRIDGE, [guest.v4], [guest.v6], []),
            one("wan", at.WAN_DEVICE, [wan.v4], [], [at.ISP.v4]),
            one("wan6", at.WAN_DEVICE, [], [wan.v6], [at.ISP.v6]),
            netifd.down("portcullis"),
        ]
    }
