# SPDX-License-Identifier: GPL-2.0-or-later
"""What hostile neighbours do to the router: frames by hand onto its line and its networks, and
a conversation of a device that they try to get into."""

from __future__ import annotations

import socket
import struct
from types import TracebackType

from . import addresses as at
from . import craft
from . import frame as wire
from .capture import Capture
from .topology import ACCESS, VirtualRouter
from .wireguard import DEVICE, VpnServer

ECHO = 7


def onto(world: VirtualRouter, where: str, *packets: bytes) -> None:
    """IP packets to the router's own MAC address, whatever they say of themselves: `where` is
    `isp` (the WAN's far end), `lana`, `lanb` or `guest`."""
    gate = {"isp": at.WAN_MAC, "guest": at.BR_GUEST_MAC}.get(where, at.BR_LAN_MAC)
    sender = {"isp": at.ISP_MAC, "guest": at.GUEST_MAC, "lana": at.LAN_A_MAC}
    source = sender.get(where, at.LAN_B_MAC)
    frames = [craft.ethernet(packet, source=source, target=gate) for packet in packets]
    raw(world, where, *frames)


def raw(world: VirtualRouter, where: str, *frames: bytes) -> None:
    """Whole frames."""
    device = ACCESS if where == "isp" else "eth0"
    with world.spaces[where].socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((device, 0))
        for frame in frames:
            sock.send(frame)


def out_of_the_tunnel(server: VpnServer, *packets: bytes) -> None:
    """IP packets that a VPN server sends to its customer, whatever they say of themselves."""
    with server.netns.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        for packet in packets:
            kind = wire.ETH_IP6 if packet[0] >> 4 == 6 else wire.ETH_IP4
            sock.bind((DEVICE, kind))
            sock.send(packet)


class Conversation:
    """A TCP connection of a LAN device with an echo server, and all that an attacker would have
    to guess of it."""

    def __init__(self, world: VirtualRouter, server: str = at.FRIENDLY.v4) -> None:
        self._world, self.server = world, server
        self._seen = Capture(world.lana, "eth0", megabytes=4)

    def __enter__(self) -> Conversation:
        self._seen.__enter__()
        family = socket.AF_INET6 if ":" in self.server else socket.AF_INET
        self._sock = self._world.lana.socket(family, socket.SOCK_STREAM)
        self._sock.settimeout(2)
        self._sock.connect((self.server, ECHO))
        self.port: int = self._sock.getsockname()[1]
        assert self.goes_on()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._sock.close()
        self._seen.__exit__(kind, error, trace)

    def goes_on(self) -> bool:
        """Whether what the device says is answered, and nothing else comes."""
        try:
            self._sock.sendall(b"still here\n")
            answer = b""
            while not answer.endswith(b"\n"):
                more = self._sock.recv(4096)
                if not more:
                    return False
                answer += more
        except OSError:
            return False
        return answer.startswith(b"still here ")

    def forged(self, to: str, flags: int, payload: bytes = b"") -> bytes:
        """The server's next segment to `to`, the client's address as the attacker sees it: with
        the right ports and numbers, which a real one has to guess."""
        self._seen.flush()
        for frame in reversed(self._seen.frames):
            packet = wire.parse(frame.raw).inner
            if isinstance(packet, wire.Ip) and packet.dport == self.port:
                seq, ack = struct.unpack_from("!II", packet.body, 4)
                seq = (seq + len(packet.payload)) & 0xFFFFFFFF
                return craft.tcp(
                    self.server, ECHO, to, self.port, flags, seq=seq, ack=ack, payload=payload
                )
        raise AssertionError("the conversation was not seen")

    def heard(self, octets: bytes) -> bool:
        """Whether the octets have come to the device."""
        self._seen.flush()
        return bool(self._seen.having(octets))
