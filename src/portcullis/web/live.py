# SPDX-License-Identifier: GPL-2.0-or-later
"""Server-sent events: each page follows the status its own session may see.

The loop asks the core once for each session that has a page open: every two seconds, and at
once when the core broadcasts a change of state. Nothing is asked while nobody looks. What the
page does not hear for some seconds it must not go on showing, so silence is filled.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator

from portcullis.bus import Bus, BusError
from portcullis.loop import Loop, Timer
from portcullis.rights import OBJECT
from portcullis.web.bridge import Bridge

STREAMS_MAX = 20
_PER_SESSION = 6
_EVERY = 2.0
_SILENCE = 4.0
_LASTS = 3600.0  # then the browser connects anew


class TooManyStreams(Exception):
    """There are as many open pages as the router can follow."""


class _Topic:
    """What a session's pages are told next."""

    def __init__(self) -> None:
        self.streams = 0
        self.version = 0
        self.text = b""
        self.ended = False


class Live:
    def __init__(self, loop: Loop, bus: Bus, bridge: Bridge) -> None:
        self._loop, self._bus, self._bridge = loop, bus, bridge
        self._topics: dict[str, _Topic] = {}
        self._changed = threading.Condition()
        self._timer: Timer | None = None

    def stream(self, session: str) -> Iterator[bytes]:
        """Events for one page, until its session ends. Raises TooManyStreams at once."""
        with self._changed:
            streams = sum(topic.streams for topic in self._topics.values())
            topic = self._topics.setdefault(session, _Topic())
            if topic.streams >= _PER_SESSION or streams >= STREAMS_MAX:
                if not topic.streams:
                    del self._topics[session]
                raise TooManyStreams
            topic.streams += 1
        self._bridge.post(self.refresh)
        return self._events(session, topic)

    def refresh(self) -> None:
        """In the loop: ask for each session, and tell its pages."""
        if self._timer:
            self._timer.cancel()
        with self._changed:
            sessions = list(self._topics)
        self._timer = self._loop.after(_EVERY, self.refresh) if sessions else None
        for session in sessions:
            text, ended = self._ask(session)
            with self._changed:
                if topic := self._topics.get(session):
                    topic.version += 1
                    topic.text, topic.ended = text, ended
                    self._changed.notify_all()

    def _ask(self, session: str) -> tuple[bytes, bool]:
        try:
            status = self._bus.call(OBJECT, "status", {"session": session})
        except BusError as error:
            return event("lost", {"reason": str(error)}), False
        if status.get("ok"):
            # Browsers' clocks and the router's (K13) differ: the page reckons with the latter.
            return event("status", {**status, "now": time.time()}), False
        if status.get("code") in ("denied", "forbidden"):
            return event("ended", {"reason": status.get("reason", "")}), True
        return event("lost", {"reason": status.get("reason", "")}), False

    def _events(self, session: str, topic: _Topic) -> Iterator[bytes]:
        until, seen = time.monotonic() + _LASTS, 0
        try:
            yield b"retry: 500\n\n"
            while time.monotonic() < until:
                with self._changed:
                    self._changed.wait_for(lambda: topic.version != seen, _SILENCE)  # noqa: B023
                    news, seen = topic.version != seen, topic.version
                    text, ended = topic.text, topic.ended
                yield text if news else b"event: quiet\ndata: {}\n\n"
                if ended:
                    return
        finally:
            with self._changed:
                topic.streams -= 1
                if not topic.streams and self._topics.get(session) is topic:
                    del self._topics[session]


def event(name: str, data: dict[str, object]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
