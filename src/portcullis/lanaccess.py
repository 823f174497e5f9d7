# SPDX-License-Identifier: GPL-2.0-or-later
"""LAN device access: who may reach whom, and what of it the hardware cannot hold (K16).

Pure. Access is allowed or denied for all; single devices are excepted. An allowed device and
any other reach each other, a denied one reaches no other, and where both meet, denied wins.

A MAC address is anybody's to claim, so an exception holds at a port: an *allowed* device at the
one it was first seen at; a *denied* device takes its port with it where it is alone there.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from portcullis.devices import Device, Inventory
from portcullis.policy import Lan
from portcullis.topology import Port, Segment, Topology

WIRELESS = "wireless"
"""Stands for every access point of the router: devices roam between them."""


class Access(StrEnum):
    DEFAULT = "default"
    ALLOWED = "allowed"
    DENIED = "denied"


class Exemption(NamedTuple):
    """A device's exception. `port` is a bridge's port, `WIRELESS`, or empty: not known yet."""

    mac: str
    access: Access
    port: str = ""
    name: str = ""


Exemptions = dict[str, Exemption]


class World(NamedTuple):
    """What the decision depends on. `isolating` are access points that keep their clients from
    each other, `unisolated` ports that refused to be isolated; `layer2` tells whether the
    kernel filters on bridges."""

    topology: Topology
    inventory: Inventory
    isolating: frozenset[str] = frozenset()
    unisolated: frozenset[str] = frozenset()
    layer2: bool = True


def restricted(allowed: bool, exemptions: Exemptions) -> bool:
    """Whether there is anybody who must not reach somebody."""
    return not allowed or any(e.access is Access.DENIED for e in exemptions.values())


def decide(allowed: bool, exemptions: Exemptions, world: World) -> Lan | None:
    """What the kernel has to be told; None where every device may reach every other."""
    if not restricted(allowed, exemptions):
        return None
    excepted = [e for e in exemptions.values() if e.access is not Access.DEFAULT]
    topology, inventory = world.topology, world.inventory
    ports, bridged = topology.ports, topology.bridged
    free = [
        (e.mac, port) for e in excepted if e.access is Access.ALLOWED for port in _held(e, ports)
    ]
    macs = {mac for mac, _ in free}
    taken = {port for _, port in free}
    heard = [p for p in taken & bridged.keys() if _alone(ports[p], inventory.at(p) - macs)]
    passing = (*topology.foreign, *(bridged if allowed else ()))
    return Lan(
        free=tuple(sorted(free)),
        apart=tuple(sorted(e.mac for e in excepted if e.access is Access.DENIED)),
        closed=tuple(
            sorted(e.port for e in excepted if e.access is Access.DENIED and e.port in bridged)
        ),
        passing=tuple(sorted(passing)),
        heard=tuple(sorted(heard)),
        sought=tuple(
            (address, port)
            for mac, port in sorted(free)
            if port in bridged and port not in heard and mac in inventory.devices
            for address in inventory.devices[mac].addresses
        ),
        open=tuple(_open(allowed, topology, taken, world.layer2)),
        addressed=tuple(_addressed(excepted, world)),
        isolated=() if allowed else tuple(_isolated(bridged, taken, set(heard))),
    )


def bind(exemption: Exemption, world: World) -> Exemption:
    """The exemption with the port it holds at from now on, where the device was seen at one.

    To be asked for a denied device only when the owner denies it: later, whoever shares its
    port may merely be silent.
    """
    device = world.inventory.devices.get(exemption.mac)
    port = world.topology.ports.get(device.port) if device else None
    if port is None:
        return exemption
    if exemption.access is Access.ALLOWED:
        return exemption._replace(port=WIRELESS if port.wireless else port.name)
    if port.name in world.topology.bridged and _alone(
        port, world.inventory.at(port.name) - {exemption.mac}
    ):
        return exemption._replace(port=port.name)
    return exemption._replace(port="")


class Judgement(NamedTuple):
    """Whether what was decided for a device is held, and what the owner should know of it."""

    enforced: bool
    note: str


def judge(device: Device, allowed: bool, exemptions: Exemptions, world: World) -> Judgement:
    """What the hardware makes of a device's access."""
    exemption = exemptions.get(device.mac, Exemption(device.mac, Access.DEFAULT))
    if exemption.access is Access.ALLOWED and not allowed:
        return _judge_allowed(device, exemption, world)
    if exemption.access is Access.DENIED or not allowed:
        return _judge_denied(device, exemption, allowed, world)
    return Judgement(True, "")


