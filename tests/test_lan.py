# SPDX-License-Identifier: GPL-2.0-or-later
"""LAN device access at work where something is missing or hostile: never the block's problem."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from router.namespace import Namespace

from portcullis import lan, sightings, topology
from portcullis.bus import BusError
from portcullis.devices import Sighting
from portcullis.faults import Faults
from portcullis.isolation import Isolation
from portcullis.lan import FAULT, LanAccess
from portcullis.loop import Timer
from portcullis.nft import Nftables, NftError
from portcullis.policy import Network
from portcullis.topology import Port

LAN = Network("lan", "br-lan", ("192.168.1.0/24",))
A, B = "02:00:5e:00:53:10", "02:00:5e:00:53:11"


class Clock:
    """A loop whose timers ring only when told to."""

    def __init__(self) -> None:
        self.timers: list[Any] = []

    def after(self, seconds: float, callback: Any) -> Any:
        timer = Rings(seconds, callback)
        self.timers.append(timer)
        return timer

    def ring(self) -> None:
        due, self.timers = self.timers, []
        for timer in due:
            if timer.callback:
                timer.callback()


class Rings(Timer):
    """A timer that still knows how long it was set for."""

    def __init__(self, seconds: float, callback: Any) -> None:
        super().__init__(time.monotonic() + seconds, callback)
        self.seconds = seconds


class Uci:
    """A bus with nothing but a configuration on it, or nobody at all."""

    def __init__(self) -> None:
        self.sections: dict[str, Any] = {}
        self.silent = False

    def call(self, name: str, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if name != "uci" or arguments.get("config") != "portcullis":
            raise BusError("nobody", "No object")
        if self.silent:
            raise BusError("timed out")
        if method == "get":
            return {"values": self.sections}
        if method == "add":
            self.sections[arguments["name"]] = {".type": "device", **arguments["values"]}
        if method == "delete":
            del self.sections[arguments["section"]]
        return {}


@pytest.fixture
def router(namespace: Namespace) -> Namespace:
    """A router with a bridge of two ports; the test runs inside it."""
    namespace.ip(
        "link add br-lan type bridge\nlink add lan1 type veth peer name host1\n"
        "link add lan2 type veth peer name host2\nlink set lan1 master br-lan up\n"
        "link set lan2 master br-lan up\nlink set br-lan up\n"
        "link set host1 up\nlink set host2 up\n"
    )
    return namespace


@pytest.fixture
def sys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What sysfs says of that bridge: a test's own mount shows another namespace's devices."""
    (tmp_path / "br-lan/bridge").mkdir(parents=True)
    for port in ("lan1", "lan2"):
        (tmp_path / "br-lan/brif" / port).mkdir(parents=True)
        (tmp_path / port / "brport").mkdir(parents=True)
        (tmp_path / port / "brport/isolated").write_text("0\n")
    real = topology.read
    monkeypatch.setattr(topology, "read", lambda networks: real(networks, tmp_path))
    return tmp_path


class House:
    def __init__(self, run: Path) -> None:
        self.clock, self.bus, self.faults = Clock(), Uci(), Faults()
        self.seen: list[Sighting] = []
        self.changes = 0
        self.restored: list[tuple[str, ...]] = []
        loop: Any = self.clock
        bus: Any = self.bus
        self.lan = LanAccess(
            loop, bus, self.faults, run, self._changed, lambda what: self.restored.append(what)
        )

    def _changed(self) -> None:
        self.changes += 1
        self.lan.apply(False, (LAN,))


