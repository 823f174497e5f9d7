# SPDX-License-Identifier: GPL-2.0-or-later
"""The last 24 hours in 5-minute steps, in RAM: packets blocked, octets through the tunnel.

Pure. Time is the monotonic clock's, so that a clock that jumps (K13) bends nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

STEP, STEPS = 300, 288
SAMPLE = 60.0  # seconds between looks at the counters
TUNNELLED = ("received", "sent")


class Traffic:
    def __init__(self) -> None:
        self._steps: deque[tuple[int, dict[str, int]]] = deque(maxlen=STEPS)
        self._last: dict[str, int] = {}

    def note(self, now: float, counters: Mapping[str, int]) -> None:
        """Take in counters that only grow, or begin again at 0."""
        step = int(now // STEP)
        if not self._steps or self._steps[-1][0] != step:
            self._steps.append((step, {}))
        sums = self._steps[-1][1]
        for name, value in counters.items():
            last = self._last.get(name, 0 if self._last else value)
            grown = value - last if value >= last else value
            if grown:
                sums[name] = sums.get(name, 0) + grown
        self._last = {**self._last, **counters}

    def shown(self, now: float) -> dict[str, Any]:
        """Oldest first: `ages` in seconds of each step's begin, and what happened in it."""
        kept = [entry for entry in self._steps if now - entry[0] * STEP <= STEP * STEPS]
        blocked: dict[str, int] = {}
        for _, sums in kept:
            for name, value in sums.items():
                if name not in TUNNELLED:
                    blocked[name] = blocked.get(name, 0) + value
        return {
            "step": STEP,
            "ages": [round(now - step * STEP) for step, _ in kept],
            "blocked": [sum(v for n, v in s.items() if n not in TUNNELLED) for _, s in kept],
            "received": [sums.get("received", 0) for _, sums in kept],
            "sent": [sums.get("sent", 0) for _, sums in kept],
            "by_reason": blocked,
        }
