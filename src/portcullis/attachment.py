# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the egress hook is attached: on what leads upstream, and on nothing that carries the house.

Pure. A hook sees all frames that leave by a device, those of the devices upon it included. So
what lies beneath a network of the house (a bridge's ports, the device of a VLAN, a switch's
conduit) never has one, or the house would be locked out (K14); the devices upon that have their
own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from portcullis.networks import is_device
from portcullis.policy import TUNNEL

_NEVER = ("lo", TUNNEL)


class Netdev(NamedTuple):
    """A device of the kernel. `lower` and `master` are the indexes of the device it runs over and
    of the bridge it is a port of, 0 where there is none in this network namespace."""

    name: str
    ifindex: int
    lower: int = 0
    master: int = 0
    kind: str = ""


class Outside(NamedTuple):
    """What is known of the ways out: layer-3 devices that lead upstream, devices that PPPoE runs
    over, all devices there are, those that may be the house's while nobody has told yet, and those
    that default routes of the kernel leave by."""

    upstream: tuple[str, ...] = ()
    pppoe: tuple[str, ...] = ()
    netdevs: tuple[Netdev, ...] = ()
    doubtful: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()


class Attachment(NamedTuple):
    """`devices` have a hook; with their indexes, because one that is made anew under its old name
    may have lost it. `pppoe` and `trunks` are those of them that carry frames of devices with a
    hook of their own. `shared` lead upstream as well, but the house is upon them."""

    devices: tuple[tuple[str, int], ...] = ()
    pppoe: tuple[str, ...] = ()
    trunks: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.devices)


def attach(
    outside: Outside, house: Iterable[str], former: Iterable[tuple[str, int]] = ()
) -> Attachment:
    """`house` are the layer-3 devices of networks that the router has to answer. What had a hook
    (`former`) keeps it until it goes or is the house's, whatever it is called by now: a device that
    is renamed has lost its place in netifd's tables, and leads outside all the same. A port of the
    house's bridge that a default route itself leaves by is the WAN's, plugged in by mistake."""
    kept = {index for _, index in former}
    present = {netdev.name: netdev for netdev in outside.netdevs}
    beneath = _beneath(house, present, outside.gateways)
    before = {netdev.name for netdev in outside.netdevs if netdev.ifindex in kept}
    named = dict.fromkeys((*outside.upstream, *outside.pppoe, *sorted(before - beneath)))
    leading = [name for name in named if name in present and is_device(name)]
    hooked = {name: present[name].ifindex for name in leading if name not in (*_NEVER, *beneath)}
    lowers = {present[name].lower for name in hooked if present[name].kind == "vlan"}
    return Attachment(
        tuple(sorted(hooked.items())),
        tuple(sorted(hooked.keys() & set(outside.pppoe))),
        tuple(sorted(name for name, index in hooked.items() if index in lowers)),
        tuple(sorted(beneath.intersection(leading))),
    )


def _beneath(
    house: Iterable[str], present: dict[str, Netdev], gateways: tuple[str, ...]
) -> set[str]:
    """The house's devices, and all that they run over."""
    names = {netdev.ifindex: name for name, netdev in present.items()}
    found: set[str] = set()
    fresh = set(house)
    while fresh:
        found |= fresh
        indexes = {present[name].ifindex for name in fresh if name in present}
        ports = {name for name, netdev in present.items() if netdev.master in indexes}
        ports -= set(gateways)
        lowers = {names.get(present[name].lower, "") for name in fresh if name in present}
        fresh = (ports | lowers) - found - {""}
    return found
