# SPDX-License-Identifier: GPL-2.0-or-later
"""Log lines for procd, which files what comes on stdout as daemon.info, on stderr as daemon.err."""

from __future__ import annotations

import logging
import sys


def log_to_procd(name: str) -> None:
    """Have warnings and worse on stderr, all else on stdout, `name` before each line."""
    told, warned = logging.StreamHandler(sys.stdout), logging.StreamHandler(sys.stderr)
    told.addFilter(lambda record: record.levelno < logging.WARNING)
    warned.setLevel(logging.WARNING)
    logging.basicConfig(format=f"{name}: %(levelname)s: %(message)s", handlers=(told, warned))
