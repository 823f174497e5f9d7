# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds the packages with an OpenWrt SDK: `make package`.

`openwrt-sdk.cfg` says which. This repository becomes a feed of the SDK, beside OpenWrt's own.
An SDK is downloaded and unpacked into the cache once; one you have is used with SDK=FOLDER,
an archive you have with SDK_TARBALL=FILE.
"""

from __future__ import annotations

import argparse
import configparser
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from recipe import TOP, Error

PACKAGES = ("portcullis", "luci-app-portcullis")
SERVER = "https://downloads.openwrt.org/"
KEYS = "https://openwrt.org/docs/guide-user/security/signatures"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "portcullis-sdk"
FEEDS = ("base", "packages", "luci")  # OpenWrt's own, where our dependencies are
# The packages and what they need, instead of everything the feeds have.
CONFIG = (
    "# CONFIG_ALL_NONSHARED is not set\n# CONFIG_ALL_KMODS is not set\n# CONFIG_ALL is not set\n"
    + "".join(f"CONFIG_PACKAGE_{name}=m\n" for name in PACKAGES)
)


class Sdk(NamedTuple):
    path: str  # below the server's root
    sha256: str  # empty: not known

    @property
    def file(self) -> str:
        return self.path.rpartition("/")[2]


def main() -> int:
    options = _arguments()
    try:
        if options.sdk:
            folder = Path(options.sdk).resolve()
        else:
            folder = unpack(_archive(options), options.cache)
        for package in build(folder, options.jobs):
            options.output.mkdir(parents=True, exist_ok=True)
            print(shutil.copy(package, options.output))
    except Error as error:
        print(f"sdk.py: {error}", file=sys.stderr)
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--release", default="24.10", help="default: 24.10")
    parser.add_argument("--target", default="x86/64", help="default: x86/64")
    parser.add_argument("--sdk", metavar="FOLDER", help="an SDK that is unpacked already")
    parser.add_argument("--tarball", type=Path, help="an SDK's archive that is here already")
    parser.add_argument("--server", default=SERVER, help=f"default: {SERVER}")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"default: {CACHE}")
    parser.add_argument("--output", type=Path, default=TOP / "dist", help="default: dist")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


def known() -> dict[str, Sdk]:
    """`RELEASE TARGET` → its SDK, of openwrt-sdk.cfg."""
    config = configparser.ConfigParser()
    config.read(TOP / "openwrt-sdk.cfg")
    return {
        name: Sdk(config[name]["path"], config[name]["sha256"])
        for name in config.sections()
        if "path" in config[name]
    }


def _archive(options: argparse.Namespace) -> Path:
    """An archive whose checksum is right: the one given, or the one of release and target."""
    sdks = known()
    if options.tarball:
        for sdk in sdks.values():
            if sdk.file == options.tarball.name:
                _check(options.tarball, sdk, options.server)
                return Path(options.tarball)
        raise Error(
            f"{options.tarball.name} is not in openwrt-sdk.cfg: add it, or unpack it and use SDK="
        )
    name = f"{options.release} {options.target}"
    if name not in sdks:
        raise Error(f"openwrt-sdk.cfg has no [{name}], but: {', '.join(sdks)}")
    archive = Path(options.cache / sdks[name].file)
    if not archive.exists():
        options.cache.mkdir(parents=True, exist_ok=True)
        part = archive.with_suffix(".part")
        _download(options.server + sdks[name].path, part)
        _check(part, sdks[name], options.server)
        part.rename(archive)
    return archive


def _download(url: str, to: Path) -> None:
    print(f"fetching {url}")
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, to.open("wb") as file:
            shutil.copyfileobj(answer, file)
    except (urllib.error.URLError, OSError) as error:
        raise Error(
            f"cannot fetch {url}: {error}. Fetch it by other means and use SDK_TARBALL=FILE, or"
            " SDK=FOLDER where it is unpacked"
        ) from error


def _check(archive: Path, sdk: Sdk, server: str) -> None:
    wanted = sdk.sha256 or _published(sdk, server)
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted:
        raise Error(f"{archive} is not {sdk.file}: its sha256 is {found}, not {wanted}")


def _published(sdk: Sdk, server: str) -> str:
    """The checksum the release publishes, if its signature is good."""
    print(f"openwrt-sdk.cfg has no checksum of {sdk.file}: asking the server")
    with tempfile.TemporaryDirectory() as folder:
        sums, signature = Path(folder) / "sha256sums", Path(folder) / "sha256sums.asc"
        for file in (sums, signature):
            _download(server + sdk.path.removesuffix(sdk.file) + file.name, file)
        try:
            signed = subprocess.run(["gpg", "--batch", "--verify", signature, sums])
        except FileNotFoundError:
            raise Error("gpg is not installed, and sha256sums has to be verified by it") from None
        if signed.returncode:
            raise Error(
                f"your gpg does not trust the signature of sha256sums: import OpenWrt's release"
                f" key ({KEYS}), or write the checksum into openwrt-sdk.cfg"
            )
        found = re.search(
            rf"^([0-9a-f]{{64}}) [ *]{re.escape(sdk.file)}$", sums.read_text(), re.MULTILINE
        )
    if found is None:
        raise Error(f"the server's sha256sums does not name {sdk.file}")
    print(f"sha256 of {sdk.file}, signed by OpenWrt: {found[1]}")
    return found[1]


def unpack(archive: Path, cache: Path) -> Path:
    """The folder of the unpacked SDK; whole or not there."""
    folder = cache / archive.name.removesuffix(".zst").removesuffix(".tar")
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=cache))
        done = subprocess.run(["tar", "-xf", archive, "-C", part, "--strip-components=1"])
        if done.returncode:
            shutil.rmtree(part)
            raise Error(f"tar cannot unpack {archive}; for .zst it needs zstd installed")
        part.chmod(0o755)
        part.rename(folder)
    return folder


def build(sdk: Path, jobs: int) -> list[Path]:
    """The packages that the SDK made of this repository."""
    if not (sdk / "scripts/feeds").is_file():
        raise Error(f"{sdk} is no OpenWrt SDK: it has no scripts/feeds")
    if sdk.is_relative_to(TOP):
        raise Error(f"{sdk} lies in the repository, so the feed would contain the SDK's recipes")
    feeds = {
        name: line
        for line, name in re.findall(
            r"^(src-\S+(?:\s+--\S+)*\s+(\w+)\s.*)$",
            (sdk / "feeds.conf.default").read_text(),
            re.MULTILINE,
        )
        if name in FEEDS
    }
    feeds["portcullis"] = f"src-link portcullis {TOP}"
    (sdk / "feeds.conf").write_text("".join(f"{line}\n" for line in feeds.values()))
    for name in feeds:
        # One that is there is only looked through again: no network, the same for every build.
        here = ["-i"] if (sdk / "feeds" / name).exists() else []
        _run(sdk, "scripts/feeds", "update", *here, name)
    _run(sdk, "scripts/feeds", "install", *PACKAGES)
    (sdk / ".config").write_text(CONFIG)
    _run(sdk, "make", "defconfig")
    for old in _made(sdk):
        old.unlink()
    _run(sdk, "make", f"-j{jobs}", *(f"package/{name}/compile" for name in PACKAGES))
    made = _made(sdk)
    if len(made) != len(PACKAGES):
        raise Error(f"the SDK made {len(made)} packages of {len(PACKAGES)}: see {sdk / 'logs'}")
    return made


def _made(sdk: Path) -> list[Path]:
    return sorted(
        path
        for name in PACKAGES
        for path in (sdk / "bin").rglob(f"{name}[_-][0-9]*")
        if path.suffix in (".ipk", ".apk")
    )


def _run(sdk: Path, *command: str) -> None:
    print("+", *command, flush=True)
    # The Makefile that called us exports what the SDK's own make must not see.
    hidden = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTHONPATH", "TARGET")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    done = subprocess.run(command, cwd=sdk, env=environment, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Error(f"{' '.join(command)} failed in {sdk}; V=s tells more")


if __name__ == "__main__":
    sys.exit(main())
