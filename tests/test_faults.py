# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong at the moment: told once, in bounded words."""

from __future__ import annotations

import logging

import pytest

from portcullis.faults import LONGEST, Faults


def test_however_much_is_wrong_status_and_log_stay_short(caplog: pytest.LogCaptureFixture) -> None:
    faults, problem = Faults(), "one of many options makes no sense; " * 1000
    with caplog.at_level(logging.WARNING, "portcullis"):
        faults.note("settings", problem)
        faults.note("settings", problem)
    assert [len(line) < LONGEST + 20 for line in faults.lines()] == [True]
    assert [len(message) < LONGEST + 20 for message in caplog.messages] == [True]
