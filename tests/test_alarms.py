# SPDX-License-Identifier: GPL-2.0-or-later
"""K10: what somebody changes behind our back is put back at once, and told with who it was."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from router import addresses as at
from router import tampering
from router.appliance import Appliance
from router.capture import Capture
from router.flood import Flood
from router.judge import judge
from router.leaktest import ALLOWED, has_egress_hook
from router.ownership import has_owned_tables
from router.sabotage import start_plain
from router.standin.context import Call, Context
from router.standin.wire import decode

from portcullis.alarms import KEPT, Alarm, Alarms

# Told once, then together


class Clock:
    """A loop whose time is the test's."""

    def __init__(self) -> None:
        self.timers: list[Callable[[], None]] = []

    def after(self, _seconds: float, callback: Callable[[], None]) -> None:
        self.timers.append(callback)

    def turn(self) -> None:
        """All that is due, as a second later."""
        due, self.timers = self.timers, []
        for callback in due:
            callback()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> list[Alarm]:
    return []


@pytest.fixture
def alarms(clock: Clock, told: list[Alarm]) -> Alarms:
    loop: Any = clock
    return Alarms(loop, told.append)


def test_what_one_look_found_is_one_alarm_with_who_it_was(
    alarms: Alarms, clock: Clock, told: list[Alarm]
) -> None:
    alarms.suspect("nft (pid 7)")
    alarms.restored_what(("packet filter: table missing",))
    alarms.restored_what(("egress hook: table missing",))
    alarms.acquit()
    clock.turn()
    assert [(a.what, a.by, a.times) for a in told] == [
        (("packet filter: table missing", "egress hook: table missing"), "nft (pid 7)", 2)
    ]


def test_a_storm_is_counted_whole_and_told_once_a_second(
    alarms: Alarms, clock: Clock, told: list[Alarm], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "portcullis"):
        for number in range(1000):
            alarms.suspect(f"sh (pid {number})")
            alarms.restored_what((f"table {number % 50} missing",))
            alarms.acquit()
            if not number:
                clock.turn()
        clock.turn()
    assert alarms.restored == 1000
    assert [alarm.times for alarm in told] == [1, 999]
    assert len(told[1].what) <= 8
    assert len(told[1].by) < 200
    assert len(caplog.records) == 2
    assert all(len(record.getMessage()) < 500 for record in caplog.records)


def test_after_a_quiet_second_the_next_is_told_at_once(
    alarms: Alarms, clock: Clock, told: list[Alarm]
) -> None:
    for _ in range(3):
        alarms.restored_what(("a rule",))
        clock.turn()
        clock.turn()
    assert [alarm.times for alarm in told] == [1, 1, 1]


def test_who_was_acquitted_is_not_named(alarms: Alarms, clock: Clock, told: list[Alarm]) -> None:
    alarms.suspect("dnsmasq (pid 9)")
    alarms.acquit()
    alarms.restored_what(("a rule",))
    clock.turn()
    assert told[0].by == ""


def test_the_last_ones_are_kept(alarms: Alarms, clock: Clock) -> None:
    for number in range(3 * KEPT):
        alarms.restored_what((f"rule {number}",))
        clock.turn()
        clock.turn()
    assert [alarm.what for alarm in alarms.recent][:2] == [("rule 59",), ("rule 58",)]
    assert len(alarms.recent) == KEPT


def test_what_was_not_told_yet_is_told_at_the_end(
    alarms: Alarms, clock: Clock, told: list[Alarm]
) -> None:
    alarms.restored_what(("one",))
    clock.turn()
    alarms.restored_what(("two",))
    alarms.close()
    assert [alarm.what for alarm in told] == [("one",), ("two",)]


# On the router


@pytest.fixture
def plain() -> Iterator[Appliance]:
    """A router whose tables root may change: there is something to put back."""
    with Appliance() as found:
        start_plain(found)
        yield found


@contextmanager
def heard(appliance: Appliance) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    context = Context(str(appliance.bus.socket))
    seen: list[dict[str, Any]] = []

    def note(_call: Call, data: bytes) -> int:
        seen.append(decode(data))
        return 0

    def gather() -> list[dict[str, Any]]:
        context.handle_data()
        return seen

    try:
        context.listen("portcullis.alarm", note)
        yield gather
    finally:
        context.close()


NFT = {
    "the table is deleted": ("delete table inet portcullis", "packet filter: table missing"),
    "the gate is opened": (
        "add element inet portcullis gate { ipv4 : accept }",
        "packet filter: elements of gate differ",
    ),
    "a rule is inserted": (
        "insert rule inet portcullis output accept",
        "packet filter: rules differ",
    ),
    "everything is flushed": ("flush ruleset", "packet filter: table missing"),
}


