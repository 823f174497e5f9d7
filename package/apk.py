# SPDX-License-Identifier: GPL-2.0-or-later
"""The .apk format of OpenWrt 25.12, made by apk-tools 3 as include/package-pack.mk calls it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from recipe import Recipe


def available() -> bool:
    """Whether apk-tools are here, and of the line that makes packages (`apk mkpkg`)."""
    if shutil.which("apk") is None:
        return False
    done = subprocess.run(["apk", "--version"], capture_output=True, text=True)
    return done.stdout.startswith("apk-tools 3.")


def build(recipe: Recipe, root: Path, output: Path, epoch: int, bound: list[str]) -> Path:
    """Writes the package of the tree `root`, to which apk's own files are added, into `output`.

    `bound` are dependencies with versions, e.g. `python3 (>= 3.13)`, on top of the recipe's.
    """
    _records(recipe, root)
    package = output / f"{recipe.name}-{recipe.version}.apk"
    info = {
        "name": recipe.name,
        "version": recipe.version,
        "tags": f"openwrt:section={recipe.section}",
        "description": " ".join(recipe.description.split()),
        "arch": "noarch",
        "license": recipe.license,
        "origin": f"package/{recipe.name}",
        "maintainer": recipe.maintainer,
        "depends": " ".join([*(re.sub(r"[() ]", "", word) for word in bound), *recipe.depends]),
    }
    with tempfile.TemporaryDirectory() as folder:
        options = []
        for phase, text in _scripts(recipe).items():
            (Path(folder) / phase).write_text(text)
            options += ["--script", f"{phase}:{Path(folder) / phase}"]
        for key, value in info.items():
            options += ["--info", f"{key}:{value}"]
        for path in root.rglob("*"):
            os.utime(path, (epoch, epoch))
        subprocess.run(
            ["apk", "mkpkg", *options, "--files", str(root), "--output", str(package)],
            env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
            check=True,
        )
    return package


def _records(recipe: Recipe, root: Path) -> None:
    """What OpenWrt's scripts look up about a package, where opkg has its control files."""
    records = root / "lib/apk/packages"
    records.mkdir(parents=True)
    if recipe.users:
        (records / f"{recipe.name}.rusers").write_text(f"{recipe.users}\n")
    if recipe.conffiles:
        (records / f"{recipe.name}.conffiles").write_text(
            "".join(f"{path}\n" for path in recipe.conffiles)
        )
    static = [path for path in recipe.conffiles if (root / path[1:]).is_file()]
    if static:
        (records / f"{recipe.name}.conffiles_static").write_text(
            "".join(
                f"{path} {hashlib.sha256((root / path[1:]).read_bytes()).hexdigest()}\n"
                for path in static
            )
        )
    files = sorted(f"/{path.relative_to(root)}" for path in root.rglob("*") if path.is_file())
    (records / f"{recipe.name}.list").write_text("".join(f"{path}\n" for path in files))


def _scripts(recipe: Recipe) -> dict[str, str]:
    """apk has no `-pkg` scripts: each is the default's call with the package's own text behind."""

    def own(script: str) -> str:
        return re.sub(r"^\s*#!.*\n", "", recipe.scripts.get(script, ""))

    head = (
        "[ -s ${IPKG_INSTROOT}/lib/functions.sh ] || exit 0\n"
        ". ${IPKG_INSTROOT}/lib/functions.sh\n"
        'export root="${IPKG_INSTROOT}"\n'
        f'export pkgname="{recipe.name}"\n'
    )
    install = (
        f'[ "${{IPKG_NO_SCRIPT}}" = "1" ] && exit 0\n{head}'
        f"add_group_and_user\ndefault_postinst\n{own('postinst')}"
    )
    scripts = {
        "post-install": f"#!/bin/sh\n{install}",
        "post-upgrade": f"#!/bin/sh\nexport PKG_UPGRADE=1\n{install}",
        "pre-deinstall": f"#!/bin/sh\n{head}default_prerm\n{own('prerm')}",
    }
    if "postrm" in recipe.scripts:
        scripts["post-deinstall"] = recipe.scripts["postrm"]
    return scripts
