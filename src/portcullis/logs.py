# SPDX-License-Identifier: GPL-2.0-or-later
"""Log lines for procd, which files what comes on stdout as daemon.info, on stderr as daemon.err;
and the last of them in memory, for the page."""

from __future__ import annotations

import logging
import sys
from collections import deque
from typing import Any

from portcullis.profile import secrets_removed

MOST, LONGEST = 300, 400
"""Lines, and characters of a line: what a ubus reply carries with ease (a message has 1 MiB)."""


def log_to_procd(name: str) -> None:
    """Have warnings and worse on stderr, all else on stdout, `name` before each line."""
    told, warned = logging.StreamHandler(sys.stdout), logging.StreamHandler(sys.stderr)
    told.addFilter(lambda record: record.levelno < logging.WARNING)
    warned.setLevel(logging.WARNING)
    logging.basicConfig(format=f"{name}: %(levelname)s: %(message)s", handlers=(told, warned))


class LastLines(logging.Handler):
    """The last lines, oldest first: fit for ubus, and for a report that is passed on."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._kept: deque[dict[str, Any]] = deque(maxlen=MOST)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._keep(record)
        except Exception:  # what only describes the work must not end it
            self.handleError(record)

    def _keep(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1]:
            text += f": {record.exc_info[1]!r}"  # the traceback is in the system's log
        line = {"time": int(record.created), "level": record.levelname.lower()}
        self._kept.append({**line, "text": _plain(text)})

    def lines(self) -> list[dict[str, Any]]:
        """`time` is UNIX seconds by the router's clock, which may have been wrong then (K13)."""
        return list(self._kept)


def _plain(text: str) -> str:
    """One line of printable text without keys; names of processes and files may be anything."""
    shown = "".join(letter if letter.isprintable() else " " for letter in secrets_removed(text))
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"
