# SPDX-License-Identifier: GPL-2.0-or-later
"""The template for LuCI's translators: `python3 -m luci.template` writes it anew.

As LuCI's own i18n-scan.pl makes it, from `_()` in JavaScript and the titles and descriptions of
menu and access lists; and, what that cannot see, the daemon's sentences that the view translates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from portcullis.states import Mode, State, row

TOP = Path(__file__).resolve().parents[2]
PO = TOP / "package/luci-app-portcullis/po"
TEMPLATE = PO / "templates/portcullis.pot"
_VIEWS = "www/luci"
_TITLES = (
    "files/usr/share/luci/menu.d/luci-app-portcullis.json",
    "files/usr/share/rpcd/acl.d/portcullis.json",
)
_CALL = re.compile(r"(?<![\w$.])_\(")
_LITERAL = re.compile(r"'((?:[^'\\\n]|\\.)*)'\s*\)")
_DYNAMIC = re.compile(r"status\.kill_switch\.(?:meaning|advice)\)")


class NotLiteralError(ValueError):
    """`_()` of something that cannot be read from the source."""


def strings() -> dict[str, list[str]]:
    """What is translated → the places it is used at, `path:line`."""
    found: dict[str, list[str]] = {}
    for text, place in (*_from_views(), *_from_titles(), *_from_daemon()):
        places = found.setdefault(text, [])
        if place not in places:
            places.append(place)
    return found


def _from_views() -> Iterator[tuple[str, str]]:
    for path in sorted((TOP / _VIEWS).rglob("*.js")):
        source = path.read_text()
        for call in _CALL.finditer(source):
            place = f"{path.relative_to(TOP)}:{source.count(chr(10), 0, call.start()) + 1}"
            if literal := _LITERAL.match(source, call.end()):
                yield re.sub(r"\\(.)", r"\1", literal[1]), place
            elif not _DYNAMIC.match(source, call.end()):
                raise NotLiteralError(f"{place}: _() wants one literal in single quotes")


def _from_titles() -> Iterator[tuple[str, str]]:
    for name in _TITLES:
        lines = (TOP / name).read_text().splitlines()
        for number, line in enumerate(lines, 1):
            if title := re.search(r'"(?:title|description)": ("(?:[^"\\]|\\.)*")', line):
                yield json.loads(title[1]), f"{name}:{number}"


def _from_daemon() -> Iterator[tuple[str, str]]:
    for state, mode in product(State, Mode):
        explained = row(state, mode)
        yield explained.meaning, "src/portcullis/states.py"
        yield explained.advice, "src/portcullis/states.py"


def render(found: dict[str, list[str]]) -> str:
    """The template's text."""
    parts = ['msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8"\n']
    for text, places in sorted(found.items()):
        comments = "".join(f"#: {place}\n" for place in places)
        parts.append(f'{comments}msgid "{_escaped(text)}"\nmsgstr ""\n')
    return "\n".join(parts)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def read(path: Path) -> dict[str, str]:
    """msgid → msgstr of a .po file whose strings stand on one line each, as LuCI's do."""
    entries = re.findall(r'^msgid "(.*)"\nmsgstr "(.*)"$', path.read_text(), re.MULTILINE)
    return {_plain(text): _plain(translated) for text, translated in entries if text}


def _plain(text: str) -> str:
    return text.replace('\\"', '"').replace("\\\\", "\\")


if __name__ == "__main__":
    TEMPLATE.parent.mkdir(parents=True, exist_ok=True)
    TEMPLATE.write_text(render(strings()))
