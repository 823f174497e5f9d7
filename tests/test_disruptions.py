# SPDX-License-Identifier: GPL-2.0-or-later
"""K7, K10: whatever is done to the router while it protects the house, under a flood of new and
established flows nothing leaves, the house is answered (K14), and all is in order again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from router import sequences
from router.disruptions import DISRUPTIONS, Disruption
from router.flood import KINDS, Flood
from router.scene import FRIENDLY, Scene, Stage, enter, leave

CONTROL, RATE = 50, 300  # packets of the flood, of each kind; per second
REPAIRED_WITHIN = 2.0
PLAYED = 12  # random sequences; `make test-leaks` plays more


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as found:
        yield found


def cases() -> list[object]:
    return [
        pytest.param(d, id=d.name, marks=[pytest.mark.pyroute2] if d.pyroute2 else [])
        for d in DISRUPTIONS
    ]


@pytest.mark.parametrize("disruption", cases())
def test_nothing_leaves_and_all_is_in_order_again(stage: Stage, disruption: Disruption) -> None:
    with stage.use() as scene:
        control(scene)
        enter(scene, "connected")
        withstand(scene, disruption)
        leave(scene)


def control(scene: Scene) -> None:
    """A flood, its held flows too, is seen outside while the kill switch is inactive."""
    with scene.outside() as outside, Flood(scene.world.lana, FRIENDLY, rate=RATE) as flood:
        scene.appliance.until(
            lambda: min(flood.totals().sent[kind] for kind in KINDS) > CONTROL, "a flood"
        )
    assert len(outside.verdict().leaks) > 2 * CONTROL, "no positive control"


def withstand(scene: Scene, disruption: Disruption) -> None:
    with Flood(scene.world.lana, FRIENDLY, rate=RATE) as flood:
        descriptors = scene.descriptors()
        scene.forget_transitions()
        with scene.outside() as outside:
            disruption.strike(scene)
            if disruption.takes:
                scene.appliance.until(scene.blocks_twice, "it is put back", REPAIRED_WITHIN)
            if not disruption.severs:
                scene.await_the_house()
            disruption.mend(scene)
            scene.await_state("connected")
            scene.await_the_house()
            before = flood.totals()
            scene.appliance.until(
                lambda: (flood.totals() - before).answered["new"] > CONTROL, "the tunnel's flood"
            )
        assert outside.verdict().clean, str(outside.verdict())
        assert not scene.against_the_table()
        scene.appliance.until(
            lambda: scene.descriptors() <= descriptors + 1, "what was opened is closed"
        )


def test_random_sequences_of_disruptions() -> None:
    """Others with each commit. A failure names its seed, and `make test-leaks` plays it again."""
    seed = int(os.environ.get("SEED") or commit())
    figures = sequences.play(seed, PLAYED, until=float("inf"))
    assert figures.played >= PLAYED


def commit() -> int:
    """The commit's number, 1 in what is no clone."""
    top = Path(__file__).resolve().parents[1]
    head = ["git", "-C", str(top), "rev-parse", "--short=7", "HEAD"]
    found = subprocess.run(head, capture_output=True, text=True, check=False).stdout.strip()
    return int(found or "1", 16)
