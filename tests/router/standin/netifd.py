# SPDX-License-Identifier: GPL-2.0-or-later
"""netifd's objects `network.interface` and `network.interface.NAME`, out of a JSON file.

The file holds what `network.interface dump` answers. It is read anew at each call, so a test may
edit it; what becomes of devices added by `add_device` is written back to it. Those devices are
looked for in the network namespace this runs in. As tried against netifd e97e36f: an interface
whose device is not there, or down, is down; one whose device is deleted has none any more.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import link
from .context import Call, Context
from .wire import Status, Type, encode, pick

_DEVICE = {"name": Type.STRING, "link-ext": Type.INT8, "vlan": Type.ARRAY}
SIGNATURES: Mapping[str, Mapping[str, int]] = {
    "up": {},
    "down": {},
    "renew": {},
    "restart": {},
    "status": {},
    "prepare": {},
    "dump": {},
    "add_device": _DEVICE,
    "remove_device": _DEVICE,
    "notify_proto": {},
    "remove": {},
    "set_data": {},
}
_ALL = "network.interface"
_INACTIVE = ("ipv4-address", "ipv6-address", "route", "dns-server", "dns-search", "neighbors")
_ACTIVE = (*_INACTIVE[:2], "ipv6-prefix", "ipv6-prefix-assignment", *_INACTIVE[2:])
_NO_DEVICE = {"subsystem": "interface", "code": "NO_DEVICE"}
Interface = dict[str, Any]


def down(
    name: str,
    proto: str = "none",
    *,
    device: str | None = None,
    available: bool = False,
    autostart: bool = True,
) -> Interface:
    """An interface that is down, as netifd describes it."""
    found: Interface = {"interface": name, "up": False, "pending": False, "available": available}
    found |= {"autostart": autostart, "dynamic": False, "proto": proto}
    found |= {} if device is None else {"device": device}
    found["data"] = {}
    return found if available or not autostart else {**found, "errors": [_NO_DEVICE]}


def up(name: str, device: str, proto: str = "none") -> Interface:
    """An interface that is up and has no address."""
    return {
        "interface": name,
        "up": True,
        "pending": False,
        "available": True,
        "autostart": True,
        "dynamic": False,
        "uptime": 0,
        "l3_device": device,
        "proto": proto,
        "device": device,
        "metric": 0,
        "dns_metric": 0,
        "delegation": True,
        **{key: [] for key in _ACTIVE},
        "inactive": {key: [] for key in _INACTIVE},
        "data": {},
    }


@dataclass
class Attached:
    """A device that `add_device` gave to an interface."""

    device: str
    number: int | None = None
    """Its index in the kernel, once it has been seen there."""


class InterfaceObjects:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = -1
        self._published: dict[str, int] = {}
        self._attached: dict[str, Attached] = {}
        self._context: Context | None = None
        self.changes = link.Changes()

    def publish(self, context: Context) -> None:
        self._context = context
        self._add(_ALL)
        self.refresh()

    def _add(self, name: str) -> None:
        assert self._context is not None
        handlers = dict.fromkeys(SIGNATURES, self._handler(name))
        status, ident = self._context.add_object(name, SIGNATURES, handlers)
        if status:
            raise SystemExit(f"cannot publish `{name}`: status {status}")
        self._published[name] = ident

    def refresh(self) -> None:
        """Follows the file (which interfaces there are) and the devices (which are up)."""
        self.changes.drain()
        for name in list(self._attached):
            self._follow(name)
        stamp = self._path.stat().st_mtime_ns if self._path.exists() else 0
        if stamp == self._stamp or self._context is None:
            return
        self._stamp = stamp
        wanted = {f"{_ALL}.{item['interface']}" for item in self._read()} | {_ALL}
        for name in sorted(self._published.keys() - wanted):
            self._context.remove_object(self._published.pop(name))
        for name in sorted(wanted - self._published.keys()):
            self._add(name)

    # The file

    def _read(self) -> list[Interface]:
        try:
            found = json.loads(self._path.read_text())["interface"]
        except (OSError, ValueError, KeyError):
            return []
        return found if isinstance(found, list) else []

    def _find(self, name: str) -> Interface | None:
        return next((item for item in self._read() if item["interface"] == name), None)

    def _replace(self, new: Interface) -> None:
        name = new["interface"]
        items = [new if item["interface"] == name else item for item in self._read()]
        draft = self._path.with_name(f".{self._path.name}.new")
        draft.write_text(json.dumps({"interface": items}, indent="\t") + "\n")
        draft.replace(self._path)

    # Devices

    def _follow(self, name: str) -> None:
        """Brings an interface into line with the device it was given."""
        attached, old = self._attached[name], self._find(name)
        if old is None:
            del self._attached[name]
            return
        found = link.find(attached.device)
        if attached.number not in (None, found.number if found else None):
            del self._attached[name]
            self._turn(old, down(name, old["proto"], autostart=old["autostart"]))
            return
        attached.number = found.number if found else None
        available = found is not None and found.up
        if available and old["autostart"]:
            self._turn(old, old if old["up"] else up(name, attached.device, old["proto"]))
            return
        state = {"available": available, "autostart": old["autostart"]}
        self._turn(old, down(name, old["proto"], device=attached.device, **state))

    def _turn(self, old: Interface, new: Interface) -> None:
        if old != new:
            self._replace(new)
        if new["up"] and not old["up"]:
            self.announce(old["interface"], "ifup")
        elif old["up"] and not new["up"]:
            # netifd says it twice.
            self.announce(old["interface"], "ifdown")
            self.announce(old["interface"], "ifdown")

    def announce(self, name: str, action: str) -> None:
        assert self._context is not None
        self._context.send_event(_ALL, encode({"action": action, "interface": name}))

    def _attach(self, old: Interface, device: str) -> int:
        name = old["interface"]
        known = self._attached.get(name)
        if known is None and "device" in old:
            return Status.NOT_SUPPORTED
        if known and known.device != device:
            # netifd refuses, and drops the one it had.
            del self._attached[name]
            self._turn(old, down(name, old["proto"], autostart=old["autostart"]))
            return Status.NOT_SUPPORTED
        self._attached.setdefault(name, Attached(device))
        self._follow(name)
        return Status.OK

    def _detach(self, old: Interface, device: str) -> int:
        name = old["interface"]
        known = self._attached.get(name)
        if known is None or known.device != device:
            exists = link.find(device) or any(item.get("device") == device for item in self._read())
            return Status.INVALID_ARGUMENT if exists else Status.NOT_FOUND
        del self._attached[name]
        self._turn(old, down(name, old["proto"], autostart=old["autostart"]))
        return Status.OK

    # Calls

    def _handler(self, path: str) -> Callable[[Call, bytes], int]:
        def handle(call: Call, data: bytes) -> int:
            self.refresh()
            if call.method == "dump":
                call.reply(encode({"interface": self._read()}))
                return Status.OK
            name = path.removeprefix(f"{_ALL}.")
            if path == _ALL:
                asked = pick({"interface": Type.STRING}, data)
                if not asked:
                    return Status.INVALID_ARGUMENT
                name = asked["interface"]
            interface = self._find(name)
            if interface is None:
                return Status.NOT_FOUND
            return self._answer(call, data, interface)

        return handle

    def _answer(self, call: Call, data: bytes, interface: Interface) -> int:
        match call.method:
            case "status":
                shown = {key: value for key, value in interface.items() if key != "interface"}
                call.reply(encode(shown))
                return Status.OK
            case "add_device" | "remove_device":
                asked = pick(_DEVICE, data)
                if "name" not in asked:
                    return Status.INVALID_ARGUMENT
                act = self._attach if call.method == "add_device" else self._detach
                return act(interface, asked["name"])
            case "up" | "down":
                self._switch(interface, call.method == "up")
                return Status.OK
            case "prepare":
                call.reply(b"")
                return Status.OK
            case "restart" if not interface["up"]:
                return Status.UNKNOWN_ERROR
            case "renew" | "restart" | "set_data":
                return Status.OK
        return Status.NOT_SUPPORTED

    def _switch(self, old: Interface, wanted: bool) -> None:
        name = old["interface"]
        if name in self._attached:
            self._replace({**old, "autostart": wanted})
            self._follow(name)
        else:
            self._turn(old, {**old, "up": wanted, "autostart": wanted})

    def tell(self, name: str, action: str) -> int:
        """For tests: says once that an interface has gone up or down, and has it so in the file."""
        interface = self._find(name)
        if interface is None:
            return Status.NOT_FOUND
        wanted = action == "ifup"
        self._replace({**interface, "up": wanted, "autostart": wanted})
        self.announce(name, action)
        return Status.OK
