# SPDX-License-Identifier: GPL-2.0-or-later
"""The .ipk format: what scripts/ipkg-build and include/package-pack.mk of OpenWrt 24.10 write."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from recipe import Recipe

# The package's own scripts are run by the default ones, which also enable and start its services.
_POSTINST = """\
#!/bin/sh
[ "${IPKG_NO_SCRIPT}" = "1" ] && exit 0
[ -s ${IPKG_INSTROOT}/lib/functions.sh ] || exit 0
. ${IPKG_INSTROOT}/lib/functions.sh
default_postinst $0 $@
"""
_PRERM = """\
#!/bin/sh
[ -s ${IPKG_INSTROOT}/lib/functions.sh ] || exit 0
. ${IPKG_INSTROOT}/lib/functions.sh
default_prerm $0 $@
"""


class _Member(NamedTuple):
    name: str
    mode: int
    content: bytes | None  # None: a folder


def build(recipe: Recipe, root: Path, output: Path, epoch: int, bound: list[str]) -> Path:
    """Writes the package of the tree `root` into the folder `output`.

    `bound` are dependencies with versions, e.g. `python3 (>= 3.11)`, on top of the recipe's.
    """
    data = _tar(_tree(root), epoch)
    control = _tar(_control(recipe, root, epoch, bound, len(data)), epoch)
    members = [
        _Member("./debian-binary", 0o644, b"2.0\n"),
        _Member("./data.tar.gz", 0o644, _gzip(data)),
        _Member("./control.tar.gz", 0o644, _gzip(control)),
    ]
    package = output / f"{recipe.name}_{recipe.version}_all.ipk"
    package.write_bytes(_gzip(_tar(iter(members), epoch)))
    return package


def _control(
    recipe: Recipe, root: Path, epoch: int, bound: list[str], size: int
) -> Iterator[_Member]:
    fields = {
        "Package": recipe.name,
        "Version": recipe.version,
        "Depends": ", ".join([*bound, *recipe.depends]),
        "Source": f"package/{recipe.name}",
        "SourceName": recipe.name,
        "License": recipe.license,
        "LicenseFiles": recipe.license_files,
        "Section": recipe.section,
        "Require-User": recipe.users,
        "SourceDateEpoch": str(epoch),
        "Maintainer": recipe.maintainer,
        "Architecture": "all",
        "Installed-Size": str(size),
        "Description": "\n".join(f" {line.strip()}" for line in recipe.description.splitlines()),
    }
    text = "".join(f"{key}: {value}\n" for key, value in fields.items() if value)
    conffiles = [path for path in sorted(recipe.conffiles) if (root / path[1:]).is_file()]
    yield _Member("./", 0o755, None)
    if conffiles:
        yield _text("conffiles", 0o644, "".join(f"{path}\n" for path in conffiles))
    yield _text("control", 0o644, text)
    yield _text("postinst", 0o755, _POSTINST)
    if "postinst" in recipe.scripts:
        yield _text("postinst-pkg", 0o755, recipe.scripts["postinst"])
    if "postrm" in recipe.scripts:
        yield _text("postrm", 0o755, recipe.scripts["postrm"])
    yield _text("prerm", 0o755, _PRERM)
    if "prerm" in recipe.scripts:
        yield _text("prerm-pkg", 0o755, recipe.scripts["prerm"])


def _text(name: str, mode: int, text: str) -> _Member:
    return _Member(f"./{name}", mode, text.encode())


def _tree(root: Path) -> Iterator[_Member]:
    yield _Member("./", 0o755, None)
    for path in sorted(root.rglob("*"), key=lambda path: path.parts):
        name = f"./{path.relative_to(root)}"
        if path.is_dir():
            yield _Member(name, 0o755, None)
        else:
            yield _Member(name, path.stat().st_mode & 0o7777, path.read_bytes())


def _tar(members: Iterator[_Member], epoch: int) -> bytes:
    """Of root, at one time, in the given order: the same members give the same bytes."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.mode, info.mtime = member.mode, epoch
            info.type = tarfile.DIRTYPE if member.content is None else tarfile.REGTYPE
            info.size = len(member.content or b"")
            tar.addfile(info, io.BytesIO(member.content or b""))
    return archive.getvalue()


def _gzip(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)
