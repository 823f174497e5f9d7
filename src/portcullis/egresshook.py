# SPDX-License-Identifier: GPL-2.0-or-later
"""The egress hook at work: the third layer, where kernel and nft have it.

A lesser layer: without it the others still hold all but AF_PACKET, so its failing is a fault
that is tried again, and never K5's last resort. Whether it can be had is found by trying.
"""

from __future__ import annotations

import time

from portcullis import egress
from portcullis.attachment import Attachment
from portcullis.egress import Outward
from portcullis.nft import Nftables, NftError
from portcullis.packetfilter import PacketFilter
from portcullis.policy import Policy

_TRY_AGAIN = 60.0  # a kernel module may be installed while we run
_NEEDS = "it takes package kmod-nft-netdev, and a kernel with NETFILTER_EGRESS"


class EgressHook:
    def __init__(self) -> None:
        self._filter: PacketFilter[Outward] | None = None
        self._attachment = Attachment()
        self._hooked: tuple[tuple[str, int], ...] | None = None  # of a former process, perhaps
        self._tried = float("-inf")
        self._refusal, self._found = "", False

    def tell(self, differences: tuple[str, ...]) -> None:
        """The kernel says that somebody has changed this (`packetfilter`)."""
        if self._filter:
            self._filter.tell(differences)

    def reconcile(self, policy: Policy, attachment: Attachment) -> tuple[str, ...]:
        """Make the hook what `policy` says, on the devices of `attachment`; what had to be
        changed. Raises FilterError or NftError. Where there is no such hook nothing is done."""
        self._attachment = attachment
        if self._filter is None and not self._open():
            return ()
        assert self._filter
        try:
            if self._hooked != attachment.devices and not attachment.devices:
                self._filter.remove()  # whatever stands: the house may be on it by now (K14)
            elif self._hooked != attachment.devices:
                self._filter.become(egress.table(attachment.names))
            self._hooked = attachment.devices
            wanted = Outward(policy, attachment)
            return self._filter.reconcile(wanted) if attachment.devices else ()
        except Exception:
            self.close()  # begin anew: the library's own socket may be what is broken
            raise

    @property
    def standing(self) -> str:
        """How it stands, for people."""
        if self._refusal:
            return f"not available: {self._refusal}"
        shared = ", ".join(self._attachment.shared)
        if self._attachment.devices:
            return "in force" + (f", but not on {shared}: the house is on it" if shared else "")
        return f"not available: {f'the house is on {shared}' if shared else 'no upstream device'}"

    def counters(self) -> dict[str, int]:
        return self._filter.counters() if self._filter else {}

    def close(self) -> None:
        """Give the library back; the table stays."""
        if self._filter:
            self._filter.close()
        self._filter = self._hooked = None

    def _open(self) -> bool:
        if self._refusal and time.monotonic() < self._tried + _TRY_AGAIN:
            return False
        self._tried = time.monotonic()
        nft = Nftables()
        try:
            if not self._found:  # what was there once and fails now is a fault
                nft.run(egress.PROBE)
        except NftError as error:
            nft.close()
            self._refusal = f"{error} ({_NEEDS})"
            return False
        self._refusal, self._found = "", True
        self._filter = PacketFilter(nft, egress.table(()))
        return True
