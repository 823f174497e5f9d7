# SPDX-License-Identifier: GPL-2.0-or-later
"""Where things are kept on the router."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Paths(NamedTuple):
    """Where things are kept: what must last, what is gone with the power, what came with us."""

    home: Path = Path("/etc/portcullis")
    run: Path = Path("/var/run/portcullis")
    share: Path = Path("/usr/share/portcullis")

    @property
    def intent(self) -> Path:
        return self.home / "intent"

    @property
    def unsaved(self) -> Path:
        """The intent while it is being written, and as long as it cannot be: gone at reboot."""
        return self.run / "intent"

    @property
    def profiles(self) -> Path:
        return self.home / "profiles"

    @property
    def endpoints(self) -> Path:
        return self.home / "endpoints"

    @property
    def clock(self) -> Path:
        """Its date is that of the newest handshake, more or less."""
        return self.home / "clock"

    @property
    def clock_now(self) -> Path:
        """The same since the last boot, exactly."""
        return self.run / "clock"

    @property
    def networks(self) -> Path:
        return self.home / "networks"

    @property
    def boot(self) -> Path:
        """Elements that the boot guard loads with the table."""
        return self.home / "boot.nft"

    @property
    def boot_lan(self) -> Path:
        """The table that keeps devices apart, for the boot guard; none where they may meet."""
        return self.home / "lan.nft"
