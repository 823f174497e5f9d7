# SPDX-License-Identifier: GPL-2.0-or-later
"""The inventory of the house's devices: what many sources saw, merged by MAC address.

Pure. Names and addresses come from the devices themselves, so they are data from strangers:
bounded in number and length, control characters removed, and never the ground of a decision.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from typing import NamedTuple

CAPACITY = 1000
ONLINE_WITHIN = 300.0  # seconds; the bridge forgets a silent device after as many
_ADDRESSES = {4: 3, 6: 6}  # by family; so that a thousand devices fit into one message
_NAME_LENGTH = 63  # octets, of a DNS label


class Sighting(NamedTuple):
    """What one source says of a device. `age` are the seconds since it was heard, None where it
    was not: a lease or a static name is no sign of life. `rank` orders names, the highest wins."""

    mac: str
    network: str = ""  # the network's layer-3 device
    port: str = ""
    address: str = ""
    name: str = ""
    rank: int = 0
    wireless: bool | None = None
    age: float | None = None


class Device(NamedTuple):
    """A device as it is known. Times are of the monotonic clock; `heard` is 0 where it never
    was."""

    mac: str
    hostname: str = ""
    addresses: tuple[str, ...] = ()
    network: str = ""
    port: str = ""
    wireless: bool | None = None
    first: float = 0.0
    heard: float = 0.0

    def online(self, now: float) -> bool:
        return bool(self.heard) and now - self.heard < ONLINE_WITHIN


class Inventory:
    """Devices by MAC address; at most `CAPACITY` of them."""

    def __init__(self) -> None:
        self.devices: dict[str, Device] = {}
        self._times: dict[str, tuple[float, float]] = {}

    def times(self) -> str:
        """When each device was first and last heard, as text for `recall`."""
        return json.dumps({d.mac: (d.first, d.heard) for d in self.devices.values()})

    def recall(self, text: str, now: float) -> None:
        """Take up what `times` said in a former life of this process: of devices that appear
        again, and of the time since power-on alone. Raises ValueError for what it never wrote."""
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError("no object of times")
        for mac, times in list(found.items())[:CAPACITY]:
            match times:
                case [int() | float() as first, int() | float() as heard]:
                    if normal(mac) == mac and 0 <= first <= now and 0 <= heard <= now:
                        self._times[mac] = (first, heard)

    def _new(self, mac: str, now: float) -> Device:
        first, heard = self._times.pop(mac, (now, 0.0))
        return Device(mac, first=first, heard=heard)

    def update(self, sightings: Iterable[Sighting], now: float, kept: Iterable[str] = ()) -> None:
        """Merge what was seen. Where there are too many, the longest silent go first, and of
        `kept` MAC addresses none before all others."""
        names: dict[str, tuple[int, str]] = {}
        addresses: dict[str, dict[str, None]] = {}
        for sighting in sightings:
            mac = normal(sighting.mac)
            if not mac:
                continue
            found = self.devices.get(mac) or self._new(mac, now)
            heard = found.heard if sighting.age is None else now - sighting.age
            if sighting.age is not None:
                found = found._replace(first=min(found.first, heard))
            # A device that has moved is still known at its old place for a while.
            if heard >= found.heard:
                found = found._replace(
                    heard=heard,
                    network=sighting.network or found.network,
                    port=sighting.port or found.port,
                    wireless=found.wireless if sighting.wireless is None else sighting.wireless,
                )
            if name := clean(sighting.name):
                names[mac] = max(names.get(mac, (0, "")), (sighting.rank, name))
            if sighting.address:
                addresses.setdefault(mac, {})[sighting.address] = None
            self.devices[mac] = found
        for mac, (_, name) in names.items():
            self.devices[mac] = self.devices[mac]._replace(hostname=name)
        for mac, seen in addresses.items():
            older = self.devices[mac].addresses
            self.devices[mac] = self.devices[mac]._replace(addresses=_bounded((*seen, *older)))
        self._trim(now, frozenset(kept))

    def at(self, port: str) -> set[str]:
        """MAC addresses that were last seen at a port."""
        return {device.mac for device in self.devices.values() if device.port == port}

    def _trim(self, now: float, kept: frozenset[str]) -> None:
        surplus = len(self.devices) - CAPACITY
        if surplus > 0:
            # Invented devices have neither name nor address, real ones have been given both.
            order = sorted(
                self.devices.values(),
                key=lambda d: (d.mac in kept, d.online(now), bool(d.hostname), d.heard, d.mac),
            )
            for device in order[:surplus]:
                del self.devices[device.mac]


def valid_mac(text: str) -> str:
    """A device's MAC address in the kernel's notation. Raises ValueError, saying why not."""
    digits = text.strip().lower().replace("-", ":")
    plain = [digits[i : i + 2] for i in range(0, len(digits), 2)]
    octets = digits.split(":") if ":" in digits else plain
    joined = "".join(octets)
    hexadecimal = len(joined) == 12 and all(c in "0123456789abcdef" for c in joined)
    if len(octets) != 6 or not hexadecimal or any(len(octet) != 2 for octet in octets):
        raise ValueError("is not six pairs of hexadecimal digits, like 02:00:5e:00:53:10")
    if int(octets[0], 16) & 1:
        raise ValueError("is a group's address, not a device's")
    if joined == "0" * 12:
        raise ValueError("is no device's address")
    return ":".join(octets)


def normal(text: str) -> str:
    """A device's MAC address in the kernel's notation, empty for what is none."""
    with suppress(ValueError):
        return valid_mac(text)
    return ""


def clean(name: str) -> str:
    """A name that can be shown: what cannot be printed is left out, the rest is bounded."""
    text = "".join(letter for letter in name[: 4 * _NAME_LENGTH] if letter.isprintable())
    text = text.strip().encode()[:_NAME_LENGTH].decode(errors="ignore").strip()
    return "" if text == "*" else text


def _bounded(addresses: Iterable[str]) -> tuple[str, ...]:
    """Each address once, in its own notation, so many of each family; the newest first.

    A zone (`fe80::1%...`) may hold any text, and these go into nft's: what has one is left out.
    """
    found: dict[str, None] = {}
    count = {4: 0, 6: 0}
    for text in addresses:
        with suppress(ValueError):
            address = ip_address(text)
            known = str(address) in found or "%" in text
            if known or address.is_multicast or address.is_unspecified or address.is_loopback:
                continue
            if count[address.version] < _ADDRESSES[address.version]:
                count[address.version] += 1
                found[str(address)] = None
    return tuple(found)
