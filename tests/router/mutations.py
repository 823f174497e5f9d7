# SPDX-License-Identifier: GPL-2.0-or-later
"""`make test-mutations`: does a test notice when a mechanism is taken out?

Each mutant is made in a scratch copy of this checkout and its tests are run there, after all of
them have passed without any. A mutant that none of them catches is a test that is missing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from .mutants import MUTANTS, Mutant

TOP = Path(__file__).resolve().parents[2]
COPIED = ("src", "tests", "files", "package", "www")
LIMIT = 300.0  # seconds for the tests of one mutant; one that hangs is caught as well


def apply(mutant: Mutant, top: Path) -> str:
    """Make the mutant in a checkout; the file's former text. Raises ValueError where the place
    is not there exactly once: the mutant is out of date."""
    path = top / mutant.file
    text = path.read_text()
    if (count := text.count(mutant.old)) != 1:
        raise ValueError(f"{mutant.file} has the place of «{mutant.name}» {count} times, not once")
    path.write_text(text.replace(mutant.old, mutant.new))
    return text


def failed(top: Path, tests: Iterable[str]) -> list[str]:
    """The tests that fail in a checkout, by name."""
    command = [sys.executable, "-m", "pytest", "-c", "src/pyproject.toml", "--rootdir", "."]
    command += ["-q", "-x", "-rfE", "--no-header", "--tb=no", "-p", "no:cacheprovider", *tests]
    places = os.pathsep.join(str(top / name) for name in ("src", "tests"))
    environment = {**os.environ, "PYTHONPATH": places, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=top, env=environment, capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return ["(they hang)"]
    if done.returncode not in (0, 1):
        raise RuntimeError(f"pytest could not run {tests}:\n{done.stdout}{done.stderr}")
    lines = [line.split(" - ")[0] for line in done.stdout.splitlines()]
    return [line.split(" ", 1)[1] for line in lines if line.startswith(("FAILED ", "ERROR "))]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make test-mutations")
    parser.add_argument("words", nargs="*", help="only mutants with one of these in their name")
    words = parser.parse_args().words
    chosen = [m for m in MUTANTS if not words or any(w in f"{m.property} {m.name}" for w in words)]
    survived = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        top = Path(scratch)
        for name in COPIED:
            skipped = shutil.ignore_patterns("__pycache__", "node_modules", ".screenshots")
            shutil.copytree(TOP / name, top / name, ignore=skipped)
        for file in TOP.iterdir():
            if file.is_file():
                shutil.copy(file, top)
        broken = failed(top, dict.fromkeys(test for m in chosen for test in m.tests))
        if broken:
            print(f"These fail without any mutant: {', '.join(broken)}")
            return 1
        print(f"{'':5}{'taken out':<66}{'seconds':>8}  caught by")
        for mutant in chosen:
            began = time.monotonic()
            former = apply(mutant, top)
            caught = failed(top, mutant.tests)
            (top / mutant.file).write_text(former)
            survived += not caught
            by = caught[0].removeprefix("tests/") if caught else "NOBODY"
            took = time.monotonic() - began
            print(f"{mutant.property:5}{mutant.name:<66}{took:8.1f}  {by}", flush=True)
    print(f"\n{len(chosen)} mutants, {survived} survived.")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
