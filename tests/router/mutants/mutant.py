# SPDX-License-Identifier: GPL-2.0-or-later
"""What a mutant is."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """`old`, which stands in `file` exactly once, becomes `new`; one of `tests` must fail."""

    property: str
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
