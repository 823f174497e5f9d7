# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong at the moment, part by part: told once in the log, shown in status until well."""

from __future__ import annotations

import logging

log = logging.getLogger("portcullis")

LONGEST = 2000
"""Characters: a file of thousands of lines, each wrong, must leave room for all else in a reply."""


class Faults(dict[str, str]):
    """Part → problem, for people."""

    def note(self, part: str, problem: str | None) -> None:
        """Note or clear what is wrong with a part."""
        if problem is None:
            if self.pop(part, None):
                log.info("%s: in order again", part)
            return
        if len(problem) > LONGEST:
            problem = f"{problem[:LONGEST]} …"
        if self.get(part) != problem:
            self[part] = problem
            log.warning("%s: %s", part, problem)

    def lines(self) -> list[str]:
        return [f"{part}: {problem}" for part, problem in self.items()]
