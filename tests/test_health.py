# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the tunnel still works, on simulated clocks and counters."""

from __future__ import annotations

import pytest

from portcullis.driver import Reading
from portcullis.health import Advice, Health, Limits

HANDSHAKE_IN, HANDSHAKE_OUT, PROBE, PACKET, KEEPALIVE = 92, 148, 130, 1000, 32
LOADED, IDLE = 10.0, 30.0
SLOW = LOADED + Limits().unanswered_most - Limits().unanswered
PHASES = [n / 7 for n in range(36)]


class Line:
    """A tunnel and its far side, which is alive until `dies`. A far side may ignore probes, and
    may say nothing to what the owner sends but WireGuard's keepalive every ten seconds. One that
    `asks` hears nothing of us from then on, and asks for a handshake every five seconds.

    Run it with `until`; it polls when Health says so and does what Health advises.
    """

    def __init__(
        self,
        *,
        dies: float = float("inf"),
        load: float = 0.0,
        load_begins: float = 0.0,
        replies: bool = True,
        answers_probes: bool = True,
        answers_handshakes: bool = True,
        asks: bool = False,
        rtt: float = 0.05,
    ) -> None:
        self.dies, self.load, self.load_begins, self.rtt = dies, load, load_begins, rtt
        self.replies, self.answers_probes = replies, answers_probes
        self.answers_handshakes, self.asks = answers_handshakes, asks
        self._asked = 0.0
        self.now = 0.0
        self.handshake, self.received, self.sent = 1.0, HANDSHAKE_IN, HANDSHAKE_OUT
        self._under_way: list[tuple[float, int]] = []
        self._unanswered_load = 0.0
        self.advices: list[tuple[float, Advice]] = []
        self.polls = 0
        self.health = Health(0.0, self.reading())

    def reading(self) -> Reading:
        return Reading(self.handshake, self.received, self.sent)

    def until(self, end: float, first_poll: float = 0.0) -> float:
        """Seconds at which it was declared dead, or `end`."""
        poll_at = first_poll or self.health.next_poll()
        while self.now < end:
            step = min(poll_at - self.now, 0.1)
            self._live(step)
            if self.now < poll_at - 1e-9:
                continue
            self.polls += 1
            advice = self.health.observe(self.now, self.reading())
            self.advices.append((self.now, advice))
            if advice is Advice.DEAD:
                return self.now
            self._obey(advice)
            poll_at = self.now + self.health.next_poll()
        return end

    def seen(self, advice: Advice) -> list[float]:
        return [when for when, found in self.advices if found is advice]

    def _live(self, step: float) -> None:
        self.now += step
        if self.load and self.now >= self.load_begins:
            self.sent += round(self.load * step)
            if self.replies:
                self._answer(round(self.load * step))
            elif self.now - self._unanswered_load >= 10:
                self._unanswered_load = self.now
                self._answer(KEEPALIVE)
        if self.asks and self.now >= self.dies and self.now - self._asked >= 5:
            self._asked = self.now
            self.received += HANDSHAKE_OUT
        arrived = [size for when, size in self._under_way if when <= self.now]
        self._under_way = [(when, size) for when, size in self._under_way if when > self.now]
        self.received += sum(arrived)
        if HANDSHAKE_IN in arrived:
            self.handshake = 2.0 + self.now

    def _obey(self, advice: Advice) -> None:
        if advice is Advice.HANDSHAKE:
            self.handshake, self.received, self.sent = 0.0, 0, HANDSHAKE_OUT
            self._under_way.clear()
            self._unanswered_load = self.now
            if self.answers_handshakes:
                self._answer(HANDSHAKE_IN)
        if advice in (Advice.PROBE, Advice.HANDSHAKE):
            self.sent += PROBE
            if self.answers_probes:
                self._answer(PROBE)

    def _answer(self, size: int) -> None:
        if self.now < self.dies and size:
            self._under_way.append((self.now + self.rtt, size))


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("load", [100.0, 1e6])
def test_under_load_a_dead_tunnel_is_noticed_within_ten_seconds(phase: float, load: float) -> None:
    dies = 40 + phase
    assert Line(dies=dies, load=load).until(100) - dies <= LOADED


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(("load", "bound"), [(0.0, IDLE), (100.0, LOADED), (1e6, LOADED)])
def test_a_tunnel_that_is_dead_one_way_is_noticed_though_the_far_side_asks_for_handshakes(
    phase: float, load: float, bound: float
) -> None:
    dies = 40 + phase
    assert Line(dies=dies, load=load, asks=True).until(200) - dies <= bound


@pytest.mark.parametrize("phase", PHASES)
def test_idle_a_dead_tunnel_is_noticed_within_thirty_seconds(phase: float) -> None:
    dies = 40 + phase
    assert Line(dies=dies).until(100) - dies <= IDLE


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("pause", [0.0, 4.0, 12.0])
def test_a_dead_tunnel_is_noticed_within_thirty_seconds_though_load_begins_only_then(
    phase: float, pause: float
) -> None:
    dies = 40 + phase
    line = Line(dies=dies, load=1e4, load_begins=dies + pause)
    assert line.until(100) - dies <= IDLE


@pytest.mark.parametrize("phase", PHASES)
def test_a_dead_tunnel_is_never_declared_before_a_handshake_was_tried(phase: float) -> None:
    line = Line(dies=40 + phase, load=1e4)
    dead = line.until(100)
    assert dead - line.seen(Advice.HANDSHAKE)[-1] >= Limits().handshake


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("load", [0.0, 1e4])
def test_a_far_side_that_answers_nothing_but_handshakes_is_not_dead(
    phase: float, load: float
) -> None:
    line = Line(load=load, replies=False, answers_probes=False)
    assert line.until(300, first_poll=0.1 + phase) == 300


