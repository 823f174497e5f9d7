# SPDX-License-Identifier: GPL-2.0-or-later
"""What browsers load: read once, compressed once, and nothing but what was there at start."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import NamedTuple

FOLDER = Path("/usr/share/portcullis/ui")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Asset(NamedTuple):
    kind: str
    tag: str
    plain: bytes
    compressed: bytes


def load(folder: Path) -> dict[str, Asset]:
    """Assets by file name. Raises OSError where the folder cannot be read."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in _TYPES and path.is_file():
            content = path.read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            packed = gzip.compress(content, mtime=0)
            found[path.name] = Asset(_TYPES[path.suffix], tag, content, packed)
    if "index.html" not in found:
        raise FileNotFoundError(f"there is no index.html in {folder}")
    return found
