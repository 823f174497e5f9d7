# SPDX-License-Identifier: GPL-2.0-or-later
"""K5: what is tried before the block counts as not verified."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from portcullis import block
from portcullis.attachment import Outside
from portcullis.block import Block
from portcullis.faults import Faults
from portcullis.packetfilter import FilterError
from portcullis.policy import CLOSED

OUTSIDE = Outside(upstream=("eth1",))


class Raced:
    """A packet filter whose table somebody deletes `times` times before it is read back."""

    def __init__(self, times: int) -> None:
        self.left = times

    def reconcile(self, _policy: object) -> tuple[str, ...]:
        self.left -= 1
        if self.left >= 0:
            raise FilterError("read back after a change: table missing")
        return ("table missing",)

    def close(self) -> None: ...


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A block without a kernel under it; `taken` are the devices that were taken down."""
    monkeypatch.setattr(block, "conntrack_flush", lambda: None)
    found: Any = Block(tmp_path, Faults(), lambda _changes: None)
    found._guard.reconcile = lambda _policy: ()
    found._hook.reconcile = lambda _policy, _attachment: ()
    found._look_at_offload = lambda: None
    found.taken = []
    found._close_off = lambda upstream, _kept: found.taken.extend(upstream)
    return found


@pytest.mark.parametrize(("times", "armed"), [(0, True), (19, True), (20, False)])
def test_what_a_second_try_cures_is_no_failure(made: Any, times: int, armed: bool) -> None:
    """The last resort takes the line down for seconds: not for a race that is soon over."""
    made._filter = Raced(times)
    assert made.apply(CLOSED, OUTSIDE).armed == armed
    assert made.taken == ([] if armed else ["eth1"])


def test_a_last_resort_that_was_not_to_be_had_is_forgotten_with_its_cause(made: Any) -> None:
    made._filter = Raced(5)
    made.apply(CLOSED, OUTSIDE)
    made._faults.note("last resort", "too many open files")
    made._filter = Raced(0)
    assert made.apply(CLOSED, OUTSIDE).armed
    assert not made._faults
