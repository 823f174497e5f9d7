# SPDX-License-Identifier: GPL-2.0-or-later
"""Isolated bridge ports: the bridge, and many a switch chip, forwards between none of them.

It is the second hand on layer 2, and the only one where a switch chip forwards by itself. What
was isolated is written down, so that only that is given back: the owner may have isolated ports
of his own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from portcullis import topology
from portcullis.netlink import IPRoute, NetlinkError, link_named
from portcullis.storage import write_durably
from portcullis.topology import Port


class Isolation:
    def __init__(self, record: Path) -> None:
        self._record = record

    @property
    def taken(self) -> bool:
        return self._record.exists()

    def reconcile(
        self, wanted: Iterable[str], ports: dict[str, Port]
    ) -> tuple[tuple[str, ...], frozenset[str]]:
        """Isolate `wanted` of the bridges' `ports`, and give back what was isolated before, also
        where its bridge is none of the house's any more; what was changed, in words, and the
        ports that refused. Raises OSError where the record cannot be read or written."""
        wanted, former = set(wanted), self._read()
        on = [name for name in sorted(wanted) if name in ports and not ports[name].isolated]
        off = [n for n in sorted(former - wanted) if (ports.get(n) or topology.port(n)).isolated]
        kept = (former & wanted) | set(on)
        if not on and not off and kept == former:
            return (), frozenset()
        self._write(former | set(on))  # before anything is done, so that it can be undone
        refused = {name for name in (*on, *off) if not self._set(name, name in on)}
        self._write(kept - refused | refused & set(off))
        words = [f"{name} isolated" for name in on] + [f"{name} rejoined" for name in off]
        return tuple(w for w in words if w.split()[0] not in refused), frozenset(refused)

    @staticmethod
    def _set(name: str, isolated: bool) -> bool:
        try:
            with IPRoute() as ip:
                if link := link_named(ip, name):
                    ip.brport("set", index=link["index"], isolated=int(isolated))
        except (NetlinkError, OSError):  # the driver refuses, or the port has just left
            return False
        return True

    def _read(self) -> set[str]:
        try:
            return set(map(str, json.loads(self._record.read_text())))
        except (FileNotFoundError, ValueError, TypeError):
            return set()

    def _write(self, names: set[str]) -> None:
        if names:
            write_durably(self._record, json.dumps(sorted(names)))
        else:
            self._record.unlink(missing_ok=True)
