# SPDX-License-Identifier: GPL-2.0-or-later
"""What an OpenWrt recipe says, for those who build without an SDK.

Reads the few forms our own recipes use: `NAME:=value` and `define … endef`. The SDK's make reads
the same file; a form that is not understood here is an error, never a guess.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

TOP = Path(__file__).resolve().parent.parent


class Error(Exception):
    """What is wrong with a recipe or a list, in words for who wrote it."""


class Recipe(NamedTuple):
    folder: Path
    name: str
    version: str  # with the release: 1.2.3-r1
    depends: list[str]
    license: str
    license_files: str
    section: str
    maintainer: str
    users: str  # USERID: user=id:group=id
    description: str
    conffiles: list[str]  # paths; one that ends with / is a folder, kept over a sysupgrade
    scripts: dict[str, str]  # postinst, prerm, postrm → text


def version(top: Path = TOP) -> str:
    """The version, from the one place that has it."""
    found = re.search(
        r'^__version__ = "(\d+(?:\.\d+)+)"$',
        (top / "src/portcullis/__init__.py").read_text(),
        re.MULTILINE,
    )
    if found is None:
        raise Error('src/portcullis/__init__.py: no line __version__ = "1.2.3"')
    return found[1]


def read(name: str, top: Path = TOP) -> Recipe:
    folder = top / "package" / name
    text = (folder / "Makefile").read_text()
    blocks = dict(re.findall(r"^define (\S+)\n(.*?)^endef$", text, re.MULTILINE | re.DOTALL))
    outer = _assignments(re.sub(r"^define .*?^endef$", "", text, flags=re.MULTILINE | re.DOTALL))
    inner = _assignments(blocks.get(f"Package/{name}", ""))

    def value(found: dict[str, str], key: str) -> str:
        if key not in found:
            raise Error(f"{folder / 'Makefile'}: no {key}")
        if "$" in found[key]:
            raise Error(f"{folder / 'Makefile'}: {key} is not a plain value: {found[key]}")
        return found[key]

    if value(outer, "PKG_NAME") != name or value(inner, "PKGARCH") != "all":
        raise Error(f"{folder / 'Makefile'}: not a package {name} for all architectures")
    depends = value(inner, "DEPENDS").split()
    odd = [word for word in depends if not re.fullmatch(r"\+[a-z0-9.-]+", word)]
    if odd:
        raise Error(f"{folder / 'Makefile'}: dependencies of a form not known: {' '.join(odd)}")
    return Recipe(
        folder,
        name,
        f"{version(top)}-r{value(outer, 'PKG_RELEASE')}",
        ["libc", *(word[1:] for word in depends)],  # libc: package-defaults.mk adds it to every one
        value(outer, "PKG_LICENSE"),
        value(outer, "PKG_LICENSE_FILES"),
        value(inner, "SECTION"),
        value(outer, "PKG_MAINTAINER"),
        inner.get("USERID", ""),
        blocks.get(f"Package/{name}/description", value(inner, "TITLE")),
        blocks.get(f"Package/{name}/conffiles", "").split(),
        {
            script: _script(folder, blocks[f"Package/{name}/{script}"])
            for script in ("postinst", "prerm", "postrm")
            if f"Package/{name}/{script}" in blocks
        },
    )


def _assignments(text: str) -> dict[str, str]:
    joined = re.sub(r"\\\n\s*", " ", text)
    return {
        key: value.strip()
        for key, value in re.findall(r"^ *([A-Z_]+):=(.*)$", joined, re.MULTILINE)
    }


def _script(folder: Path, block: str) -> str:
    found = re.fullmatch(r"\$\(file <(\S+)\)\n", block)
    if found is None:
        raise Error(f"{folder / 'Makefile'}: a script stands in a file of its own: $(file <NAME)")
    if not (folder / found[1]).is_file():
        raise Error(f"{folder / 'Makefile'}: there is no {found[1]} beside it")
    return (folder / found[1]).read_text()
