# SPDX-License-Identifier: GPL-2.0-or-later
"""At home on OpenWrt: our sections in UCI, and the tunnel's device in netifd.

Neither is a layer of the block. The sections bring the routing guard back when netifd starts,
and let fw4 accept the tunnel; with netifd knowing the device, LuCI and scripts see it. What is
missing is put back through rpcd, whose commit has procd reload netifd or fw4.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from socket import if_nametoindex
from typing import Any

from portcullis import sections
from portcullis.bus import Bus, BusError
from portcullis.faults import Faults
from portcullis.loop import Deferred, Loop
from portcullis.openwrt import ForeignChangesError, save, take_back
from portcullis.policy import TUNNEL
from portcullis.sections import Change, Section

log = logging.getLogger("portcullis")

INTERFACE = "portcullis"
_SETTLE, _AGAIN_AFTER = 1.0, 5.0
_PAUSE_MOST, _CALM_AFTER = 300.0, 600.0


class Integration:
    """`share` is the folder with network.uci and firewall.uci."""

    def __init__(self, loop: Loop, bus: Bus, faults: Faults, share: Path) -> None:
        self._bus, self._faults, self._share = bus, faults, share
        self._healing = Deferred(loop, self._heal)
        self._zones: tuple[str, ...] = ()
        self._attached = 0
        self._pause, self._healed_at = _SETTLE, float("-inf")

    def surroundings_read(self, zones: tuple[str, ...], devices: dict[str, str]) -> None:
        """The sections may have changed, and netifd may have restarted. `zones` are those of
        the protected networks, `devices` netifd's interfaces with the device each is on."""
        self._zones = zones
        if devices.get(INTERFACE) != TUNNEL:
            self._attached = 0
        self.attach()
        self._healing.within(max(_SETTLE, self._healed_at + self._pause - time.monotonic()))

    def attach(self) -> None:
        """Have netifd know the tunnel's device, whenever it is a new one."""
        try:
            index = if_nametoindex(TUNNEL)
        except OSError:
            self._attached = 0
            return
        if index == self._attached or not self._bus.up:
            return
        device = {"name": TUNNEL, "link-ext": True}  # its link, addresses and routes are ours
        with suppress(BusError):  # no such interface yet: asked for again when it comes up
            self._bus.call(f"network.interface.{INTERFACE}", "add_device", device)
            self._attached = index

    def close(self) -> None:
        self._healing.cancel()

    def _heal(self) -> None:
        if not self._bus.up:
            return  # its return has the surroundings read again
        try:
            healed = self._put_back("network", sections.missing_in_network, ())
            wanted = sections.forwardings(self._zones)
            healed += self._put_back("firewall", sections.missing_in_firewall, wanted)
        except (BusError, ForeignChangesError, OSError, ValueError) as error:
            self._faults.note("integration", f"sections in UCI are not put back yet: {error}")
            self._healing.within(_AGAIN_AFTER)
            return
        self._faults.note("integration", None)
        if healed:
            log.warning("put back in /etc/config: %s", ", ".join(healed))
            # Whoever takes them away again and again must not have us write flash for ever.
            now = time.monotonic()
            calm = now - self._healed_at > _CALM_AFTER
            self._pause = _SETTLE if calm else min(2 * self._pause, _PAUSE_MOST)
            self._healed_at = now

    def _put_back(
        self,
        config: str,
        missing: Callable[[tuple[Section, ...], dict[str, Any]], list[Change]],
        more: tuple[Section, ...],
    ) -> list[str]:
        """Put back what is missing in a configuration; what that was."""
        wanted = sections.parse((self._share / f"{config}.uci").read_text()) + more
        take_back(self._bus, config)
        present = self._bus.call("uci", "get", {"config": config}).get("values")
        if not present:
            raise BusError(f"/etc/config/{config} is empty")
        changes = missing(wanted, present)
        if changes:
            save(self._bus, config, [(c.method, c.arguments) for c in changes])
        return [f"{config}.{c.arguments.get('name') or c.arguments['section']}" for c in changes]
