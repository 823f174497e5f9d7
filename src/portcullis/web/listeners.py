# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the page is to be had: one socket for each network that may manage the router.

Sockets are bound to the network's device (SO_BINDTODEVICE, which needs no privilege), not to an
address: a guest who asks for the router's LAN address is not heard, and a changed address needs
no attention. A device that was made anew is another one under the same name, so the index
counts. The port is the owner's setting.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable
from typing import NamedTuple

from portcullis.loop import Loop

log = logging.getLogger("portcullis.web")
_BACKLOG = 64


class _Place(NamedTuple):
    device: str
    number: int
    port: int


class Listeners:
    def __init__(self, loop: Loop, accept: Callable[[socket.socket], None]) -> None:
        self._loop, self._accept = loop, accept
        self._open: dict[_Place, socket.socket] = {}
        self._failing: dict[_Place, str] = {}

    def follow(self, devices: Iterable[str], port: int) -> None:
        """Listen on these devices, as far as they are there, and on no others."""
        there = {(device, number) for device in devices if (number := _index(device))}
        wanted = {_Place(device, number, port) for device, number in there}
        self._failing = {p: why for p, why in self._failing.items() if p in wanted}
        for place in [place for place in self._open if place[:2] not in there]:
            self._close(place)
        for place in sorted(wanted - self._open.keys()):
            self._listen(place)
        # A port that somebody else has must not cost the owner the page: the former one stays.
        for place in self._open.keys() - wanted:
            if place._replace(port=port) in self._open:
                self._close(place)

    def _listen(self, place: _Place) -> None:
        try:
            listener = _bound(place.device, place.port)
        except OSError as error:
            if self._failing.get(place) != str(error):
                log.error("cannot listen on %s port %s: %s", place.device, place.port, error)
            self._failing[place] = str(error)
            return
        self._failing.pop(place, None)
        self._open[place] = listener
        self._loop.add(listener.fileno(), lambda: self._accept(listener))
        log.info("listening on %s port %s", place.device, place.port)

    def _close(self, place: _Place) -> None:
        self._loop.remove(self._open[place].fileno())
        self._open.pop(place).close()
        log.info("no longer listening on %s port %s", place.device, place.port)


def _index(device: str) -> int:
    try:
        return socket.if_nametoindex(device)
    except (OSError, ValueError):
        return 0


def _bound(device: str, port: int) -> socket.socket:
    """A socket for both families, or for IPv4 where the kernel has no IPv6."""
    for family, anywhere in ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")):
        try:
            listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:
            continue
        try:
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((anywhere, port))
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        return listener
    raise OSError("the kernel has neither IPv6 nor IPv4")
