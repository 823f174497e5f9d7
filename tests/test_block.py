# SPDX-License-Identifier: GPL-2.0-or-later
"""K5: what is tried before the block counts as not verified."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from portcullis import block
from portcullis.attachment import Netdev, Outside
from portcullis.block import Block
from portcullis.faults import Faults
from portcullis.packetfilter import FilterError
from portcullis.policy import CLOSED, Policy
from portcullis.watch import Change

OUTSIDE = Outside(upstream=("eth1",))
RELEASED = Policy(released=True)


class Raced:
    """A packet filter whose table somebody deletes `times` times before it is read back."""

    def __init__(self, times: int) -> None:
        self.left = times

    def reconcile(self, _policy: object) -> tuple[str, ...]:
        self.left -= 1
        if self.left >= 0:
            raise FilterError("read back after a change: table missing")
        return ("table missing",)

    def tell(self, _differences: object) -> None: ...

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


def test_what_could_not_be_cut_or_given_back_is_tried_again(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = OSError(errno.EMFILE, "Too many open files")
    made._filter = Raced(0)
    monkeypatch.setattr(block, "conntrack_flush", Mock(side_effect=refused))
    assert not made.apply(CLOSED, OUTSIDE).whole
    monkeypatch.setattr(block, "conntrack_flush", Mock())
    assert made.apply(CLOSED, OUTSIDE).whole
    made._last_resort = Mock(taken=["eth1"], undo=Mock(side_effect=refused))
    assert not made.apply(CLOSED, OUTSIDE).whole
    made._last_resort.undo.side_effect = None
    assert made.apply(CLOSED, OUTSIDE).whole


def test_flows_are_cut_though_the_policy_is_back_to_what_it_was(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another profile and back, or a connect and a disconnect, while nothing could be cut."""
    made._filter = Raced(0)
    assert made.apply(RELEASED, OUTSIDE).flipped
    refused = OSError(errno.EMFILE, "Too many open files")
    monkeypatch.setattr(block, "conntrack_flush", Mock(side_effect=refused))
    assert made.apply(CLOSED, OUTSIDE).flipped, "what was learnt is to be forgotten all the same"
    back = made.apply(RELEASED, OUTSIDE)
    assert back.flipped
    assert not back.whole
    cut = Mock()
    monkeypatch.setattr(block, "conntrack_flush", cut)
    assert made.apply(RELEASED, OUTSIDE).whole
    assert cut.called
    assert not made._faults


@pytest.fixture
def steps(made: Any) -> list[str]:
    """The layers in the order in which they had their turn; the filter is raced three times."""
    found: list[str] = []

    class Filter(Raced):
        def reconcile(self, policy: object) -> tuple[str, ...]:
            found.append("filter")
            return super().reconcile(policy)

    made._filter = Filter(3)
    made._guard.reconcile = lambda _policy: found.append("guard") or ()
    made._hook.reconcile = lambda _policy, _attachment: found.append("hook") or ()
    return found


def test_the_other_layers_do_not_wait_for_a_filter_that_is_refused(
    made: Any, steps: list[str]
) -> None:
    assert made.apply(CLOSED, OUTSIDE) == (True, True, True)
    assert steps == ["filter", "hook", "guard", "filter", "filter", "filter"]


@pytest.mark.parametrize(
    ("change", "order"),
    [
        (Change(), "filter hook guard"),
        (Change(routing=True), "guard hook filter"),
        (Change(hook=("table missing",)), "hook guard filter"),
        (Change(block=("table missing",)), "filter hook guard"),
        (Change(block=("table missing",), routing=True), "filter guard hook"),
    ],
)
def test_what_others_have_changed_is_put_right_first(
    made: Any, steps: list[str], change: Change, order: str
) -> None:
    """K10: to look at a layer that nobody has touched takes as long as to close another."""
    made._filter.left = 0
    made.changed_by_others(change)
    made.apply(CLOSED, OUTSIDE)
    assert " ".join(steps) == order


def test_queues_are_emptied_wherever_the_line_runs(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, as blocking begins: of a VLAN's device and below, of a bridge and its ports."""
    names: list[str] = []
    monkeypatch.setattr(block, "drop_queued", names.extend)
    made._filter = Raced(0)
    vlan, base = Netdev("eth1.7", 5, lower=2, kind="vlan"), Netdev("eth1", 2)
    bridge, port = Netdev("br-wan", 7), Netdev("wan", 8, master=7)
    netdevs = (vlan, base, bridge, port, Netdev("br-lan", 3), Netdev("lan1", 4, master=3))
    outside = Outside(("eth1.7", "br-wan"), netdevs=netdevs)
    for policy in (CLOSED._replace(released=True), CLOSED, CLOSED):
        made.apply(policy, outside)
    assert names == ["eth1.7", "eth1", "br-wan", "wan"]


def test_rules_of_others_that_come_first_are_told_while_it_blocks(made: Any) -> None:
    made._filter, made._guard.preceded = Raced(0), "IPv4 799"
    made.apply(CLOSED, OUTSIDE)
    assert "priority IPv4 799" in made._faults["ip rules"]
    made.apply(CLOSED._replace(released=True), OUTSIDE)
    assert not made._faults


def test_a_last_resort_that_was_not_to_be_had_is_forgotten_with_its_cause(made: Any) -> None:
    made._filter = Raced(5)
    made.apply(CLOSED, OUTSIDE)
    made._faults.note("last resort", "too many open files")
    made._filter = Raced(0)
    assert made.apply(CLOSED, OUTSIDE).armed
    assert not made._faults


def test_a_last_resort_that_is_had_after_all_is_no_fault_any_more(made: Any) -> None:
    del made._close_off
    made._filter = Raced(100)
    made._last_resort = Mock(take=Mock(return_value=((), ("eth1 cannot be taken down",))))
    made.apply(CLOSED, OUTSIDE)
    assert made._faults["last resort"] == "eth1 cannot be taken down"
    made._filter = Raced(100)
    made._last_resort.take.return_value = (("eth1 taken down",), ())
    assert not made.apply(CLOSED, OUTSIDE).armed
    assert "last resort" not in made._faults
