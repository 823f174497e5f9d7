# SPDX-License-Identifier: GPL-2.0-or-later
"""The core, where something of ours is broken half-way through a change of state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from portcullis import commands, openwrt, profiles, tunnel
from portcullis import core as module
from portcullis.block import Applied
from portcullis.bus import BusError
from portcullis.core import Core
from portcullis.driver import DriverError, Reading
from portcullis.intent import Intent, read, save
from portcullis.loop import Loop
from portcullis.paths import Paths
from portcullis.states import Event, State
from portcullis.uplink import Uplink

pytestmark = pytest.mark.usefixtures("namespace")


class NoBus:
    up = False

    def connect(self) -> None: ...

    def call(self, *_arguments: object) -> dict[str, Any]:
        raise BusError("there is none")

    def send(self, *_event: object) -> None: ...

    def close(self) -> None: ...


class NoTunnel:
    implementation = ""

    def start(self, *_arguments: object) -> None:
        raise DriverError("there is none")

    def reading(self) -> None: ...

    def stop(self) -> None: ...


class Proven(NoTunnel):
    """A tunnel whose server answers at once; `done` is what was asked of it."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def start(self, profile: Any, *_arguments: object) -> None:
        self.done.append(profile.name)

    def reading(self) -> Reading | None:
        return Reading(1.0, 10000, 10000) if self.done and self.done[-1] != "stop" else None

    def stop(self) -> None:
        self.done.append("stop")


def break_once(owner: Any, name: str) -> None:
    """The next call of a method breaks before it has done anything."""
    whole, broken = getattr(owner, name), Broken(1)

    def breaking(*arguments: object) -> Any:
        broken()
        return whole(*arguments)

    setattr(owner, name, breaking)


PROFILE = """[Interface]
PrivateKey = 6Pn1JkXzdJ1jQyq5IV4JrXjwkVkoOrVZTNyhbLZcf1M=
Address = 10.9.0.2/32
DNS = 10.9.0.1
[Peer]
PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=
AllowedIPs = 0.0.0.0/0
Endpoint = 198.51.100.1:51820
"""
WAN = Uplink(frozenset({4}), ("eth1",), ("203.0.113.9",))


class Broken:
    """Whoever is told of a change of state, and breaks `times` times."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self, *_transition: object) -> None:
        self.left -= 1
        if self.left >= 0:
            raise RuntimeError("broken part")


def wait(loop: Loop, seconds: float, done: Callable[[], bool]) -> None:
    """Run the loop until `done`, which must hold within `seconds`."""

    def look() -> None:
        if done():
            loop.stop()
        else:
            loop.after(0.01, look)

    late = loop.after(seconds, loop.stop)
    loop.after(0, look)
    loop.run()
    late.cancel()
    assert done()


@pytest.mark.parametrize("times", [0, 1, 3])
def test_what_breaks_half_way_is_carried_out_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    monkeypatch.setattr(module, "_REPAIR_AFTER", 0.02)
    paths = Paths(tmp_path / "home", tmp_path / "run", tmp_path / "share")
    paths.run.mkdir()
    save(paths.intent, Intent(True, "vpn1"))
    parts: Any = (NoBus(), NoTunnel(), paths, Broken(0), lambda _alarm: None)
    loop = Loop(lambda error: core.recover(error))
    core = Core(loop, *parts)
    core.start()
    assert core.state is State.CONNECTING
    core._on_transition = Broken(times)
    core.happen(Event.DISCONNECT, "the owner disconnected")
    assert ("internal error" in core.faults) == bool(times)
    wait(loop, 10, lambda: core.state is State.NOT_CONNECTED)
    wait(loop, 10, lambda: "internal error" not in core.faults)
    core.shutdown()


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A core with two profiles, and its loop; nothing has happened yet."""
    monkeypatch.setattr(module, "_REPAIR_AFTER", 0.05)
    monkeypatch.setattr(module, "_SAVE_AFTER", 0.05)
    monkeypatch.setattr(module.uplink, "read", lambda _protected: WAN)
    paths = Paths(tmp_path / "home", tmp_path / "run", tmp_path / "share")
    paths.run.mkdir()
    paths.profiles.mkdir(parents=True)
    for name in ("vpn1", "vpn2"):
        (paths.profiles / f"{name}.conf").write_text(PROFILE)
    parts: Any = (NoBus(), Proven(), paths, Broken(0), lambda _alarm: None)
    loop = Loop(lambda error: core.recover(error))
    core: Any = Core(loop, *parts)
    return core


