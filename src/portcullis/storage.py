# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that must outlive a power cut: written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_durably(path: Path, text: str) -> None:
    """Replace `path` with `text`, mode 0600, and be sure it is on the medium.

    Temporary file, fsync, rename, fsync of the folder. Raises OSError, and the old file is
    whole, where any of it fails (a full or read-only flash).
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except (OSError, ValueError):
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(folder: Path) -> None:
    """Be sure that the names in a folder are on the medium. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def keep(path: Path, text: str) -> None:
    """The same, sparing the flash where `text` stands there already, whatever else does."""
    if not path.exists() or path.read_bytes() != text.encode():
        write_durably(path, text)
