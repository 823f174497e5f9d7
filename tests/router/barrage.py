# SPDX-License-Identifier: GPL-2.0-or-later
"""Packets in bulk from a device of the house: frames by hand, so many per second as the router
can take, of every kind that needs no answer. For figures in millions, where `flood` (real
sockets, flows that are answered) gives thousands."""

from __future__ import annotations

import errno
import secrets
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from . import addresses as at
from . import craft
from .frame import ICMP6, TCP, UDP
from .namespace import Namespace

FLOWS = 64  # ports of each kind
KINDS = (
    *("UDP, new flows", "TCP SYN", "TCP in the middle", "another's address"),
    *("the endpoint itself", "echo", "odd protocol", "fragments"),
)


def mark(token: bytes, version: int, kind: int) -> bytes:
    """What the payload of a kind begins with, so that each can be told on the wire."""
    return token + b"-%d-%d." % (version, kind)


def frames(token: bytes) -> list[bytes]:
    """For the router to forward, every kind in both families, from addresses of the house."""
    packets = [p for version in (4, 6) for p in _packets(version, token)]
    return [craft.ethernet(p, source=at.LAN_A_MAC, target=at.BR_LAN_MAC) for p in packets]


def _packets(version: int, token: bytes) -> Iterator[bytes]:
    hosts = at.LAN_A, at.LAN_B, at.FRIENDLY, at.HOSTILE, at.VPN1
    source, neighbour, friendly, hostile, server = (h.addresses[version == 6] for h in hosts)
    marks = [mark(token, version, kind) for kind in range(len(KINDS))]
    for port in range(20000, 20000 + FLOWS):
        yield craft.udp(source, port, friendly, 443, marks[0])
        yield craft.ip(source, hostile, TCP, _tcp(port, 0x02, marks[1]))
        yield craft.ip(source, friendly, TCP, _tcp(port, 0x18, marks[2]))
        yield craft.udp(neighbour, port, friendly, 7, marks[3])
        yield craft.udp(source, port, server, at.WIREGUARD_PORT, marks[4])
        yield craft.ip(
            source, friendly, ICMP6 if version == 6 else 1, _echo(version, port, marks[5])
        )
    yield craft.ip(source, friendly, at.ODD_PROTOCOL, marks[6])
    datagram = struct.pack("!4H", 33333, 7, 8 + 2000, 0) + marks[7].ljust(2000, b".")
    ident = secrets.randbelow(1 << 16)
    for offset, more in ((0, True), (1440, False)):
        part = datagram[offset : offset + 1440]
        yield craft.ip(source, friendly, UDP, part, offset=offset, more=more, ident=ident)


def _tcp(port: int, flags: int, payload: bytes) -> bytes:
    return struct.pack("!HHIIBBHHH", port, 443, 1, 1, 5 << 4, flags, 65535, 0, 0) + payload


def _echo(version: int, ident: int, payload: bytes) -> bytes:
    message = struct.pack("!BBHHH", 128 if version == 6 else 8, 0, 0, ident, 1) + payload
    return message[:2] + struct.pack("!H", craft.checksum(message)) + message[4:]


class Barrage:
    """Sends from the namespace's eth0, in a process of its own, as many per second as `rate`
    says; 0 is a rest."""

    def __init__(self, netns: Namespace, found: list[bytes]) -> None:
        self._netns = netns
        self._order = "".join(f"{frame.hex()}\n" for frame in found) + "\n"

    def __enter__(self) -> Barrage:
        package = Path(__file__).resolve().parent
        with self._netns.inside():
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"{package.name}.barrage"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
                cwd=package.parent,
            )
        self._ask(self._order)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait(5)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            pipe.close()

    def rate(self, packets: int) -> int:
        """Go on with so many per second; how many have been sent up to now."""
        return self._ask(f"{packets}\n")

    def _ask(self, text: str) -> int:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(text)
        self._process.stdin.flush()
        readable, _, _ = select.select([self._process.stdout], [], [], 10)
        answer = self._process.stdout.readline() if readable else ""
        if not answer.strip().isdigit():
            raise RuntimeError("the barrage broke off")
        return int(answer)


def main() -> None:
    found = [bytes.fromhex(line) for line in iter(lambda: sys.stdin.readline().strip(), "")]
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.bind(("eth0", 0))
    sent, rate, due, last = 0, 0, 0.0, time.monotonic()
    print(sent, flush=True)
    while True:
        readable, _, _ = select.select([sys.stdin], [], [], 0.002 if rate else None)
        now = time.monotonic()
        # Who was held up does not catch up: the router would see one long burst.
        due = min(due + (now - last) * rate, max(rate / 10, 1))
        last = now
        while due >= 1:
            due -= 1
            try:
                sock.send(found[sent % len(found)])
            except OSError as error:
                if error.errno not in (errno.ENETDOWN, errno.ENOBUFS):
                    raise
                break  # the router's bridge is down, or the queue is full: not sent
            sent += 1
        if readable:
            line = sys.stdin.readline()
            if not line:
                return
            rate, due = int(line), 0.0
            print(sent, flush=True)


if __name__ == "__main__":
    main()
