# SPDX-License-Identifier: GPL-2.0-or-later
"""K13: a wrong clock never becomes a lock-out. Time is a number here: nothing sets a real clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from portcullis.clock import EVERY, STEP, Clock, Moment

DAY = 86400.0
THEN = 1_780_000_000.0


class Server:
    """Answers no handshake that is not later than the last one (WireGuard, section 5.1)."""

    def __init__(self) -> None:
        self.newest = 0.0

    def answers(self, handshake: float) -> bool:
        if handshake <= self.newest:
            return False
        self.newest = handshake
        return True


class Router:
    """Keeps time only while it has power; at boot its clock is what `sysfixtime` makes of it."""

    def __init__(self, folder: Path, now: float = THEN) -> None:
        self.folder, self.now = folder, now
        self.boots = 0
        self.set_to: list[float] = []
        self.boot(now)

    def boot(self, clock: float | None = None) -> None:
        self.boots += 1
        self.lasting = self.folder / "clock"
        self.now = self.lasting.stat().st_mtime if clock is None else clock
        self.start()

    def start(self) -> None:
        """The daemon starts, in the same boot or the next one."""
        passing = self.folder / f"run-{self.boots}"
        self.clock = Clock(self.lasting, passing, lambda: self.now, self.set)

    def set(self, seconds: float) -> None:
        assert seconds > self.now, "never back"
        self.set_to.append(seconds)
        self.now = seconds

    def connect(self, server: Server, tries: int = 30) -> int:
        """How many handshakes it takes; two seconds each."""
        for number in range(1, tries + 1):
            self.now += 2
            if server.answers(self.now):
                self.clock.shaken(self.now)
                return number
            self.clock.unanswered()
        raise AssertionError(f"locked out after {tries} tries")

    def stay(self, server: Server, seconds: float) -> None:
        """Connected, with a handshake every two minutes."""
        end = self.now + seconds
        while self.now + 120 < end:
            self.now += 120
            assert server.answers(self.now)
            self.clock.shaken(self.now)
        self.now = end


@pytest.fixture
def router(tmp_path: Path) -> Router:
    return Router(tmp_path)


def test_a_right_clock_is_never_touched(router: Router) -> None:
    server = Server()
    assert router.connect(server) == 1
    router.stay(server, 10_000)
    router.boot(router.now + 60)
    assert router.connect(server) == 1
    assert router.set_to == []


@pytest.mark.parametrize("connected", [0, 1, 119, 121, EVERY - 1, EVERY + 1, 1000, 7277])
@pytest.mark.parametrize("outage", [30, 5 * DAY])
def test_after_a_power_cut_at_any_moment_it_connects_again(
    router: Router, connected: float, outage: float
) -> None:
    server = Server()
    router.connect(server)
    router.stay(server, connected)
    true_time = router.now + outage
    router.boot()
    assert router.now < true_time
    assert router.connect(server) <= EVERY / STEP + 2
    assert router.now <= true_time + STEP, "so far ahead that NTP's correction would hurt"


def test_what_sysfixtime_has_not_done_is_made_good(router: Router) -> None:
    server = Server()
    router.connect(server)
    router.stay(server, 10_000)
    router.boot(0.0)
    assert router.connect(server) <= EVERY / STEP + 2


def test_a_reboot_costs_no_try(router: Router) -> None:
    server = Server()
    router.connect(server)
    router.stay(server, 1000)
    router.clock.close()
    router.boot()
    assert router.connect(server) == 1


def test_a_server_that_is_dead_does_not_drive_the_clock_away(router: Router) -> None:
    server, dead = Server(), Server()
    dead.newest = float("inf")
    router.connect(server)
    router.stay(server, 1000)
    before = router.now
    router.boot()
    with pytest.raises(AssertionError, match="locked out"):
        router.connect(dead, 500)
    assert router.now - before < EVERY + STEP + 500 * 2


def test_within_a_boot_a_dead_server_moves_nothing(router: Router) -> None:
    server, dead = Server(), Server()
    dead.newest = float("inf")
    router.connect(server)
    for _ in range(2):
        with pytest.raises(AssertionError, match="locked out"):
            router.connect(dead)
        router.start()
    assert router.set_to == []


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("ahead", [40.0, 3 * DAY, 12 * 365 * DAY])
def test_a_clock_that_was_ahead_and_is_put_right_connects_again(
    router: Router, ahead: float, restarted: bool
) -> None:
    """NTP steps back; the server has seen the future, be it 2038, and refuses the present."""
    server = Server()
    router.now += ahead
    router.connect(server)
    router.now -= ahead - 10
    if restarted:
        router.start()
    assert router.connect(server) <= 2


def test_a_remembered_future_is_forgotten_once_a_server_takes_the_present(router: Router) -> None:
    server = Server()
    router.now += 12 * 365 * DAY
    router.connect(server)
    router.now = THEN + 100
    router.connect(Server())
    assert router.lasting.stat().st_mtime == pytest.approx(router.now, abs=1)


def test_a_fresh_installation_knows_no_time(router: Router) -> None:
    dead = Server()
    dead.newest = float("inf")
    with pytest.raises(AssertionError, match="locked out"):
        router.connect(dead)
    assert (router.set_to, router.lasting.exists()) == ([], False)


def test_the_flash_is_written_once_in_a_while(router: Router) -> None:
    server, dates = Server(), set()
    router.connect(server)
    for _ in range(100):
        router.stay(server, 121)
        router.clock.shaken(router.now - 1)  # looked at again and again
        dates.add(router.lasting.stat().st_mtime)
    assert len(dates) <= 100 * 121 / EVERY + 1


def test_a_clock_that_cannot_be_set_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_seconds: float) -> None:
        raise PermissionError(1, "Operation not permitted")

    (tmp_path / "clock").touch()
    clock = Clock(tmp_path / "clock", tmp_path / "run", lambda: 1.0, refuse)
    for _ in range(3):
        clock.unanswered()
    assert [r.getMessage() for r in caplog.records] == [
        "the clock is late and cannot be set: [Errno 1] Operation not permitted"
    ]


@pytest.mark.parametrize("place", ["directory", "link", "nowhere"])
def test_a_file_that_cannot_be_written_breaks_nothing(tmp_path: Path, place: str) -> None:
    path = tmp_path / "clock"
    if place == "directory":
        path.mkdir()
    elif place == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path = tmp_path / "no" / "clock"
    clock = Clock(path, tmp_path / "run", lambda: THEN)
    clock.shaken(THEN)
    clock.close()
    assert not (tmp_path / "elsewhere").exists()


def test_a_moment_is_told_by_the_clock_as_it_is_now() -> None:
    moment = Moment.now()
    assert moment.shown == moment.wall
    late = Moment(moment.wall - 3 * DAY, moment.monotonic)
    assert late.shown == pytest.approx(moment.wall, abs=1)


def test_a_handshakes_age_outlives_a_set_clock(router: Router) -> None:
    assert router.clock.handshake_age is None
    router.clock.shaken(router.now)
    router.now += 9 * DAY
    age = router.clock.handshake_age
    assert age is not None
    assert 0 <= age < 5
