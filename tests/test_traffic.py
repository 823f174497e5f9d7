# SPDX-License-Identifier: GPL-2.0-or-later
"""A day in five-minute steps: what is counted, and what a restarted counter does not fake."""

from __future__ import annotations

from portcullis.traffic import STEP, STEPS, Traffic


def test_what_stood_before_the_first_look_is_not_counted() -> None:
    traffic = Traffic()
    traffic.note(0.0, {"blocked_dns": 500})
    traffic.note(60.0, {"blocked_dns": 503})
    assert traffic.shown(60.0)["blocked"] == [3]


def test_a_counter_that_begins_again_counts_from_zero() -> None:
    traffic = Traffic()
    traffic.note(0.0, {"blocked_dns": 500})
    traffic.note(60.0, {"blocked_dns": 4})
    assert traffic.shown(60.0)["by_reason"] == {"blocked_dns": 4}


def test_a_counter_that_appears_later_counts_from_zero() -> None:
    traffic = Traffic()
    traffic.note(0.0, {"blocked_dns": 0})
    traffic.note(60.0, {"received": 700})
    found = traffic.shown(60.0)
    assert (found["received"], found["by_reason"]) == ([700], {})


def test_each_step_has_its_own_sum() -> None:
    traffic = Traffic()
    for minute, packets in enumerate((0, 1, 2, 3, 4, 10, 11)):
        traffic.note(minute * 60.0, {"blocked_dns": packets})
    found = traffic.shown(6 * 60.0)
    assert (found["ages"], found["blocked"]) == ([360, 60], [4, 7])


def test_a_day_is_kept_and_no_more() -> None:
    traffic = Traffic()
    for step in range(2 * STEPS):
        traffic.note(step * float(STEP), {"blocked_dns": step})
    found = traffic.shown((2 * STEPS - 1) * float(STEP))
    assert len(found["ages"]) == STEPS
    assert found["ages"][-1] == 0


def test_hours_without_a_look_are_a_gap_and_not_a_shift() -> None:
    traffic = Traffic()
    traffic.note(0.0, {"blocked_dns": 0})
    traffic.note(86000.0, {"blocked_dns": 9})
    assert traffic.shown(86000.0)["ages"] == [86000, 200]
    assert traffic.shown(90000.0)["ages"] == [4200]
