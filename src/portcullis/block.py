# SPDX-License-Identifier: GPL-2.0-or-later
"""The block: both layers made what a policy says, verified, and what follows if they cannot be.

The packet filter is what verifies the block (K5); the routing guard is the second layer (K9).
Flows of another policy are cut (K3). Where the block is wanted and cannot be verified, the way
out is taken away, and given back after a verified arming.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from portcullis.faults import Faults
from portcullis.guard import RoutingGuard
from portcullis.lastresort import LastResort
from portcullis.netlink import NetlinkError, conntrack_flush
from portcullis.nft import Nftables, NftError
from portcullis.packetfilter import PacketFilter
from portcullis.policy import Policy
from portcullis.ruleset import INET

log = logging.getLogger("portcullis")

FILTER, GUARD = "packet filter", "routing guard"


class Applied(NamedTuple):
    """`armed`: the block is verified, or not asked for. `whole`: both layers are in order.
    `flipped`: blocking began or ended, so what was learnt before must be forgotten (K12)."""

    armed: bool
    whole: bool
    flipped: bool


class Block:
    def __init__(self, run: Path, faults: Faults) -> None:
        self._faults = faults
        self._filter: PacketFilter[Policy] | None = None
        self._guard = RoutingGuard()
        self._last_resort = LastResort(run / "last-resort")
        self._applied: Policy | None = None
        self._flow_key: tuple[object, ...] | None = None
        self._released: bool | None = None
        self.restored = 0

    def apply(self, policy: Policy, upstream: tuple[str, ...]) -> Applied:
        """Make both layers what `policy` says; `upstream` are the devices to take down where
        that fails. Never raises: what went wrong stands in the faults."""
        filtered = self._reconcile(FILTER, lambda: self._packet_filter().reconcile(policy))
        guarded = self._reconcile(GUARD, lambda: self._guard.reconcile(policy))
        flipped = False
        if filtered is None:
            if self._filter:  # begin anew: the library's own socket may be what is broken
                self._filter.close()
                self._filter = None
            if not policy.released:
                kept = (*policy.devices, *(network.device for network in policy.served))
                self._close_off(upstream, kept)
        else:
            flipped = self._cut_flows(policy)
        if self._last_resort.taken and (filtered is not None or policy.released):
            self._give_back()
        whole = filtered is not None and guarded is not None
        if whole and policy == self._applied:
            self._tell_restored((*(filtered or ()), *(guarded or ())))
        self._applied = policy if whole else None
        return Applied(filtered is not None or policy.released, whole, flipped)

    def stands(self) -> bool:
        """Whether a table stands, ours or an earlier process's."""
        try:
            return self._packet_filter().stands()
        except NftError:
            return False

    def standing(self, policy: Policy) -> tuple[str, ...]:
        """What differs from `policy` in the kernel at this moment; nothing is changed."""
        if self._filter is None:
            return ("the packet filter is not loaded",)
        return (*self._filter.standing(policy), *self._guard.standing(policy))

    def counters(self) -> dict[str, int]:
        """Packets blocked, by reason."""
        return self._filter.counters() if self._filter else {}

    def metered(self) -> dict[str, tuple[int, int]]:
        """Packets and bytes blocked, by the device's MAC address."""
        return self._filter.metered() if self._filter else {}

    @property
    def verified(self) -> bool:
        return not {FILTER, GUARD} & self._faults.keys()

    def _packet_filter(self) -> PacketFilter[Policy]:
        if self._filter is None:
            self._filter = PacketFilter(Nftables(), INET)
        return self._filter

    def _reconcile(
        self, layer: str, reconcile: Callable[[], tuple[str, ...]]
    ) -> tuple[str, ...] | None:
        """What a layer had to change, or None where it is not known to be in order."""
        try:
            changed = reconcile()
        except Exception as error:  # whatever it is, the layer is not verified
            self._faults.note(layer, str(error) or repr(error))
            return None
        self._faults.note(layer, None)
        return changed

    def _tell_restored(self, changes: tuple[str, ...]) -> None:
        """The policy was in force, and somebody changed it behind our back (K10). A route that
        was only waiting for its device is none of that."""
        found = [c for c in changes if not (c.startswith("missing") and "unicast" in c)]
        if found:
            self.restored += len(found)
            log.warning("put back what was changed: %s", ", ".join(found))

    def _cut_flows(self, policy: Policy) -> bool:
        """End the flows of another policy; whether blocking began or ended."""
        if policy.flow_key() == self._flow_key:
            return False
        try:
            conntrack_flush()
        except (NetlinkError, OSError) as error:
            reason = f"flows cannot be cut (package kmod-nf-conntrack-netlink?): {error}"
            self._faults.note("conntrack", reason)
            return False
        self._faults.note("conntrack", None)
        self._flow_key = policy.flow_key()
        flipped = self._released is not policy.released
        self._released = policy.released
        return flipped

    def _close_off(self, upstream: tuple[str, ...], kept: tuple[str, ...]) -> None:
        """`kept` devices lead to the house: they are never taken down (K14)."""
        try:
            for done in self._last_resort.take(upstream, kept):
                log.error("the block cannot be verified: %s", done)
        except (NetlinkError, OSError) as error:
            self._faults.note("last resort", str(error))

    def _give_back(self) -> None:
        try:
            self._last_resort.undo()
        except (NetlinkError, OSError) as error:
            self._faults.note("last resort", str(error))
            return
        self._faults.note("last resort", None)
        log.info("the way to the internet is given back")