def test_a_change_of_profile_that_breaks_half_way_is_no_return_to_the_former(made: Any) -> None:
    made.start()
    commands.connect(made, "vpn1")
    wait(made._loop, 10, lambda: made.state is State.CONNECTED)
    made._on_transition = Broken(1)
    commands.connect(made, "vpn2")
    assert made.state is State.RECONNECTING
    wait(made._loop, 10, lambda: made.state is State.CONNECTED)
    assert made.tunnel.profile.name == made.intent.profile == "vpn2"


def test_a_connect_after_a_disconnect_that_breaks_half_way_is_obeyed(made: Any) -> None:
    made.start()
    commands.connect(made, "vpn1")
    wait(made._loop, 10, lambda: made.state is State.CONNECTED)
    made._on_transition = Broken(1)
    commands.disconnect(made)
    assert (made.state, made.tunnel.profile.name) == (State.DISCONNECTING, "vpn1")
    commands.connect(made, "vpn2")
    wait(made._loop, 10, lambda: made.state is State.CONNECTED)
    wait(made._loop, 10, lambda: "internal error" not in made.faults)
    wait(made._loop, 10, lambda: made.state is State.CONNECTED)
    assert made.tunnel.profile.name == "vpn2"


def test_a_wan_that_is_back_when_something_breaks_is_noticed(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.uplink, "read", lambda _protected: Uplink())
    made.start()
    commands.connect(made, "vpn1")
    made._loop.after(0.1, made._loop.stop)
    made._loop.run()
    assert "vpn1" not in made.driver.done
    monkeypatch.setattr(module.uplink, "read", lambda _protected: WAN)
    break_once(made.block, "apply")
    made.kernel_changed()
    wait(made._loop, 10, lambda: made.state is State.CONNECTED)


