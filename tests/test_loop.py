# SPDX-License-Identifier: GPL-2.0-or-later
"""The loop: descriptors, timers and signals, and that no error ends it."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from portcullis.loop import Deferred, Loop, Pace

LATE = 5.0  # a test that waits so long has failed


class Ears:
    """What happened, in order."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.errors: list[str] = []

    def hear(self, word: str) -> Callable[[], None]:
        return lambda: self.heard.append(word)

    def error(self, error: Exception) -> None:
        self.errors.append(str(error))


@pytest.fixture
def ears() -> Ears:
    return Ears()


@pytest.fixture
def loop(ears: Ears) -> Iterator[Loop]:
    """A loop that ends by itself; the signals are as they were afterwards."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    found = Loop(ears.error)
    found.after(LATE, found.stop)
    yield found
    signal.set_wakeup_fd(-1)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def fail() -> None:
    raise ValueError("broken part")


def test_timers_run_in_the_order_of_their_times(loop: Loop, ears: Ears) -> None:
    loop.after(0.02, loop.stop)
    loop.after(0.01, ears.hear("second"))
    loop.after(0.0, ears.hear("first"))
    loop.run()
    assert ears.heard == ["first", "second"]


def test_timers_of_one_time_run_in_the_order_they_were_set(
    loop: Loop, ears: Ears, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as frozen:
        now = time.monotonic()
        frozen.setattr(time, "monotonic", lambda: now)
        for word in "abcdef":
            loop.after(0.01, ears.hear(word))
        loop.after(0.01, loop.stop)
    loop.run()
    assert "".join(ears.heard) == "abcdef"


def test_a_timer_does_not_run_before_its_time(loop: Loop) -> None:
    began = time.monotonic()
    loop.after(0.05, loop.stop)
    loop.run()
    assert 0.05 <= time.monotonic() - began < LATE


def test_a_timer_runs_once(loop: Loop, ears: Ears) -> None:
    loop.after(0.0, ears.hear("timer"))
    loop.after(0.02, loop.stop)
    loop.run()
    assert ears.heard == ["timer"]


def test_a_cancelled_timer_does_not_run(loop: Loop, ears: Ears) -> None:
    loop.after(0.0, ears.hear("timer")).cancel()
    loop.after(0.01, loop.stop)
    loop.run()
    assert ears.heard == []


def test_a_timer_may_cancel_another_of_the_same_turn(
    loop: Loop, ears: Ears, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as frozen:
        now = time.monotonic()
        frozen.setattr(time, "monotonic", lambda: now)
        loop.after(0.0, lambda: other.cancel())
        other = loop.after(0.0, ears.hear("other"))
    loop.after(0.01, loop.stop)
    loop.run()
    assert (ears.heard, ears.errors) == ([], [])


def test_what_several_ask_for_comes_once_at_the_soonest_time(loop: Loop, ears: Ears) -> None:
    deferred = Deferred(loop, ears.hear("deferred"))
    deferred.within(0.04)
    deferred.within(0.0)
    deferred.within(0.02)
    loop.after(0.01, ears.hear("later"))
    loop.after(0.06, loop.stop)
    loop.run()
    assert ears.heard == ["deferred", "later"]


def test_what_was_deferred_can_be_cancelled_and_asked_for_again(loop: Loop, ears: Ears) -> None:
    deferred = Deferred(loop, ears.hear("deferred"))
    deferred.within(0.0)
    deferred.cancel()
    loop.after(0.01, ears.hear("later"))
    loop.after(0.02, lambda: deferred.within(0.0))
    loop.after(0.04, loop.stop)
    loop.run()
    assert ears.heard == ["later", "deferred"]


def test_a_timer_that_has_run_can_be_cancelled(loop: Loop, ears: Ears) -> None:
    timer = loop.after(0.0, ears.hear("timer"))
    loop.after(0.01, timer.cancel)
    loop.after(0.02, loop.stop)
    loop.run()
    assert (ears.heard, ears.errors) == (["timer"], [])


def test_a_timer_set_by_a_timer_runs(loop: Loop) -> None:
    began = time.monotonic()

    def again() -> None:
        loop.after(0.0, loop.stop)

    loop.after(0.0, again)
    loop.run()
    assert time.monotonic() - began < LATE


def test_timers_that_set_themselves_do_not_starve_descriptors(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    def again() -> None:
        loop.after(0.0, again)

    began = time.monotonic()
    again()
    loop.add(pair[0].fileno(), loop.stop)
    pair[1].send(b"x")
    loop.run()
    assert time.monotonic() - began < LATE


def test_a_ready_descriptor_is_called_for(
    loop: Loop, ears: Ears, pair: tuple[socket.socket, socket.socket]
) -> None:
    def receive() -> None:
        ears.heard.append(pair[0].recv(10).decode())
        loop.stop()

    loop.add(pair[0].fileno(), receive)
    pair[1].send(b"hello")
    loop.run()
    assert ears.heard == ["hello"]


def test_a_hung_up_descriptor_is_called_for(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    began = time.monotonic()
    loop.add(pair[0].fileno(), loop.stop)
    pair[1].close()
    loop.run()
    assert time.monotonic() - began < LATE


def test_a_removed_descriptor_is_forgotten(
    loop: Loop, ears: Ears, pair: tuple[socket.socket, socket.socket]
) -> None:
    loop.add(pair[0].fileno(), ears.hear("descriptor"))
    loop.remove(pair[0].fileno())
    pair[1].send(b"x")
    loop.after(0.01, loop.stop)
    loop.run()
    assert ears.heard == []


def test_a_descriptor_removed_in_the_turn_in_which_it_is_ready_is_forgotten_at_once(
    loop: Loop, ears: Ears, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Its owner has closed it by then; the number may already be somebody else's."""

    def first(name: str, other: socket.socket) -> Callable[[], None]:
        def receive() -> None:
            ears.heard.append(name)
            loop.remove(other.fileno())
            loop.stop()

        return receive

    one, other = pair
    loop.add(one.fileno(), first("one", other))
    loop.add(other.fileno(), first("other", one))
    one.send(b"x")
    other.send(b"x")
    loop.run()
    assert (len(ears.heard), ears.errors) == (1, [])


