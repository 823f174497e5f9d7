# SPDX-License-Identifier: GPL-2.0-or-later
"""A router on which things are done to Portcullis while every way out is watched.

Beside the line there is a phone whose end of the cable lies ready to be plugged in: a second way
out that a capture can watch from before it appears.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from portcullis.states import TABLE, Event, State

from . import addresses as at
from . import dns, upkeep
from .appliance import WEB_PORT, Appliance
from .capture import Capture
from .frame import Frame
from .judge import Allowed, Endpoint, Verdict, judge
from .upkeep import PHONE_FAR, PHONE_ROUTER, RENUMBERED, SPARE

FRIENDLY = list(at.FRIENDLY.addresses)
PHONE_MAC = "02:00:5e:00:53:40"
PHONE_DEVICE = "phone"
SSH_PORT = 22
RECOVERS_WITHIN = 45.0
ANSWERS_WITHIN = 10.0  # the page's process looks every two seconds where it is to be had
_ENDPOINTS = [Endpoint(a) for host in at.VPN_SERVERS for a in host.addresses]
ON_THE_LINE = Allowed.of(*_ENDPOINTS).at(*RENUMBERED.addresses)
BY_PHONE = Allowed(frozenset(_ENDPOINTS), wan=frozenset(PHONE_ROUTER.addresses), mac=PHONE_MAC)
_OWN_RULES = range(800, 832)
_WENT = re.compile(r"INFO: (\w+) -> (\w+)(?:: |$)", re.MULTILINE)
_OWNERS = (Event.DISCONNECT,)


class Outside:
    """Captures behind both ways out. Frames are judged as contract.md says."""

    def __init__(self, line: Capture, phone: Capture) -> None:
        self._line, self._phone = line, phone

    def flush(self) -> None:
        self._line.flush()
        self._phone.flush()

    @property
    def frames(self) -> list[Frame]:
        return self._line.frames + self._phone.frames

    def verdict(self) -> Verdict:
        """Of all that has been seen by now; while the captures run, `flush` first."""
        found = judge(self._line.frames, ON_THE_LINE)
        other = judge(self._phone.frames, BY_PHONE)
        return Verdict(found.leaks + other.leaks, found.passed + other.passed)


class Scene:
    """Use inside `with`; the daemon runs in it, and its web page."""

    def __init__(self, appliance: Appliance) -> None:
        self.appliance, self.world = appliance, appliance.world
        self._spoilt: dict[Path, str] = {}
        self._told = 0

    def __enter__(self) -> Scene:
        with ExitStack() as undo:
            self.appliance.start()
            self.appliance.start_web()
            home = self.appliance.world.vpn1.profile(at.LAN_A.v4)
            self.appliance.add_profile("home", home)  # a server inside the house: refused untried
            self._lay_phone()
            self._ssh = self.world.router.socket(socket.AF_INET6, socket.SOCK_STREAM)
            undo.callback(self._ssh.close)
            self._ssh.bind(("::", SSH_PORT))
            self._ssh.listen()
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._undo.close()

    def _lay_phone(self) -> None:
        far = "".join(
            f"addr add {a}/{64 if ':' in a else 24} dev {PHONE_DEVICE}\n"
            for a in PHONE_FAR.addresses
        )
        self.world.isp.ip(
            f"link add name {SPARE} address {PHONE_MAC} type veth peer name {PHONE_DEVICE}\n"
            f"link set {PHONE_DEVICE} up\n{far}"
        )
        # Its addresses stay when the cable is pulled, as a phone's do.
        self.world.isp.sysctl({f"ipv6/conf/{PHONE_DEVICE}/keep_addr_on_down": 1})

    @contextmanager
    def outside(self) -> Iterator[Outside]:
        with (
            Capture(self.world.isp, self.world.access) as line,
            Capture(self.world.isp, PHONE_DEVICE, megabytes=16) as phone,
        ):
            yield Outside(line, phone)

    # The owner

    @property
    def bus_lives(self) -> bool:
        """Whether ubusd runs and is not stopped: whoever greets one that is waits for ever."""
        pid = self.appliance.bus.broker_pid
        return bool(pid) and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][1] != "T"

    def announce(self, interface: str) -> None:
        """netifd says that an interface has come up, if it can."""
        with suppress(OSError, RuntimeError):
            if self.bus_lives:
                self.appliance.bus.interface_event(interface, "ifup")

    def tell(self, method: str, **arguments: Any) -> None:
        """The owner's command, to a daemon that may be dead or deaf at the moment."""
        with suppress(OSError, RuntimeError):
            if self.bus_lives:
                self.appliance.bus.call("portcullis", method, arguments, timeout=1000)

    def status(self) -> dict[str, Any] | None:
        """None where nobody answers."""
        if not self.bus_lives:
            return None
        try:
            (found,) = self.appliance.bus.call("portcullis", "status", {}, timeout=1000)
        except (OSError, RuntimeError):
            return None
        return found

    # What has to hold

    def put_right(self) -> None:
        """Whatever was done to the rest of the router is over. For the daemon that must do."""
        appliance = self.appliance
        # Rules first: without that of the main table no gateway is found, and no route is taken.
        for part in (upkeep.bus, upkeep.rules, upkeep.wan, upkeep.lan, upkeep.firewall):
            part(appliance)
        upkeep.provider(appliance)
        upkeep.processes(appliance)
        self.restore_files()

    def spoil(self, path: Path, text: str) -> None:
        """Something nonsensical in the place of a file, until `restore_files`."""
        self._spoilt.setdefault(path, path.read_text())
        path.write_text(text)
        self.tell("reload")

    def restore_files(self) -> None:
        for path, text in self._spoilt.items():
            path.write_text(text)
        if self._spoilt:
            self._spoilt.clear()
            self.tell("reload")
        with suppress(OSError):  # an obstacle in the way of the intent
            (self.appliance.home / ".intent.new").rmdir()

    def answers_the_house(self) -> str:
        """K14: what of the router does not answer its own network, empty where all does. The
        page is asked for where its process lives."""
        lan, router = self.world.lana, at.ROUTER_LAN
        missing = []
        for address in (router.v4, router.v6):
            if lan.run(["ping", "-c1", "-W1", address], check=False).returncode:
                missing.append(f"ping {address}")
        if not self._resolves(f"{at.LAN_A.name}.lan", at.LAN_A.v4):
            missing.append("a local name")
        if missing:  # fw4 takes 25 connections in a second: none for what is asked again anyway
            return ", ".join(missing)
        web = self.appliance.web
        assert web
        for port in (SSH_PORT, *(() if web.poll() is not None else (WEB_PORT,))):
            with lan.socket(socket.AF_INET, socket.SOCK_STREAM) as knock:
                knock.settimeout(1)
                if knock.connect_ex((router.v4, port)):
                    missing.append(f"port {port}")
        with suppress(BlockingIOError):
            self._ssh.setblocking(False)
            while True:  # those of earlier questions as well, or its queue is full some day
                self._ssh.accept()[0].close()
        return ", ".join(missing)

    def _resolves(self, name: str, address: str) -> bool:
        ident = secrets.randbelow(0x10000)
        with self.world.lana.socket() as asked:
            asked.settimeout(1)
            asked.connect((at.ROUTER_LAN.v4, 53))
            try:
                asked.send(dns.query(ident, name, dns.A))
                return address in dns.parse(asked.recv(4096)).answers
            except OSError:
                return False

    def await_the_house(self) -> None:
        missing = ["?"]

        def answered() -> bool:
            missing[0] = self.answers_the_house()
            return not missing[0]

        try:
            self.appliance.until(answered, "the house is answered", ANSWERS_WITHIN)
        except AssertionError:
            raise AssertionError(f"the router does not answer its house: {missing[0]}") from None

    def not_whole(self) -> str:
        """What is left behind or out of order, empty where nothing is."""
        found = self.status()
        if found is None:
            return "the daemon does not answer"
        wrong = list(found["faults"])
        if found["kill_switch"]["active"] and not found["kill_switch"]["verified"]:
            wrong.append("the block is not verified")
        if (self.appliance.run_dir / "last-resort").exists():
            wrong.append("the last resort is still taken")
        tables = self.world.router.run(["nft", "list", "tables"]).stdout.splitlines()
        wrong += [line for line in tables if "portcullis_" in line]
        wrong += self._stray_rules(bool(found["kill_switch"]["active"]))
        if found["kill_switch"]["active"] and not self.blocks_twice():
            wrong.append("a layer of the block is not whole")
        return "; ".join(wrong)

    def _stray_rules(self, active: bool) -> list[str]:
        expected = {"-4": [800, 830], "-6": [800, 810, 830, 831]}
        if not active:
            expected["-6"].insert(2, 820)
        wrong = []
        for family, priorities in expected.items():
            lines = self.world.router.run(["ip", family, "rule"]).stdout.splitlines()
            numbers = sorted(int(line.partition(":")[0]) for line in lines)
            ours = [number for number in numbers if number in _OWN_RULES]
            if ours != priorities:
                wrong.append(f"ip {family} rule has {ours}")
        return wrong

    def blocks_twice(self) -> bool:
        """Whether both layers stand, as far as their own part is concerned."""
        router = self.world.router
        table = router.run(["nft", "list", "table", "inet", "portcullis"], check=False).stdout
        foreign = [line for line in table.splitlines() if line.strip() == "accept"]
        last = [
            router.run(["ip", family, "route", "show", "table", "707"], check=False).stdout
            for family in ("-4", "-6")
        ]
        guarded = all("unreachable default" in routes for routes in last)
        return bool(table) and not foreign and guarded and not self._stray_rules(True)

    def hooked(self) -> bool:
        """Whether the WAN device has the egress hook, as far as there is one."""
        table = ["nft", "list", "table", "netdev", "portcullis"]
        found = self.world.router.run(table, check=False)
        return bool(found.returncode) or at.WAN_DEVICE in found.stdout

    def descriptors(self) -> int:
        assert self.appliance.daemon
        return len(os.listdir(f"/proc/{self.appliance.daemon.pid}/fd"))

    def await_state(self, *states: str, patience: float = RECOVERS_WITHIN) -> float:
        """Wait for one of the states with everything in order; the seconds it took."""
        last = ["nobody answers"]

        def there() -> bool:
            found = self.status()
            last[0] = f"{found['state']}: {found['reason']}" if found else "nobody answers"
            if found is None or found["state"] not in states:
                return False
            last[0] = self.not_whole()
            return not last[0]

        try:
            return self.appliance.until(there, "", patience)
        except AssertionError:
            wanted = " or ".join(states)
            raise AssertionError(
                f"not {wanted} and in order within {patience:.0f} s: {last[0]}"
            ) from None

    # The state table

    def forget_transitions(self) -> None:
        self._told = self.appliance.log.stat().st_size

    def transitions(self) -> list[tuple[State, State]]:
        """What the daemon logged of them since `forget_transitions`."""
        with self.appliance.log.open("rb") as log:
            log.seek(self._told)
            text = log.read().decode(errors="replace")
        return [(State(old), State(new)) for old, new in _WENT.findall(text)]

    def against_the_table(self, *, owner_disconnects: bool = False) -> list[str]:
        """Transitions that no event leads to, or none but the owner's word."""
        events = [e for e in Event if owner_disconnects or e not in _OWNERS]
        if not owner_disconnects:  # nor does anything lead out of what is never entered
            lifted = (State.NOT_CONNECTED, State.DISCONNECTING)
            edges = {
                (old, TABLE[old, e].state)
                for old in State
                for e in events
                if TABLE[old, e].state not in lifted
            }
        else:
            edges = {(old, TABLE[old, e].state) for old in State for e in events}
        return [f"{old} -> {new}" for old, new in self.transitions() if (old, new) not in edges]


