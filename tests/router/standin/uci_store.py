# SPDX-License-Identifier: GPL-2.0-or-later
"""UCI on disk: packages as files, and what is staged for them, as libuci keeps both.

Staged changes are libuci's own delta lines, so that the real `uci` command and this one see each
other's: `package.section.option='value'`, with a sign in front for all but plain assignments.
"""

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .uci_package import Change, Invalid, NotFound, Package, UciError, is_name, is_type
from .uci_text import ParseError, Words, parse, serialise

_SIGNS = {
    "add": "+",
    "remove": "-",
    "set": "",
    "rename": "@",
    "order": "^",
    "list-add": "|",
    "list-del": "~",
}
_COMMANDS = {sign: command for command, sign in _SIGNS.items() if sign}


class Unreadable(UciError):
    status = 9


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "surrogateescape")


@contextmanager
def _locked(path: Path, flags: int, mode: int = 0o600) -> Iterator[int]:
    descriptor = os.open(path, flags, mode)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


class Store:
    def __init__(self, config_dir: Path) -> None:
        self.config_dir = config_dir

    def configs(self) -> list[str]:
        names = sorted(path.name for path in self.config_dir.iterdir() if not path.is_dir())
        found = [name for name in names if "." not in name and is_type(name)]
        if not names:
            raise NotFound(str(self.config_dir))
        return found

    def load(self, name: str, save_dir: Path | None) -> Package:
        package = self._load_committed(name)
        if save_dir is not None:
            self._apply_staged(package, save_dir / name)
        return package

    def _load_committed(self, name: str) -> Package:
        if name.startswith("."):
            raise NotFound(name)
        if not is_type(name):
            raise Invalid(name)
        path = self.config_dir / name
        if not path.is_file():
            raise NotFound(name)
        package = Package(name)
        try:
            parse(_read(path), package)
        except OSError as error:
            raise Unreadable(str(error)) from None
        return package

    def _apply_staged(self, package: Package, path: Path) -> int:
        """How many staged changes took effect; libuci, too, passes over those that cannot."""
        try:
            words = Words(_read(path))
        except OSError:
            return 0
        applied = 0
        # An assignment of nothing is a deletion to libuci, which stages that one anew.
        while words.next_line():
            try:
                name, change = _parse_change(words)
                if name != package.name:
                    continue
                package.staged.append(change)
                known = len(package.changes)
                package.apply(change)
                applied += 1
                if change.value != "":
                    del package.changes[known:]
            except UciError:
                continue
        return applied

    def stage(self, package: Package, save_dir: Path) -> None:
        if not package.changes:
            return
        if not save_dir.is_dir():
            save_dir.mkdir(mode=stat.S_IMODE(self.config_dir.stat().st_mode))
        lines = "".join(_format_change(package.name, change) for change in package.changes)
        mode = stat.S_IMODE((self.config_dir / package.name).stat().st_mode)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with _locked(save_dir / package.name, flags, mode) as descriptor:
            os.write(descriptor, lines.encode("utf-8", "surrogateescape"))
        package.changes.clear()

    def revert(self, name: str, save_dir: Path) -> None:
        """Forgets what is staged; a single line that cannot be read keeps all of it."""
        path = save_dir / name
        self.stage(self.load(name, save_dir), save_dir)
        try:
            words = Words(_read(path))
            while words.next_line():
                _parse_change(words)
        except (OSError, UciError):
            return
        _empty(path)

    def commit(self, name: str, save_dir: Path | None) -> None:
        """Writes the file anew, if anything was staged for it, and empties the staging file."""
        if save_dir is not None:
            # Deletions that loading came upon are staged once more, and so come last.
            self.stage(self.load(name, save_dir), save_dir)
        package = self._load_committed(name)
        path = self.config_dir / name
        with _locked(path, os.O_RDWR):
            if save_dir is None or not self._apply_staged(package, save_dir / name):
                return
            _empty(save_dir / name)
            descriptor, new = tempfile.mkstemp(prefix=f".{name}.uci-", dir=self.config_dir)
            with suppress(OSError):  # uci does not look: on a full flash what fits is all there is
                os.write(descriptor, serialise(package).encode("utf-8", "surrogateescape"))
                os.fsync(descriptor)
            os.close(descriptor)
            real = path.resolve()
            Path(new).chmod(stat.S_IMODE(real.stat().st_mode))
            Path(new).rename(real)


def _empty(path: Path) -> None:
    with _locked(path, os.O_WRONLY | os.O_TRUNC):
        pass


def _format_change(package: str, change: Change) -> str:
    name = f"{_SIGNS[change.command]}{package}.{change.section}"
    if change.option is not None:
        name += f".{change.option}"
    if change.command == "remove" and change.value is None:
        return f"{name}\n"
    escaped = (change.value or "").replace("'", "'\\''")
    return f"{name}='{escaped}'\n"


def _parse_change(words: Words) -> tuple[str, Change]:
    """The package a line is for, and what it says."""
    text = words.word()
    if not words.exhausted:
        raise Invalid("more than one word")
    command = _COMMANDS.get(text[:1], "set")
    name, equals, value = text[command != "set" :].partition("=")
    parts = name.split(".")
    if len(parts) > 3 or not is_type(parts[0]):
        raise ParseError(text)
    if any(ord(char) < 32 and char not in "\t\n\r" for char in value):
        raise ParseError(text)
    if len(parts) < 2 or not is_name(parts[1]):
        raise Invalid(text)
    option = parts[2] if len(parts) == 3 else None
    if option is not None and not is_name(option):
        raise ParseError(text)
    if not equals and command != "remove":
        raise Invalid(text)
    if command == "rename" and not is_name(value):
        raise Invalid(text)
    if command == "order" and option is not None:
        raise Invalid(text)
    if command in ("list-add", "list-del") and option is None:
        raise Invalid(text)
    return parts[0], Change(command, parts[1], option, value if equals else None)
