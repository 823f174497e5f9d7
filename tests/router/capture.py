# SPDX-License-Identifier: GPL-2.0-or-later
"""Seeing every frame that arrives at a device, and knowing that none was missed.

An AF_PACKET ring (TPACKET_V3, kernel document packet_mmap.rst), because the size of an ordinary
receive buffer is capped for whoever is not root outside all user namespaces."""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import socket
import struct
import threading
import time
from types import TracebackType

from .frame import ETH_VLAN, Frame
from .namespace import Namespace

ETH_P_ALL = 0x0003
SOL_PACKET, RX_RING, STATISTICS, VERSION, IGNORE_OUTGOING = 263, 5, 6, 10, 23
TPACKET_V3 = 2
STATUS_USER, STATUS_VLAN, STATUS_VLAN_TPID = 1, 0x10, 0x40
BLOCK = 1 << 18  # small: one that is handed over half empty takes its whole room until it is read
CLOCK_SKEW = 0.002  # seconds that two processors may put frames out of order
RETIRE_MS = 8  # a block that is not full is handed over after this time


class FramesLost(RuntimeError):
    """The kernel dropped frames for want of room: the capture proves nothing."""


class Capture:
    """Frames that arrive at `device` of a namespace; those it sends are not looked at. On the ISP's
    end of the line that is exactly what the router sends, under whichever MAC address.

        with Capture(r.isp, "access") as capture:
            ...
        verdict = judge(capture.frames, allowed)
    """

    def __init__(self, netns: Namespace, device: str, *, megabytes: int = 32) -> None:
        self._netns, self._device = netns, device
        self._blocks = (megabytes << 20) // BLOCK
        self._frames: list[Frame] = []
        self._news = threading.Condition()
        self._lost = 0
        self._at = 0
        self._asked = self._flushed = 0.0  # times (seconds since 1970, as frames have them)
        self._over = False
        self._failure: BaseException | None = None
        self._wake = -1

    def __enter__(self) -> Capture:
        sock = self._netns.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sock.setsockopt(SOL_PACKET, VERSION, TPACKET_V3)
        sock.setsockopt(SOL_PACKET, IGNORE_OUTGOING, 1)
        frames = BLOCK // 2048 * self._blocks
        request = struct.pack("7I", BLOCK, self._blocks, 2048, frames, RETIRE_MS, 0, 0)
        sock.setsockopt(SOL_PACKET, RX_RING, request)
        self._ring = mmap.mmap(sock.fileno(), BLOCK * self._blocks)
        sock.bind((self._device, ETH_P_ALL))
        with self._netns.inside():
            self._index = socket.if_nametoindex(self._device)
        self._sock = sock
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self._over = True
            os.eventfd_write(self._wake, 1)
            self._thread.join(5)
            os.close(self._wake)
            self._ring.close()
            self._sock.close()
        if kind is None:
            self._check()

    @property
    def frames(self) -> list[Frame]:
        """What has come so far; call `flush` first while the capture runs."""
        with self._news:
            return list(self._frames)

    def flush(self) -> list[Frame]:
        """All frames that had arrived when this was called. Raises FramesLost."""
        with self._news:
            self._asked = mine = time.time()
            os.eventfd_write(self._wake, 1)
            if not self._news.wait_for(lambda: self._flushed >= mine or self._failure, 10):
                raise RuntimeError(f"the capture on {self._device} is more than 10 s behind")
        self._check()
        return self.frames

    def having(self, token: bytes) -> list[Frame]:
        """The frames that contain the bytes anywhere."""
        return [frame for frame in self.frames if token in frame.raw]

    def wait_for(self, token: bytes, timeout: float = 5) -> Frame:
        """The first frame that contains the bytes, as soon as it arrives."""
        deadline = time.monotonic() + timeout
        seen = 0
        with self._news:
            while True:
                for frame in self._frames[seen:]:
                    if token in frame.raw:
                        return frame
                seen = len(self._frames)
                if not self._news.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"no frame with {token!r} in {timeout} s")

    def _check(self) -> None:
        if self._failure:
            raise RuntimeError(f"the capture on {self._device} broke off") from self._failure
        if self._lost:
            raise FramesLost(f"{self._lost} frames were lost on {self._device}")

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._sock, select.POLLIN | select.POLLERR)
        poll.register(self._wake, select.POLLIN)
        try:
            while not self._over:
                rest = None if self._flushed >= self._asked else RETIRE_MS
                for fd, event in poll.poll(rest):
                    if fd == self._wake:
                        os.eventfd_read(self._wake)
                    elif event & select.POLLERR:
                        self._device_went_down()
                asked = self._asked
                self._drain()
                with self._news:
                    # the kernel counts into the open block as it fills it; under steady traffic
                    # that is never empty, but then frames from after the question have been seen
                    latest = self._frames[-1].time - CLOCK_SKEW if self._frames else 0.0
                    if self._open_block_is_empty() or latest > asked:
                        self._flushed = max(self._flushed, asked)
                    self._count_losses()
                    self._news.notify_all()
        except BaseException as error:  # handed to whoever waits
            with self._news:
                self._failure = error
                self._news.notify_all()

    def _device_went_down(self) -> None:
        """The kernel listens again by itself when the device comes up, but not to another one."""
        error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        with self._netns.inside():
            present = {name: index for index, name in socket.if_nameindex()}
        if present.get(self._device) != self._index:
            raise OSError(error, f"{self._device} is gone")

    def _open_block_is_empty(self) -> bool:
        status, count = struct.unpack_from("2I", self._ring, self._at * BLOCK + 8)
        return not status & STATUS_USER and count == 0

    def _count_losses(self) -> None:
        # reading them sets them to zero
        raw = self._sock.getsockopt(SOL_PACKET, STATISTICS, 12)
        self._lost += struct.unpack("3I", raw)[1]

    def _drain(self) -> None:
        while True:
            start = self._at * BLOCK
            status, count, offset = struct.unpack_from("3I", self._ring, start + 8)
            if not status & STATUS_USER:
                return
            found = []
            at = start + offset
            for _ in range(count):
                found.append(self._frame(at))
                at += struct.unpack_from("I", self._ring, at)[0]
            with self._news:
                self._frames += found
                self._news.notify_all()
            # a whole aligned word: the kernel must not see half of it
            ctypes.c_uint32.from_buffer(self._ring, start + 8).value = 0
            self._at = (self._at + 1) % self._blocks

    def _frame(self, at: int) -> Frame:
        _next, sec, nsec, length, whole, status, link = struct.unpack_from("6IH", self._ring, at)
        raw = self._ring[at + link : at + link + length]
        if length < whole:
            raise FramesLost(f"a frame of {whole} bytes was cut to {length}")
        if status & STATUS_VLAN:
            # the kernel takes the tag out of the frame; it belongs back
            tci, tpid = struct.unpack_from("IH", self._ring, at + 32)
            tag = struct.pack("!2H", tpid if status & STATUS_VLAN_TPID else ETH_VLAN, tci)
            raw = raw[:12] + tag + raw[12:]
        return Frame(sec + nsec / 1e9, raw)
