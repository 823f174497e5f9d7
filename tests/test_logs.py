# SPDX-License-Identifier: GPL-2.0-or-later
"""Log lines come where procd gives them the level they have."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import logging
from portcullis.logs import log_to_procd
log_to_procd("name")
log = logging.getLogger("portcullis")
log.setLevel(logging.DEBUG)
for level in ("debug", "info", "warning", "error"):
    getattr(log, level)("said")
"""


def test_warnings_and_worse_come_on_stderr_and_all_else_on_stdout() -> None:
    found = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True
    )
    assert found.stdout.splitlines() == ["name: DEBUG: said", "name: INFO: said"]
    assert found.stderr.splitlines() == ["name: WARNING: said", "name: ERROR: said"]
