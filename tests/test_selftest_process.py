# SPDX-License-Identifier: GPL-2.0-or-later
"""The self-test as the core sees it: whatever its process does, it ends, and is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from portcullis.ctl import property_lines, verdict_line
from portcullis.loop import Loop
from portcullis.selftest import PROPERTIES
from portcullis.selftest.process import SelfTest, verdict

ASKED = {"active": True}


class Bench:
    """A loop, and a self-test whose process is a shell script."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.loop = Loop(self.errors.append)
        self.events: list[dict[str, Any]] = []

    def tell(self, _event: str, data: dict[str, Any]) -> None:
        self.events.append(data)
        if not data["running"]:
            self.loop.stop()

    def selftest(self, script: str, patience: float = 10.0) -> SelfTest:
        return SelfTest(self.loop, self.tell, ("/bin/sh", "-c", script), patience)

    def run(self, script: str, patience: float = 10.0) -> dict[str, Any]:
        found = self.selftest(script, patience)
        found.start(ASKED, "connected")
        if found.running:
            self.loop.run()
        assert not self.errors
        return found.result()


@pytest.fixture
def bench() -> Iterator[Bench]:
    yield Bench()


def line(name: str, result: str, **more: Any) -> str:
    entry = {"property": name, "result": result, "detail": "…", "sent": 3, "seen": 0, **more}
    return f"echo '{json.dumps(entry)}'"


def details(found: dict[str, Any]) -> set[str]:
    return {e["detail"] for e in found["properties"] if e["result"] == "not_testable"}


def test_before_the_first_nothing_is_claimed(bench: Bench) -> None:
    found = bench.selftest("exit 1").result()
    assert (found["running"], found["started"], found["verdict"]) == (False, 0, "")
    assert [e["property"] for e in found["properties"]] == list(PROPERTIES)


def test_findings_come_as_they_are_made(bench: Bench) -> None:
    found = bench.run(f"{line('K1', 'running')}; {line('K1', 'pass')}")
    assert found["properties"][0]["result"] == "pass"
    assert found["verdict"] == "pass"
    assert (found["state"], found["finished"] >= found["started"] > 0) == ("connected", True)
    assert [len(bench.events), bench.events[0]["properties"][0]["result"]] == [3, "waiting"]


def test_it_is_asked_what_the_core_knows(bench: Bench) -> None:
    found = bench.run(f"test \"$(cat)\" = '{json.dumps(ASKED)}' && {line('K1', 'pass')}")
    assert found["verdict"] == "pass"


@pytest.mark.parametrize("script", ["exit 3", "kill -9 $$", "echo '{'"])
def test_a_process_that_breaks_proves_nothing(bench: Bench, script: str) -> None:
    found = bench.run(script)
    assert found["verdict"] == "not_testable"
    assert details(found) == {"the self-test ended early; the log may say why"}


def test_a_process_that_hangs_is_ended(bench: Bench) -> None:
    found = bench.run("exec sleep 1000", patience=0.1)
    assert details(found) == {"the self-test took too long and was ended"}


def test_a_process_that_cannot_be_had_is_told(bench: Bench) -> None:
    broken = SelfTest(bench.loop, bench.tell, ("/nowhere",))
    broken.start(ASKED, "connected")
    assert not broken.running
    assert "No such file" in str(details(broken.result()))


def test_what_was_asked_has_to_hold_to_the_end(bench: Bench) -> None:
    found = bench.selftest("exec sleep 1000")
    found.start(ASKED, "connected")
    found.policy_changed(active=True)
    assert found.running
    found.policy_changed(active=False)
    assert not found.running
    assert details(found.result()) == {"the kill switch changed meanwhile: test again"}


def test_two_at_once_are_one(bench: Bench) -> None:
    found = bench.selftest("exec sleep 1000")
    found.start(ASKED, "connected")
    found.start(ASKED, "reconnecting")
    assert found.result()["state"] == "connected"
    found.close()
    assert not found.running


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ({"K1": "pass"}, "pass"),
        ({"K1": "pass", "K9": "not_testable"}, "pass"),
        ({"K5": "pass", "K14": "pass"}, "not_testable"),  # nothing of the block was proven
        ({"K1": "pass", "K14": "fail"}, "fail"),
    ],
)
def test_the_verdict_is_no_better_than_what_was_proven(
    results: dict[str, str], expected: str
) -> None:
    properties = [
        {"property": name, "result": results.get(name, "not_testable")} for name in PROPERTIES
    ]
    assert verdict(properties) == expected


def test_a_person_reads_the_result_and_the_reason() -> None:
    entry = {"property": "K1", "title": "…", "result": "fail", "detail": "3 of 3 left by eth1"}
    assert property_lines(entry) == ["FAIL          K1   …", f"{'':18} 3 of 3 left by eth1"]
    untested = {"property": "K9", "result": "not_testable"}
    result = {"state": "connected", "verdict": "fail", "properties": [entry, untested]}
    assert verdict_line(result) == "FAILED in state connected: K1; not testable: K9"
