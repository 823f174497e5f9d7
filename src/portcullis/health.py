# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the tunnel still works: passive first, then probing, the handshake as arbiter.

Pure: a function of time and counters. WireGuard never says that it is dead, so silence is
judged in three steps. Nothing came back for a while though something was sent (or nothing
happened at all for long): *probe*. Probes brought nothing either: ask for a new *handshake*.
Only a handshake that is not answered means *dead*; a provider that drops ICMP is not.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from portcullis.driver import Reading

HANDSHAKE_OCTETS = 92 + 32
"""What a handshake brings by itself: WireGuard's response and one keepalive."""

_KEEPALIVE_OCTETS = 32
"""What WireGuard sends by itself ten seconds after the last data came. Nobody answers that, and
nothing else is so small."""

_ASKED_AGAIN = (148, 2 * 148)
"""Handshake initiations of the far side between two looks, which are no multiple of 16 as all
data is. Somebody who asks for a handshake again and again hears nothing of our answers."""

_LOAD_OCTETS = 1000  # more than keepalives and probes of our own


class Advice(Enum):
    FINE = "fine"
    PROBE = "probe"  # send something that the far side answers
    HANDSHAKE = "handshake"  # set the peers anew
    DEAD = "dead"


class Limits(NamedTuple):
    """Seconds. Dead is noticed within unanswered + probing + handshake + a poll under load,
    and within idle + probing + handshake + an idle poll otherwise."""

    unanswered: float = 1.5
    unanswered_most: float = 12.0  # WireGuard answers one-way traffic every 10 s
    idle: float = 15.0
    probing: float = 1.5
    handshake: float = 2.0
    poll: float = 0.5
    poll_idle: float = 3.0
    poll_doubt: float = 0.25
    probe_every: float = 0.5
    fruitless: int = 3  # handshakes under load after which nothing but they came back


class Health:
    def __init__(self, now: float, reading: Reading, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._patience = self._limits.unanswered
        self._doubt = Advice.FINE
        self._doubt_since = self._probed = self._heard_at = now
        self._unanswered_since: float | None = None
        self._received, self._sent = reading.received, reading.sent
        self._handshake = reading.handshake
        self._sent_when_heard = reading.sent
        self._loaded, self._fruitless = False, 0
        self._busy = True

    def observe(self, now: float, reading: Reading) -> Advice:
        """What to do, at `now` (monotonic seconds), about the counters read at that moment."""
        if reading.received < self._received or reading.sent < self._sent:
            # Set anew by ourselves: counters began again.
            self._received = self._sent = self._sent_when_heard = 0
        renewed = reading.handshake > self._handshake
        if reading.received - self._received in _ASKED_AGAIN and not renewed:
            self._received = reading.received
        answered = self._doubt is Advice.HANDSHAKE and renewed
        if reading.received > self._received or answered:
            return self._listen(now, reading)
        if self._unanswered_since is None and reading.sent - self._sent > _KEEPALIVE_OCTETS:
            self._unanswered_since = now
        self._sent = max(self._sent, reading.sent)
        return self._judge(now)

    def _listen(self, now: float, reading: Reading) -> Advice:
        """Something came. Where it was no more than a new handshake, the far side is slow to
        talk; if devices talk to it all the time and never hear anything, it carries nothing."""
        if self._doubt is not Advice.HANDSHAKE:
            self._fruitless = 0
            if self._doubt is Advice.FINE:
                self._patience = self._limits.unanswered
        elif reading.received <= HANDSHAKE_OCTETS:
            self._patience = min(self._patience * 2, self._limits.unanswered_most)
            self._fruitless += self._loaded
            if self._fruitless >= self._limits.fruitless:
                return Advice.DEAD
        self._heard(now, reading)
        return Advice.FINE

    def next_poll(self) -> float:
        """Seconds until the counters should be looked at again."""
        if self._doubt is not Advice.FINE:
            return self._limits.poll_doubt
        return self._limits.poll if self._busy else self._limits.poll_idle

    def _judge(self, now: float) -> Advice:
        waited = now - self._doubt_since
        if self._doubt is Advice.FINE:
            waiting = self._unanswered_since is not None
            if waiting and now - (self._unanswered_since or now) >= self._patience:
                self._loaded = self._sent - self._sent_when_heard >= _LOAD_OCTETS
                return self._enter(Advice.PROBE, now)
            if now - self._heard_at >= self._limits.idle:
                return self._enter(Advice.PROBE, now)
            self._busy = waiting
        elif self._doubt is Advice.PROBE:
            if waited >= self._limits.probing:
                return self._enter(Advice.HANDSHAKE, now)
            if now - self._probed >= self._limits.probe_every:
                self._probed = now
                return Advice.PROBE
        elif waited >= self._limits.handshake:
            return Advice.DEAD
        return Advice.FINE

    def _enter(self, doubt: Advice, now: float) -> Advice:
        self._doubt, self._doubt_since, self._probed = doubt, now, now
        return doubt

    def _heard(self, now: float, reading: Reading) -> None:
        self._busy = self._doubt is Advice.FINE
        self._doubt, self._heard_at = Advice.FINE, now
        self._unanswered_since = None
        self._received, self._sent = reading.received, reading.sent
        self._handshake = max(self._handshake, reading.handshake)
        self._sent_when_heard, self._loaded = reading.sent, False
