# SPDX-License-Identifier: GPL-2.0-or-later
"""Network devices of the namespace we are in, as far as netifd looks at them."""

import fcntl
import socket
import struct
from contextlib import suppress
from typing import NamedTuple

_SIOCGIFFLAGS = 0x8913
_IFF_UP = 1
_RTMGRP_LINK = 1


class Link(NamedTuple):
    number: int
    up: bool


def find(device: str) -> Link | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, suppress(OSError):
        request = struct.pack("16sh14x", device.encode()[:15], 0)
        answer = fcntl.ioctl(sock, _SIOCGIFFLAGS, request)
        (flags,) = struct.unpack_from("h", answer, 16)
        return Link(socket.if_nametoindex(device), bool(flags & _IFF_UP))
    return None


class Changes:
    """Readable when some device has changed; what changed, `find` tells."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._socket.bind((0, _RTMGRP_LINK))

    def fileno(self) -> int:
        return self._socket.fileno()

    def drain(self) -> None:
        # An overrun (ENOBUFS) ends it as well: we look at everything anyway.
        with suppress(OSError):
            while True:
                self._socket.recv(1 << 16)
