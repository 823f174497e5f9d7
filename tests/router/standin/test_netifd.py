# SPDX-License-Identifier: GPL-2.0-or-later
"""netifd's and procd's objects; these two are the stand-in's even beside the real rpcd."""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .bus import Bus, running
from .netifd import down
from .probe import context, status_of
from .test_broker import note, wait
from .wire import Status

WAN = {
    "interface": "wan",
    "up": True,
    "autostart": True,
    "l3_device": "eth1",
    "proto": "static",
    "device": "eth1",
    "ipv4-address": [{"address": "203.0.113.2", "mask": 24}],
    "route": [{"target": "0.0.0.0", "mask": 0, "nexthop": "203.0.113.1", "source": "0.0.0.0/0"}],
    "data": {},
}
PC = down("portcullis")


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    services = {"dnsmasq": tmp_path / "dnsmasq.pid"}
    dump = {"interface": [PC, WAN]}
    with running(tmp_path, interfaces=dump, services=services) as found:
        yield found


def test_dump_and_status_answer_from_the_file_as_it_is_now(bus: Bus) -> None:
    assert bus.call("network.interface", "dump") == [{"interface": [PC, WAN]}]
    status = {key: value for key, value in WAN.items() if key != "interface"}
    assert bus.call("network.interface.wan", "status") == [status]
    assert bus.call("network.interface", "status", {"interface": "wan"}) == [status]
    assert status_of(bus, "network.interface", "status", {}) == Status.INVALID_ARGUMENT
    missing = {"interface": "nosuch"}
    assert status_of(bus, "network.interface", "status", missing) == Status.NOT_FOUND
    bus.interfaces.write_text(json.dumps({"interface": [{**WAN, "up": False}]}))
    assert bus.call("network.interface.wan", "status")[0]["up"] is False


def test_interfaces_added_to_the_file_are_published(bus: Bus) -> None:
    new = down("guest")
    bus.interfaces.write_text(json.dumps({"interface": [WAN, new]}))
    client = context(bus)
    wait(client, lambda: client.lookup_ident("network.interface.guest")[0] == Status.OK)
    assert client.lookup_ident("network.interface.portcullis")[0] == Status.NOT_FOUND
    client.close()


OURS = "network.interface.portcullis"
DEVICE = {"name": "pc0", "link-ext": True}


def ip(*arguments: str) -> None:
    subprocess.run(["ip", "link", *arguments], check=True)


@pytest.fixture
def events(bus: Bus) -> Iterator[Callable[[], list[str]]]:
    """What netifd said of `portcullis` since the last question, once it has said something."""
    seen: list[tuple[str, Any]] = []
    listener = context(bus)
    listener.listen("network.interface", partial(note, seen))

    def take() -> list[str]:
        bus.interface_event("wan", "ifup")
        wait(listener, lambda: any(data["interface"] == "wan" for _, data in seen))
        found = [data["action"] for _, data in seen if data["interface"] == "portcullis"]
        seen.clear()
        return found

    yield take
    listener.close()
    subprocess.run(["ip", "link", "delete", "pc0"], stderr=subprocess.DEVNULL)


def until(bus: Bus, **wanted: Any) -> None:
    end = time.monotonic() + 5
    while not wanted.items() <= bus.call(OURS, "status")[0].items():
        assert time.monotonic() < end, bus.call(OURS, "status")


def test_a_device_takes_its_interface_up_and_down_with_it(
    bus: Bus, events: Callable[[], list[str]]
) -> None:
    bus.call(OURS, "add_device", DEVICE)
    absent = down("portcullis", device="pc0")
    del absent["interface"]
    assert bus.call(OURS, "status") == [absent]
    ip("add", "pc0", "type", "bridge")
    bus.call(OURS, "add_device", DEVICE)
    assert events() == []
    ip("set", "pc0", "up")
    until(bus, up=True, device="pc0", l3_device="pc0")
    assert events() == ["ifup"]
    bus.call(OURS, "add_device", DEVICE)
    ip("set", "pc0", "down")
    until(bus, up=False, device="pc0")
    assert events() == ["ifdown", "ifdown"]
    ip("set", "pc0", "up")
    until(bus, up=True)
    bus.call(OURS, "down")
    until(bus, up=False, available=True, autostart=False)
    bus.call(OURS, "up")
    until(bus, up=True, autostart=True)
    assert events() == ["ifup", "ifdown", "ifdown", "ifup"]
    bus.call(OURS, "remove_device", DEVICE)
    assert "device" not in bus.call(OURS, "status")[0]
    assert events() == ["ifdown", "ifdown"]


def test_a_deleted_device_has_to_be_added_again(bus: Bus, events: Callable[[], list[str]]) -> None:
    ip("add", "pc0", "up", "type", "bridge")
    bus.call(OURS, "add_device", DEVICE)
    assert events() == ["ifup"]
    ip("delete", "pc0")
    until(bus, up=False)
    ip("add", "pc0", "up", "type", "bridge")
    assert events() == ["ifdown", "ifdown"]
    assert "device" not in bus.call(OURS, "status")[0]
    bus.call(OURS, "add_device", DEVICE)
    assert events() == ["ifup"]


def test_devices_that_cannot_be_added_or_removed_are_refused(bus: Bus) -> None:
    def status(method: str, **arguments: Any) -> int:
        return status_of(bus, OURS, method, arguments)

    assert status("add_device", **{"link-ext": True}) == Status.INVALID_ARGUMENT
    assert status("remove_device", name="nosuch") == Status.NOT_FOUND
    assert status("remove_device", name="lo") == Status.INVALID_ARGUMENT
    assert status("add_device", name="one") == Status.OK
    assert status("add_device", name="other") == Status.NOT_SUPPORTED
    assert "device" not in bus.call(OURS, "status")[0]
    wan = "network.interface.wan"
    assert status_of(bus, wan, "add_device", {"name": "x"}) == Status.NOT_SUPPORTED


def test_signals_reach_the_process_its_file_names_now(bus: Bus) -> None:
    pid_file = bus.directory / "dnsmasq.pid"
    asked = {"name": "dnsmasq", "signal": int(signal.SIGUSR1)}
    assert status_of(bus, "service", "signal", asked) == Status.NOT_FOUND
    with subprocess.Popen(["sleep", "30"]) as process:
        pid_file.write_text(f"{process.pid}\n")
        instance: dict[str, Any] = {}
        while not instance.get("running"):  # it has no command line before its exec
            (listed,) = bus.call("service", "list", {"name": "dnsmasq"})
            instance = listed["dnsmasq"]["instances"]["instance1"]
        assert instance["pid"] == process.pid
        assert instance["command"] == ["sleep", "30"]
        wrong = {**asked, "instance": "instance9"}
        assert status_of(bus, "service", "signal", wrong) == Status.NOT_FOUND
        bus.call("service", "signal", asked)
        assert process.wait(5) == -signal.SIGUSR1
    assert status_of(bus, "service", "signal", asked) == Status.NOT_FOUND
    assert status_of(bus, "service", "signal", {"name": "nosuch"}) == Status.NOT_FOUND


def test_service_events_need_type_and_data_and_are_told_to_subscribers(bus: Bus) -> None:
    assert status_of(bus, "service", "event", {"type": "x"}) == Status.INVALID_ARGUMENT
    bus.call("service", "event", {"type": "x", "data": {"y": 1}})
    assert bus.service_events()[-1] == {"type": "x", "data": {"y": 1}}