@pytest.fixture
def house(
    router: Namespace, sys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[House]:
    found = House(tmp_path / "run")
    monkeypatch.setattr(sightings, "read", lambda *_: (found.seen, {}))
    yield found
    found.lan.close()


def table() -> list[dict[str, Any]] | None:
    nft = Nftables()
    try:
        return nft.list_table("bridge", "portcullis")
    finally:
        nft.close()


def test_the_table_stands_only_while_access_is_restricted(house: House) -> None:
    assert house.lan.apply(True, (LAN,)) is False
    assert table() is None
    assert house.lan.apply(False, (LAN,)) is True
    assert table() is not None
    assert house.lan.apply(True, (LAN,)) is True
    assert table() is None


@pytest.mark.parametrize("names", [("",), ("_fence",), ("", "_fence")])
def test_a_table_that_an_earlier_process_left_is_taken_away(
    router: Namespace, house: House, names: tuple[str, ...]
) -> None:
    """Or the copy that stood while it was being replaced."""
    for name in names:
        router.nft(f"table bridge portcullis{name} {{ chain x {{ }}\n }}")
    house.lan.apply(True, (LAN,))
    assert router.run(["nft", "list", "tables", "bridge"]).stdout == ""


def test_a_second_apply_changes_nothing(house: House) -> None:
    house.lan.apply(False, (LAN,))
    assert house.lan.apply(False, (LAN,)) is False


def test_a_kernel_that_cannot_filter_on_bridges_is_a_fault_that_says_so(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Nftables.run

    def refuse(nft: Nftables, commands: str) -> None:
        if " bridge " in commands:
            raise NftError("Could not process rule: Operation not supported")
        run(nft, commands)

    monkeypatch.setattr(Nftables, "run", refuse)
    house.seen = [Sighting(A, "br-lan", "lan1", age=0.0)]
    house.lan.apply(False, (LAN,))
    assert "kmod-nft-bridge" in house.faults[FAULT]
    (device,) = house.lan.devices({})
    # Its port is isolated all the same, as far as sysfs of this test can tell it is not.
    assert (device["enforced"], "kmod-nft-bridge" in device["note"]) == (False, True)
    monkeypatch.undo()


def test_a_kernel_that_refuses_is_not_tried_at_every_change(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def refuse(nft: Nftables, commands: str) -> None:
        tries.append(commands)
        raise NftError("Operation not supported")

    with monkeypatch.context() as refusing:
        refusing.setattr(Nftables, "run", refuse)
        for _ in range(5):
            house.lan.apply(False, (LAN,))
    assert (len(tries), "Operation not supported" in house.faults[FAULT]) == (1, True)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 60)
    house.lan.apply(False, (LAN,))
    assert (FAULT in house.faults, table() is None) == (False, False)


def test_a_library_that_cannot_be_loaded_is_a_fault_and_nothing_worse(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise NftError("cannot load libnftables.so.1")

    monkeypatch.setattr(lan, "Nftables", missing)
    house.lan.apply(False, (LAN,))
    assert "cannot load" in house.faults[FAULT]


def test_sources_that_break_are_a_fault_and_nothing_worse(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RecursionError("a hostile answer")

    house.lan.apply(False, (LAN,))
    monkeypatch.setattr(sightings, "read", broken)
    house.clock.ring()
    assert "a hostile answer" in house.faults["devices"]
    assert house.lan.devices({}) == []


def test_an_allowed_device_is_bound_to_the_port_where_it_is_first_seen(house: House) -> None:
    house.lan.apply(False, (LAN,))
    assert house.lan.set(A, "allowed") == ""
    assert house.lan.lan is not None
    assert house.lan.lan.free == ()
    house.seen = [Sighting(A, "br-lan", "lan1", age=0.0)]
    before = house.changes
    house.clock.ring()
    assert house.lan.lan.free == ((A, "lan1"),)
    assert house.changes > before, "the block must be told"
    assert house.bus.sections["device_02005e005310"]["port"] == "lan1"
    house.seen = [Sighting(A, "br-lan", "lan2", age=0.0)]
    house.clock.ring()
    assert house.lan.lan.free == ((A, "lan1"),), "where somebody else may claim its address"


def test_devices_are_looked_for_more_often_once_there_is_an_exception(house: House) -> None:
    house.lan.apply(False, (LAN,))
    house.clock.ring()
    house.lan.set(A, "allowed")
    waits = [timer.seconds for timer in house.clock.timers if timer.callback]
    assert waits == [10.0]


def test_what_could_not_be_seen_is_looked_for_again_soon(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(sightings, "read", lambda *_: (_ for _ in ()).throw(OSError("no socket")))
        house.lan.apply(True, (LAN,))
        house.clock.ring()
        assert "devices" in house.faults
    waits = [timer.seconds for timer in house.clock.timers if timer.callback]
    assert waits == [10.0]
    house.clock.ring()
    assert "devices" not in house.faults


def test_where_nothing_can_be_decided_what_was_denied_stays_denied(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.lan.apply(True, (LAN,))
    house.lan.set(A, "denied")
    house.lan.apply(True, (LAN,))
    with monkeypatch.context() as broken:
        broken.setattr(topology, "read", lambda _: (_ for _ in ()).throw(OSError("no socket")))
        house.lan.apply(True, (LAN,))
        assert FAULT in house.faults
        assert house.lan.lan is not None
        assert house.lan.lan.apart == (A,)
    before = house.changes
    house.clock.ring()
    assert house.changes > before, "and is tried again"


def test_exceptions_that_cannot_be_read_are_read_later(house: House) -> None:
    house.lan.apply(False, (LAN,))
    house.bus.sections["x"] = {".type": "device", "mac": A, "access": "denied"}
    house.bus.silent = True
    for _ in range(3):  # one wait, not three
        house.lan.reload()
    assert "exceptions" in house.faults
    house.bus.silent = False
    assert len([t for t in house.clock.timers if t.callback and t.seconds == 5.0]) == 1
    house.clock.ring()
    assert "exceptions" not in house.faults
    assert house.lan.lan is not None
    assert house.lan.lan.apart == (A,)


def test_an_exception_that_cannot_be_saved_holds_and_is_saved_later(house: House) -> None:
    house.lan.apply(False, (LAN,))
    house.bus.silent = True
    assert "not saved yet" in house.lan.set(A, "denied")
    assert [part for part in house.faults if part.startswith("exception ")]
    house.lan.reload()
    assert house.lan.lan is not None
    assert house.lan.lan.apart == (A,)
    house.bus.silent = False
    house.lan.reload()
    assert house.lan.lan.apart == (A,), "the wish outlives a reload"
    house.clock.ring()
    assert house.bus.sections["device_02005e005310"]["access"] == "denied"
    assert not [part for part in house.faults if part.startswith("exception ")]


def test_a_service_that_hangs_is_not_waited_for_again_and_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]

    def slow(*_: object) -> Any:
        now[0] += 8.0
        return [], {}

    monkeypatch.setattr(sightings, "read", slow)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    house.lan.apply(False, (LAN,))
    house.clock.ring()
    assert max(timer.seconds for timer in house.clock.timers) >= 240


def test_two_hundred_and_fifty_devices_are_listed_at_once(house: House) -> None:
    for number in range(250):
        mac = f"02:00:00:00:00:{number:02x}"
        house.seen.append(Sighting(mac, "br-lan", "lan1", age=0.0, name=f"host{number}", rank=1))
        house.seen += [Sighting(mac, address=f"fd00::{number:x}:{n}") for n in range(4)]
    house.lan.apply(False, (LAN,))
    began = time.process_time()
    found = house.lan.devices({})
    assert (len(found), time.process_time() - began < 0.5) == (250, True)
    assert {device["network"] for device in found} == {"lan"}


def test_devices_come_with_what_was_blocked_of_them(house: House) -> None:
    house.seen = [Sighting(A, "br-lan", "lan1", age=0.0), Sighting(B, "br-lan", "lan2", age=0.0)]
    house.lan.apply(False, (LAN,))
    found = {device["mac"]: device["blocked"] for device in house.lan.devices({A: (3, 300)})}
    assert found == {A: {"packets": 3, "bytes": 300}, B: {"packets": 0, "bytes": 0}}


def test_a_wall_clock_that_jumps_does_not_move_what_was_seen(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.seen = [Sighting(A, "br-lan", "lan1", age=10.0)]
    house.lan.apply(False, (LAN,))
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    (device,) = house.lan.devices({})
    assert abs(device["last_seen"] - 1_999_999_990) <= 2


@pytest.fixture
def isolation(router: Namespace, tmp_path: Path) -> Isolation:
    return Isolation(tmp_path / "isolated")


def flags(router: Namespace) -> dict[str, bool]:
    text = router.run(["bridge", "-d", "link", "show"]).stdout
    lines = text.replace("\n    ", " ").splitlines()
    return {line.split()[1].partition("@")[0]: "isolated on" in line for line in lines}


@pytest.mark.pyroute2
def test_ports_are_isolated_and_given_back(router: Namespace, isolation: Isolation) -> None:
    ports = {name: Port(name) for name in ("lan1", "lan2")}
    assert isolation.reconcile(["lan1"], ports)[0] == ("lan1 isolated",)
    assert flags(router) == {"lan1": True, "lan2": False}
    ports["lan1"] = Port("lan1", isolated=True)
    assert isolation.reconcile(["lan1"], ports) == ((), frozenset())
    assert isolation.reconcile([], ports)[0] == ("lan1 rejoined",)
    assert (flags(router)["lan1"], isolation.taken) == (False, False)


def test_a_port_that_the_owner_isolated_stays_so(router: Namespace, isolation: Isolation) -> None:
    ports = {"lan1": Port("lan1", isolated=True)}
    router.run(["bridge", "link", "set", "dev", "lan1", "isolated", "on"])
    isolation.reconcile(["lan1"], ports)
    isolation.reconcile([], ports)
    assert flags(router)["lan1"]


def test_another_process_gives_back_what_was_isolated(
    router: Namespace, isolation: Isolation, tmp_path: Path
) -> None:
    isolation.reconcile(["lan1"], {"lan1": Port("lan1")})
    Isolation(tmp_path / "isolated").reconcile([], {"lan1": Port("lan1", isolated=True)})
    assert not flags(router)["lan1"]


def test_a_port_that_refuses_is_named(
    router: Namespace, isolation: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Isolation, "_set", staticmethod(lambda name, on: False))
    changed, refused = isolation.reconcile(["lan1"], {"lan1": Port("lan1")})
    assert (changed, refused, isolation.taken) == ((), frozenset({"lan1"}), False)


def test_a_port_of_a_bridge_that_is_the_houses_no_more_is_given_back(
    router: Namespace, isolation: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or for a moment: a firewall that makes no sense for a while has no protected network."""
    isolation.reconcile(["lan1"], {"lan1": Port("lan1")})
    monkeypatch.setattr(topology, "port", lambda name: Port(name, isolated=flags(router)[name]))
    assert isolation.reconcile([], {})[0] == ("lan1 rejoined",)
    assert (flags(router)["lan1"], isolation.taken) == (False, False)


def test_what_is_isolated_is_not_forgotten_where_it_cannot_be_written_down(
    router: Namespace, isolation: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = {"lan1": Port("lan1"), "lan2": Port("lan2")}
    isolation.reconcile(["lan1"], ports)
    ports["lan1"] = Port("lan1", isolated=True)
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", Mock(side_effect=OSError(errno.ENOSPC, "full")))
        with pytest.raises(OSError, match="full"):
            isolation.reconcile(["lan1", "lan2"], ports)
    assert isolation.reconcile([], ports)[0] == ("lan1 rejoined",)
    assert flags(router) == {"lan1": False, "lan2": False}


def test_what_is_isolated_is_not_forgotten_where_it_cannot_be_read(
    router: Namespace, isolation: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolation.reconcile(["lan1"], {"lan1": Port("lan1")})
    ports = {"lan1": Port("lan1", isolated=True)}
    with monkeypatch.context() as exhausted:
        exhausted.setattr(Path, "read_text", Mock(side_effect=OSError(errno.EMFILE, "too many")))
        with pytest.raises(OSError, match="too many"):
            isolation.reconcile([], ports)
    assert isolation.reconcile([], ports)[0] == ("lan1 rejoined",)


def test_a_port_that_stays_isolated_is_told_and_tried_again(
    house: House, sys: Path, router: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.lan.apply(False, (LAN,))
    assert flags(router)["lan1"]
    for port in ("lan1", "lan2"):
        (sys / port / "brport/isolated").write_text("1\n")
    with monkeypatch.context() as refusing:
        refusing.setattr(Isolation, "_set", staticmethod(lambda name, on: False))
        house.lan.apply(True, (LAN,))
    assert house.faults[FAULT] == "isolated still: lan1, lan2"
    house.lan.apply(True, (LAN,))
    assert (FAULT in house.faults, flags(router)) == (False, {"lan1": False, "lan2": False})


def test_a_library_that_is_broken_is_not_asked_again_to_take_the_table_away(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.lan.apply(False, (LAN,))
    assert house.lan._filter is not None
    monkeypatch.setattr(house.lan._filter._nft, "_run", Mock(side_effect=NftError("broken")))
    house.lan.apply(True, (LAN,))
    assert "broken" in house.faults[FAULT]
    house.lan.apply(True, (LAN,))
    assert (FAULT in house.faults, table()) == (False, None)
