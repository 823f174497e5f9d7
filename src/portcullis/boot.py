# SPDX-License-Identifier: GPL-2.0-or-later
"""What the next boot needs to know, kept up to date in files: for the boot guard's shell, in nft
commands, and for the daemon's own start."""

from __future__ import annotations

import logging
from pathlib import Path

from portcullis import lanruleset, ruleset
from portcullis.loop import Deferred, Loop
from portcullis.policy import Policy
from portcullis.storage import keep

log = logging.getLogger("portcullis")

_AGAIN_AFTER = 300.0  # a full flash is not tried at every change


class Boot:
    """`inet` and `lan`: the files for the tables `inet portcullis` and `bridge portcullis`."""

    def __init__(self, loop: Loop, inet: Path, lan: Path) -> None:
        self._inet, self._lan = inet, lan
        self._wanted: dict[Path, str] = {}
        self._tried: dict[Path, str] = {}
        self._again = Deferred(loop, self._try_again)

    def prepare(self, policy: Policy, lan_known: bool) -> None:
        """Write for the boot guard what has changed."""
        self.keep(self._inet, ruleset.boot(policy))
        if lan_known:
            self.keep(self._lan, lanruleset.boot(policy.lan))

    def keep(self, path: Path, text: str) -> None:
        """Have a file hold `text`, now or as soon as it can be written; none without a text."""
        self._wanted[path] = text
        self._write()

    def _write(self) -> None:
        for path, text in self._wanted.items():
            if self._tried.get(path) == text:
                continue
            self._tried[path] = text
            try:
                if not text:
                    path.unlink(missing_ok=True)
                else:
                    keep(path, text)
            except (OSError, ValueError) as error:
                log.warning("the next boot knows what is older: %s", error)
                self._again.within(_AGAIN_AFTER)

    def _try_again(self) -> None:
        self._tried.clear()
        self._write()
