# SPDX-License-Identifier: GPL-2.0-or-later
"""What is sent for each property, and what it has to prove.

Packets go to an address that nobody has (documentation, RFC 5737 and 3849), or to the provider's
own router where only a neighbour can be reached; they live for one hop beyond this router.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from socket import IPPROTO_ICMPV6
from typing import Any

from portcullis.policy import MARK, TUNNEL
from portcullis.selftest import DEVICES, FAIL, NOT_TESTABLE, PASS, kernel
from portcullis.selftest import packets as made
from portcullis.selftest.batch import Batch, Finding, World
from portcullis.selftest.capture import Capture
from portcullis.selftest.sockets import Send, Sockets
from portcullis.selftest.station import NoStationError, Station
from portcullis.selftest.tun import MadeDevice

NOBODY4, NOBODY6 = "192.0.2.1", "2001:db8:5043::1"
UNUSED4 = "192.0.2.2"  # another one: masquerading drops what belongs to a flow by another device
RESOLVER4, RESOLVER6 = "192.0.2.53", "2001:db8:5043::53"
_DEVICES_TO = 64 + secrets.randbelow(128)  # as with `packets`' ports: some protocols have none
_NETWORKS_MOST = 4


class Properties:
    """One method for each property that is tested here; `asked` is what the core knows:

    active, meaning       whether the kill switch blocks, and the row of the state table
    networks, managing    devices of protected networks; of those the router is managed from
    served, upstream      devices that are the house's all the same; those that lead upstream
    endpoints             the pinned servers: address, transport, port
    resolving             whether there are resolvers in the tunnel
    differences           what the rules in the kernel have that they should not, or lack
    egress                whether the kernel keeps raw frames back, too
    """

    def __init__(self, asked: dict[str, Any], undo: ExitStack) -> None:
        self._asked, self._undo = asked, undo
        ways = kernel.gateways()
        known = (*asked["upstream"], *(way.device for way in ways))
        house = kernel.inside((*asked["networks"], *asked["served"]))
        upstream = [d for d in dict.fromkeys(known) if d not in (*house, TUNNEL, "lo")]
        self._upstream = tuple(filter(kernel.carries, upstream))
        self._gateways = [way for way in ways if way.device in self._upstream]
        harmless = {"lo", TUNNEL, *house, *(f"{DEVICES}{n}" for n in range(_NETWORKS_MOST))}
        self._world = World(
            asked["active"], asked["meaning"], self._upstream, frozenset(harmless), TUNNEL
        )
        self._capture = undo.enter_context(Capture())
        self._sockets = Sockets()
        self._stations: list[Station] = []
        self._no_station = "no network of yours is known"
        for serial, network in enumerate(asked["networks"][:_NETWORKS_MOST]):
            try:
                self._stations.append(Station(network, serial, undo))
            except NoStationError as error:
                self._no_station = str(error)

    def test(self, name: str) -> Finding:
        test: Callable[[], Finding] = getattr(self, f"_{name.lower()}")
        return test()

    def _k1(self) -> Finding:
        """Devices: every protocol, in pieces, of a connection that is none."""

        def fill(batch: Batch) -> None:
            for station in self._stations:
                for to in (f"192.0.2.{_DEVICES_TO + station.serial}", NOBODY6):
                    self._device_sends(batch, station, to)
                for to in self._near():
                    packet = partial(made.udp, station.own(to), to, 443)
                    batch.send(
                        f"UDP to {to} of a device at {station.network}", _from(station, packet)
                    )

        return self._of_stations(fill)

    def _k2(self) -> Finding:
        """The router: ordinary, device-bound, raw, broadcast and multicast, marked."""
        batch, sockets = self._batch(), self._sockets
        for to in self._strangers():
            self._ordinary(batch, to)
        for device in self._upstream:
            for to in self._neighbours(device) or [NOBODY4]:
                self._ordinary(batch, to, device)
            for to in ("255.255.255.255", "239.255.80.67", "ff02::5043", "ff0e::5043"):
                batch.send(f"UDP to {to}", sockets.group(to, by=device))
        for to in self._strangers():
            batch.send("marked UDP", sockets.udp(to, mark=MARK))
            batch.send("marked ICMP", sockets.icmp(to, mark=MARK))
        return self._finish(batch)

    def _k4(self) -> Finding:
        """A device that nobody has vouched for."""
        batch, name = self._batch(control=False), f"{DEVICES}-new"
        try:
            with MadeDevice(name):
                self._await_address(name)
                batch.control([name])
                for send in (self._sockets.udp, self._sockets.tcp, self._sockets.icmp):
                    batch.send("a packet", send(UNUSED4, by=name))
                batch.send("multicast", self._sockets.group("239.255.80.67", by=name))
                batch.send("multicast", self._sockets.group("ff02::5043", by=name))
                batch.look()
                return batch.finding([name])
        except OSError as error:
            reason = f"no test device can be made ({error.strerror}; package kmod-tun?)"
            return Finding(NOT_TESTABLE, reason)

    def _k5(self) -> Finding:
        """Read back by the core, which knows what they have to be."""
        differences = self._asked["differences"]
        if differences is None:
            return Finding(NOT_TESTABLE, "only the daemon knows what the rules have to be")
        if differences:
            return Finding(FAIL, f"{len(differences)} differ: {', '.join(differences[:3])}")
        state = "blocking" if self._world.active else "open, as you are disconnected"
        return Finding(PASS, f"packet filter and routing guard were read back: {state}")

    def _k9(self) -> Finding:
        """The routing guard by asking for ways, the filter where the guard does not reach (a hook
        would hide that it is gone, K5 would not), and the egress hook where the filter does not."""
        if not self._upstream:
            return Finding(NOT_TESTABLE, "there is no way to the internet at the moment")
        strangers = self._strangers()
        outside = [to for to in strangers if kernel.way(to, mark=MARK) in self._upstream]
        ways = [(f"to {to}", kernel.way(to)) for to in outside]
        for station in self._stations:
            at, mine = station.network, station.own
            ways += [
                (f"from {at} to {to}", kernel.way(to, source=mine(to), by=at)) for to in outside
            ]
        open_ways = [(what, by) for what, by in ways if by and by not in self._world.harmless]
        filtered, raw = self._batch(), self._batch()
        for to in strangers:
            filtered.send("marked UDP", self._sockets.udp(to, mark=MARK))
        for device in self._upstream:
            for to in self._neighbours(device) or [NOBODY4]:
                filtered.send("device-bound UDP", self._sockets.udp(to, by=device))
            for version in (4, 6):
                raw.send("a raw frame", self._sockets.frame(version, by=device))
        filtered.look()
        found, frames = filtered.finding(self._upstream), raw.finding(())
        sent, seen = len(ways) + found.sent + frames.sent, found.seen + frames.seen
        sent_seen = (sent, seen + len(open_ways))
        if not self._world.active:
            return found._replace(sent=sent, seen=sent_seen[1])
        if open_ways:
            detail = f"the routing guard is open: the way {open_ways[0][0]} is {open_ways[0][1]}"
            return Finding(FAIL, detail, *sent_seen)
        if found.result != PASS:
            return Finding(found.result, f"the packet filter: {found.detail}", *sent_seen)
        if frames.seen and self._asked["egress"]:
            return Finding(FAIL, f"the egress hook: {frames.detail}", *sent_seen)
        if not outside:
            return Finding(NOT_TESTABLE, "no default route: the guard has nothing to keep")
        held = f"of {len(ways)} ways none leads outside, and {found.sent} packets were filtered"
        if frames.seen:
            missing = "frames that a program writes to the device itself are not held back here"
            return Finding(NOT_TESTABLE, f"{held}; but {missing} (known issue)", *sent_seen)
        return Finding(PASS, f"{held}; {frames.sent} raw frames were held back", *sent_seen)

    def _k11(self) -> Finding:
        """The server's own address and port, from devices and without or beside the mark."""
        servers = [s for s in self._asked["endpoints"] if s[1] == "udp"]
        if not servers:
            return Finding(NOT_TESTABLE, "no server is in use at the moment")
        batch, sockets = self._batch(), self._sockets
        for address, _, port in servers:
            for station in self._stations:
                packet = partial(made.udp, station.own(address), address, port)
                batch.send(f"a device's UDP to {address}", _from(station, packet))
            batch.send(f"unmarked UDP to {address}", sockets.udp(address, port))
            batch.send(f"marked UDP to {address}, other port", sockets.udp(address, 9, mark=MARK))
            batch.send(f"marked ICMP to {address}", sockets.icmp(address, mark=MARK))
            for device in self._upstream:
                batch.send(f"bound UDP to {address}", sockets.udp(address, port, by=device))
        return self._finish(batch)

    def _k12(self) -> Finding:
        """Plain DNS to resolvers that are not the tunnel's, UDP and TCP."""
        batch, sockets = self._batch(), self._sockets
        for to in (RESOLVER4, RESOLVER6, *self._near()):
            batch.send("DNS of the router", sockets.dns(to))
            batch.send("DNS of the router", sockets.tcp(to, 53))
            for station in self._stations:
                asked = partial(self._dns, station, to)
                batch.send("DNS of a device", _from(station, asked))
                asked = partial(made.tcp, station.own(to), to, 53)
                batch.send("DNS of a device", _from(station, asked))
        for device in self._upstream:
            for to in self._neighbours(device):
                batch.send("device-bound DNS", sockets.dns(to, by=device))
        found = self._finish(batch)
        if found.result == PASS and self._asked["resolving"]:
            answer = sockets.asks(RESOLVER4, 3.0)
            sockets.close()
            return found._replace(detail=f"{found.detail}; an honest query was {answer}")
        return found

    def _k14(self) -> Finding:
        """As a device: ping, DNS, and the ports of SSH and the web pages."""
        stations = [s for s in self._stations if s.network in self._asked["managing"]]
        if not stations:
            return Finding(NOT_TESTABLE, self._no_station)
        sent, seen, silent = 0, 0, []
        named: set[str] = set()
        for station in stations:
            for router in filter(None, (station.router4, station.router6)):
                station.greet()
                asked = self._greetings(station, router)
                for packet in asked:
                    station.send(packet)
                found: set[str] = set()
                for wait in (_ANSWERS, _LATE_ANSWERS):
                    if not found:
                        found = {_says(packet) for packet in station.received(wait)} - {""}
                sent, seen, named = sent + len(asked), seen + len(found), named | found
                if not found:
                    silent.append(f"{router} at {station.network}")
        if silent:
            detail = f"the router does not answer as {', '.join(silent)}"
            return Finding(FAIL, detail, sent, seen)
        detail = f"a device at {stations[0].network} was answered: {', '.join(sorted(named))}"
        return Finding(PASS, detail, sent, seen)

    # Packets.

    def _strangers(self) -> tuple[str, ...]:
        """Nobody's addresses, and the provider's router, which is a neighbour."""
        return (NOBODY4, NOBODY6, *self._near())

    def _near(self) -> list[str]:
        found = (way.address for way in self._gateways)
        return [address for address in found if address and not address.startswith("fe80:")]

    def _neighbours(self, device: str) -> list[str]:
        return [way.address for way in self._gateways if way.device == device and way.address]

    def _ordinary(self, batch: Batch, to: str, by: str = "") -> None:
        kind = "device-bound " if by else ""
        sockets = self._sockets
        batch.send(f"{kind}UDP", sockets.udp(to, by=by))
        batch.send(f"{kind}UDP in pieces", sockets.udp(to, by=by, size=3000))
        batch.send(f"{kind}TCP", sockets.tcp(to, by=by))
        batch.send(f"{kind}ICMP", sockets.icmp(to, by=by))
        for protocol in (made.ESP, made.EXPERIMENT):
            batch.send(f"{kind}IP protocol {protocol}", sockets.raw(to, protocol, by=by))
        if by and ":" not in to:
            batch.send("crafted pieces", sockets.fragments(to, by=by))

    @staticmethod
    def _device_sends(batch: Batch, station: Station, to: str) -> None:
        own = station.own(to)
        version = 6 if ":" in to else 4
        kinds: dict[str, Callable[[bytes], bytes]] = {
            "UDP": partial(made.udp, own, to, 443),
            "TCP": partial(made.tcp, own, to, 443),
            "TCP of no connection": partial(made.tcp, own, to, 443, flags=16),
            "ICMP": partial(made.echo, own, to),
            "ESP": partial(made.ip, own, to, made.ESP),
            "an odd protocol": partial(made.ip, own, to, made.EXPERIMENT),
        }
        for kind, packet in kinds.items():
            batch.send(
                f"IPv{version} {kind} of a device at {station.network}", _from(station, packet)
            )
        if version == 4:

            def pieces(token: bytes) -> bool:
                for piece in made.fragments(own, to, token):
                    station.send(piece)
                return True

            batch.send(f"UDP in pieces of a device at {station.network}", pieces)

    def _await_address(self, device: str) -> None:
        """A new device has no IPv6 address at once."""
        until = time.monotonic() + _ADDRESS_WITHIN
        while not kernel.link_local(device) and time.monotonic() < until:
            self._capture.watch(0.05)

    @staticmethod
    def _dns(station: Station, to: str, token: bytes) -> bytes:
        return made.udp(station.own(to), to, 53, made.question() + token)

    @staticmethod
    def _greetings(station: Station, router: str) -> list[bytes]:
        own = station.own(router)
        syns = [made.tcp(own, router, port, b"") for port in _SERVICES]
        dns = made.udp(own, router, 53, made.question(b"localhost"))
        return [made.echo(own, router, b"portcullis"), dns, *syns]

    # Batches.

    def _batch(self, *, control: bool = True) -> Batch:
        batch = Batch(self._world, self._capture, self._sockets)
        if control:
            batch.control(self._upstream)
        return batch

    def _finish(self, batch: Batch) -> Finding:
        batch.look()
        if not self._upstream:
            return batch.finding(())._replace(
                result=NOT_TESTABLE, detail="there is no way to the internet at the moment"
            )
        return batch.finding(self._upstream)

    def _of_stations(self, fill: Callable[[Batch], None]) -> Finding:
        if not self._stations:
            return Finding(NOT_TESTABLE, self._no_station)
        batch = self._batch()
        for station in self._stations:
            station.greet()
        fill(batch)
        batch.look()
        if not (batch.through_tunnel or batch.outside()):
            mark = self._capture.mark
            told = [s for s in self._stations if any(mark in p for p in s.received(_ANSWERS))]
            if len(told) < len(self._stations):
                batch.arrived = "the test device's packets were neither forwarded nor refused"
        return self._finish(batch)


_ANSWERS, _LATE_ANSWERS, _ADDRESS_WITHIN = 0.4, 2.0, 1.5
_SERVICES = {22: "SSH", 80: "web"}


def _from(station: Station, packet: Callable[[bytes], bytes]) -> Send:
    def send(token: bytes) -> bool:
        station.send(packet(token))
        return True

    return send


def _says(packet: bytes) -> str:
    """What an answer of the router's is to, empty for a refusal and all else."""
    v6 = packet[0] >> 4 == 6
    protocol, body = (packet[6], packet[40:]) if v6 else (packet[9], packet[20:])
    if (protocol, body[:1]) in ((made.ICMP, b"\0"), (IPPROTO_ICMPV6, b"\x81")):
        return "ping"
    port = int.from_bytes(body[:2], "big")
    if protocol == made.UDP and port == 53:
        return "DNS"
    if protocol == made.TCP and len(body) > 13 and body[13] & 0x12 == 0x12:  # SYN and ACK
        return _SERVICES.get(port, "")
    return ""
