# SPDX-License-Identifier: GPL-2.0-or-later
"""A batch of packets, sent and looked for together, and what their fate proves.

Each batch has its positive control: packets that the block lets out (they look like a DHCP
client's, or ask for a neighbour) leave by every upstream device in the same breath. Only if the
same capture has seen those, a packet that it has not seen did not leave.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from portcullis.selftest import FAIL, NOT_TESTABLE, PASS
from portcullis.selftest.capture import Capture
from portcullis.selftest.sockets import Send, Sockets

_QUIET, _PATIENCE = 0.4, 1.5
"""Seconds to look for what must not come, and for a control that must: a next hop whose address
is not known is asked for first."""


class World(NamedTuple):
    """`harmless` devices are not outside: the house's, the tunnel, our own, the router itself."""

    active: bool
    meaning: str
    upstream: tuple[str, ...]
    harmless: frozenset[str]
    tunnel: str


class Finding(NamedTuple):
    result: str
    detail: str
    sent: int = 0
    seen: int = 0


class Batch:
    def __init__(self, world: World, capture: Capture, sockets: Sockets) -> None:
        self._world, self._capture, self._sockets = world, capture, sockets
        self._labels: dict[int, str] = {}
        self._controls: dict[int, str] = {}
        self.arrived: str | None = None  # why it is not known that a station's packets arrive

    def send(self, label: str, send: Send) -> None:
        """Send one packet; `label` says for people what it is."""
        number, token = self._capture.token()
        if _tried(send, token):
            self._labels[number] = label

    def control(self, devices: Iterable[str]) -> None:
        for device in devices:
            for send in (self._sockets.dhcp(device), self._sockets.neighbour(device)):
                number, token = self._capture.token()
                if _tried(send, token):
                    self._controls[number] = device

    def look(self) -> None:
        """Wait for what comes out."""
        self._capture.watch(_QUIET, frozenset(self._controls), _PATIENCE)
        self._sockets.close()

    @property
    def through_tunnel(self) -> int:
        tunnel = self._world.tunnel
        return sum(tunnel in self._capture.left.get(number, ()) for number in self._labels)

    def outside(self) -> dict[str, set[str]]:
        """Label → devices outside that it has left by."""
        found = self._outside()
        return {self._labels[n]: devices for n, devices in found.items()}

    def finding(self, controlled: Iterable[str]) -> Finding:
        """What is proven, where `controlled` devices need a control."""
        sent, left = len(self._labels), self._outside()
        seen = len(left)
        if left and not self._world.active:
            devices = " and ".join(sorted(set().union(*left.values())))
            how = f"{seen} of {sent} test packets left by {devices}"
            return Finding(NOT_TESTABLE, f"{how}, as {self._world.meaning}", sent, seen)
        if left:
            return Finding(FAIL, f"{seen} of {sent} packets left: {self._named(left)}", sent, seen)
        if reason := self._blind(controlled):
            return Finding(NOT_TESTABLE, reason, sent, seen)
        if not self._world.active:
            return Finding(NOT_TESTABLE, f"nothing is blocked: {self._world.meaning}", sent, seen)
        ways = f"{self.through_tunnel} of them into the tunnel, " if self.through_tunnel else ""
        through = sum(1 for number in self._controls if number in self._capture.left)
        detail = f"{sent} packets, {ways}none outside; {through} control packets were seen"
        return Finding(PASS, detail, sent, seen)

    def _outside(self) -> dict[int, set[str]]:
        found = {}
        for number in self._labels:
            if devices := self._capture.left.get(number, set()) - self._world.harmless:
                found[number] = devices
        return found

    def _named(self, left: dict[int, set[str]]) -> str:
        named = {f"{self._labels[n]} by {' and '.join(sorted(d))}": None for n, d in left.items()}
        more = len(named) - 3
        return ", ".join(list(named)[:3]) + (f" and {more} more kinds" if more > 0 else "")

    def _blind(self, controlled: Iterable[str]) -> str:
        """Why nothing is proven by what was not seen, or empty."""
        if lost := self._capture.lost():
            return f"the capture lost {lost} frames"
        seen = {self._controls[n] for n in self._controls if n in self._capture.left}
        unseen = [device for device in controlled if device not in seen]
        if unseen:
            return f"on {unseen[0]} not even packets that may leave were seen"
        if not self._labels:
            return "this router can send none of these packets"
        return self.arrived or ""


def _tried(send: Send, token: bytes) -> bool:
    try:
        return send(token)
    except OSError:  # no socket of this kind on this kernel
        return False
