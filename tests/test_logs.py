# SPDX-License-Identifier: GPL-2.0-or-later
"""Log lines come where procd gives them the level they have, and the last of them are kept."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from portcullis.logs import LONGEST, MOST, LastLines

LOG = logging.getLogger("portcullis.test")
_PROGRAM = """
import logging
from portcullis.logs import log_to_procd
log_to_procd("name")
log = logging.getLogger("portcullis")
log.setLevel(logging.DEBUG)
for level in ("debug", "info", "warning", "error"):
    getattr(log, level)("said")
"""


def test_warnings_and_worse_come_on_stderr_and_all_else_on_stdout() -> None:
    found = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True
    )
    assert found.stdout.splitlines() == ["name: DEBUG: said", "name: INFO: said"]
    assert found.stderr.splitlines() == ["name: WARNING: said", "name: ERROR: said"]


KEY = "QWxsIHlvdXIga2V5cyBhcmUgYmVsb25nIHRvIHVzIQ0="


@pytest.fixture
def lines() -> Iterator[LastLines]:
    """The last lines of a logger of their own."""
    found = LastLines()
    LOG.setLevel(logging.DEBUG)
    LOG.addHandler(found)
    yield found
    LOG.removeHandler(found)


def test_the_last_lines_are_kept_with_their_level_and_no_more(lines: LastLines) -> None:
    for number in range(MOST + 5):
        LOG.warning("line %d", number)
    LOG.debug("a detail")
    kept = lines.lines()
    assert len(kept) == MOST
    assert (kept[0]["text"], kept[-1]["text"]) == ("line 5", f"line {MOST + 4}")
    assert kept[-1]["level"] == "warning" and abs(kept[-1]["time"] - time.time()) < 60


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (f"PrivateKey = {KEY}", "PrivateKey = (removed)"),
        (f"odd key {KEY} in line 3", "odd key (removed) in line 3"),
        ("two\nlines\x1b[31m", "two lines [31m"),
        ("a process named \udcff", "a process named  "),
    ],
    ids=["key", "key in a line", "control characters", "not UTF-8"],
)
def test_a_kept_line_is_plain_text_without_keys(lines: LastLines, said: str, kept: str) -> None:
    # Not by the logger: pytest listens there, and cannot report what is no UTF-8.
    lines.handle(LOG.makeRecord(LOG.name, logging.INFO, __file__, 1, said, (), None))
    (found,) = lines.lines()
    assert found["text"] == kept
    found["text"].encode()  # what is no UTF-8 would be fatal to the ubus call


def test_a_long_line_is_cut(lines: LastLines) -> None:
    LOG.info("ab " * LONGEST)
    assert len(lines.lines()[0]["text"]) == LONGEST


def test_an_exception_is_kept_in_one_line(lines: LastLines) -> None:
    try:
        raise ValueError(f"bad {KEY}")
    except ValueError:
        LOG.exception("it failed")
    assert lines.lines()[0]["text"] == "it failed: ValueError('bad (removed)')"