@pytest.mark.parametrize("deed", NFT)
def test_who_changes_our_rules_is_named(plain: Appliance, deed: str) -> None:
    command, what = NFT[deed]
    plain.connect()
    with heard(plain) as alarms:
        with plain.world.router.popen(["nft", *command.split()]) as process:
            assert process.wait() == 0
        plain.until(alarms, "the alarm")
        alarm = alarms()[0]
    assert what in alarm["what"]
    assert alarm["by"] == f"nft (pid {process.pid})"
    assert plain.status()["alarms"][-1] == alarm
    assert f"put back what was changed by {alarm['by']}" in plain.log.read_text()
    assert f"changed by {alarm['by']}" in plain.ctl("status").stdout


def test_nobody_changes_what_the_daemon_owns(appliance: Appliance) -> None:
    """Where nft and the kernel have such tables; then there is nothing to put back."""
    if not has_owned_tables():
        pytest.skip("no tables that are owned and persist: nft before 1.1, or Linux before 6.9")
    router = appliance.world.router
    deeds = [command for command, _ in NFT.values()]
    families = ["inet"]
    if has_egress_hook():
        deeds.append("delete table netdev portcullis")
        families.append("netdev")
    appliance.connect()

    def tables() -> list[str]:
        lists = [["nft", "-s", "list", "table", family, "portcullis"] for family in families]
        return [router.run(command).stdout for command in lists]

    before = tables()
    for deed in deeds:
        done = router.run(["nft", *deed.split()], check=False)
        refused = "" if deed == "flush ruleset" else "Operation not permitted"  # it skips ours
        assert refused in done.stderr and bool(refused) == bool(done.returncode), deed
    assert tables() == before
    assert appliance.status()["restored"] == 0


def test_the_egress_hook_is_watched_like_the_others(plain: Appliance) -> None:
    if not has_egress_hook():
        pytest.skip("this kernel has no egress hook")
    plain.connect()
    for deed in ("delete table netdev portcullis", "insert rule netdev portcullis egress accept"):
        before = plain.status()["restored"]
        plain.world.router.nft(f"{deed}\n")
        plain.until(lambda b=before: plain.status()["restored"] > b, "it is put back")
    found = [what for alarm in plain.status()["alarms"] for what in alarm["what"]]
    plain.until(
        lambda: (
            {"egress hook: table missing", "egress hook: rules differ"}
            <= {what for alarm in plain.status()["alarms"] for what in alarm["what"]}
        ),
        f"both are told, not only {found}",
    )


def test_who_deletes_a_rule_of_the_routing_guard_is_named(appliance: Appliance) -> None:
    appliance.connect()
    with heard(appliance) as alarms:
        with appliance.world.router.popen(["ip", "rule", "del", "pref", "830"]) as process:
            assert process.wait() == 0
        appliance.until(alarms, "the alarm")
    assert alarms()[0]["what"] == ["routing guard: missing IPv4 rule 830"]
    assert f"pid {process.pid}" in alarms()[0]["by"]


def test_what_we_change_ourselves_is_no_alarm(appliance: Appliance) -> None:
    with heard(appliance) as alarms:
        appliance.connect()
        appliance.connect_to("vpn2")
        appliance.call("set", name="lan_access", value="denied")
        appliance.disconnect()
        appliance.call("set", name="mode", value="at_all_times")
        assert alarms() == []
    assert appliance.status()["restored"] == 0


def test_an_attacker_who_deletes_the_table_in_a_loop(plain: Appliance) -> None:
    """Each repair is done at once, nothing leaves, the core answers, and the log stays short. At
    the worst it costs the line for a while (K5), which netifd brings back."""
    world = plain.world
    plain.connect()
    loop = "while :; do nft delete table inet portcullis; done 2> /dev/null"
    with (
        Capture(world.isp, world.access) as wan,
        Flood(world.lana, list(at.FRIENDLY.addresses), rate=200),
        world.router.popen(["sh", "-c", loop], start_new_session=True) as attacker,
    ):
        try:
            plain.until(lambda: plain.status()["restored"] > 30, "thirty repairs", 60)
            slowest = max(plain.until(plain.answers, "an answer") for _ in range(20))
        finally:
            os.killpg(attacker.pid, 9)
    assert slowest < 2
    assert judge(wan.frames, ALLOWED).clean, str(judge(wan.frames, ALLOWED))
    seconds = plain.status()["alarms"][0]["time"] - plain.status()["alarms"][-1]["time"]
    lines = plain.log.read_text().count("put back what was changed")
    assert lines <= seconds + 3
    plain.until(lambda: plain.status()["kill_switch"]["verified"], "the block is verified")
    world.router.ip(
        "addr replace 2001:db8:ffff::2/64 dev eth1 nodad\n"
        "route replace default via 203.0.113.1\nroute replace ::/0 via 2001:db8:ffff::1\n"
    )
    plain.until_state("connected", patience=60)


def test_repairs_take_milliseconds_and_nothing_leaves_meanwhile(plain: Appliance) -> None:
    """`make bench` has the figures; here the machine may be busy."""
    plain.connect()
    found = tampering.repairs(plain, rounds=2)
    assert found.leaked == 0
    assert found.sent > 100
    assert found.medians[0] < 500
    assert found.medians[1] < 1000
