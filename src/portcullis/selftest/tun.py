# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices made for a moment, a cable with us at its far end: gone with their descriptor."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from portcullis.selftest.kernel import SYS

_TUNSETIFF = 0x400454CA
_TUN, _TAP, _NO_PACKET_INFORMATION = 1, 2, 0x1000
_SIOCSIFFLAGS, _SIOCSIFMTU, _SIOCSIFHWADDR, _SIOCBRADDIF = 0x8914, 0x8922, 0x8924, 0x89A2
_UP, _ETHER = 1, 1


class MadeDevice:
    """A TAP as a port of `bridge`, or without one a TUN of its own. Use inside `with`.

    Entering raises OSError where the kernel has no such devices (kmod-tun).
    """

    def __init__(self, name: str, bridge: str = "") -> None:
        self.name, self._bridge = name, bridge

    def __enter__(self) -> MadeDevice:
        self._descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            kind = (_TAP if self._bridge else _TUN) | _NO_PACKET_INFORMATION
            fcntl.ioctl(self._descriptor, _TUNSETIFF, self._request(struct.pack("H", kind)))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
                self._set_up(control.fileno())
        except OSError:
            os.close(self._descriptor)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def send(self, packet: bytes) -> None:
        os.write(self._descriptor, packet)

    def received(self, seconds: float) -> Iterator[bytes]:
        """What comes out of it, until `seconds` have passed."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([self._descriptor], [], [], left)[0]:
                with suppress(BlockingIOError):
                    yield os.read(self._descriptor, 65535)

    def _set_up(self, control: int) -> None:
        if self._bridge:
            # A bridge takes the lowest of its ports' addresses for its own, and their smallest MTU.
            own = b"\xfe" + os.urandom(5)
            fcntl.ioctl(control, _SIOCSIFHWADDR, self._request(struct.pack("H6s", _ETHER, own)))
            mtu = int((SYS / self._bridge / "mtu").read_text())
            fcntl.ioctl(control, _SIOCSIFMTU, self._request(struct.pack("i", mtu)))
            with suppress(OSError):  # a port needs no address, and no greetings for it
                Path(f"/proc/sys/net/ipv6/conf/{self.name}/disable_ipv6").write_text("1")
        fcntl.ioctl(control, _SIOCSIFFLAGS, self._request(struct.pack("H", _UP)))
        if self._bridge:
            index = struct.pack("i", socket.if_nametoindex(self.name))
            bridge = struct.pack("16s24s", self._bridge.encode(), index)
            fcntl.ioctl(control, _SIOCBRADDIF, bridge)

    def _request(self, value: bytes) -> bytes:
        return struct.pack("16s24s", self.name.encode(), value)
