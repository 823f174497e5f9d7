# SPDX-License-Identifier: GPL-2.0-or-later
"""A device of the house that is not there: a port more on the bridge, and we behind it.

What it sends takes the very way of what a phone or a television sends, fw4's rules included; no
other source on the router does.
"""

from __future__ import annotations

import os
import secrets
import socket
from contextlib import ExitStack, suppress
from ipaddress import IPv4Network
from pathlib import Path

from portcullis.selftest import DEVICES, STATION_MAC
from portcullis.selftest import packets as made
from portcullis.selftest.kernel import SYS, address4, address6, forget_neighbour, hardware
from portcullis.selftest.tun import MadeDevice

_LEASES = (Path("/proc/net/arp"), Path("/tmp/dhcp.leases"))
_NOBODY6 = "2001:db8:5043::"  # where the network has no IPv6: documentation (RFC 3849)
_TRIES, _PATIENCE = 3, 0.3


class NoStationError(Exception):
    """Why there can be no such device here."""


class Station:
    def __init__(self, network: str, serial: int, undo: ExitStack) -> None:
        """Join `network`, a device of ours with a bridge under it. Raises NoStationError."""
        self.network, self.serial = network, serial
        self._mac = bytes.fromhex(STATION_MAC.replace(":", ""))
        bridge = _bridge(network)
        try:
            self.router4, length = address4(network)
        except OSError:
            raise NoStationError(f"{network} has no IPv4 address") from None
        self.router6, self._router_mac = address6(network), hardware(network)
        try:
            self._cable = undo.enter_context(MadeDevice(f"{DEVICES}{serial}", bridge))
        except OSError as error:
            raise NoStationError(
                f"no test device can be added to {bridge} ({error.strerror}; package kmod-tun?)"
            ) from None
        self.address4 = self._free_address(length)
        self.address6 = _beside(self.router6 or _NOBODY6)
        for address in (self.address4, self.address6):
            undo.callback(forget_neighbour, network, address)
        self.greet()

    def greet(self) -> None:
        """Tell the router where we are, as a device's questions do. To be repeated: it asks
        whether we are still there, and nobody answers."""
        mine, router = socket.inet_aton(self.address4), socket.inet_aton(self.router4)
        self._cable.send(made.arp_request(self._mac, mine, router))
        if self.router6:
            self._cable.send(made.solicit(self._mac, self.address6, self.router6))

    def own(self, target: str) -> str:
        """Our address of `target`'s family."""
        return self.address6 if ":" in target else self.address4

    def send(self, packet: bytes) -> None:
        kind = made.IP6 if packet[0] >> 4 == 6 else made.IP4
        self._cable.send(made.ethernet(self._router_mac, self._mac, kind, packet))

    def received(self, seconds: float) -> list[bytes]:
        """IP packets of the router's, without their link layer."""
        frames = self._cable.received(seconds)
        kinds = (made.IP4.to_bytes(2, "big"), made.IP6.to_bytes(2, "big"))
        mine = (f for f in frames if f[:6] == self._mac and f[12:14] in kinds)
        return [frame[14:] for frame in mine]

    def _free_address(self, length: int) -> str:
        """An address that nobody uses; the router knows it for ours afterwards."""
        net = IPv4Network(f"{self.router4}/{length}", strict=False)
        known = "".join(_text(path) for path in _LEASES)
        for _ in range(_TRIES if net.num_addresses >= 16 else 0):
            address = str(net[1 + secrets.randbelow(net.num_addresses - 2)])
            if address == self.router4 or f"{address} " in known:
                continue
            if self._asks("0.0.0.0", address):  # as RFC 5227 asks
                continue
            if self._asks(address, self.router4):
                return address
            raise NoStationError(f"the router does not hear a test device at {self.network}")
        raise NoStationError(f"there is no free address in {net} for a test device")

    def _asks(self, source: str, target: str) -> bool:
        """Whether anybody answers the ARP request for `target`."""
        sought = socket.inet_aton(target)
        self._cable.send(made.arp_request(self._mac, socket.inet_aton(source), sought))
        return any(
            frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\2" and frame[28:32] == sought
            for frame in self._cable.received(_PATIENCE)
        )


def _bridge(network: str) -> str:
    """The bridge that a network's device is. One that is a VLAN of a bridge has no port for us:
    which of its VLANs a new port belongs to is the owner's to say."""
    if not (SYS / network / "bridge").exists():
        raise NoStationError(f"{network} is no bridge, so no test device can be added to it")
    if _text(SYS / network / "bridge/vlan_filtering").strip() == "1":
        raise NoStationError(f"{network} filters VLANs, so no test device can be added to it")
    return network


def _beside(address: str) -> str:
    """Another address in the same /64, which nobody has by chance."""
    packed = socket.inet_pton(socket.AF_INET6, address)
    return socket.inet_ntop(socket.AF_INET6, packed[:8] + b"\x02" + os.urandom(7))


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(errors="replace")
    return ""
