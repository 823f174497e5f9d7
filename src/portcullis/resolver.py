# SPDX-License-Identifier: GPL-2.0-or-later
"""The name of a VPN server, asked of named resolvers by marked sockets (K12).

The system's resolver is of no use here: its answers come through the tunnel that is yet to be
built. The packet filter lets exactly these queries out, and only while they are under way.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from random import SystemRandom

from portcullis import dns
from portcullis.loop import Loop, Timer
from portcullis.policy import MARK, Socket

_TYPES = {4: 1, 6: 28}
_MORE_AFTER, _OTHER_FAMILY_WITHIN, _GIVE_UP_AFTER = 0.4, 0.15, 2.5
Done = Callable[[tuple[str, ...], str], None]


class Lookup:
    """One look-up. Asks one resolver after another, and waits for all of them; the first that
    names an address decides. `done` gets the addresses and, where there are none, the reason."""

    def __init__(
        self,
        loop: Loop,
        name: str,
        servers: tuple[Socket, ...],
        families: frozenset[int],
        done: Done,
    ) -> None:
        self._loop, self._name, self._done = loop, _mixed(name), done
        self._servers = list(servers)
        self._families = families
        self._sockets: dict[int, socket.socket] = {}
        self._found: dict[str, None] = {}
        self._answered: set[int] = set()
        self._reason = "no resolver answered"
        self._denied = False  # a resolver knows the name and no address: nothing tells more
        self._timers: list[Timer] = [loop.after(_GIVE_UP_AFTER, self._finish)]
        self._ask_next()

    def cancel(self) -> None:
        for timer in self._timers:
            timer.cancel()
        for descriptor, query in self._sockets.items():
            self._loop.remove(descriptor)
            query.close()
        self._sockets.clear()

    def _ask_next(self) -> None:
        if not self._servers:
            return
        server = self._servers.pop(0)
        for version in self._families:
            self._ask(server, version)
        self._timers.append(self._loop.after(_MORE_AFTER, self._ask_next))

    def _ask(self, server: Socket, version: int) -> None:
        ident = int.from_bytes(os.urandom(2), "big")
        family = socket.AF_INET6 if ":" in server.address else socket.AF_INET
        try:
            query = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            self._reason = f"{server.address}: {error.strerror}"
            return
        try:
            query.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
            query.connect((server.address, server.port))
            query.send(dns.query(self._name, _TYPES[version], ident))
        except OSError as error:
            query.close()
            if not self._denied:
                self._reason = f"{server.address}: {error.strerror}"
            return
        self._sockets[query.fileno()] = query
        self._loop.add(query.fileno(), lambda: self._receive(query, server, version, ident))

    def _receive(self, query: socket.socket, server: Socket, version: int, ident: int) -> None:
        try:
            answer = dns.answer(query.recv(4096), ident, self._name, _TYPES[version])
        except (OSError, dns.DNSError) as error:
            self._reason = f"{server.address}: {error}"
            return
        if not answer.addresses:
            self._denied = True
            unfit = f": {'; '.join(answer.unfit)}" if answer.unfit else ""
            self._reason = f"{server.address} knows no address (code {answer.rcode}){unfit}"
        self._found |= dict.fromkeys(answer.addresses)
        self._answered.add(version)
        if self._found:
            wait = 0.0 if self._answered >= self._families else _OTHER_FAMILY_WITHIN
            self._timers.append(self._loop.after(wait, self._finish))

    def _finish(self) -> None:
        self.cancel()
        self._done(tuple(self._found), "" if self._found else self._reason)


def _mixed(name: str) -> str:
    """Letters of random case: a forger has to guess them too, `dns.answer` insists on them."""
    choice = SystemRandom()
    return "".join(choice.choice((c.lower(), c.upper())) for c in name)
