# SPDX-License-Identifier: GPL-2.0-or-later
"""Multicast forwarding from the LAN to the WAN, as an IGMP proxy on the router would set it up:
without it the kernel forwards no multicast and a probe of it would prove nothing."""

from __future__ import annotations

import socket
import struct
from types import TracebackType

from .addresses import GROUP4, GROUP6, LAN_A, LAN_BRIDGE, WAN_DEVICE
from .namespace import Namespace

MRT_INIT, MRT_ADD_VIF, MRT_ADD_MFC = 200, 202, 204  # linux/mroute.h; mroute6.h has the same
VIFF_USE_IFINDEX = 8


class MulticastRouting:
    """Packets of lana to GROUP4 and GROUP6 are forwarded while this is entered."""

    def __init__(self, router: Namespace) -> None:
        self._router = router
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> MulticastRouting:
        with self._router.inside():
            devices = [socket.if_nametoindex(name) for name in (LAN_BRIDGE, WAN_DEVICE)]
            v4 = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IGMP)
            v6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        self._sockets = [v4, v6]
        v4.setsockopt(socket.IPPROTO_IP, MRT_INIT, 1)
        v6.setsockopt(socket.IPPROTO_IPV6, MRT_INIT, 1)
        for number, index in enumerate(devices):
            vif = struct.pack("=HBBIi4s", number, VIFF_USE_IFINDEX, 1, 0, index, b"")
            v4.setsockopt(socket.IPPROTO_IP, MRT_ADD_VIF, vif)
            mif = struct.pack("=HBBHxxI", number, 0, 1, index, 0)
            v6.setsockopt(socket.IPPROTO_IPV6, MRT_ADD_VIF, mif)
        hops = bytes([0, 1]).ljust(32, b"\0")  # least TTL towards device 1; 0 is "not there"
        source, group = socket.inet_aton(LAN_A.v4), socket.inet_aton(GROUP4)
        v4.setsockopt(
            socket.IPPROTO_IP,
            MRT_ADD_MFC,
            struct.pack("=4s4sH32sxx3Ii", source, group, 0, hops, 0, 0, 0, 0),
        )
        towards = struct.pack("=I", 1 << 1).ljust(32, b"\0")
        v6.setsockopt(
            socket.IPPROTO_IPV6,
            MRT_ADD_MFC,
            _sockaddr6(LAN_A.v6) + _sockaddr6(GROUP6) + struct.pack("=Hxx32s", 0, towards),
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for sock in self._sockets:
            sock.close()


def _sockaddr6(address: str) -> bytes:
    packed = socket.inet_pton(socket.AF_INET6, address)
    return struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, packed, 0)