def test_dnsmasq_that_could_not_be_told_is_told_later(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K12: what was learnt outside must not be served inside, nor the other way round."""
    told: list[object] = []

    def tell(bus: object) -> None:
        told.append(bus)
        if len(told) < 3:
            raise BusError("ubusd hangs")

    monkeypatch.setattr(openwrt, "drop_dns_cache", tell)
    made.start()
    wait(made._loop, 10, lambda: len(told) == 1)
    assert "ubusd hangs" in made.faults["DNS cache"]
    wait(made._loop, 10, lambda: len(told) == 3)
    assert "DNS cache" not in made.faults


def test_where_no_dnsmasq_runs_it_is_not_asked_again(made: Any) -> None:
    asked: list[str] = []

    def call(name: str, *_arguments: object) -> dict[str, Any]:
        asked.append(name)
        raise BusError("no such service", "Not found")

    made.bus.call = call
    made.start()
    made._loop.after(0.3, made._loop.stop)
    made._loop.run()
    assert asked.count("service") == 1
    assert "DNS cache" not in made.faults


def test_a_damaged_intent_replaces_no_whole_one(made: Any) -> None:
    """Taken for connected, as long as the fault is told: nobody has said so."""
    save(made._paths.intent, Intent(False, "vpn1"))
    made._paths.unsaved.write_bytes(b"")
    made._pause = 0.02
    made.start()
    made._loop.after(0.2, made._loop.stop)
    made._loop.run()
    assert made.intent.connected
    assert "neither connected nor disconnected" in made.faults["intent"]
    assert made._paths.intent.read_text() == "disconnected\nvpn1\n"


def test_a_disconnect_that_a_kill_cut_short_is_finished_by_the_next_start(made: Any) -> None:
    save(made._paths.intent, Intent(False, "vpn1"))
    made.start()
    assert made.driver.done == ["stop"]
    assert made.state is State.NOT_CONNECTED


def test_a_connect_is_not_ended_by_what_a_disconnect_before_it_could_not_do(made: Any) -> None:
    """Two clicks that are heard in one turn of the loop, the first of which takes long."""
    stop, times = made.driver.stop, []

    def refuse() -> None:
        stop()
        times.append(made.state)
        if len(times) == 1:
            raise DriverError("pc0 does not go away")

    made.start()
    commands.connect(made, "vpn1")
    wait(made._loop, 10, lambda: made.state is State.CONNECTED)
    made.driver.stop = refuse
    commands.disconnect(made)
    commands.connect(made, "vpn1")
    wait(made._loop, 10, lambda: made.state is State.CONNECTED)
    assert times == [State.DISCONNECTING]


def test_a_wan_that_is_lost_when_something_breaks_is_waited_for(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.start()
    break_once(made, "_hold_lines")
    monkeypatch.setattr(module.uplink, "read", lambda _protected: Uplink())
    made.kernel_changed()
    wait(made._loop, 10, lambda: "internal error" in made.faults)
    wait(made._loop, 10, lambda: "internal error" not in made.faults)
    commands.connect(made, "vpn1")
    monkeypatch.setattr(module.uplink, "read", lambda _protected: WAN)
    made.kernel_changed()
    wait(made._loop, 10, lambda: made.state is State.CONNECTED)


def test_a_start_that_cannot_take_down_what_a_kill_left_tries_again(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "_TAKE_DOWN_AGAIN", 0.02)
    broken = Broken(2)
    made.driver.stop = lambda: broken() or made.driver.done.append("stop")
    made.start()
    assert not made.driver.done
    wait(made._loop, 10, lambda: made.driver.done == ["stop"])
    assert made.state is State.NOT_CONNECTED


def test_a_start_that_breaks_takes_down_what_a_kill_left_all_the_same(made: Any) -> None:
    break_once(made.block, "apply")
    made.start()
    assert not made.driver.done
    wait(made._loop, 10, lambda: made.driver.done == ["stop"])
    assert made.state is State.NOT_CONNECTED


@pytest.mark.parametrize(("part", "waits"), [("conntrack", 4), ("routing guard", 1)])
def test_only_a_layer_is_tried_again_soon_for_ever(
    made: Any, monkeypatch: pytest.MonkeyPatch, part: str, waits: int
) -> None:
    """A kernel without kmod-nf-conntrack-netlink costs no full look each second, and is looked at
    seldom until all is well."""
    asked: list[float] = []
    made.start()
    monkeypatch.setattr(made._repair, "within", asked.append)
    made.faults.note(part, "missing")
    made.block.apply = lambda *_: Applied(armed=True, whole=False, flipped=False)
    made.enforce()
    for _ in range(12):
        made._repair_now()
    once = module._REPAIR_AFTER
    seldom = module._REPAIR_SELDOM if waits > 1 else once
    assert (asked[0], asked[2] / once, max(asked)) == (once, waits, seldom)
    made.faults.note(part, None)
    made.block.apply = lambda *_: Applied(armed=True, whole=True, flipped=False)
    made.enforce()
    made.block.apply = lambda *_: Applied(armed=True, whole=False, flipped=False)
    made.enforce()
    assert asked[-1] == once


@pytest.mark.parametrize("at", ["remember", "change"])
def test_a_rename_that_is_cut_short_leaves_the_chosen_profile_there(made: Any, at: str) -> None:
    """By a kill, or a power cut: the house must not be without internet until somebody comes."""
    made.start()
    commands.connect(made, "vpn1")
    made.settings = made.settings._replace(profiles=("vpn1", "vpn2"))
    setattr(made, at, Broken(1))
    with pytest.raises(RuntimeError):
        commands.rename_profile(made, "vpn1", "sweden")
    remembered, _ = read(made._paths.intent)
    assert profiles.exists(made.profiles_folder, remembered.profile)
    assert profiles.exists(made.profiles_folder, "vpn1"), "as a fallback it has that name yet"
