# SPDX-License-Identifier: GPL-2.0-or-later
"""Packets that try to get out, each with a token of its own, and what came back.

A probe sends any number of attempts. `held` probes send all of them on one flow, opened (and
answered: else the test would be blind) beforehand; others use a new flow per attempt."""

from __future__ import annotations

import errno
import re
import secrets
import selectors
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from .namespace import Namespace

TOKEN = re.compile(rb"pc[0-9a-f]{8}-\d+")
SO_MARK = 36
ECHO_PORT = 7
TRIES = 3  # to establish a flow


class NotEstablished(RuntimeError):
    """The first exchange of a held flow was not answered."""


@dataclass
class Attempt:
    """One token. `name` is who answered and `source` from where that one was asked ("" where the
    answer does not tell, as with ICMP); `error` is the errno's name when it was refused."""

    token: bytes
    answered: bool = False
    name: str = ""
    source: str = ""
    error: str = ""
    seconds: float = 0.0
    began: float = field(default_factory=time.monotonic)


class Probe:
    """Options: `held`; `device` binds to a device (SO_BINDTODEVICE); `mark` sets SO_MARK."""

    protocol = "?"
    answerable = True
    clears_errors = True
    size = 0  # of a datagram, where it is not just what the token needs

    def __init__(
        self,
        netns: Namespace,
        target: str,
        port: int = ECHO_PORT,
        *,
        held: bool = False,
        device: str = "",
        mark: int = 0,
    ) -> None:
        self.netns, self.target, self.port = netns, target, port
        self.held, self.device, self.mark = held, device, mark
        self.token = b"pc" + secrets.token_hex(4).encode()
        self.attempts: dict[bytes, Attempt] = {}
        self.flows: dict[socket.socket, list[Attempt]] = {}

    def __str__(self) -> str:
        host = self.netns.name.rpartition("-")[2]
        how = " held" if self.held else ""
        how += f" on {self.device}" if self.device else ""
        return f"{self.protocol}{how} {host} → {self.target}"

    @property
    def v6(self) -> bool:
        return ":" in self.target

    def send(self) -> Attempt:
        """One more attempt; errors are recorded in it, not raised."""
        attempt = Attempt(self.token + b"-%d" % len(self.attempts))
        self.attempts[attempt.token] = attempt
        try:
            flow = next(iter(self.flows), None) if self.held else None
            if flow is None:
                flow = self._new_flow()
            elif self.clears_errors:
                # or the last attempt's refusal would come out here and keep this one from leaving
                flow.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self.flows.setdefault(flow, []).append(attempt)
            self._emit(flow, attempt)
        except OSError as error:
            attempt.error = errno.errorcode.get(error.errno or 0, str(error))
        return attempt

    def ready(self, flow: socket.socket) -> None:
        """The flow can be read (TCP: or written for the first time)."""
        try:
            data = flow.recv(65535)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                self._repeat(flow)
            else:
                self._refused(flow, error.errno or 0)
            return
        self._read(flow, data)

    def close(self) -> None:
        for flow in self.flows:
            flow.close()
        self.flows.clear()

    def _repeat(self, flow: socket.socket) -> None:
        """The path has just told its MTU (RFC 8201): like any application, send again."""
        for attempt in self.flows[flow]:
            if not attempt.answered and not attempt.error:
                self._emit(flow, attempt)

    def pending(self) -> list[Attempt]:
        return [a for a in self.attempts.values() if not a.answered and not a.error]

    def events(self, flow: socket.socket) -> int:
        return selectors.EVENT_READ

    def _socket(self, kind: int, protocol: int = 0) -> socket.socket:
        sock = self.netns.socket(socket.AF_INET6 if self.v6 else socket.AF_INET, kind, protocol)
        sock.setblocking(False)
        if self.device:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.device.encode())
        if self.mark:
            sock.setsockopt(socket.SOL_SOCKET, SO_MARK, self.mark)
        return sock

    def _new_flow(self) -> socket.socket:
        raise NotImplementedError

    def _emit(self, flow: socket.socket, attempt: Attempt) -> None:
        flow.send(self._message(attempt))

    def _message(self, attempt: Attempt) -> bytes:
        return attempt.token

    def _read(self, flow: socket.socket, data: bytes) -> None:
        """An echo: the token, and the signature of the server behind it."""
        if found := TOKEN.search(data):
            name, source = data.split(b" ")[-3:-1] if data.count(b" ") >= 3 else (b"", b"")
            self._answered(found.group(), name.decode(), source.decode())

    def _answered(self, token: bytes, name: str = "", source: str = "") -> None:
        attempt = self.attempts.get(token)
        if attempt and not attempt.answered:
            attempt.answered, attempt.name, attempt.source = True, name, source
            attempt.seconds = time.monotonic() - attempt.began

    def _refused(self, flow: socket.socket, number: int) -> None:
        # of several attempts on one flow nothing tells which; all that wait have been refused
        for attempt in self.flows.get(flow, ()):
            if not attempt.answered and not attempt.error:
                attempt.error = errno.errorcode.get(number, str(number))
                attempt.seconds = time.monotonic() - attempt.began


