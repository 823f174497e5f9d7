# SPDX-License-Identifier: GPL-2.0-or-later
"""The owner's profiles: provider files as they come, in one folder."""

from __future__ import annotations

import os
from pathlib import Path
from stat import S_ISREG

from portcullis.profile import Profile, ProfileError, valid_name
from portcullis.wgconf import SIZE_MAX, parse


class NoProfileError(Exception):
    """There is no such profile, or it cannot be used; says which and why."""


def names(folder: Path) -> tuple[str, ...]:
    """Names of the profiles in `folder`, sorted; none where there is no folder."""
    try:
        found = [path.stem for path in folder.iterdir() if path.suffix == ".conf"]
    except OSError:
        return ()
    return tuple(sorted(name for name in found if not valid_name(name)))


def load(folder: Path, name: str) -> Profile:
    """The profile of that name. Raises NoProfileError."""
    if reason := valid_name(name):
        raise NoProfileError(f"{ascii(name)[:80]} is no profile's name: {reason}")
    path = folder / f"{name}.conf"
    try:
        with open(path, "rb", opener=_opened_at_once) as file:
            if not S_ISREG(os.fstat(file.fileno()).st_mode):
                raise NoProfileError(f"profile {name} cannot be read: it is no plain file")
            return parse(file.read(SIZE_MAX + 1), name)
    except FileNotFoundError:
        known = names(folder)
        listed = f"there are: {', '.join(known[:10])}" if known else "there are none"
        raise NoProfileError(f"there is no profile {name} in {folder} ({listed})") from None
    except OSError as error:
        raise NoProfileError(f"profile {name} cannot be read: {error.strerror}") from None
    except ProfileError as error:
        more = len(error.problems) - 1
        rest = f" (and {more} more)" if more else ""
        raise NoProfileError(f"profile {name}, {error}{rest}") from None


def _opened_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO would keep us waiting for its writer
