# SPDX-License-Identifier: GPL-2.0-or-later
"""What the boot guard's shell needs to know, kept up to date for it in files of nft commands."""

from __future__ import annotations

import logging
from pathlib import Path

from portcullis import lanruleset, ruleset
from portcullis.policy import Policy
from portcullis.storage import keep

log = logging.getLogger("portcullis")


class Boot:
    """`inet` and `lan`: the files for the tables `inet portcullis` and `bridge portcullis`."""

    def __init__(self, inet: Path, lan: Path) -> None:
        self._inet, self._lan = inet, lan
        self._kept: dict[Path, str] = {}

    def prepare(self, policy: Policy, lan_known: bool) -> None:
        """Write what has changed."""
        texts = {self._inet: ruleset.boot(policy)}
        if lan_known:
            texts[self._lan] = lanruleset.boot(policy.lan)
        for path, text in texts.items():
            if self._kept.get(path) == text:
                continue
            try:
                if not text:
                    path.unlink(missing_ok=True)
                else:
                    keep(path, text)
            except (OSError, ValueError) as error:
                log.warning("the boot guard keeps what it knew: %s", error)
            self._kept[path] = text  # once, or a full flash would be tried at every change
