# SPDX-License-Identifier: GPL-2.0-or-later
"""Many flows going on while a test does something, in a process of their own so that the test's
work does not slow them down: new UDP flows at a steady rate, and held UDP and TCP flows.

    with Flood(r.lana, ["198.51.100.7", "2001:db8:64::7"]) as flood:
        before = flood.totals()
        ...
        during = flood.totals() - before
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import select
import selectors
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

from .namespace import Namespace

TICK = 0.002  # seconds between two bursts
KEPT = 400  # new flows whose answer is still waited for
KINDS = ("new", "udp", "tcp")


@dataclass
class Totals:
    """Numbers by kind (new, udp, tcp: the latter two on held flows). `refused` are errors at the
    sender; `sources` tells from where the servers were asked; `ended` counts broken connections."""

    sent: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    ended: int = 0
    seconds: float = 0.0

    def __sub__(self, before: Totals) -> Totals:
        return Totals(
            self.sent - before.sent,
            self.answered - before.answered,
            self.refused - before.refused,
            self.sources - before.sources,
            self.ended - before.ended,
            self.seconds - before.seconds,
        )

    def __str__(self) -> str:
        kinds = ", ".join(f"{k} {self.answered[k]}/{self.sent[k]}" for k in KINDS if self.sent[k])
        by = ", ".join(f"{n} from {s}" for s, n in self.sources.most_common())
        return f"{kinds} answered in {self.seconds:.1f} s ({by or 'nobody asked'})"

    def dump(self) -> str:
        return json.dumps(vars(self))

    @classmethod
    def load(cls, text: str) -> Totals:
        raw = json.loads(text)
        counts = {k: Counter(raw[k]) for k in ("sent", "answered", "refused", "sources")}
        return cls(**counts, ended=raw["ended"], seconds=raw["seconds"])


class Flood:
    """rate: new UDP flows per second; held: so many held flows each of UDP and TCP, which together
    send as often again. `blind`: the held flows are UDP alone, and nobody has to answer them.
    `token` is in every payload."""

    def __init__(
        self,
        netns: Namespace,
        targets: Sequence[str],
        *,
        rate: int = 1000,
        held: int = 4,
        port: int = 7,
        blind: bool = False,
    ) -> None:
        self._netns = netns
        self.token = b"fl" + secrets.token_hex(4).encode()
        self._order = json.dumps(
            {
                "targets": list(targets),
                "rate": rate,
                "held": held,
                "port": port,
                "blind": blind,
                "token": self.token.decode(),
            }
        )

    def __enter__(self) -> Flood:
        """Returns when every held flow is established. Raises if one is not answered."""
        package = Path(__file__).resolve().parent
        with self._netns.inside():
            self._process: subprocess.Popen[str] = subprocess.Popen(
                [sys.executable, "-m", f"{package.name}.flood", self._order],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
                cwd=package.parent,
                env={**os.environ, "PYTHONPATH": str(package.parent)},
            )
        try:
            self._ask("")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def totals(self) -> Totals:
        """Since the start."""
        return self._ask("totals\n")

    def finish(self) -> Totals:
        """Send no more, wait a moment for answers under way, and give the totals."""
        return self._ask("finish\n")

    def _ask(self, line: str) -> Totals:
        into, out = _open(self._process.stdin), _open(self._process.stdout)
        into.write(line)
        into.flush()
        readable, _, _ = select.select([out], [], [], 10)
        answer = out.readline() if readable else ""
        if not answer.startswith("{"):
            raise RuntimeError(f"the flood broke off: {answer.strip() or 'no answer'}")
        return Totals.load(answer)

    def _end(self) -> None:
        _open(self._process.stdin).close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        _open(self._process.stdout).close()


def _open(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


class _Sender:
    def __init__(
        self, targets: list[str], rate: int, held: int, port: int, blind: bool, token: str
    ) -> None:
        self._targets = [(socket.AF_INET6 if ":" in t else socket.AF_INET, t) for t in targets]
        self._rate, self._port, self._token = rate, port, token.encode()
        self._poll = selectors.EpollSelector()
        self._new: deque[socket.socket] = deque()
        self._held: list[tuple[str, socket.socket]] = []
        self._cut: dict[socket.socket, bytes] = {}  # lines of TCP that are not complete yet
        self._count = self._turn = 0
        self.totals = Totals()
        for number in range(held):
            family, target = self._targets[number % len(self._targets)]
            for kind in ("udp",) if blind else ("udp", "tcp"):
                stream = kind == "tcp"
                sock = socket.socket(family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
                self._establish(sock, kind, target, blind=blind)
                sock.setblocking(False)
                self._held.append((kind, sock))
                self._poll.register(sock, selectors.EVENT_READ, kind)

    def _establish(self, sock: socket.socket, kind: str, target: str, *, blind: bool) -> None:
        """Raises OSError, which says whether a single packet was lost."""
        sock.settimeout(3)
        went = f"{kind} to {target}"
        try:
            sock.connect((target, self._port))
            if not blind:
                sock.sendall(self._payload())
                sock.recv(4096)
        except TimeoutError:
            try:
                sock.sendall(self._payload())
                sock.recv(4096)
            except OSError as error:
                raise OSError(f"{went}: {error}, twice") from error
            raise OSError(f"{went}: timed out, but the next packet was answered") from None
        except OSError as error:
            raise OSError(f"{went}: {error}") from error

    def _payload(self) -> bytes:
        self._count += 1
        return self._token + b"-%d \n" % self._count

    def run(self) -> None:
        self._poll.register(sys.stdin.fileno(), selectors.EVENT_READ, "order")
        began = last = time.monotonic()
        due = held_due = 0.0
        sending, finish_at = True, 0.0
        while True:
            now = time.monotonic()
            if sending:
                due += (now - last) * self._rate
                held_due += (now - last) * self._rate if self._held else 0
                while due >= 1:
                    due -= 1
                    self._send_new()
                while held_due >= 1:
                    held_due -= 1
                    self._send_held()
                self.totals.seconds = now - began
            elif finish_at and (now >= finish_at or not self._outstanding()):
                print(self.totals.dump(), flush=True)
                finish_at = 0.0
            last = now
            for key, _events in self._poll.select(TICK if sending or finish_at else None):
                if key.data != "order":
                    self._receive(key.fileobj, key.data)
                    continue
                line = os.read(sys.stdin.fileno(), 100)
                if not line:
                    return
                if line == b"finish\n":
                    sending, finish_at = False, time.monotonic() + 0.3
                else:
                    print(self.totals.dump(), flush=True)

    def _outstanding(self) -> bool:
        got = self.totals.answered.total() + self.totals.refused.total()
        return got < self.totals.sent.total()

    def _send_new(self) -> None:
        family, target = self._targets[self._count % len(self._targets)]
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.totals.sent["new"] += 1
        try:
            sock.connect((target, self._port))
            sock.send(self._payload())
        except OSError:
            self.totals.refused["new"] += 1
            sock.close()
            return
        self._poll.register(sock, selectors.EVENT_READ, "new")
        self._new.append(sock)
        while len(self._new) > KEPT:
            self._forget(self._new.popleft())

    def _send_held(self) -> None:
        if not self._held:
            return
        # In turn, whatever is sent beside it: or one kind alone would get all the turns.
        self._turn += 1
        kind, sock = self._held[self._turn % len(self._held)]
        self.totals.sent[kind] += 1
        try:
            if kind == "udp":
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            sock.send(self._payload())
        except BlockingIOError:
            self.totals.sent[kind] -= 1  # TCP waits for acknowledgements and takes no more
        except OSError:
            self.totals.refused[kind] += 1
            if kind == "tcp":
                self._break(sock)

    def _receive(self, source: object, kind: str) -> None:
        assert isinstance(source, socket.socket)
        if source.fileno() < 0:
            return
        try:
            data = source.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self.totals.refused[kind] += 1
            if kind == "tcp":
                self._break(source)
            elif kind == "new":
                self._forget(source)
            assert error.errno != errno.EBADF
            return
        if kind == "tcp":
            if not data:
                self._break(source)
            *answers, rest = (self._cut.pop(source, b"") + data).split(b"\n")
            self._cut[source] = rest
        else:
            answers = [data.replace(b"\n", b"")]
        for answer in answers:
            words = answer.split(b" ")
            if len(words) >= 4:
                self.totals.answered[kind] += 1
                self.totals.sources[words[-2].decode()] += 1
        if kind == "new":
            self._forget(source)

    def _break(self, sock: socket.socket) -> None:
        self.totals.ended += 1
        self._held = [(k, s) for k, s in self._held if s is not sock]
        self._forget(sock)

    def _forget(self, sock: socket.socket) -> None:
        if sock.fileno() >= 0:
            with suppress(KeyError):
                self._poll.unregister(sock)
            sock.close()


def main() -> None:
    try:
        sender = _Sender(**json.loads(sys.argv[1]))
    except OSError as error:
        print(f"a held flow could not be established: {error}", flush=True)
        return
    print(sender.totals.dump(), flush=True)
    sender.run()


if __name__ == "__main__":
    main()
