# SPDX-License-Identifier: GPL-2.0-or-later
"""The intent: what the owner last asked for. State, not configuration (contract, "Words").

The file's first line is `connected` or `disconnected`, so that the boot guard's shell can read
it; the second, if any, is the profile's name. Whatever else stands there means *connected*:
closed is the resting position.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from portcullis.storage import write_durably


class Intent(NamedTuple):
    connected: bool
    profile: str = ""


NEVER_CONNECTED = Intent(False)


def read(path: Path, traces: tuple[Path, ...] = ()) -> tuple[Intent, str | None]:
    """The remembered intent, and what was wrong with the file, if anything.

    A missing file is a router that was never connected, unless one of `traces`, files that
    only a connection leaves behind, says otherwise.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        for trace in traces:
            if trace.exists():
                return Intent(True), f"{path} is missing, but {trace.name} shows a connection"
        return NEVER_CONNECTED, None
    except (OSError, UnicodeDecodeError) as error:
        return Intent(True), f"{path} cannot be read, taken for connected: {error}"
    word, _, rest = text.partition("\n")
    if word in ("connected", "disconnected"):
        return Intent(word == "connected", rest.strip()), None
    return Intent(True), f"{path} says neither connected nor disconnected, taken for connected"


def save(path: Path, intent: Intent) -> None:
    """Write the intent durably. Raises OSError; then the former one stands."""
    word = "connected" if intent.connected else "disconnected"
    write_durably(path, f"{word}\n{intent.profile}\n")
