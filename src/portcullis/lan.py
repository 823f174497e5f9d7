# SPDX-License-Identifier: GPL-2.0-or-later
"""LAN device access at work: exceptions, inventory, the bridge's table and its isolated ports.

The kill switch comes first: nothing here is done before the block, and nothing here can make it
fail. What goes wrong stands in the faults.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from portcullis import exemptions, sightings, topology
from portcullis.bus import Bus, BusError
from portcullis.devices import Device, Inventory, valid_mac
from portcullis.faults import Faults
from portcullis.isolation import Isolation
from portcullis.lanaccess import (
    Access,
    Exemption,
    Exemptions,
    Judgement,
    World,
    bind,
    decide,
    judge,
    restricted,
)
from portcullis.lanruleset import BRIDGE
from portcullis.loop import Deferred, Loop, Timer
from portcullis.nft import Nftables
from portcullis.openwrt import ForeignChangesError
from portcullis.packetfilter import PacketFilter
from portcullis.policy import Lan, Network, within
from portcullis.topology import Topology

log = logging.getLogger("portcullis")

FAULT = "LAN access"
_LOOK_EVERY = 240.0  # a bridge forgets a silent device after 300
_LOOK_OFTEN = 10.0  # while exceptions depend on where devices are, and under which addresses
_FRESH = 1.0
_SAVE_AFTER = 5.0
_KEEP_EVERY = 300.0
_REST = 5.0
_READ_AGAIN = 5.0


class LanAccess:
    """`on_change` is called where what the kernel must be told may have changed by itself: a
    device has appeared, has moved, or has another address; `on_restored` is told what somebody
    had changed behind our back (K10)."""

    def __init__(
        self,
        loop: Loop,
        bus: Bus,
        faults: Faults,
        run: Path,
        on_change: Callable[[], object],
        on_restored: Callable[[tuple[str, ...]], None],
    ) -> None:
        self._loop, self._bus, self._faults, self._on_change = loop, bus, faults, on_change
        self._on_restored = on_restored
        self._filter: PacketFilter[Lan] | None = None
        self._removed = False
        self._isolation = Isolation(run / "isolated")
        self._networks: tuple[Network, ...] = ()
        self._allowed = False
        self._exemptions: Exemptions = {}
        self._unsaved: dict[str, Timer] = {}
        self._access_points: dict[str, bool] = {}
        self._world = World(Topology(), Inventory())
        self._times, self._times_kept = run / "devices", time.monotonic()
        with suppress(OSError, ValueError, RecursionError):  # then they are new
            self._world.inventory.recall(self._times.read_text(), time.monotonic())
        self._looked, self._took = float("-inf"), 0.0
        self._look_again = Deferred(loop, self._look_now)
        self._reread = Deferred(loop, self.reload)
        self._applied: Lan | None = None
        self._rests_until, self._refusal = 0.0, ""
        self.lan: Lan | None = None

    # What the core does.

    def reload(self) -> None:
        """Read the exceptions again, and once more later where they cannot be read."""
        self._reread.cancel()
        try:
            found, problems = exemptions.read(self._bus)
        except BusError as error:
            self._faults.note("exceptions", f"not read, the last known ones hold: {error}")
            self._reread.within(_READ_AGAIN)
            return
        self._faults.note("exceptions", "; ".join(problems) or None)
        kept = {mac: self._exemptions[mac] for mac in self._unsaved if mac in self._exemptions}
        former, self._exemptions = self._exemptions, {**found, **kept}
        if self._exemptions != former:
            self._look_again.within(0)
            self._on_change()

    def apply(self, allowed: bool, networks: tuple[Network, ...]) -> bool:
        """Make the bridges what was asked for; whether `lan` has changed, which the block's
        policy holds too. Never raises."""
        former, self._allowed = self.lan, allowed
        if networks != self._networks:
            self._networks = networks
            self._look_again.within(0)
        try:
            self._decide()
            if self.lan is None:
                self._give_back()
                self._faults.note(FAULT, None)
            else:
                self._restrict(self.lan)
        except Exception as error:  # whatever it is, the kill switch must not depend on it
            self._faults.note(FAULT, str(error) or repr(error))
            self._schedule()
        return self.lan != former

    def close(self) -> None:
        """What restricts the devices stays, as the block does."""
        self._forget_filter()
        self._keep_times()

    def metered(self) -> dict[str, tuple[int, int]]:
        return self._filter.metered() if self._filter else {}

    # What the owner does.

    def devices(self, blocked: dict[str, tuple[int, int]]) -> list[dict[str, Any]]:
        """Every device that is known; `blocked` are packets and bytes by MAC address."""
        if time.monotonic() - self._looked > _FRESH:
            self._look()
        now, clock, metered = time.monotonic(), time.time(), self.metered()
        known = dict(self._world.inventory.devices)
        for mac in self._exemptions:
            known.setdefault(mac, Device(mac))
        found = [
            self._shown(device, now, clock, (blocked.get(device.mac), metered.get(device.mac)))
            for device in known.values()
        ]
        return sorted(found, key=lambda d: (not d["online"], d["hostname"].lower(), d["mac"]))

    def set(self, mac: str, access: str) -> str:
        """Except a device, or end its exception; a warning where that is not saved yet. Raises
        ValueError."""
        try:
            mac = valid_mac(mac)
        except ValueError as error:
            raise ValueError(f"mac {error}") from None
        try:
            wanted = Access(access)
        except ValueError:
            raise ValueError("access must be default, allowed or denied") from None
        self._look()
        former = self._exemptions.get(mac)
        exemption = Exemption(mac, wanted, "", former.name if former else "")
        if wanted is not Access.DEFAULT:
            exemption = bind(exemption, self._world)
        self._exemptions[mac] = exemption
        self._on_change()
        return self._save(mac)

    def _keep_times(self) -> None:
        """When devices were seen outlives this process, in RAM."""
        self._times_kept = time.monotonic()
        try:
            self._times.write_text(self._world.inventory.times())
        except OSError as error:
            log.warning("it will not be remembered when devices were seen: %s", error)

    # The kernel.

    def _decide(self) -> None:
        lan = None
        if restricted(self._allowed, self._exemptions):
            self._read_topology()
            lan = decide(self._allowed, self._exemptions, self._world)
        self.lan = lan  # not before: where it cannot be decided, what was denied stays denied
        self._schedule()

    def _read_topology(self) -> None:
        isolating = frozenset(name for name, on in self._access_points.items() if on)
        found = topology.read(self._networks)
        self._world = self._world._replace(topology=found, isolating=isolating)

    def _restrict(self, lan: Lan) -> None:
        bridged = self._world.topology.bridged
        problems = []
        if bridged and time.monotonic() < self._rests_until:
            layer2 = False
            problems.append(self._refusal)
        elif bridged:
            try:
                changed = self._packet_filter().reconcile(lan)
                if changed and lan == self._applied:
                    self._on_restored(tuple(f"{FAULT}: {change}" for change in changed))
                self._applied, layer2 = lan, True
            except Exception as error:
                self._applied, layer2 = None, False
                self._refusal = f"{error} (package kmod-nft-bridge?)"
                problems.append(self._refusal)
                # Our own tries are changes of the kernel that would lead here again at once.
                self._rests_until = time.monotonic() + _REST
                self._forget_filter()
        else:
            layer2 = True
        unisolated = self._isolation.reconcile(lan.isolated, bridged)[1]
        if unisolated:
            problems.append(f"cannot be isolated: {', '.join(sorted(unisolated))}")
        if (layer2, unisolated) != (self._world.layer2, self._world.unisolated):
            self._world = self._world._replace(layer2=layer2, unisolated=unisolated)
            self._decide()
        self._faults.note(FAULT, "; ".join(problems) or None)

    def _give_back(self) -> None:
        refused: frozenset[str] = frozenset()
        if self._isolation.taken:
            self._read_topology()
            refused = self._isolation.reconcile((), self._world.topology.bridged)[1]
        if not self._removed:
            try:
                if self._filter or self._kernel_has_table():
                    self._packet_filter().remove()
            finally:  # the next begins anew: the library's own socket may be what is broken
                self._forget_filter()
            self._removed, self._applied = True, None
        if refused:
            raise OSError(f"isolated still: {', '.join(sorted(refused))}")

    def _kernel_has_table(self) -> bool:
        """An earlier process's, or what it left half-way."""
        nft = Nftables()
        try:
            names = (BRIDGE.name, BRIDGE.fence)
            return any(nft.list_table(BRIDGE.family, name) is not None for name in names)
        finally:
            nft.close()

    def _packet_filter(self) -> PacketFilter[Lan]:
        self._removed = False
        if self._filter is None:
            self._filter = PacketFilter(Nftables(), BRIDGE)
        return self._filter

    def _forget_filter(self) -> None:
        if self._filter:
            self._filter.close()
            self._filter = None

    # The inventory.

    def _look(self) -> None:
        """See who is there, and where; exceptions of new devices begin to hold."""
        now = time.monotonic()
        try:
            self._read_topology()
            seen, self._access_points = sightings.read(self._world.topology, self._bus)
            self._world.inventory.update(seen, now, self._exemptions)
            self._faults.note("devices", None)
        except Exception as error:  # the house itself writes most of this: nothing must break
            self._faults.note("devices", f"cannot be told: {error!r}")
        self._looked = time.monotonic()
        if self._looked - self._times_kept > _KEEP_EVERY:
            self._keep_times()
        self._took = self._looked - now
        self._schedule()
        for mac, exemption in list(self._exemptions.items()):
            if exemption.access is Access.ALLOWED and not exemption.port:
                self._exemptions[mac] = bind(exemption, self._world)
                if self._exemptions[mac] != exemption:
                    self._save(mac)

    def _schedule(self) -> None:
        exceptions = self.lan is not None and self._exemptions
        often = exceptions or {FAULT, "devices"} & self._faults.keys()
        # A service that hangs is not waited for again and again.
        wait = max(_LOOK_OFTEN if often else _LOOK_EVERY, 30 * self._took)
        self._look_again.within(wait)

    def _look_now(self) -> None:
        self._look()
        if restricted(self._allowed, self._exemptions) or FAULT in self._faults:
            self._on_change()

    def _shown(
        self,
        device: Device,
        now: float,
        clock: float,
        blocked: tuple[tuple[int, int] | None, ...],
    ) -> dict[str, Any]:
        exemption = self._exemptions.get(device.mac, Exemption(device.mac, Access.DEFAULT))
        judged: Judgement = judge(device, self._allowed, self._exemptions, self._world)
        counts = [count for count in blocked if count]
        v4 = [address for address in device.addresses if ":" not in address]
        return {
            "mac": device.mac,
            "hostname": exemption.name or device.hostname,
            "ipv4": v4,
            "ipv6": [address for address in device.addresses if ":" in address],
            "network": self._network(device),
            "device": device.port,
            "wireless": device.wireless,
            # The wall clock may have been wrong when it was seen: count back from what it is now.
            "first_seen": int(clock - (now - device.first)) if device.first else 0,
            "last_seen": int(clock - (now - device.heard)) if device.heard else 0,
            "online": device.online(now),
            "access": str(exemption.access),
            "enforced": judged.enforced,
            "note": judged.note,
            "blocked": {
                "packets": sum(packets for packets, _ in counts),
                "bytes": sum(octets for _, octets in counts),
            },
        }

    def _network(self, device: Device) -> str:
        for network in self._networks:
            if network.device == device.network:
                return network.name
        for network in self._networks:  # known from its lease alone
            if any(within(address, network.prefixes) for address in device.addresses):
                return network.name
        return ""

    # UCI.

    def _save(self, mac: str) -> str:
        if timer := self._unsaved.pop(mac, None):
            timer.cancel()
        exemption = self._exemptions[mac]
        try:
            exemptions.save(self._bus, exemption)
        except (BusError, ForeignChangesError) as error:
            warning = f"in force, but not saved yet: {error}"
            self._faults.note(f"exception {mac} unsaved", warning)
            self._unsaved[mac] = self._loop.after(_SAVE_AFTER, lambda: self._save_again(mac))
            return warning
        self._faults.note(f"exception {mac} unsaved", None)
        if exemption == Exemption(mac, Access.DEFAULT):
            del self._exemptions[mac]
        return ""

    def _save_again(self, mac: str) -> None:
        self._save(mac)
