# SPDX-License-Identifier: GPL-2.0-or-later
"""Somebody changes what is ours, and how long it takes until it is back (K10).

The kernel itself says when: its events tell of the deed and of the repair alike. From the deed's
begin to the end of the daemon's first transaction, which closes."""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from portcullis.nft import Nftables
from portcullis.watch import transactions

from . import addresses as at
from .appliance import Appliance
from .capture import Capture
from .flood import Flood
from .judge import judge
from .leaktest import ALLOWED, has_egress_hook

NETLINK_NETFILTER, NETLINK_ROUTE = 12, 0
_SOL_NETLINK, _ADD_MEMBERSHIP, _RCVBUFFORCE = 270, 1, 33
_NFTABLES, _RULES4, _ROUTES4 = 7, 8, 7
_RTM_NEWROUTE, _RTM_NEWRULE = 24, 32
_PATIENCE, _QUIET = 5.0, 0.1

_NFT_DEEDS = (
    "delete table inet portcullis",
    "add element inet portcullis gate { ipv4 : accept }",
    "insert rule inet portcullis forward accept",
)
_HOOK_DEED = "delete table netdev portcullis"
_IP_DEEDS = (
    ("rule del pref 830", _RTM_NEWRULE),
    ("route flush table 707", _RTM_NEWROUTE),
)


class Repairs(NamedTuple):
    """Milliseconds from the deed's begin to the repair, and what left meanwhile of how much."""

    lives_on: list[float]
    spawned: list[float]
    leaked: int
    sent: int

    @property
    def medians(self) -> tuple[float, float]:
        return statistics.median(self.lives_on), statistics.median(self.spawned)


def repairs(appliance: Appliance, rounds: int, rate: int = 300) -> Repairs:
    """Tamper with a connected router under a flood; its tables are plain ones."""
    world = appliance.world
    with (
        Capture(world.isp, world.access) as wan,
        Flood(world.lana, list(at.FRIENDLY.addresses), rate=rate) as flood,
        world.router.inside(),
    ):
        nft = Nftables()
        deeds = [*_NFT_DEEDS, *([_HOOK_DEED] if has_egress_hook() else [])]
        lives_on, spawned = [], []
        for _ in range(rounds):
            for deed in deeds:
                lives_on.append(_after_nft(appliance, partial(nft.run, deed)))
                spawned.append(_after_nft(appliance, partial(_spawn, "nft", deed)))
            for deed, kind in _IP_DEEDS:
                spawned.append(_after_ip(partial(_spawn, "ip", deed), kind))
        nft.close()
        sent = flood.totals().sent.total()
    return Repairs(lives_on, spawned, len(judge(wan.frames, ALLOWED).leaks), sent)


def _spawn(program: str, deed: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([program, *deed.split()])


def _after_nft(appliance: Appliance, deed: Callable[[], object]) -> float:
    assert appliance.daemon
    pid = appliance.daemon.pid

    def repaired(data: bytes) -> bool:
        return any(who == pid for who, _ in transactions(data))

    return _time(deed, NETLINK_NETFILTER, _NFTABLES, repaired)


def _after_ip(deed: Callable[[], object], kind: int) -> float:
    def repaired(data: bytes) -> bool:
        return int.from_bytes(data[4:6], sys.byteorder) == kind

    return _time(deed, NETLINK_ROUTE, _RULES4 if kind == _RTM_NEWRULE else _ROUTES4, repaired)


def _time(
    deed: Callable[[], object], protocol: int, group: int, repaired: Callable[[bytes], bool]
) -> float:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as watched:
        watched.bind((0, 0))
        # A table that is put back is hundreds of events, and we may not have our turn meanwhile.
        watched.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, 1 << 24)
        watched.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        watched.settimeout(_QUIET)  # what the last repair set off has to end first
        with suppress(TimeoutError):
            while True:
                watched.recv(65536)
        watched.settimeout(_PATIENCE)
        began = time.monotonic()
        process = deed()
        while not repaired(watched.recv(65536)):
            pass
        took = (time.monotonic() - began) * 1000
    if isinstance(process, subprocess.Popen):
        assert not process.wait()
    return took
