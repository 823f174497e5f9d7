# SPDX-License-Identifier: GPL-2.0-or-later
"""The list of mutants is up to date; `make test-mutations` shows that each is caught."""

from __future__ import annotations

from pathlib import Path

import pytest
from router.mutants import MUTANTS, Mutant

TOP = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_mutants_place_and_tests_are_there(mutant: Mutant) -> None:
    assert (TOP / mutant.file).read_text().count(mutant.old) == 1
    for test in mutant.tests:
        path, _, name = test.partition("::")
        text = (TOP / path).read_text()
        assert not name or f"def {name.partition('[')[0]}(" in text


def test_every_blocking_and_lasting_property_has_a_mutant() -> None:
    assert {m.property for m in MUTANTS} >= {f"K{n}" for n in range(1, 15)}
