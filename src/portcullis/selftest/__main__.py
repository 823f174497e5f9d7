# SPDX-License-Identifier: GPL-2.0-or-later
"""`python3 -m portcullis.selftest`: reads what the core knows as JSON, tests, and writes a JSON
line as each property begins and ends."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import ExitStack

from portcullis.selftest import NOT_TESTABLE, PROPERTIES, RUNNING
from portcullis.selftest.batch import Finding
from portcullis.selftest.properties import Properties

LASTS_AT_MOST = 25  # seconds; then the kernel ends it, and all it has made goes with it


def main() -> int:
    signal.alarm(LASTS_AT_MOST)
    asked = json.load(sys.stdin)
    with ExitStack() as undo:
        tests: Properties | None = None
        for name in PROPERTIES:
            _tell(name, Finding(RUNNING, ""))
            try:
                tests = tests or Properties(asked, undo)
                found = tests.test(name)
            except OSError as error:  # what this kernel cannot do proves nothing
                found = Finding(NOT_TESTABLE, f"it cannot be tried here: {error}")
            _tell(name, found)
    return 0


def _tell(name: str, found: Finding) -> None:
    print(json.dumps({"property": name, **found._asdict()}), flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # the core has ended: nobody asks any more
        sys.stderr.close()