@contextmanager
def staged(appliance: Appliance | None = None) -> Iterator[Scene]:
    """A scene on a router of its own."""
    with appliance or Appliance() as found, Scene(found) as scene:
        yield scene


class Stage:
    """Hands out one scene again and again, and after a failure on it a new one."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._scene: Scene | None = None

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    @contextmanager
    def use(self) -> Iterator[Scene]:
        if self._scene is None:
            self._scene = self._stack.enter_context(staged())
        try:
            yield self._scene
        except BaseException:
            self._scene = None
            self._stack.close()
            raise


STARTS: Sequence[str] = (
    "connected",
    "connecting",
    "reconnecting",
    "connection_failed",
    "not_connected",
)
"""States in which the kill switch is active; the last one in mode at_all_times."""


def enter(scene: Scene, state: str) -> None:
    """Go from inactive to a state in which the kill switch is active, and stay there."""
    appliance, vpn1 = scene.appliance, scene.world.vpn1
    if state == "not_connected":
        assert appliance.call("set", name="mode", value="at_all_times")["ok"]
    elif state == "connection_failed":
        assert appliance.call("connect", profile="home")["ok"]
    elif state == "connecting":
        vpn1.blackhole()
        assert appliance.call("connect", profile="vpn1")["ok"]
    else:
        assert appliance.call("connect", profile="vpn1")["ok"]
        appliance.until_state("connected")
        if state == "reconnecting":
            vpn1.blackhole()
            scene.world.router.ip("link del pc0\n")
    appliance.until_state(state)


def leave(scene: Scene) -> None:
    """Back to inactive, by the owner's word."""
    appliance = scene.appliance
    upkeep.provider(appliance)
    assert appliance.call("set", name="mode", value="standard")["ok"]
    assert appliance.call("disconnect")["ok"]
    scene.await_state("not_connected")
