# SPDX-License-Identifier: GPL-2.0-or-later
"""`uci` on the command line: as much of it as shell scripts of ours use, as strict as libuci.

Two things surprise, and are libuci's. `-t` adds a place for staged changes and takes none away:
a commit writes along what others have staged in /tmp/.uci. And a configuration that is named by
its path knows no staging: it is read as it is committed, and each change is written at once.
"""

from __future__ import annotations

import getopt
import os
import shlex
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from .uci_package import Invalid, NotFound, Package, Section, UciError, Value, is_name
from .uci_store import Store
from .uci_text import ParseError, parse, serialise

STAGED = Path("/tmp/.uci")  # libuci's own, whoever calls
CONFIG = Path("/etc/config")


class Usage(Exception):
    """What the real one answers with its usage and 255."""


class Place:
    """`CONFIG[.SECTION[.OPTION]][=VALUE]`, taken apart and looked up."""

    def __init__(self, text: str, config: Path, save: Path) -> None:
        where, equals, value = text.partition("=")
        parts = where.split(".")
        if len(parts) > 3 or not parts[0] or (len(parts) == 3 and not is_name(parts[2])):
            raise ParseError(where)
        if any(ord(char) < 32 and char not in "\t\n\r" for char in value):
            raise ParseError(value)
        self.value = value if equals else None
        self.section, self.option = [*parts[1:], None, None][:2]
        self._store, self._save = Store(config), save
        self.path = Path(parts[0]) if parts[0].startswith(("/", "./")) else None
        self.name = self.path.name if self.path else parts[0]
        self.package = self._load()
        self.found = self._look_up(self.section)

    def _look_up(self, section: str | None) -> Section | None:
        if section is None:
            return None
        if not is_name(section) and not section.startswith("@"):
            raise Invalid(section)
        return self.package.lookup(section)

    def _load(self) -> Package:
        if self.path is None:
            with _Staging(self.name, self._save) as folder:
                return self._store.load(self.name, folder)
        if not self.path.is_file():
            raise NotFound(str(self.path))
        package = Package(self.name)
        parse(self.path.read_bytes().decode("utf-8", "surrogateescape"), package)
        return package

    def write(self) -> None:
        """Stage what was changed; write it, where the configuration is named by its path."""
        if self.path is None:
            self._store.stage(self.package, self._save)
        elif self.package.changes:
            number, new = tempfile.mkstemp(prefix=".uci-", dir=self._store.config_dir)
            with os.fdopen(number, "wb") as stream:
                stream.write(serialise(self.package).encode("utf-8", "surrogateescape"))
            Path(new).rename(self.path.resolve())

    def commit(self) -> None:
        with _Staging(self.name, self._save) as folder:
            self._store.commit(self.name, folder)
        staged = self._save / self.name  # and not in the other place
        if staged.exists():
            staged.write_bytes(b"")

    def option_value(self) -> Value:
        if self.found is None or self.option not in self.found.options:
            raise NotFound(self.section or self.name)
        return self.found.options[self.option]

    def wanted(self) -> Section:
        if self.found is None:
            raise NotFound(self.section or self.name)
        return self.found


class _Staging:
    """A folder with everything staged for a configuration, in whichever place."""

    def __init__(self, name: str, save: Path) -> None:
        self._name, self._places = name, dict.fromkeys((STAGED, save))

    def __enter__(self) -> Path:
        self._folder = tempfile.TemporaryDirectory()
        files = [place / self._name for place in self._places]
        content = b"".join(file.read_bytes() for file in files if file.is_file())
        if content:
            (Path(self._folder.name) / self._name).write_bytes(content)
        return Path(self._folder.name)

    def __exit__(self, *_error: object) -> None:
        self._folder.cleanup()


def run(arguments: list[str]) -> int:
    options, words = getopt.getopt(arguments, "c:C:d:f:LmnNp:P:qsSt:X")
    given = dict(options)
    unknown = given.keys() - {"-q", "-c", "-t", "-X"}
    if unknown:
        raise NotImplementedError(f"{unknown}: not in this stand-in")
    config, save = Path(given.get("-c", CONFIG)), Path(given.get("-t", STAGED))
    try:
        if not words:
            raise Usage
        _command(words, config, save, extended="-X" not in given)
    except Usage:
        print("Usage: uci [<options>] <command> [<arguments>]", file=sys.stderr)
        return 255
    except UciError as error:
        if "-q" not in given:
            print(f"uci: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _command(words: list[str], config: Path, save: Path, extended: bool) -> None:
    command, *rest = words
    if command == "batch" and not rest:
        for line in sys.stdin:
            with suppress(UciError):  # says so, and goes on; the end is a good one all the same
                _command(shlex.split(line), config, save, extended)
        return
    if command == "commit" and not rest:
        for name in Store(config).configs():
            Place(name, config, save).commit()
        return
    if command not in (*_COMMANDS, "show") or len(rest) != 1:
        raise Usage
    place = Place(rest[0], config, save)
    if command == "show":
        _show(place, extended)
    else:
        _COMMANDS[command](place)


def _get(place: Place) -> None:
    if place.option is None:
        print(place.wanted().type)
        return
    value = place.option_value()
    if isinstance(value, str):
        print(value)
        return
    print(*(_quoted(item) if set(item) & set(" \t\r\n") else item for item in value))


def _set(place: Place) -> None:
    if place.value is None or place.section is None:
        raise Invalid(place.name)
    if place.option is not None:
        if place.found is None:
            raise Invalid(place.section)
        place.package.set_option(place.found, place.option, place.value)
    elif place.found or is_name(place.section):
        place.package.set_section(place.found.name if place.found else place.section, place.value)
    place.write()


def _add_list(place: Place) -> None:
    if place.value is None or place.found is None or place.option is None:
        raise Invalid(place.name)
    place.package.add_item(place.found, place.option, place.value)
    place.write()


def _delete(place: Place) -> None:
    if place.option is None:
        place.package.delete_section(place.wanted())
    else:
        place.option_value()
        place.package.delete_option(place.wanted(), place.option)
    place.write()


def _changes(place: Place) -> None:
    for change in place.package.staged:
        sign = "-" if change.command == "remove" else ""
        name = ".".join(filter(None, (place.name, change.section, change.option)))
        print(f"{sign}{name}" if sign else f"{name}={_quoted(change.value or '')}")


_COMMANDS = {
    "get": _get,
    "set": _set,
    "add_list": _add_list,
    "delete": _delete,
    "changes": _changes,
    "commit": Place.commit,
}


def _show(place: Place, extended: bool) -> None:
    if place.option is not None:
        _show_option(place, place.wanted().name, place.option, place.option_value())
        return
    counts: dict[str, int] = {}
    for section in place.package.sections:
        number = counts[section.type] = counts.get(section.type, -1) + 1
        if place.section is not None and section is not place.wanted():
            continue
        numbered = section.anonymous and extended and place.section is None
        name = f"@{section.type}[{number}]" if numbered else section.name
        print(f"{place.name}.{name}={section.type}")
        for option, value in section.options.items():
            _show_option(place, name, option, value)


def _show_option(place: Place, section: str, option: str, value: Value) -> None:
    items = [value] if isinstance(value, str) else value
    print(f"{place.name}.{section}.{option}={' '.join(map(_quoted, items))}")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
