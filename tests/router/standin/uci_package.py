# SPDX-License-Identifier: GPL-2.0-or-later
"""A UCI package in memory: sections, options, and the changes made to them.

Every change goes through here and leaves a `Change`, which is what the staging directory holds.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

Value = str | list[str]


class UciError(Exception):
    """Something libuci refuses; `status` is what rpcd then answers."""

    status = 9


class Invalid(UciError):
    status = 2


class NotFound(UciError):
    status = 4


def is_name(text: str, package: bool = False) -> bool:
    return bool(text) and all(
        char.isascii() and (char.isalnum() or char == "_" or (package and char == "-"))
        for char in text
    )


def is_type(text: str) -> bool:
    return bool(text) and all(33 <= ord(char) <= 126 for char in text)


class Change(NamedTuple):
    command: str
    """One of `add remove set rename order list-add list-del`, rpcd's names for them."""
    section: str
    option: str | None = None
    value: str | None = None


@dataclass
class Section:
    type: str
    name: str
    anonymous: bool
    options: dict[str, Value] = field(default_factory=dict)

    def assign(self, option: str, value: str) -> None:
        """As a file does it, where an empty value changes nothing."""
        if value:
            self.options[option] = value

    def add_item(self, option: str, value: str) -> None:
        known = self.options.get(option)
        before = [known] if isinstance(known, str) else (known or [])
        self.options[option] = [*before, value]


def _hash(text: str) -> int:
    value = 5381
    for byte in text.encode("utf-8", "surrogateescape"):
        value = (value * 33 + byte) & 0xFFFFFFFF
    return value & 0x7FFFFFFF


class Package:
    def __init__(self, name: str) -> None:
        self.name = name
        self.sections: list[Section] = []
        self.changes: list[Change] = []
        """Made since loading, not staged yet."""
        self.staged: list[Change] = []
        self._made = 0

    def find(self, name: str) -> Section | None:
        return next((section for section in self.sections if section.name == name), None)

    def append(self, kind: str, name: str | None = None) -> Section:
        self._made += 1
        given = name or f"cfg{self._made:02x}{_hash(kind) & 0xFFFF:04x}"
        section = Section(kind, given, anonymous=not name)
        self.sections.append(section)
        return section

    def lookup(self, reference: str) -> Section | None:
        """A section by name or as `@type[index]`."""
        if not reference.startswith("@"):
            return self.find(reference)
        kind, bracket, rest = reference[1:].partition("[")
        digits = rest[:-1]
        if not bracket or not rest.endswith("]") or (kind and not is_type(kind)):
            raise Invalid(reference)
        try:
            index = int(digits)
        except ValueError:
            raise Invalid(reference) from None
        alike = [section for section in self.sections if kind in ("", section.type)]
        index += len(alike) if index < 0 else 0
        return alike[index] if 0 <= index < len(alike) else None

    # Changes

    def add(self, kind: str) -> Section:
        section = self.append(kind)
        self.changes.append(Change("add", section.name, None, kind))
        return section

    def set_section(self, name: str, kind: str) -> Section:
        if not is_type(kind):
            raise Invalid(kind)
        section = self.find(name)
        if section is None:
            section = self.append(kind, name)
        elif section.type == kind:
            return section
        section.type = kind
        self.changes.append(Change("set", name, None, kind))
        return section

    def set_option(self, section: Section, option: str, value: str) -> None:
        if not value:
            if option in section.options:
                self.delete_option(section, option)
            return
        if section.options.get(option) == value:
            return
        section.options[option] = value
        self.changes.append(Change("set", section.name, option, value))

    def add_item(self, section: Section, option: str, value: str) -> None:
        section.add_item(option, value)
        self.changes.append(Change("list-add", section.name, option, value))

    def delete_item(self, section: Section, option: str, value: str) -> None:
        known = section.options.get(option)
        if isinstance(known, list):
            section.options[option] = [item for item in known if item != value]
            self.changes.append(Change("list-del", section.name, option, value))

    def delete_option(self, section: Section, option: str) -> None:
        if option not in section.options:
            raise NotFound(option)
        del section.options[option]
        self.changes.append(Change("remove", section.name, option))

    def delete_section(self, section: Section) -> None:
        self.sections.remove(section)
        self.changes.append(Change("remove", section.name))

    def rename(self, section: Section, option: str | None, name: str) -> None:
        if option is not None and option not in section.options:
            raise NotFound(option)
        self.changes.append(Change("rename", section.name, option, name))
        if option is None:
            section.name, section.anonymous = name, False
            return
        section.options = {
            name if key == option else key: value for key, value in section.options.items()
        }

    def reorder(self, section: Section, position: int) -> None:
        before = self.sections.index(section)
        self.sections.remove(section)
        self.sections.insert(position, section)
        if self.sections.index(section) != before:
            self.changes.append(Change("order", section.name, None, str(position)))

    def apply(self, change: Change) -> None:
        """Makes a change that was staged earlier."""
        if change.command in ("add", "set") and change.option is None:
            section = self._set_staged(change.section, change.value or "")
            if section and change.command == "add":
                section.anonymous = True
            return
        section = self.find(change.section)
        if section is None:
            raise NotFound(change.section)
        option, value = change.option, change.value or ""
        match change.command:
            case "add" | "set":
                self.set_option(section, option or "", value)
            case "remove" if option is None:
                self.delete_section(section)
            case "remove" if change.value is not None:
                self._delete_nth(section, option or "", value)
            case "remove":
                self.delete_option(section, option or "")
            case "rename":
                self.rename(section, option, value)
            case "order":
                self.reorder(section, int(value) if value.isdigit() else 0)
            case "list-add":
                self.add_item(section, option or "", value)
            case "list-del":
                self.delete_item(section, option or "", value)

    def _set_staged(self, name: str, kind: str) -> Section | None:
        if kind:
            return self.set_section(name, kind)
        known = self.find(name)
        if known:
            self.delete_section(known)
        return None

    def _delete_nth(self, section: Section, option: str, index: str) -> None:
        known = section.options.get(option)
        if isinstance(known, list) and index.isdigit() and int(index) < len(known):
            section.options[option] = [
                item for place, item in enumerate(known) if place != int(index)
            ]
        elif not isinstance(known, list):
            self.delete_option(section, option)
