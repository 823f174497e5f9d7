# SPDX-License-Identifier: GPL-2.0-or-later
"""K5's last resort: where the block cannot be armed and verified, the way out is taken away.

Upstream devices are taken down, and forwarding is switched off where none is known, one is shared
with a protected network, or one does not go down. What was done is written down, so that it can be
undone after a verified arming, by a later process too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from portcullis.netlink import IFF_UP, IPRoute, NetlinkError, link_named
from portcullis.storage import write_durably

_FORWARDING = ("/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding")


class Taken(NamedTuple):
    """What has been taken down or switched off, in that order."""

    devices: tuple[str, ...] = ()
    switches: tuple[str, ...] = ()

    def joined(self, other: Taken) -> Taken:
        return Taken(
            tuple(dict.fromkeys((*self.devices, *other.devices))),
            tuple(dict.fromkeys((*self.switches, *other.switches))),
        )


class LastResort:
    def __init__(self, record: Path) -> None:
        self._record = record
        self._own, self._written = Taken(), True  # by this process

    @property
    def taken(self) -> bool:
        return any(self._own) or self._record.exists()

    def take(
        self, upstream: tuple[str, ...], kept: tuple[str, ...]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Close what can be closed without a packet filter, `kept` devices stay up; what was
        done, and what was not, in words. Never raises: what fails must not keep the rest open."""
        done, problems = [], []
        alone = [device for device in upstream if device not in kept]
        for device in alone:
            try:
                if self._take_down(device):
                    done.append(f"{device} taken down")
            except (NetlinkError, OSError) as error:
                problems.append(f"{device} cannot be taken down: {error}")
        if problems or len(alone) < len(upstream) or not upstream:
            for switch in _FORWARDING:
                try:
                    if self._switch_off(switch):
                        done.append(f"{switch} switched off")
                except OSError as error:
                    problems.append(f"{switch} cannot be switched off: {error}")
        if not self._written:
            self._write()
        return tuple(done), tuple(problems)

    def undo(self) -> None:
        """Give back what was taken. Raises NetlinkError or OSError; to be called again then."""
        taken = self._known()
        problems: list[NetlinkError | OSError] = []
        for switch in taken.switches:
            try:
                Path(switch).write_text("1")
            except OSError as error:
                problems.append(error)
        for device in reversed(taken.devices):  # a VLAN cannot be up before what it runs over
            try:
                with IPRoute() as ip:
                    if link := link_named(ip, device):
                        ip.link("set", index=link["index"], state="up")
            except (NetlinkError, OSError) as error:
                problems.append(error)
        if problems:
            raise problems[0]
        self._record.unlink(missing_ok=True)
        self._own, self._written = Taken(), True

    def _take_down(self, device: str) -> bool:
        with IPRoute() as ip:
            link = link_named(ip, device)
            if link is None or not link["flags"] & IFF_UP:
                return False
            self._own = self._own.joined(Taken(devices=(device,)))
            self._write()
            ip.link("set", index=link["index"], state="down")
        return True

    def _switch_off(self, switch: str) -> bool:
        path = Path(switch)
        if not path.exists() or path.read_text().strip() == "0":
            return False
        self._own = self._own.joined(Taken(switches=(switch,)))
        self._write()
        path.write_text("0")
        return True

    def _known(self) -> Taken:
        """Also by an earlier process, or the boot guard. Raises OSError where the record cannot be
        read: nothing of it may be forgotten."""
        try:
            entry = json.loads(self._record.read_text())
            found = Taken(tuple(map(str, entry["devices"])), tuple(map(str, entry["switches"])))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            found = Taken()
        return found.joined(self._own)

    def _write(self) -> None:
        """Before it is done, so that a crash forgets nothing. Where nothing can be written it is
        done all the same, and this process alone knows: closed is better than remembered."""
        try:
            write_durably(self._record, json.dumps(self._known()._asdict()))
            self._written = True
        except OSError:
            self._written = False
