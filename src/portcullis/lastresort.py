# SPDX-License-Identifier: GPL-2.0-or-later
"""K5's last resort: where the block cannot be armed and verified, the way out is taken away.

Upstream devices are taken down, and forwarding is switched off where none is known or one is
shared with a protected network. What was done is written down, so that it can be undone after
a verified arming, by a later process too.
"""

from __future__ import annotations

import json
from pathlib import Path

from portcullis.netlink import IFF_UP, IPRoute, link_named

_FORWARDING = ("/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding")


class LastResort:
    def __init__(self, record: Path) -> None:
        self._record = record

    @property
    def taken(self) -> bool:
        return self._record.exists()

    def take(self, upstream: tuple[str, ...], kept: tuple[str, ...]) -> tuple[str, ...]:
        """Close what can be closed without a packet filter, `kept` devices stay up; what was
        done, in words."""
        devices, switches = self._read()
        done = []
        alone = [device for device in upstream if device not in kept]
        with IPRoute() as ip:
            for device in alone:
                link = link_named(ip, device)
                if link is None or not link["flags"] & IFF_UP:
                    continue
                devices = [*devices, device]
                self._write(devices, switches)
                ip.link("set", index=link["index"], state="down")
                done.append(f"{device} taken down")
        if len(alone) < len(upstream) or not upstream:
            for switch in _FORWARDING:
                path = Path(switch)
                if path.exists() and path.read_text().strip() != "0":
                    switches = [*switches, switch]
                    self._write(devices, switches)
                    path.write_text("0")
                    done.append(f"{switch} switched off")
        return tuple(done)

    def undo(self) -> None:
        """Give back what was taken. Raises NetlinkError or OSError; to be called again then."""
        devices, switches = self._read()
        for switch in switches:
            Path(switch).write_text("1")
        with IPRoute() as ip:
            for device in devices:
                if link := link_named(ip, device):
                    ip.link("set", index=link["index"], state="up")
        self._record.unlink(missing_ok=True)

    def _read(self) -> tuple[list[str], list[str]]:
        try:
            entry = json.loads(self._record.read_text())
            return list(map(str, entry["devices"])), list(map(str, entry["switches"]))
        except FileNotFoundError:
            return [], []
        except (OSError, ValueError, KeyError, TypeError):
            return [], []

    def _write(self, devices: list[str], switches: list[str]) -> None:
        self._record.parent.mkdir(parents=True, exist_ok=True)
        self._record.write_text(json.dumps({"devices": devices, "switches": switches}))
