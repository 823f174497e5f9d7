# SPDX-License-Identifier: GPL-2.0-or-later
"""The owner's profiles: provider files as they come, in one folder."""

from __future__ import annotations

import os
from pathlib import Path
from stat import S_ISREG

from portcullis.profile import Problem, Profile, ProfileError, quoted, valid_name
from portcullis.storage import sync, write_durably
from portcullis.wgconf import SIZE_MAX, parse

MOST = 5000
"""Profiles in the folder: more than any provider has, and fewer than fill a router's flash."""


class NoProfileError(Exception):
    """There is no such profile, or it cannot be used; says which and why. `passing`: the file may
    be the same when it can."""

    def __init__(self, reason: str, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing


def names(folder: Path) -> tuple[str, ...]:
    """Names of the profiles in `folder`, sorted; none where there is no folder."""
    try:
        found = [path.stem for path in folder.iterdir() if path.suffix == ".conf"]
    except OSError:
        return ()
    return tuple(sorted(name for name in found if not valid_name(name)))


class ProfileRefusedError(Exception):
    """A change of the folder that is not carried out; `problems` are those of the text."""

    def __init__(self, reason: str, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(reason)
        self.problems = problems


def add(folder: Path, name: str, text: str) -> None:
    """Keep a new profile, if it is wholly acceptable. Raises ProfileRefusedError or OSError."""
    _free(folder, name)
    if len(names(folder)) >= MOST:
        raise ProfileRefusedError(f"there are {MOST} profiles already")
    try:
        parse(text, name)
    except ProfileError as error:
        raise ProfileRefusedError(f"profile {name}, {error}", error.problems) from None
    write_durably(_path(folder, name), text)


def name_also(folder: Path, name: str, new_name: str) -> None:
    """Give a profile one more name. Raises ProfileRefusedError or OSError."""
    _there(folder, name)
    _free(folder, new_name)
    os.link(_path(folder, name), _path(folder, new_name))
    sync(folder)


def remove(folder: Path, name: str) -> None:
    """Forget a profile. Raises ProfileRefusedError or OSError."""
    _there(folder, name)
    _path(folder, name).unlink()


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.conf"


def exists(folder: Path, name: str) -> bool:
    return not valid_name(name) and _path(folder, name).exists()


def _there(folder: Path, name: str) -> None:
    if not exists(folder, name):
        raise ProfileRefusedError(f"there is no profile {quoted(name)}")


def _free(folder: Path, name: str) -> None:
    if reason := valid_name(name):
        raise ProfileRefusedError(f"{quoted(name)} is no profile's name: {reason}")
    if _path(folder, name).exists():
        raise ProfileRefusedError(f"there is a profile {name} already")


def load(folder: Path, name: str) -> Profile:
    """The profile of that name. Raises NoProfileError."""
    if reason := valid_name(name):
        raise NoProfileError(f"{quoted(name)} is no profile's name: {reason}")
    path = _path(folder, name)
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
        reason = f"profile {name} cannot be read: {error.strerror}"
        raise NoProfileError(reason, passing=True) from None
    except ProfileError as error:
        more = len(error.problems) - 1
        rest = f" (and {more} more)" if more else ""
        raise NoProfileError(f"profile {name}, {error}{rest}") from None


def _opened_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO would keep us waiting for its writer