def _judge_allowed(device: Device, exemption: Exemption, world: World) -> Judgement:
    port = world.topology.ports.get(device.port)
    if not exemption.port or port is None:
        return Judgement(True, "Not seen yet: its exception holds from its first appearance on.")
    if port.name not in _held(exemption, world.topology.ports):
        reason = f"It is at {port.name} now and its exception holds at {exemption.port} alone"
        return Judgement(False, f"{reason}, or anybody could pretend to be it: set it once more.")
    if not world.layer2 and port.name in world.topology.bridged:
        return Judgement(False, _NO_BRIDGE)
    if port.name in world.isolating:
        return Judgement(
            False,
            f"{port.name} keeps its Wi-Fi clients from each other (option isolate), from it too.",
        )
    others = world.inventory.at(port.name) - {device.mac}
    if port.switch and not _alone(port, others):
        return Judgement(
            False,
            f"Others share {port.name} with it, a port of the switch chip, which cannot tell"
            " them apart: it stays isolated.",
        )
    if not _alone(port, others):
        return Judgement(True, f"Others at {port.name} could pretend to be it.")
    return Judgement(True, "")


_NO_BRIDGE = "The kernel cannot filter on bridges (package kmod-nft-bridge)."


def _judge_denied(device: Device, exemption: Exemption, allowed: bool, world: World) -> Judgement:
    segment = _segment(device, world.topology)
    if segment is None:
        if not device.network:
            return Judgement(True, "")
        return Judgement(False, f"Its network ({device.network}) is none that is protected.")
    port = world.topology.ports.get(device.port)
    if port is None:
        return Judgement(True, "")
    others = world.inventory.at(port.name) - {device.mac}
    if port.wireless:
        if port.name not in world.isolating:
            return Judgement(
                False,
                f"Devices on the Wi-Fi {port.name} reach each other inside the access point:"
                " set `option isolate '1'` in its section of /etc/config/wireless.",
            )
    elif others:
        return Judgement(
            False,
            f"{len(others)} more at {port.name}: devices behind one port reach each other"
            " without the router.",
        )
    if port.name in world.unisolated:
        return Judgement(
            False, f"{port.name} cannot be isolated: its switch chip forwards by itself."
        )
    if segment.bridged and not world.layer2 and not port.isolated:
        return Judgement(False, _NO_BRIDGE)
    if allowed and port.switch and _neighbours(port, segment):
        return Judgement(
            False,
            f"{port.name} is a port of the switch chip, which forwards to its other ports by"
            " itself. Denying access for all isolates them.",
        )
    if allowed and exemption.port != port.name:
        return Judgement(
            True, "It could get around this with another MAC address; denying access for all helps."
        )
    if allowed:
        return Judgement(True, f"Whatever is behind {port.name} is kept apart with it.")
    return Judgement(True, "")


def _held(exemption: Exemption, ports: dict[str, Port]) -> Iterator[str]:
    """The ports an exemption holds at."""
    if exemption.port == WIRELESS:
        yield from (port.name for port in ports.values() if port.wireless)
    elif exemption.port in ports:
        yield exemption.port


def _alone(port: Port, others: set[str]) -> bool:
    """Whether a port leads to one device, as far as is known. The air is always shared."""
    return not port.wireless and not others


def _open(allowed: bool, topology: Topology, taken: set[str], layer2: bool) -> Iterator[str]:
    """Networks that are routed to whoever the receiver is: layer 2 knows him, or all are meant."""
    for segment in topology.segments:
        names = {port.name for port in segment.ports}
        if allowed or (segment.bridged and layer2 and names & taken):
            yield segment.device


def _addressed(excepted: list[Exemption], world: World) -> Iterator[tuple[str, str, bool]]:
    """Excepted devices of networks without a bridge: there the address has to do."""
    plain = {s.device for s in world.topology.segments if not s.bridged}
    for exemption in sorted(excepted):
        device = world.inventory.devices.get(exemption.mac)
        if device is None or device.network not in plain:
            continue
        free = exemption.access is Access.ALLOWED
        if free and device.network not in _held(exemption, world.topology.ports):
            continue
        for address in device.addresses:
            yield address, device.network, free


def _isolated(bridged: dict[str, Port], taken: set[str], heard: set[str]) -> Iterator[str]:
    """All but the ports of allowed devices. Where a switch chip forwards, the table is not
    asked: an allowed device must not open its port for others who share it."""
    for name, port in sorted(bridged.items()):
        if name not in taken or (port.switch and name not in heard):
            yield name


def _segment(device: Device, topology: Topology) -> Segment | None:
    return next((s for s in topology.segments if s.device == device.network), None)


def _neighbours(port: Port, segment: Segment) -> bool:
    """Whether the same switch chip has more ports in the bridge."""
    return any(p.switch == port.switch for p in segment.ports if p.name != port.name)
