# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's own word that something has changed: rules, routes, links, addresses.

An event is a hint and no more: it says what to put right first, and whoever is called reads the
kernel and reconciles. Plain sockets, because pyroute2 0.9 loses wake-ups in a selector
(platform.md).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from portcullis.loop import Loop
from portcullis.nft import ours
from portcullis.packetfilter import MISSING, RULES, elements_of, later
from portcullis.ruleset import INET

_NETFILTER, _ROUTE = 12, 0
_NFTABLES_GROUP = 7
_ROUTE_GROUPS = (1, 5, 7, 8, 9, 11, 19)  # links; v4 and v6 addresses, routes, rules
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_SO_RCVBUFFORCE = 33
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_NFTABLES = 0x0A00  # NFNL_SUBSYS_NFTABLES << 8
_DELTABLE, _ELEMENTS, _NEWGEN = _NFTABLES | 2, (_NFTABLES | 12, _NFTABLES | 14), _NFTABLES | 15
_STRUCTURE = tuple(_NFTABLES | kind for kind in (0, 3, 5, 6, 8, 9, 11))  # table, chain, rule, set
_OF_TABLE, _OF_SET = 1, 2  # attributes of all of these
_FAMILIES = {1: "inet", 5: "netdev"}
_PROC_PID, _PROC_NAME = 2, 3
_TOLD = range(16, 36)  # RTM_NEWLINK to RTM_GETRULE
_ROUTING = (24, 25, 32, 33)  # routes and rules
_FW4 = "fw4"
_MOST_PID = 1 << 22
_MOST_SETS = 64
_TURN = 50


class Change(NamedTuple):
    """What others have changed. `by` is who made the last of it: `nft (pid 123)`, or nothing where
    that is not known. `block` and `hook` are what differs now in our tables of the families inet
    and netdev, in `packetfilter`'s words; `routing` whether rules or routes have changed, `zones`
    whether fw4's rules have, as it makes them anew from its configuration."""

    by: str = ""
    block: tuple[str, ...] = ()
    hook: tuple[str, ...] = ()
    routing: bool = False
    zones: bool = False


NOTHING_SAID = Change()


class Watch:
    """Calls back, from the loop, after changes of the ruleset and of links and routes."""

    def __init__(self, loop: Loop, on_change: Callable[[Change], None]) -> None:
        self._loop, self._on_change = loop, on_change
        self._sockets = [
            self._open(_NETFILTER, (_NFTABLES_GROUP,), _Transactions),
            self._open(_ROUTE, _ROUTE_GROUPS, _Changes),
        ]

    def close(self) -> None:
        for watched in self._sockets:
            self._loop.remove(watched.fileno())
            watched.close()

    def _open(
        self, protocol: int, groups: tuple[int, ...], kind: type[_Transactions] | type[_Changes]
    ) -> socket.socket:
        flags = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        watched = socket.socket(socket.AF_NETLINK, flags, protocol)
        with suppress(PermissionError):  # in a user namespace; then the default has to do
            watched.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 20)
        watched.bind((0, 0))
        for group in groups:
            watched.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        seen = kind()
        self._loop.add(watched.fileno(), lambda: self._drain(watched, seen))
        return watched

    def _drain(self, watched: socket.socket, seen: _Transactions | _Changes) -> None:
        for _ in range(_TURN):  # there are others in the loop, and who floods us never ends
            try:
                seen.read(watched.recv(65536))
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: events were lost, which is one more reason to look
                seen.change = seen.change or NOTHING_SAID
        change, seen.change = seen.change, None
        if change is not None:
            self._on_change(change)


class _Transactions:
    """nftables' events. Each transaction ends with a word on who made it; our own are none of
    anybody's, and to look after each of them would be twice the work. Nor are elements of others'
    sets, which dnsmasq adds at every answer where pbr has told it to."""

    def __init__(self) -> None:
        self.change: Change | None = None
        self._touched: dict[str, tuple[str, ...]] = {}
        self._counts = self._zones = False

    def read(self, data: bytes) -> None:
        for kind, port, body in _messages(data):
            if kind == _NEWGEN:
                self._end(port, *_maker(body))
            elif kind in (_DELTABLE, *_ELEMENTS, *_STRUCTURE):
                self._touch(kind, body)
            else:  # flow tables and the like
                self._counts = True

    def _touch(self, kind: int, body: bytes) -> None:
        """Part of a transaction, which may end in another datagram."""
        found = dict(_attributes(body[4:]))
        table = _text(found.get(_OF_TABLE))
        own = table == INET.name
        self._counts |= own or kind not in _ELEMENTS
        self._zones |= table == _FW4 and kind not in _ELEMENTS
        if not own:
            return
        what = MISSING if kind == _DELTABLE else RULES
        name = _text(found.get(_OF_SET))
        if kind in _ELEMENTS and not name.startswith("__"):  # a rule's own set, without a name
            what = elements_of(name)
        if family := _FAMILIES.get(body[0]):
            former = self._touched.get(family, ())
            self._touched[family] = later(former, (what if len(former) < _MOST_SETS else RULES,))

    def _end(self, port: int, pid: int, name: str) -> None:
        """What we have changed ourselves we have also read since."""
        former = self.change or NOTHING_SAID
        touched, self._touched = self._touched, {}
        counts, self._counts = self._counts, False
        zones, self._zones = self._zones, False
        if not ours(port):
            if not counts:
                return
            block = later(former.block, touched.get("inet", ()))
            hook = later(former.hook, touched.get("netdev", ()))
            zones |= former.zones
            self.change = Change(f"{_printable(name)} (pid {pid})", block, hook, zones=zones)
        elif self.change:
            self.change = former._replace(
                block=() if "inet" in touched else former.block,
                hook=() if "netdev" in touched else former.hook,
            )


class _Changes:
    """rtnetlink's events. They tell the socket that something was changed through, if any,
    which is named after its process, unless that has several."""

    def __init__(self) -> None:
        self.change: Change | None = None

    def read(self, data: bytes) -> None:
        change = self.change or NOTHING_SAID
        for kind, port, _ in _messages(data):
            if kind in _ROUTING:
                change = change._replace(routing=True)
            if kind in _TOLD and 0 < port < _MOST_PID and port != os.getpid():
                change = change._replace(by=_process(port))
        self.change = change


def transactions(data: bytes) -> Iterator[tuple[int, str]]:
    """Process and name of who made each transaction that ends in a datagram of nftables' events."""
    for kind, _, body in _messages(data):
        if kind == _NEWGEN:
            yield _maker(body)


def _maker(body: bytes) -> tuple[int, str]:
    found = dict(_attributes(body[4:]))
    pid = int.from_bytes(found.get(_PROC_PID, b"")[:4], "big")
    return pid, _text(found.get(_PROC_NAME))


def _text(attribute: bytes | None) -> str:
    return (attribute or b"").rstrip(b"\0").decode(errors="replace")


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, port and payload of each message in a datagram; what is cut short is left out."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, port = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, port, data[at + _HEADER.size : at + length]
        at += length + 3 & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += length + 3 & ~3


def _process(pid: int) -> str:
    """A process as people know it; `ip` may have ended by now."""
    try:
        return f"{_printable(_name(pid))} (pid {pid})"
    except OSError:
        return f"pid {pid}"


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text(errors="replace").rstrip("\n")


def _printable(name: str) -> str:
    """Whoever tampers chooses the name, and it goes into logs."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)
