# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the page is to be had: one socket for each network that may manage the router.

Sockets are bound to the network's device (SO_BINDTODEVICE, which needs no privilege), not to an
address: a guest who asks for the router's LAN address is not heard, and a changed address needs
no attention. A device that was made anew is another one under the same name, so the index
counts.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable

from portcullis.loop import Loop

log = logging.getLogger("portcullis.web")
_BACKLOG = 64


class Listeners:
    def __init__(self, loop: Loop, port: int, accept: Callable[[socket.socket], None]) -> None:
        self._loop, self._port, self._accept = loop, port, accept
        self._open: dict[tuple[str, int], socket.socket] = {}
        self._failing: dict[str, str] = {}

    def follow(self, devices: Iterable[str]) -> None:
        """Listen on these devices, as far as they are there, and on no others."""
        wanted = {(device, index) for device in devices if (index := _index(device))}
        for key in self._open.keys() - wanted:
            self._loop.remove(self._open[key].fileno())
            self._open.pop(key).close()
            log.info("no longer listening on %s", key[0])
        for key in sorted(wanted - self._open.keys()):
            self._listen(key)

    def _listen(self, key: tuple[str, int]) -> None:
        device = key[0]
        try:
            listener = _bound(device, self._port)
        except OSError as error:
            if self._failing.get(device) != str(error):
                log.error("cannot listen on %s port %s: %s", device, self._port, error)
            self._failing[device] = str(error)
            return
        self._failing.pop(device, None)
        self._open[key] = listener
        self._loop.add(listener.fileno(), lambda: self._accept(listener))
        log.info("listening on %s port %s", device, self._port)


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
