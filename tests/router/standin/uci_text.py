# SPDX-License-Identifier: GPL-2.0-or-later
"""The UCI file format, read and written as libuci does in its strict mode.

What surprises is libuci's: a `#` inside an unquoted word begins a comment, an unquoted word that
touches a `;` swallows the rest of its line, and any doubt refuses the whole file.
"""

from .uci_package import Package, Section, UciError, is_name, is_type

_SPACE = " \t\n\v\f\r"


class ParseError(UciError):
    status = 9


class Words:
    """Cuts lines into words; a quoted or continued word takes further lines along."""

    def __init__(self, text: str) -> None:
        self._lines = _split_lines(text)
        self._next = 0
        self._line = ""
        self._at = 0

    def next_line(self) -> bool:
        if self._next >= len(self._lines):
            return False
        self._line, self._at = self._lines[self._next], 0
        self._next += 1
        return True

    def _continue(self) -> bool:
        """Puts the next line in place of what is left of this one."""
        if self._next >= len(self._lines):
            self._line = self._line[: self._at]
            return False
        self._line = self._line[: self._at] + self._lines[self._next]
        self._next += 1
        return True

    @property
    def _char(self) -> str:
        return self._line[self._at] if self._at < len(self._line) else ""

    def skip_space(self) -> None:
        while self._char and self._char in _SPACE:
            self._at += 1

    def command(self) -> str:
        """The first word, which only blanks and tabs end."""
        while self._char and self._char in " \t":
            self._at += 1
        end = self._at
        while end < len(self._line) and self._line[end] not in " \t":
            end += 1
        word = self._line[self._at : end]
        if end >= len(self._line) and word and not word.startswith("#"):
            # libuci looks for the arguments past the end of its buffer, and finds none.
            self._at = end
        else:
            self._at = end + 1
        return word

    @property
    def exhausted(self) -> bool:
        return self._at >= len(self._line)

    def word(self) -> str:
        self.skip_space()
        if self._char == ";":
            self._at += 1
            return ""
        start, found = self._at, ""
        while True:
            char = self._char
            if char == "'":
                found += self._single()
            elif char == '"':
                found += self._double()
            elif char == "#" or not char:
                self._line = self._line[: self._at]
                break
            elif char == ";":
                if len(found) == self._at - start:
                    self._line = self._line[: self._at]
                return found
            elif char == "\\":
                self._at += 1
                if not self._line_end():
                    found += self._take()
            else:
                found += self._take()
            if not self._char or self._char in _SPACE:
                break
        if self._char:
            self._at += 1
        return found

    def _take(self) -> str:
        char = self._char
        self._at += 1
        return char

    def _line_end(self) -> bool:
        """After a backslash: whether it only joins the next line to this one."""
        if self._line[self._at :] in ("", "\n", "\r\n"):
            self._continue()
            return True
        return False

    def _single(self) -> str:
        self._at += 1
        found = ""
        while self._char != "'":
            if not self._char:
                if not self._continue():
                    raise ParseError("EOF with unterminated '")
                continue
            found += self._take()
        self._at += 1
        return found

    def _double(self) -> str:
        self._at += 1
        found = ""
        while self._char != '"':
            if not self._char:
                if not self._continue():
                    raise ParseError('EOF with unterminated "')
                continue
            if self._char == "\\":
                self._at += 1
                if self._line_end():
                    continue
            found += self._take()
        self._at += 1
        return found


def _split_lines(text: str) -> list[str]:
    # str.splitlines also cuts at separators that C's fgets does not know. A NUL ends a C string.
    lines = [line.partition("\0")[0] for line in text.split("\n")]
    return [line + "\n" for line in lines[:-1]] + [line for line in lines[-1:] if line]


class Reader:
    def __init__(self, text: str, package: Package) -> None:
        self._words = Words(text)
        self._package = package
        self._section: Section | None = None

    def read(self) -> None:
        while self._words.next_line():
            self._words.skip_space()
            while word := self._words.command():
                if word.startswith("#"):
                    break
                self._statement(word)

    def _statement(self, word: str) -> None:
        match word:
            case "package" | "p":
                self._needs_more()
                self._name(package=True)
                self._end()
            case "config" | "c":
                self._needs_more()
                self._config()
            case "option" | "o":
                self._option(as_list=False)
            case "list" | "l":
                self._option(as_list=True)
            case _:
                raise ParseError("invalid command")

    def _needs_more(self) -> None:
        if self._words.exhausted:
            raise ParseError("insufficient arguments")

    def _name(self, package: bool = False) -> str:
        word = self._words.word()
        if not word:
            raise ParseError("insufficient arguments")
        if not is_name(word, package):
            raise ParseError("invalid character in name field")
        return word

    def _end(self) -> None:
        if self._words.word():
            raise ParseError("too many arguments")

    def _config(self) -> None:
        kind = self._words.word()
        if not kind:
            raise ParseError("insufficient arguments")
        if not is_type(kind):
            raise ParseError("invalid character in type field")
        name = self._words.word()
        if name and not is_name(name):
            raise ParseError("invalid character in name field")
        self._end()
        if not name:
            self._section = self._package.append(kind)
            return
        known = self._package.find(name)
        if known and known.type != kind:
            raise ParseError("section of different type overwrites prior section with same name")
        self._section = known or self._package.append(kind, name)

    def _option(self, as_list: bool) -> None:
        if self._section is None:
            raise ParseError("option/list command found before the first section")
        self._needs_more()
        name = self._name()
        value = self._words.word()
        self._end()
        if as_list:
            self._section.add_item(name, value)
        else:
            self._section.assign(name, value)


def parse(text: str, package: Package) -> None:
    Reader(text, package).read()


def serialise(package: Package) -> str:
    lines: list[str] = []
    for section in package.sections:
        name = "" if section.anonymous else f" '{_escape(section.name)}'"
        lines.append(f"\nconfig {_escape(section.type)}{name}\n")
        for option, value in section.options.items():
            if isinstance(value, str):
                lines.append(f"\toption {option} '{_escape(value)}'\n")
            else:
                lines += [f"\tlist {option} '{_escape(item)}'\n" for item in value]
    return "".join([*lines, "\n"])


def _escape(text: str) -> str:
    return text.replace("'", "'\\''")