@dataclass(frozen=True)
class Result:
    """What became of one probe's attempts."""

    label: str
    answerable: bool
    attempts: tuple[Attempt, ...]

    @property
    def sent(self) -> int:
        return len(self.attempts)

    @property
    def answered(self) -> int:
        return sum(a.answered for a in self.attempts)

    @property
    def refused(self) -> int:
        """Attempts that failed with an error instead of silence."""
        return sum(bool(a.error) for a in self.attempts)

    @property
    def tokens(self) -> set[bytes]:
        return {a.token for a in self.attempts}

    @property
    def names(self) -> Counter[str]:
        """By whom it was answered."""
        return Counter(a.name for a in self.attempts if a.answered)

    @property
    def sources(self) -> Counter[str]:
        """From where the answering side was asked: a VPN server's address, or the router's."""
        return Counter(a.source for a in self.attempts if a.answered)

    def __str__(self) -> str:
        errors = Counter(a.error for a in self.attempts if a.error)
        return (
            f"{self.label}: {self.answered}/{self.sent} answered"
            f"{''.join(f', by {n}' for n in self.names if n)}"
            f"{''.join(f', seen from {s}' for s in self.sources if s)}"
            f"{''.join(f', {n} x {e}' for e, n in errors.items())}"
        )


def run(probes: Sequence[Probe], count: int = 3, timeout: float = 1.0) -> list[Result]:
    """Send `count` attempts of every probe at once and wait until all are answered or refused,
    at most `timeout` seconds."""
    before = {probe: len(probe.attempts) for probe in probes}
    for _ in range(count):
        for probe in probes:
            probe.send()
    _collect(probes, timeout)
    results = []
    for probe in probes:
        attempts = tuple(list(probe.attempts.values())[before[probe] :])
        results.append(Result(str(probe), probe.answerable, attempts))
        if not probe.held:
            probe.close()
    return results


def _collect(probes: Iterable[Probe], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    with selectors.DefaultSelector() as selector:
        for probe in probes:
            if probe.answerable:
                for flow in probe.flows:
                    selector.register(flow, probe.events(flow), probe)
        while any(p.answerable and p.pending() for p in probes):
            rest = deadline - time.monotonic()
            if rest <= 0:
                return
            for key, _events in selector.select(rest):
                assert isinstance(key.fileobj, socket.socket)
                flow, probe = key.fileobj, key.data
                probe.ready(flow)
                if all(a.answered or a.error for a in probe.flows[flow]):
                    selector.unregister(flow)
                elif (events := probe.events(flow)) != key.events:
                    selector.modify(flow, events, probe)


@contextmanager
def opened(probes: Sequence[Probe], timeout: float = 3.0) -> Iterator[Sequence[Probe]]:
    """Held probes have an established, answered flow inside; all are closed at the end. Large ones
    are tried too: over IPv6 each end loses a datagram before it knows the path's MTU."""
    with ExitStack() as stack:
        for probe in probes:
            stack.callback(probe.close)
        waiting = [p for p in probes if (p.held or p.size) and p.answerable]
        for _ in range(TRIES):
            results = run(waiting, 1, timeout / TRIES)
            failed = [str(result) for result in results if not result.answered]
            waiting = [p for p, result in zip(waiting, results, strict=True) if not result.answered]
        if waiting:
            raise NotEstablished("; ".join(failed))
        yield probes