def test_a_signal_is_called_for_from_the_loop(loop: Loop, ears: Ears) -> None:
    loop.on_signal(signal.SIGUSR1, ears.hear("signal"))
    loop.after(0.01, loop.stop)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert ears.heard == []
    loop.run()
    assert ears.heard == ["signal"]


def test_a_signal_wakes_a_loop_that_waits(loop: Loop) -> None:
    began = time.monotonic()
    loop.on_signal(signal.SIGALRM, loop.stop)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    loop.run()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    assert time.monotonic() - began < LATE


def test_signals_are_called_for_in_their_order(loop: Loop, ears: Ears) -> None:
    loop.on_signal(signal.SIGUSR1, ears.hear("one"))
    loop.on_signal(signal.SIGUSR2, ears.hear("two"))
    for number in (signal.SIGUSR2, signal.SIGUSR1, signal.SIGUSR1):
        signal.raise_signal(number)
    loop.after(0.01, loop.stop)
    loop.run()
    assert ears.heard == ["two", "one", "one"]


def test_an_error_in_a_timer_is_told_and_the_loop_goes_on(loop: Loop, ears: Ears) -> None:
    loop.after(0.0, fail)
    loop.after(0.0, ears.hear("next"))
    loop.after(0.01, loop.stop)
    loop.run()
    assert (ears.errors, ears.heard) == (["broken part"], ["next"])


def test_an_error_at_a_descriptor_is_told_and_the_loop_goes_on(
    loop: Loop, ears: Ears, pair: tuple[socket.socket, socket.socket]
) -> None:
    def receive() -> None:
        pair[0].recv(10)
        fail()

    loop.add(pair[0].fileno(), receive)
    pair[1].send(b"x")
    loop.after(0.01, ears.hear("next"))
    loop.after(0.02, loop.stop)
    loop.run()
    assert (ears.errors, ears.heard) == (["broken part"], ["next"])


def test_an_error_at_a_signal_is_told_and_the_next_signal_is_called_for(
    loop: Loop, ears: Ears
) -> None:
    """A SIGTERM behind a SIGHUP whose handling fails must not wait for a third signal."""
    loop.on_signal(signal.SIGUSR1, fail)
    loop.on_signal(signal.SIGUSR2, ears.hear("next"))
    signal.raise_signal(signal.SIGUSR1)
    signal.raise_signal(signal.SIGUSR2)
    loop.after(0.01, loop.stop)
    loop.run()
    assert (ears.errors, ears.heard) == (["broken part"], ["next"])


def test_an_end_of_the_program_is_no_error_to_go_on_after(loop: Loop) -> None:
    def end() -> None:
        raise SystemExit(3)

    loop.after(0.0, end)
    with pytest.raises(SystemExit):
        loop.run()


def test_stop_ends_the_loop_and_run_begins_again(loop: Loop, ears: Ears) -> None:
    for word in ("one", "two"):
        loop.after(0.0, ears.hear(word))
        loop.after(0.0, loop.stop)
        loop.run()
    assert ears.heard == ["one", "two"]


def test_what_happens_seldom_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pace = Pace(burst=0.5)
    for _ in range(20):
        assert pace.wait() == 0
        with pace:
            now += 0.05
        now += 0.05


def test_what_happens_all_the_time_rests_half_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pace = Pace(burst=0.5)
    worked = 0.0
    while now < 110:
        now += pace.wait()
        with pytest.raises(ValueError, match="broken"), pace:
            now += 0.05
            worked += 0.05
            fail()
    assert worked == pytest.approx(5.0 + 0.25, abs=0.1)
