# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's own word that something has changed: rules, routes, links, addresses.

An event is a hint and no more: whoever is called reads the kernel and reconciles. Plain
sockets, because pyroute2 0.9 loses wake-ups in a selector (platform.md).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

from portcullis.loop import Loop

_NETFILTER, _ROUTE = 12, 0
_NFTABLES_GROUP = 7
_ROUTE_GROUPS = (1, 5, 7, 8, 9, 11, 19)  # links; v4 and v6 addresses, routes, rules
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_SO_RCVBUFFORCE = 33


class Watch:
    """Calls back, from the loop, after changes of the ruleset and of links and routes."""

    def __init__(self, loop: Loop, on_change: Callable[[], None]) -> None:
        self._loop = loop
        self._sockets = [
            self._open(_NETFILTER, (_NFTABLES_GROUP,), on_change),
            self._open(_ROUTE, _ROUTE_GROUPS, on_change),
        ]

    def close(self) -> None:
        for watched in self._sockets:
            self._loop.remove(watched.fileno())
            watched.close()

    def _open(
        self, protocol: int, groups: tuple[int, ...], callback: Callable[[], None]
    ) -> socket.socket:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        watched = socket.socket(socket.AF_NETLINK, kind, protocol)
        with suppress(PermissionError):  # in a user namespace; then the default has to do
            watched.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 20)
        watched.bind((0, 0))
        for group in groups:
            watched.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        self._loop.add(watched.fileno(), lambda: self._drain(watched, callback))
        return watched

    @staticmethod
    def _drain(watched: socket.socket, callback: Callable[[], None]) -> None:
        while True:
            try:
                watched.recv(65536)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: events were lost, which is one more reason to look
                continue
        callback()
