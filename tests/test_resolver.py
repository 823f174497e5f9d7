# SPDX-License-Identifier: GPL-2.0-or-later
"""A VPN server's name, asked of resolvers in this very test."""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from unittest.mock import Mock

import pytest

from portcullis.loop import Loop
from portcullis.policy import MARK, MASK, Socket
from portcullis.resolver import Lookup

NAME = "nl1.some-rather-long-name.vpn.example"
V4, V6 = "198.51.100.10", "2001:db8:51::10"
BOTH, ONLY4 = frozenset({4, 6}), frozenset({4})
LATE = 5.0

Reply = Callable[[bytes], bytes]


@pytest.fixture
def loop() -> Iterator[Loop]:
    def fail(error: Exception) -> None:
        raise AssertionError("a callback failed") from error

    found = Loop(fail)
    found.after(LATE, found.stop)
    yield found
    signal.set_wakeup_fd(-1)


def question(query: bytes) -> tuple[str, int]:
    """The name and the type that are asked for."""
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return ".".join(labels), struct.unpack("!H", query[at + 1 : at + 3])[0]


def reply(query: bytes, *addresses: str, rcode: int = 0) -> bytes:
    """The honest reply; addresses of the other family than asked for are left out."""
    _, kind = question(query)
    packed = [ip_address(address).packed for address in addresses]
    records = [p for p in packed if len(p) == (4 if kind == 1 else 16)]
    header = query[:2] + struct.pack("!5H", 0x8180 | rcode, 1, len(records), 0, 0)
    rest = (struct.pack("!3HIH", 0xC00C, kind, 1, 300, len(p)) + p for p in records)
    return header + query[12:] + b"".join(rest)


def other_case(query: bytes) -> bytes:
    """The reply of who has seen the question and not its letters' case."""
    honest = reply(query, V4, V6)
    return honest[:12] + honest[12:].replace(query[13:16], query[13:16].swapcase(), 1)


def other_ident(query: bytes) -> bytes:
    honest = reply(query, V4, V6)
    return bytes((honest[0] ^ 1,)) + honest[1:]


class Resolver:
    """A resolver on the loop: what was asked of it, and it answers with `replies` in turn, or
    not at all."""

    def __init__(self, loop: Loop, *replies: Reply, address: str = "127.0.0.1") -> None:
        self._loop, self._replies = loop, replies
        self.asked: list[tuple[str, int]] = []
        self.when: list[float] = []
        self.from_ports: list[int] = []
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.bind((address, 0))
        self.server = Socket(address, "udp", self.socket.getsockname()[1])
        loop.add(self.socket.fileno(), self._receive)

    def _receive(self) -> None:
        query, client = self.socket.recvfrom(4096)
        self.asked.append(question(query))
        self.when.append(time.monotonic())
        self.from_ports.append(client[1])
        for answer in self._replies:
            self.socket.sendto(answer(query), client)

    def close(self) -> None:
        self._loop.remove(self.socket.fileno())
        self.socket.close()


