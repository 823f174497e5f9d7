# SPDX-License-Identifier: GPL-2.0-or-later
"""Random sequences of disruptions, several of which may last at the same time.

    python -m router.sequences --seed 1 --count 1000

Only one of the block's two layers is taken away at a time: whoever takes both, at once or while
the daemon is dead, is stopped by nothing that a program could do.

While one is played nothing leaves but the tunnel, the state table is obeyed, and when all is over
the house is answered and the tunnel is up again within bounded time. A sequence that fails is
shrunk by Hypothesis, and printed with its seed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from .disruptions import COMMANDS, DISRUPTIONS, FILTER, GUARD, Disruption
from .flood import Flood
from .isolation import isolate
from .scene import FRIENDLY, STARTS, Scene, Stage, enter, leave

CONTROL = 30  # packets of the flood that must be seen outside while inactive
BATCH = 25  # sequences of one seed
DESCRIPTORS = 40  # of a core that has nothing left behind


class Step(NamedTuple):
    """`lasts`: it is not over when the next one strikes."""

    what: Disruption
    milliseconds: int
    lasts: bool


class Sequence(NamedTuple):
    start: str
    steps: tuple[Step, ...]


def _steps(start: str) -> st.SearchStrategy[Sequence]:
    known = (*DISRUPTIONS, *COMMANDS) if start == "not_connected" else DISRUPTIONS
    step = st.builds(Step, st.sampled_from(known), st.integers(0, 300), st.booleans())
    steps = st.lists(step, min_size=3, max_size=8).map(tuple)
    return st.builds(Sequence, st.just(start), steps)


SEQUENCES = st.sampled_from(STARTS).flatmap(_steps)


@dataclass
class Figures:
    played: int = 0
    struck: int = 0
    sent: int = 0
    frames: int = 0
    recovery: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        found = sorted(self.recovery) or [0.0]
        return (
            f"{self.played} sequences of {self.struck} disruptions: {self.sent} packets sent,"
            f" {self.frames} frames on the WAN, 0 leaked; all in order"
            f" {statistics.median(found):.2f} s (median) after the end, at most {found[-1]:.1f} s"
        )


def _play(scene: Scene, sequence: Sequence, figures: Figures) -> None:
    """Raises AssertionError where anything is not as it should be."""
    appliance = scene.appliance
    with Flood(scene.world.lana, FRIENDLY, rate=200) as flood:
        with scene.outside() as control:
            enough = flood.totals().sent.total() + 3 * CONTROL
            appliance.until(lambda: flood.totals().sent.total() >= enough, "a flood")
        assert len(control.verdict().leaks) >= CONTROL, "no positive control"
        enter(scene, sequence.start)
        scene.forget_transitions()
        with scene.outside() as outside:
            struck = ""
            for step in sequence.steps:
                takes = step.what.takes if step.what.takes in (FILTER, GUARD) else ""
                if takes and struck not in ("", takes) and not _repaired(scene):
                    continue
                struck = takes or struck
                step.what.strike(scene)
                time.sleep(step.milliseconds / 1000)  # the pause is what is tried
                if not step.lasts:
                    step.what.mend(scene)
            scene.put_right()
            began = time.monotonic()
            if sequence.start in ("connection_failed", "not_connected"):
                # Nothing to wait for: the owner chooses a profile that works.
                appliance.until(lambda: scene.status(), "the daemon answers")
                scene.tell("connect", profile="vpn1")
            scene.await_state("connected")
            figures.recovery.append(time.monotonic() - began)
            scene.await_the_house()
            figures.sent += flood.totals().sent.total()
        verdict = outside.verdict()
    assert verdict.clean, f"leaked: {verdict}"
    against = scene.against_the_table(owner_disconnects=sequence.start == "not_connected")
    assert not against, f"not in the state table: {against}"
    appliance.until(lambda: scene.descriptors() <= DESCRIPTORS, "what was opened is closed")
    figures.played += 1
    figures.struck += len(sequence.steps)
    figures.frames += verdict.passed.total()
    leave(scene)


def _repaired(scene: Scene) -> bool:
    """Each layer blocks by itself, so one is not taken away before the other is back. A core
    that is dead or hangs cannot bring it back, and waiting for it would be in vain."""
    try:
        scene.appliance.until(scene.blocks_twice, "both layers stand", 2)
    except AssertionError:
        return False
    return True


def play(first: int, count: int, until: float, told: Callable[[str], object] = print) -> Figures:
    """Play `count` sequences, the seeds counting up from `first` for each batch, or as many as
    begin before `until` (monotonic seconds). Raises what fails, with its seed in a note."""
    figures = Figures()
    with Stage() as stage:
        for number, done in enumerate(range(0, count, BATCH)):
            if time.monotonic() >= until:
                break
            _batch(stage, figures, first + number, min(BATCH, count - done))
            told(f"seed {first + number}: {figures}")
    return figures


def _batch(stage: Stage, figures: Figures, number: int, count: int) -> None:
    def each(sequence: Sequence) -> None:
        with stage.use() as scene:
            _play(scene, sequence, figures)

    run = given(SEQUENCES)(each)
    run = settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )(run)
    try:
        seed(number)(run)()
    except BaseException as error:
        error.add_note(f"SEED={number} SEQUENCES={count} plays this again")
        raise


def main() -> int:
    parser = argparse.ArgumentParser(prog="router.sequences", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    options = parser.parse_args()
    isolate()
    play(options.seed, options.count, time.monotonic() + options.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
