# SPDX-License-Identifier: GPL-2.0-or-later
"""The block: its layers made what a policy says, verified, and what follows if they cannot be.

The packet filter is what verifies the block (K5); the routing guard is the second layer, and
the egress hook the third where the kernel has it (K9). Flows of another policy are cut (K3).
Where the block is wanted and cannot be verified, the way out is taken away, and given back after
a verified arming.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from portcullis.attachment import Attachment, Outside, attach
from portcullis.egresshook import EgressHook
from portcullis.faults import Faults
from portcullis.guard import RoutingGuard
from portcullis.lastresort import LastResort
from portcullis.netlink import NetlinkError, conntrack_flush, drop_queued
from portcullis.nft import Nftables, NftError
from portcullis.offload import ADVICE, OFFLOAD, hardware_used
from portcullis.packetfilter import FilterError, PacketFilter
from portcullis.policy import Policy
from portcullis.ruleset import INET
from portcullis.watch import Change

log = logging.getLogger("portcullis")

FILTER, GUARD, HOOK = "packet filter", "routing guard", "egress hook"
CONNTRACK, LAST_RESORT = "conntrack", "last resort"
_TRIES = 20  # of arming: who deletes the table between a change and its reading back is no fault


class Applied(NamedTuple):
    """`armed`: the block is verified, or not asked for. `whole`: all layers are in order.
    `flipped`: blocking began or ended, so what was learnt before must be forgotten (K12)."""

    armed: bool
    whole: bool
    flipped: bool


class Block:
    """`on_restored` is told what somebody had changed behind our back (K10)."""

    def __init__(
        self, run: Path, faults: Faults, on_restored: Callable[[tuple[str, ...]], None]
    ) -> None:
        self._faults, self._on_restored = faults, on_restored
        self._filter: PacketFilter[Policy] | None = None
        self._guard = RoutingGuard()
        self._hook = EgressHook()
        self._last_resort = LastResort(run / "last-resort")
        self._applied: dict[str, object] = {}
        self._flow_key: tuple[object, ...] | None = None
        self._released: bool | None = None
        self._attachment = Attachment()
        self._touched: frozenset[str] = frozenset()
        self.hardware_offload_wanted = False

    def changed_by_others(self, change: Change) -> None:
        """What the kernel says of it: `apply` puts that right before all else."""
        if change.block and self._filter:
            self._filter.tell(change.block)
        self._hook.tell(change.hook)
        touched = {FILTER: change.block, HOOK: change.hook, GUARD: change.routing}
        self._touched |= {layer for layer, by_others in touched.items() if by_others}

    def apply(self, policy: Policy, outside: Outside) -> Applied:
        """Make all layers what `policy` says; what leads `outside` has the egress hook, and is
        taken down where there is no packet filter. Never raises: what went wrong stands in the
        faults."""
        house = (*policy.devices, *(network.device for network in policy.served))
        attachment = attach(outside, house, self._attachment.devices)
        touched = self._touched | ({HOOK} if attachment != self._attachment else set())
        self._touched, self._attachment = frozenset(), attachment
        others: dict[str, tuple[object, Callable[[], tuple[str, ...]]]] = {
            HOOK: ((policy, attachment), lambda: self._hook.reconcile(policy, attachment)),
            GUARD: (policy, lambda: self._guard.reconcile(policy)),
        }

        @cache
        def reconcile_others() -> bool:
            order = sorted(others, key=lambda layer: layer not in touched)
            done = [self._reconcile(layer, *others[layer]) for layer in order]
            return all(done)

        if touched and FILTER not in touched:
            reconcile_others()
        filtered = self._reconcile(FILTER, policy, lambda: self._arm(policy, reconcile_others))
        whole = reconcile_others() and filtered
        self._look_at_rules(policy)
        flipped = False
        if not filtered:
            if self._filter:  # begin anew: the library's own socket may be what is broken
                self._filter.close()
                self._filter = None
            if not policy.released:
                self._close_off(outside.upstream, (*house, *outside.doubtful))
        else:
            flipped = self._cut_flows(policy)
            if flipped and not policy.released:
                self._drop_queued(outside)
        self._look_at_offload()
        if filtered or policy.released:
            self._give_back()
        whole = whole and not {CONNTRACK, LAST_RESORT} & self._faults.keys()
        return Applied(filtered or policy.released, whole, flipped)

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
        return {**(self._filter.counters() if self._filter else {}), **self._hook.counters()}

    def metered(self) -> dict[str, tuple[int, int]]:
        """Packets and bytes blocked, by the device's MAC address."""
        return self._filter.metered() if self._filter else {}

    @property
    def verified(self) -> bool:
        needed = {FILTER, GUARD} if self._released else {FILTER, GUARD, OFFLOAD}
        return not needed & self._faults.keys()

    @property
    def layers(self) -> dict[str, str]:
        """How each layer stands: `in force`, or what is wrong with it."""
        return {
            "packet_filter": self._faults.get(FILTER, "in force"),
            "routing_guard": self._faults.get(GUARD, "in force"),
            "egress_hook": self._faults.get(HOOK, self._hook.standing),
        }

    def _packet_filter(self) -> PacketFilter[Policy]:
        if self._filter is None:
            self._filter = PacketFilter(Nftables(), INET)
        return self._filter

    def _arm(self, policy: Policy, others: Callable[[], object]) -> tuple[str, ...]:
        """Raises FilterError where it cannot be done however often it is tried; the `others` do
        not wait for that."""
        for _ in range(_TRIES - 1):
            with suppress(FilterError):
                return self._packet_filter().reconcile(policy)
            others()
        return self._packet_filter().reconcile(policy)

    def _reconcile(
        self, layer: str, wanted: object, reconcile: Callable[[], tuple[str, ...]]
    ) -> bool:
        """Whether a layer is in order, as `wanted`; what was so and is no more, somebody has
        changed behind our back. A route that was only waiting for its device is none of that."""
        before = self._applied.get(layer)
        try:
            changed = reconcile()
        except Exception as error:  # whatever it is, the layer is not verified
            self._faults.note(layer, str(error) or repr(error))
            if before != wanted:
                self._applied.pop(layer, None)
            return False
        self._faults.note(layer, None)
        self._applied[layer] = wanted
        told = [c for c in changed if not (c.startswith("missing") and "unicast" in c)]
        if told and before == wanted:
            self._on_restored(tuple(f"{layer}: {change}" for change in told))
        return True

    def _cut_flows(self, policy: Policy) -> bool:
        """End the flows of another policy; whether blocking began or ended."""
        flipped = self._released is not policy.released
        self._released = policy.released
        if policy.flow_key() == self._flow_key:
            return flipped
        # A policy that is back before flows could be cut finds those of the one between.
        self._flow_key = None
        try:
            conntrack_flush()
        except (NetlinkError, OSError) as error:
            reason = f"flows cannot be cut (package kmod-nf-conntrack-netlink?): {error}"
            self._faults.note(CONNTRACK, reason)
        else:
            self._faults.note(CONNTRACK, None)
            self._flow_key = policy.flow_key()
        return flipped

    def _drop_queued(self, outside: Outside) -> None:
        """What had passed all layers before, also at devices below and ports of bridges."""
        leading = (*outside.upstream, *outside.pppoe)
        upper = [netdev for netdev in outside.netdevs if netdev.name in leading]
        lower = {netdev.lower for netdev in upper}
        masters = {netdev.ifindex for netdev in upper}
        try:
            drop_queued(
                netdev.name
                for netdev in outside.netdevs
                if netdev in upper or netdev.ifindex in lower or netdev.master in masters
            )
        except (NetlinkError, OSError) as error:
            log.warning("what waited to be sent was not dropped: %s", error)

    def _look_at_rules(self, policy: Policy) -> None:
        """Rules of others that come first take traffic from the tunnel; the filter blocks it."""
        told = f"somebody else's come before ours (priority {self._guard.preceded}):"
        advice = "what they lead past the tunnel is blocked. Give them priorities from 832 on"
        wrong = self._guard.preceded and not policy.released
        self._faults.note("ip rules", f"{told} {advice}" if wrong else None)

    def _look_at_offload(self) -> None:
        """What hardware forwards cannot be verified; the owner is told before it matters."""
        listed = self._filter.flowtables() if self._filter else ""
        used = hardware_used(self.hardware_offload_wanted, listed)
        self._faults.note(OFFLOAD, ADVICE if used else None)

    def _close_off(self, upstream: tuple[str, ...], kept: tuple[str, ...]) -> None:
        """`kept` devices lead to the house: they are never taken down (K14)."""
        done, problems = self._last_resort.take(upstream, kept)
        for what in done:
            log.error("the block cannot be verified: %s", what)
        self._faults.note(LAST_RESORT, "; ".join(problems) or None)

    def _give_back(self) -> None:
        """Where nothing was taken, nothing is wrong about it any more either."""
        if self._last_resort.taken:
            try:
                self._last_resort.undo()
            except (NetlinkError, OSError) as error:
                self._faults.note(LAST_RESORT, str(error))
                return
            log.info("the way to the internet is given back")
        self._faults.note(LAST_RESORT, None)
