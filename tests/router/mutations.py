# SPDX-License-Identifier: GPL-2.0-or-later
"""`make test-mutations`: does a test notice when a mechanism is taken out?

Each mutant is made in a scratch copy of this checkout and its tests are run there, after they have
passed without it. A mutant that none of them catches is a test that is missing. What fails counts
if it fails again at once: a busy machine must make neither a catch nor a broken test.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

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


def failed(top: Path, tests: Sequence[str]) -> list[str]:
    """The first of the tests that fails in a checkout, by name; all of them where they hang."""
    command = [sys.executable, "-m", "pytest", "-c", "src/pyproject.toml", "--rootdir", "."]
    command += ["-q", "-x", "-rfE", "--no-header", "--tb=no", "-p", "no:cacheprovider", *tests]
    places = os.pathsep.join(str(top / name) for name in ("src", "tests"))
    environment = {**os.environ, "PYTHONPATH": places, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=top, env=environment, capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return list(tests)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"pytest could not run {tests}:\n{done.stdout}{done.stderr}")
    lines = [line.split(" - ")[0] for line in done.stdout.splitlines()]
    return [line.split(" ", 1)[1] for line in lines if line.startswith(("FAILED ", "ERROR "))]


def fails(top: Path, tests: Sequence[str]) -> str:
    """The test that fails in a checkout and fails again, if any, by name."""
    found = failed(top, tests)
    return ", ".join(failed(top, found)) if found else ""


class Workshop:
    """Checkouts to try things in, each by one at a time."""

    def __init__(self, scratch: Path, number: int) -> None:
        self._free: SimpleQueue[Path] = SimpleQueue()
        for top in (scratch / str(n) for n in range(number)):
            for name in COPIED:
                skipped = shutil.ignore_patterns("__pycache__", "node_modules", ".screenshots")
                shutil.copytree(TOP / name, top / name, ignore=skipped)
            for file in TOP.iterdir():
                if file.is_file():
                    shutil.copy(file, top)
            self._free.put(top)

    @contextmanager
    def _checkout(self) -> Iterator[Path]:
        top = self._free.get()
        try:
            yield top
        finally:
            self._free.put(top)

    def sound(self, tests: Sequence[str]) -> str:
        """Which of the tests fails without any mutant."""
        with self._checkout() as top:
            return fails(top, tests)

    def caught(self, mutant: Mutant) -> tuple[str, float]:
        """Which test catches a mutant, and how long that took."""
        with self._checkout() as top:
            began = time.monotonic()
            former = apply(mutant, top)
            try:
                return fails(top, mutant.tests), time.monotonic() - began
            finally:
                (top / mutant.file).write_text(former)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make test-mutations")
    parser.add_argument("words", nargs="*", help="only mutants with one of these in their name")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    asked = parser.parse_args()
    words = asked.words or [""]
    chosen = [m for m in MUTANTS if any(word in f"{m.property} {m.name}" for word in words)]
    broken = survived = 0
    with (
        tempfile.TemporaryDirectory(prefix="mutants-") as scratch,
        ThreadPoolExecutor(asked.jobs) as threads,
    ):
        workshop = Workshop(Path(scratch), asked.jobs)
        unchanged = threads.map(workshop.sound, dict.fromkeys(m.tests for m in chosen))
        for test in filter(None, unchanged):
            broken += 1
            print(f"{test} fails without any mutant", flush=True)
        wide = max(len(m.name) for m in chosen)
        print(f"{'':5}{'taken out':<{wide}}{'seconds':>9}  caught by", flush=True)
        for mutant, (test, took) in zip(chosen, threads.map(workshop.caught, chosen), strict=True):
            survived += not test
            by = test.removeprefix("tests/") or "NOBODY"
            print(f"{mutant.property:5}{mutant.name:<{wide}}{took:9.1f}  {by}", flush=True)
    print(f"\n{len(chosen)} mutants, {survived} survived.")
    return 1 if survived or broken else 0


if __name__ == "__main__":
    sys.exit(main())
