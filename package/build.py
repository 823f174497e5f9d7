# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds the packages without an SDK: `make ipk`.

The .ipk for OpenWrt 24.10 always; the .apk for 25.12 where apk-tools 3 are installed. The same
sources give the same bytes. Byte code belongs to one minor version of Python: it is shipped where
that release's interpreter is here, and the sources otherwise, which work but start slower.
"""

from __future__ import annotations

import argparse
import configparser
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import apk
import ipk
from recipe import TOP, Error, Recipe, read
from stage import LIBRARY, interpreter, stage

PACKAGES = ("portcullis", "luci-app-portcullis")


def main() -> int:
    options = _arguments()
    epoch = _epoch()
    os.umask(0o022)  # apk takes the folders' modes as they are
    options.output.mkdir(parents=True, exist_ok=True)
    try:
        for name in PACKAGES:
            recipe = read(name)
            _build("ipk", recipe, options, epoch)
            if apk.available():
                _build("apk", recipe, options, epoch)
    except Error as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    if not apk.available():
        print("no .apk: this needs apk-tools 3 (`apk mkpkg`) on PATH, or an SDK (make package)")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--output", type=Path, default=TOP / "dist", help="default: dist")
    parser.add_argument(
        "--bytecode",
        metavar="VERSION",
        help="ship byte code of this Python, e.g. 3.11, or `none`; the default is the release's"
        " own, or sources where this machine has no such Python",
    )
    return parser.parse_args()


def _build(form: str, recipe: Recipe, options: argparse.Namespace, epoch: int) -> None:
    minor = options.bytecode or _release_python(form)
    python = None if minor == "none" else interpreter(minor)
    if options.bytecode not in (None, "none") and python is None:
        raise Error(f"no python{minor} here to compile with; BYTECODE=none ships the sources")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        root.mkdir()
        stage(recipe, root, python)
        shipped, bound = "", list[str]()
        if (root / LIBRARY).is_dir():
            shipped = f" ({f'byte code of Python {minor}' if python else 'Python sources'})"
            if python:
                major, _, patch = minor.partition(".")
                bound = [f"python3 (>= {minor})", f"python3 (<< {major}.{int(patch) + 1})"]
        make = ipk.build if form == "ipk" else apk.build
        print(f"{make(recipe, root, options.output, epoch, bound)}{shipped}")


def _release_python(form: str) -> str:
    """The Python of the release that takes this format."""
    releases = configparser.ConfigParser()
    releases.read(TOP / "openwrt-sdk.cfg")
    for name in releases.sections():
        if releases[name].get("package_format") == form:
            return releases[name]["python"]
    raise Error(f"openwrt-sdk.cfg names no release that takes .{form}")


def _epoch() -> int:
    """The time that stands in the packages: SOURCE_DATE_EPOCH, the last commit's, the sources'."""
    if "SOURCE_DATE_EPOCH" in os.environ:
        return int(os.environ["SOURCE_DATE_EPOCH"])
    command = ["git", "-C", str(TOP), "log", "-1", "--no-show-signature", "--format=%ct"]
    try:
        return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    except (OSError, ValueError, subprocess.CalledProcessError):
        sources = (TOP / folder for folder in ("files", "package", "src", "www"))
        return int(max(f.stat().st_mtime for s in sources for f in s.rglob("*") if f.is_file()))


if __name__ == "__main__":
    sys.exit(main())
