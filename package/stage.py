# SPDX-License-Identifier: GPL-2.0-or-later
"""The tree a package installs, laid out in a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from recipe import Error, Recipe

# The Python package on the router; its byte code is made here, as python3-package.mk does.
LIBRARY = "usr/lib/portcullis"


def stage(recipe: Recipe, root: Path, python: str | None) -> None:
    """Fills `root`. `python` is the interpreter whose byte code is shipped in place of sources."""
    done = subprocess.run(
        [recipe.folder.parent / "install.sh", recipe.folder / "files.txt", root],
        env={**os.environ, "PYTHON": sys.executable},
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise Error(done.stderr.strip())
    if python is not None and (root / LIBRARY).is_dir():
        _compile(python, root)
    # As OpenWrt's build system has it: what is named as configuration and is no file of the
    # package is kept over a sysupgrade through keep.d.
    kept = [path for path in recipe.conffiles if not (root / path[1:]).is_file()]
    if kept:
        keep = root / "lib/upgrade/keep.d" / recipe.name
        keep.parent.mkdir(parents=True, exist_ok=True)
        with keep.open("a") as file:
            file.writelines(f"{path}\n" for path in kept)


def interpreter(minor: str) -> str | None:
    """The Python of that minor version, e.g. 3.11; None where there is none that runs."""
    tell = "import sys; print(f'{sys.version_info.major}.{sys.version_info.minor}')"
    for found in (sys.executable, shutil.which(f"python{minor}")):
        if found is None:
            continue
        done = subprocess.run([found, "-c", tell], capture_output=True, text=True)
        if done.stdout.strip() == minor:
            return found
    return None


def _compile(python: str, root: Path) -> None:
    library = root / LIBRARY
    # unchecked-hash, a fixed seed and the path on the router: the same bytes wherever it is made.
    reproducible = ["--invalidation-mode", "unchecked-hash", "-s", str(root), "-p", "/"]
    subprocess.run(
        [python, "-m", "compileall", "-q", "-b", *reproducible, str(library)],
        env={"PYTHONHASHSEED": "0", "PATH": os.defpath},
        check=True,
    )
    for source in library.rglob("*.py"):
        source.with_suffix(".pyc").chmod(source.stat().st_mode & 0o777)
        source.unlink()
