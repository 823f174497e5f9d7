# SPDX-License-Identifier: GPL-2.0-or-later
"""libubox's event loop as far as a Python program sees it: descriptors, signals, children.

Two deviations are forced. The real handlers are installed behind Python's back, so there
`signal.getsignal` goes on saying "default"; here it names a function. And the real loop runs in C,
where Python's own signal handlers cannot run; here their signals are held back meanwhile.
"""

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from .context import Context

_Handler = Callable[[int, FrameType | None], None] | signal.Handlers
_ENDING = (signal.SIGINT, signal.SIGTERM)


class Uloop:
    def __init__(self) -> None:
        self._poll: select.epoll | None = None
        self._wake = (-1, -1)
        self._watched: int | None = None
        self._cancelled = False
        self._child_died = False
        self.thread: int | None = None
        """Which thread is in the loop."""

    def init(self) -> None:
        if self._poll is None:
            self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                self._poll = select.epoll()
            except OSError:
                for descriptor in self._wake:
                    os.close(descriptor)
                raise
            self._poll.register(self._wake[0], select.EPOLLIN)
        for number in _ENDING:
            self._install(number, self._on_end)
        self._install(signal.SIGCHLD, self._on_child)
        if signal.getsignal(signal.SIGPIPE) == signal.SIG_DFL:
            _set(signal.SIGPIPE, signal.SIG_IGN)

    def done(self) -> None:
        for number in (*_ENDING, signal.SIGCHLD):
            if signal.getsignal(number) in (self._on_end, self._on_child):
                _set(number, signal.SIG_DFL)
        # SIGPIPE stays ignored: libubox means to restore it, and does not.
        if self._poll is not None:
            self._poll.close()
            self._poll = None
            for descriptor in self._wake:
                os.close(descriptor)
        self._watched = None

    def _install(self, number: int, handler: _Handler) -> None:
        if signal.getsignal(number) == signal.SIG_DFL:
            _set(number, handler)

    def _on_end(self, number: int, _frame: FrameType | None) -> None:
        self._cancelled = True
        self._wake_up(number)

    def _on_child(self, number: int, _frame: FrameType | None) -> None:
        self._child_died = True
        self._wake_up(number)

    def _wake_up(self, number: int) -> None:
        with contextlib.suppress(OSError):
            os.write(self._wake[1], bytes([number]))

    def watch(self, descriptor: int) -> None:
        assert self._poll is not None
        self._poll.register(descriptor, select.EPOLLIN | select.EPOLLRDHUP)
        self._watched = descriptor

    def run(self, context: Context, timeout: int) -> None:
        """Serves until a signal ends it or `timeout` milliseconds (negative: no limit) are over."""
        end = time.monotonic() + timeout / 1000 if timeout >= 0 else None
        self._cancelled = False
        self.thread = threading.get_ident()
        try:
            with python_handlers_held():
                while not self._cancelled:
                    self._turn(context, end)
        finally:
            self.thread = None

    def _turn(self, context: Context, end: float | None) -> None:
        assert self._poll is not None
        now = time.monotonic()
        due = context.pending_due
        if due is not None and due <= now:
            context.process_pending()
        if end is not None and end <= now:
            self._cancelled = True
        if self._child_died:
            self._reap()
        if self._cancelled:
            return
        times = [moment for moment in (end, context.pending_due) if moment is not None]
        wait = max(0.0, min(times) - time.monotonic()) if times else None
        for descriptor, mask in self._poll.poll(wait):
            if descriptor == self._wake[0]:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake[0], 64)
                continue
            if mask & (select.EPOLLERR | select.EPOLLHUP):
                # libubox forgets a dead connection before libubus could end the loop over it.
                self._poll.unregister(descriptor)
                self._watched = None
            context.handle_data()
            if context.eof and self._watched is not None:
                self._cancelled = True

    def _reap(self) -> None:
        self._child_died = False
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _set(number: int, handler: _Handler) -> None:
    # Python lets only the main thread do this; libubox does not care.
    with contextlib.suppress(ValueError):
        signal.signal(number, handler)


def _python_handled() -> set[int]:
    ours = (Uloop._on_end, Uloop._on_child)
    return {
        number
        for number in signal.valid_signals()
        if callable(handler := signal.getsignal(number))
        and not isinstance(handler, signal.Handlers)
        and getattr(handler, "__func__", None) not in ours
    }


@contextlib.contextmanager
def python_handlers_held() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _python_handled())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def python_handlers_free() -> Iterator[None]:
    """For callbacks: there Python runs, and so do its handlers."""
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, _python_handled())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
