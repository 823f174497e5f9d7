# SPDX-License-Identifier: GPL-2.0-or-later
"""What the core asks of whatever carries the tunnel. Drivers know no policy."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from portcullis.policy import Socket
from portcullis.profile import Profile


class DriverError(Exception):
    """The tunnel cannot be set up; `curable` where trying again may help."""

    def __init__(self, reason: str, curable: bool = True) -> None:
        super().__init__(reason)
        self.curable = curable


class Reading(NamedTuple):
    """Counters of the tunnel: time of the newest handshake (UNIX seconds, 0.0 for none since
    the peers were last set), octets received and sent, handshakes included."""

    handshake: float
    received: int
    sent: int


class Driver(Protocol):
    @property
    def implementation(self) -> str:
        """Who carries the packets, for people: `kernel`, `wireguard-go`, or ""."""

    def start(self, profile: Profile, endpoints: tuple[Socket | None, ...]) -> None:
        """Bring the device up, or set it anew, and begin a handshake. `endpoints` has one
        entry for each of the profile's peers. Raises DriverError; then nothing is left up."""

    def reading(self) -> Reading | None:
        """The counters, or None where the device is gone."""

    def stop(self) -> None:
        """Take the device down, whoever made it. Raises DriverError where it stays."""