@pytest.mark.parametrize("phase", PHASES)
def test_one_way_traffic_answered_by_keepalives_is_not_dead(phase: float) -> None:
    line = Line(load=1e5, replies=False, answers_handshakes=False)
    assert line.until(300, first_poll=0.1 + phase) == 300


def test_one_way_traffic_to_a_far_side_without_probes_settles_to_few_handshakes() -> None:
    """Each sets the peers anew and costs the session; the patience grows beyond a keepalive."""
    line = Line(load=1e5, replies=False, answers_probes=False)
    line.until(300)
    assert len(line.seen(Advice.HANDSHAKE)) <= 4


@pytest.mark.parametrize("phase", PHASES)
def test_patience_that_has_grown_still_notices_a_dead_tunnel(phase: float) -> None:
    dies = 100 + phase
    line = Line(dies=dies, load=1e5, replies=False, answers_probes=False)
    assert line.until(200) - dies <= SLOW


@pytest.mark.parametrize("rtt", [0.02, 0.6, 1.5])
@pytest.mark.parametrize("load", [0.0, 1e4])
def test_a_slow_line_is_not_dead(rtt: float, load: float) -> None:
    assert Line(load=load, rtt=rtt).until(300) == 300


def test_busy_and_answered_nothing_is_asked_of_the_far_side() -> None:
    line = Line(load=1e4)
    line.until(300)
    assert {advice for _, advice in line.advices} == {Advice.FINE}


def test_an_idle_tunnel_is_looked_at_every_few_seconds_only() -> None:
    line = Line()
    line.until(600)
    assert line.polls <= 600 / Limits().poll_idle * 1.25


def test_an_idle_tunnel_is_probed_about_every_idle_period() -> None:
    line = Line()
    line.until(600)
    assert 25 <= len(line.seen(Advice.PROBE)) <= 40


def test_an_idle_tunnel_that_answers_probes_never_needs_a_handshake() -> None:
    line = Line()
    line.until(600)
    assert line.seen(Advice.HANDSHAKE) == []


def test_a_doubtful_tunnel_is_looked_at_closely() -> None:
    health = Health(0.0, Reading(1, 100, 100))
    health.observe(1.0, Reading(1, 100, 200))
    assert health.observe(3.5, Reading(1, 100, 200)) is Advice.PROBE
    assert health.next_poll() == Limits().poll_doubt


def test_several_probes_are_sent_before_a_handshake() -> None:
    line = Line(dies=0.0, load=1e4)
    line.until(100)
    assert 3 <= len(line.seen(Advice.PROBE)) <= 6


def test_one_answer_ends_all_doubt() -> None:
    health = Health(0.0, Reading(1, 100, 100))
    health.observe(1.0, Reading(1, 100, 200))
    assert health.observe(3.5, Reading(1, 100, 200)) is Advice.PROBE
    assert health.observe(3.75, Reading(1, 101, 200)) is Advice.FINE
    assert health.observe(5.0, Reading(1, 101, 200)) is Advice.FINE


def asked_for_a_handshake(before: Reading) -> Health:
    """A health that has just advised a handshake, at 10.0 seconds."""
    health = Health(0.0, before)
    health.observe(1.0, before._replace(sent=before.sent + PACKET))
    last = before._replace(sent=before.sent + PACKET)
    advices = [health.observe(second, last) for second in (6.0, 8.0, 10.0)]
    assert Advice.HANDSHAKE in advices
    return health


def test_counters_that_began_again_with_the_peers_are_understood() -> None:
    health = asked_for_a_handshake(Reading(1, 10**6, 10**6))
    health.observe(10.1, Reading(0, 0, HANDSHAKE_OUT))
    assert health.observe(10.3, Reading(5, HANDSHAKE_IN, HANDSHAKE_OUT)) is Advice.FINE
    assert health.observe(13.0, Reading(5, HANDSHAKE_IN, HANDSHAKE_OUT)) is Advice.FINE


def test_counters_of_a_handshake_answered_before_the_first_look_are_understood() -> None:
    health = asked_for_a_handshake(Reading(1, 10**6, 10**6))
    health.observe(10.3, Reading(5, HANDSHAKE_IN, HANDSHAKE_OUT))
    assert health.observe(13.5, Reading(5, HANDSHAKE_IN, HANDSHAKE_OUT)) is not Advice.DEAD


def test_an_answered_handshake_counts_though_the_octets_look_the_same() -> None:
    """The handshake is the arbiter, not the octets: a handshake's answer always has the same size,
    and what is sent after the peers were set anew may exceed what was sent before."""
    health = asked_for_a_handshake(Reading(1, HANDSHAKE_IN, HANDSHAKE_OUT))
    after = Reading(5, HANDSHAKE_IN, 10**6)
    advices = [health.observe(10.0 + n / 4, after) for n in range(1, 20)]
    assert Advice.DEAD not in advices


def test_a_keepalive_of_our_own_waits_for_no_answer() -> None:
    health = Health(0.0, Reading(1, 0, 0))
    advices = [health.observe(float(n), Reading(1, 0, KEEPALIVE)) for n in range(1, 15)]
    assert set(advices) == {Advice.FINE}
    assert health.next_poll() == Limits().poll_idle


def test_anything_more_than_a_keepalive_does() -> None:
    health = Health(0.0, Reading(1, 0, 0))
    advices = [health.observe(float(n), Reading(1, 0, KEEPALIVE + 32)) for n in range(1, 5)]
    assert Advice.PROBE in advices


def test_limits_can_be_set() -> None:
    health = Health(0.0, Reading(1, 0, 0), Limits(idle=1.0))
    assert health.observe(1.0, Reading(1, 0, 0)) is Advice.PROBE