@pytest.fixture
def resolver(loop: Loop) -> Iterator[Callable[..., Resolver]]:
    """Makes resolvers, and closes them at the end."""
    made: list[Resolver] = []

    def make(*replies: Reply, address: str = "127.0.0.1") -> Resolver:
        made.append(Resolver(loop, *replies, address=address))
        return made[-1]

    yield make
    for found in made:
        found.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look-ups give up soon, for tests that are not about when."""
    monkeypatch.setattr("portcullis.resolver._GIVE_UP_AFTER", 0.6)


class Outcome:
    """What a look-up found, and after how many seconds."""

    def __init__(
        self, loop: Loop, *servers: Socket, families: frozenset[int] = BOTH, name: str = NAME
    ) -> None:
        self.calls = 0
        self.found: tuple[str, ...] = ()
        self.reason = ""
        self.seconds = 0.0
        self._loop, self._began = loop, time.monotonic()
        self.lookup = Lookup(loop, name, servers, families, self._done)

    def _done(self, found: tuple[str, ...], reason: str) -> None:
        self.found, self.reason, self.calls = found, reason, self.calls + 1
        self.seconds = time.monotonic() - self._began
        self._loop.after(0.05, self._loop.stop)  # a second call would show


def honest(query: bytes) -> bytes:
    return reply(query, V4, V6)


def nobody(query: bytes) -> bytes:
    return reply(query, rcode=3)


def looked_up(loop: Loop, *servers: Socket, families: frozenset[int] = BOTH) -> Outcome:
    found = Outcome(loop, *servers, families=families)
    loop.run()
    return found


MakeResolver = Callable[..., Resolver]


def test_both_families_are_asked_and_found(loop: Loop, resolver: MakeResolver) -> None:
    found = looked_up(loop, resolver(honest).server)
    assert (sorted(found.found), found.reason, found.calls) == ([V4, V6], "", 1)


def test_only_the_families_that_lead_out_are_asked_for(loop: Loop, resolver: MakeResolver) -> None:
    asked = resolver(honest)
    looked_up(loop, asked.server, families=ONLY4)
    assert [kind for _, kind in asked.asked] == [1]


def test_an_answer_of_both_families_ends_the_lookup_at_once(
    loop: Loop, resolver: MakeResolver
) -> None:
    assert looked_up(loop, resolver(honest).server).seconds < 0.1


def test_the_name_is_asked_in_letters_of_mixed_case(loop: Loop, resolver: MakeResolver) -> None:
    asked = resolver(honest)
    looked_up(loop, asked.server)
    names = {name for name, _ in asked.asked}
    assert {name.lower() for name in names} == {NAME}
    assert NAME not in names


def test_each_question_comes_from_a_port_of_its_own(loop: Loop, resolver: MakeResolver) -> None:
    asked = resolver(honest)
    looked_up(loop, asked.server)
    assert len(set(asked.from_ports)) == 2


def test_after_a_dead_resolver_the_next_one_is_asked(loop: Loop, resolver: MakeResolver) -> None:
    found = looked_up(loop, resolver().server, resolver(honest).server)
    assert set(found.found) == {V4, V6}
    assert found.seconds < 1


def test_after_a_refusing_resolver_the_next_one_is_asked(
    loop: Loop, resolver: MakeResolver
) -> None:
    closed = resolver()
    gone = closed.server._replace(port=1)
    assert set(looked_up(loop, gone, resolver(honest).server).found) == {V4, V6}


def test_a_resolver_out_of_reach_is_passed_over(loop: Loop, resolver: MakeResolver) -> None:
    away = Socket("2001:db8:ffff::53", "udp", 53)
    assert set(looked_up(loop, away, resolver(honest).server).found) == {V4, V6}


def test_a_second_resolver_is_left_alone_where_the_first_answers(
    loop: Loop, resolver: MakeResolver
) -> None:
    second = resolver(honest)
    looked_up(loop, resolver(honest).server, second.server)
    assert second.asked == []


def test_a_resolver_with_an_ipv6_address_is_asked(loop: Loop, resolver: MakeResolver) -> None:
    assert V4 in looked_up(loop, resolver(honest, address="::1").server).found


def test_a_slow_first_resolver_still_counts(loop: Loop, resolver: MakeResolver) -> None:
    """Nobody answers it until the second was asked; then the first does."""
    late: list[tuple[bytes, tuple[str, int]]] = []
    slow = resolver()
    loop.remove(slow.socket.fileno())
    loop.add(slow.socket.fileno(), lambda: late.append(slow.socket.recvfrom(4096)))

    def answer_for_the_first(query: bytes) -> bytes:
        for question_, client in late:
            slow.socket.sendto(honest(question_), client)
        return other_ident(query)

    second = resolver(answer_for_the_first)
    assert set(looked_up(loop, slow.server, second.server).found) == {V4, V6}


def test_one_family_alone_is_waited_for_a_moment_only(loop: Loop, resolver: MakeResolver) -> None:
    def ipv4_only(query: bytes) -> bytes:
        return honest(query) if question(query)[1] == 1 else b""

    found = looked_up(loop, resolver(ipv4_only).server)
    assert found.found == (V4,)
    assert 0.1 < found.seconds < 0.4


def test_a_family_without_addresses_does_not_delay_the_other(
    loop: Loop, resolver: MakeResolver
) -> None:
    found = looked_up(loop, resolver(lambda query: reply(query, V4)).server)
    assert (found.found, found.seconds < 0.1) == ((V4,), True)


@pytest.mark.parametrize("forged", [other_ident, other_case, lambda query: b"\0" * 11])
def test_a_forged_answer_is_ignored_and_the_honest_one_behind_it_counts(
    loop: Loop, resolver: MakeResolver, forged: Reply
) -> None:
    def evil(query: bytes) -> bytes:
        return forged(query).replace(ip_address(V4).packed, ip_address("203.0.113.66").packed)

    found = looked_up(loop, resolver(evil, honest).server, families=ONLY4)
    assert found.found == (V4,)


@pytest.mark.parametrize("forged", [other_ident, other_case], ids=["ident", "case"])
@pytest.mark.usefixtures("impatient")
def test_forged_answers_alone_find_nothing(
    loop: Loop, resolver: MakeResolver, forged: Reply
) -> None:
    assert looked_up(loop, resolver(forged).server).found == ()


@pytest.mark.usefixtures("impatient")
def test_an_answer_from_another_address_is_ignored(loop: Loop, resolver: MakeResolver) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as elsewhere:
        elsewhere.bind(("127.0.0.2", 0))
        asked = resolver()
        loop.remove(asked.socket.fileno())

        def forge() -> None:
            query, client = asked.socket.recvfrom(4096)
            elsewhere.sendto(reply(query, "203.0.113.66"), client)

        loop.add(asked.socket.fileno(), forge)
        assert looked_up(loop, asked.server, families=ONLY4).found == ()


@pytest.mark.usefixtures("impatient")
def test_an_address_that_cannot_be_a_server_is_told(loop: Loop, resolver: MakeResolver) -> None:
    found = looked_up(loop, resolver(lambda q: reply(q, "127.0.0.1")).server, families=ONLY4)
    assert (found.found, "127.0.0.1 is a loopback address" in found.reason) == ((), True)


@pytest.mark.usefixtures("impatient")
def test_a_name_that_does_not_exist_is_told(loop: Loop, resolver: MakeResolver) -> None:
    found = looked_up(loop, resolver(nobody).server)
    assert (found.found, found.reason) == ((), "127.0.0.1 knows no address (code 3)")


def test_a_resolver_that_denies_the_name_does_not_outweigh_one_that_knows_it(
    loop: Loop, resolver: MakeResolver
) -> None:
    assert V4 in looked_up(loop, resolver(nobody).server, resolver(honest).server).found


@pytest.mark.usefixtures("impatient")
def test_that_a_name_does_not_exist_is_not_hidden_by_a_resolver_out_of_reach(
    loop: Loop, resolver: MakeResolver
) -> None:
    """K15: of two reasons the one that helps."""
    away = Socket("2001:db8:ffff::53", "udp", 53)
    assert "code 3" in looked_up(loop, resolver(nobody).server, away).reason


def test_without_any_answer_it_gives_up_in_time_and_once(
    loop: Loop, resolver: MakeResolver
) -> None:
    found = looked_up(loop, resolver().server)
    assert (found.found, found.reason, found.calls) == ((), "no resolver answered", 1)
    assert 2.4 < found.seconds < 3


def test_all_resolvers_are_asked_before_it_gives_up(loop: Loop, resolver: MakeResolver) -> None:
    asked = [resolver() for _ in range(4)]
    looked_up(loop, *(found.server for found in asked))
    assert [len(found.asked) for found in asked] == [2] * 4


@pytest.mark.usefixtures("impatient")
def test_without_any_resolver_it_gives_up(loop: Loop) -> None:
    assert looked_up(loop).calls == 1


@pytest.mark.usefixtures("impatient")
def test_without_any_socket_it_says_so_at_the_end(
    loop: Loop, resolver: MakeResolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = resolver(honest).server
    error = OSError(errno.EMFILE, "Too many open files")
    monkeypatch.setattr(socket, "socket", Mock(side_effect=error))
    found = looked_up(loop, server)
    assert (found.calls, found.found) == (1, ())
    assert "Too many open files" in found.reason


def open_descriptors() -> int:
    gc.collect()  # what other tests left is not to be closed just now
    return len(os.listdir("/proc/self/fd"))


def test_the_end_closes_every_socket(loop: Loop, resolver: MakeResolver) -> None:
    servers = (resolver().server, resolver(honest).server)
    before = open_descriptors()
    looked_up(loop, *servers)
    assert open_descriptors() == before


def test_cancelling_closes_every_socket(loop: Loop, resolver: MakeResolver) -> None:
    server = resolver().server
    before = open_descriptors()
    Outcome(loop, server).lookup.cancel()
    assert open_descriptors() == before


def test_a_cancelled_lookup_tells_nothing_and_asks_nobody_more(
    loop: Loop, resolver: MakeResolver
) -> None:
    second = resolver(honest)
    found = Outcome(loop, resolver().server, second.server)
    loop.after(0.1, found.lookup.cancel)
    loop.after(0.6, loop.stop)
    loop.run()
    assert (found.calls, second.asked) == (0, [])


def test_every_query_carries_the_mark(loop: Loop, resolver: MakeResolver) -> None:
    server = resolver(honest).server
    rules = f"""table inet marked {{
        counter with {{ }}
        counter without {{ }}
        chain output {{
            type filter hook output priority 0;
            udp dport {server.port} meta mark & {MASK:#x} == {MARK:#x} counter name with accept
            udp dport {server.port} counter name without
        }}
    }}"""
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    try:
        looked_up(loop, server)
        command = ["nft", "-j", "list", "counters", "table", "inet", "marked"]
        listed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    finally:
        subprocess.run(["nft", "delete", "table", "inet", "marked"], check=True)
    counted = [entry["counter"] for entry in listed["nftables"] if "counter" in entry]
    assert {c["name"]: c["packets"] for c in counted} == {"with": 2, "without": 0}
