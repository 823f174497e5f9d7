# SPDX-License-Identifier: GPL-2.0-or-later
"""What the README's security section says of the tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
_README = (TESTS.parent / "README.md").read_text()
SECURITY = _README.partition("\n## Security\n")[2].partition("\n## ")[0]
NAMED = sorted(set(re.findall(r"`([a-z]\w*)::(\w+)`", SECURITY)))


@pytest.mark.parametrize(("file", "name"), NAMED, ids=map("::".join, NAMED))
def test_a_test_that_it_names_is_there(file: str, name: str) -> None:
    text = (TESTS / f"test_{file}.py").read_text()
    assert re.search(rf"^def test_{name}\(", text, re.MULTILINE)


def test_it_lists_every_property_of_the_contract_in_order() -> None:
    listed = re.findall(r"^\| K(\d+) \|", SECURITY, re.MULTILINE)
    assert listed == [str(number) for number in range(1, 19)]


def test_every_attack_that_is_a_test_is_in_its_table() -> None:
    files = [path.stem for path in TESTS.glob("test_attack_*.py")]
    written = {
        (file.removeprefix("test_"), name)
        for file in files
        for name in re.findall(
            r"^def test_(\w+)\(", (TESTS / f"{file}.py").read_text(), re.MULTILINE
        )
    }
    assert written and not written - set(NAMED)
