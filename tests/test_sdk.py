# SPDX-License-Identifier: GPL-2.0-or-later
"""`make package`, with an SDK that only writes down what it is asked to do."""

from __future__ import annotations

import configparser
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent

FEEDS = """\
#!/bin/sh
echo "feeds $*" >> log
[ "$1" != update ] || for name; do mkdir -p "feeds/$name"; done
"""
MAKE = """\
%:
	@echo "make $@" >> log
package/%/compile:
	@echo "make $@" >> log
	@mkdir -p bin/packages && echo made > bin/packages/$*_1.2.3-r1_all.ipk
"""
CONF = """\
src-git --root=package base https://git.openwrt.org/openwrt/openwrt.git;openwrt-24.10
src-git packages https://git.openwrt.org/feed/packages.git^0123
src-git luci https://git.openwrt.org/project/luci.git^4567
src-git telephony https://git.openwrt.org/feed/telephony.git^89ab
"""


@pytest.fixture
def sdk(tmp_path: Path) -> Path:
    folder = tmp_path / "openwrt-sdk-1.2.3"
    (folder / "scripts").mkdir(parents=True)
    (folder / "scripts/feeds").write_text(FEEDS)
    (folder / "scripts/feeds").chmod(0o755)
    (folder / "Makefile").write_text(MAKE)
    (folder / "feeds.conf.default").write_text(CONF)
    return folder


def package(
    *options: str | Path, top: Path = TOP, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, top / "package/sdk.py", *options],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def packed(sdk: Path, archive: Path) -> Path:
    subprocess.run(["tar", "-cf", archive, "-C", sdk.parent, sdk.name], check=True)
    return archive


def configured(tmp_path: Path, sha256: str) -> Path:
    """A copy of the program with one SDK in its configuration."""
    (tmp_path / "top/package").mkdir(parents=True)
    for name in ("sdk.py", "recipe.py"):
        (tmp_path / "top/package" / name).write_text((TOP / "package" / name).read_text())
    (tmp_path / "top/openwrt-sdk.cfg").write_text(
        f"[24.10 x86/64]\npath = releases/x/sdk.tar\nsha256 = {sha256}\n"
    )
    return tmp_path / "top"


def served(tmp_path: Path, sdk: Path) -> tuple[str, Path]:
    """A download server, of files, and the SDK's archive on it."""
    (tmp_path / "server/releases/x").mkdir(parents=True)
    archive = packed(sdk, tmp_path / "server/releases/x/sdk.tar")
    return f"file://{tmp_path}/server/", archive


def test_the_repository_becomes_a_feed_beside_openwrts_and_both_packages_are_built(
    tmp_path: Path, sdk: Path
) -> None:
    done = package("--sdk", sdk, "--output", tmp_path / "dist", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    assert (sdk / "log").read_text().splitlines() == [
        "feeds update base",
        "feeds update packages",
        "feeds update luci",
        "feeds update portcullis",
        "feeds install portcullis luci-app-portcullis",
        "make defconfig",
        "make package/portcullis/compile",
        "make package/luci-app-portcullis/compile",
    ]
    assert f"src-link portcullis {TOP}\n" in (sdk / "feeds.conf").read_text()
    assert "CONFIG_PACKAGE_portcullis=m\n" in (sdk / ".config").read_text()
    assert sorted(path.name for path in (tmp_path / "dist").iterdir()) == [
        "luci-app-portcullis_1.2.3-r1_all.ipk",
        "portcullis_1.2.3-r1_all.ipk",
    ]


def test_a_second_build_fetches_no_feed_again(tmp_path: Path, sdk: Path) -> None:
    package("--sdk", sdk, "--output", tmp_path / "dist")
    (sdk / "log").unlink()
    assert package("--sdk", sdk, "--output", tmp_path / "dist").returncode == 0
    assert (sdk / "log").read_text().splitlines()[:2] == [
        "feeds update -i base",
        "feeds update -i packages",
    ]


def test_a_build_that_leaves_a_package_out_fails(tmp_path: Path, sdk: Path) -> None:
    (sdk / "Makefile").write_text("%:\n\t@true\n")
    done = package("--sdk", sdk, "--output", tmp_path / "dist")
    assert done.returncode == 1
    assert "made 0 packages of 2" in done.stderr


def test_an_sdk_inside_the_repository_is_refused(tmp_path: Path, sdk: Path) -> None:
    inside = configured(tmp_path, "") / "sdk"
    sdk.rename(inside)
    done = package("--sdk", inside, top=tmp_path / "top")
    assert done.returncode == 1
    assert "lies in the repository" in done.stderr


def test_what_is_no_sdk_is_refused(tmp_path: Path) -> None:
    done = package("--sdk", tmp_path)
    assert done.returncode == 1
    assert "no OpenWrt SDK" in done.stderr


def test_an_archive_is_fetched_checked_unpacked_and_used_once(tmp_path: Path, sdk: Path) -> None:
    server, archive = served(tmp_path, sdk)
    top = configured(tmp_path, hashlib.sha256(archive.read_bytes()).hexdigest())
    options = ("--server", server, "--cache", tmp_path / "cache", "--output", tmp_path / "dist")
    done = package(*options, top=top)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cache/sdk/log").exists()
    archive.unlink()
    assert package(*options, top=top).returncode == 0


@pytest.mark.parametrize("given", [False, True])
def test_an_archive_with_another_checksum_is_not_unpacked(
    tmp_path: Path, sdk: Path, given: bool
) -> None:
    server, archive = served(tmp_path, sdk)
    top = configured(tmp_path, "0" * 64)
    source = ("--tarball", archive) if given else ("--server", server)
    done = package(*source, "--cache", tmp_path / "cache", top=top)
    assert done.returncode == 1
    assert f"not {'0' * 64}" in done.stderr
    assert not (tmp_path / "cache/sdk").exists()


@pytest.mark.parametrize(("trusted", "code"), [(True, 0), (False, 1)])
def test_an_unknown_checksum_is_taken_from_the_server_only_if_signed(
    tmp_path: Path, sdk: Path, trusted: bool, code: int
) -> None:
    server, archive = served(tmp_path, sdk)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    (archive.parent / "sha256sums").write_text(f"{'1' * 64} *other\n{digest} *sdk.tar\n")
    (archive.parent / "sha256sums.asc").write_text("a signature\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gpg").write_text(f"#!/bin/sh\nexit {0 if trusted else 2}\n")
    (tmp_path / "bin/gpg").chmod(0o755)
    done = package(
        *("--server", server, "--cache", tmp_path / "cache", "--output", tmp_path / "dist"),
        top=configured(tmp_path, ""),
        PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    )
    assert done.returncode == code
    assert ("signed by OpenWrt" in done.stdout) == trusted
    assert ("does not trust" in done.stderr) != trusted


def test_a_server_out_of_reach_tells_the_ways_around_it(tmp_path: Path) -> None:
    done = package("--server", f"file://{tmp_path}/nowhere/", "--cache", tmp_path / "cache")
    assert done.returncode == 1
    assert "SDK_TARBALL=" in done.stderr
    assert list((tmp_path / "cache").glob("*.zst")) == []


def test_every_release_has_x86_and_two_more_targets_with_a_checksum_or_none() -> None:
    config = configparser.ConfigParser()
    config.read(TOP / "openwrt-sdk.cfg")
    for release in ("24.10", "25.12"):
        targets = [name.split()[1] for name in config.sections() if name.startswith(f"{release} ")]
        assert len(targets) == 3
        assert targets[0] == "x86/64"
        for target in targets:
            sdk = config[f"{release} {target}"]
            assert re.fullmatch(
                rf"releases/({release}\.\d+)/targets/{target}/openwrt-sdk-\1-"
                rf"{target.replace('/', '-')}_gcc-[\d.]+_musl\.Linux-x86_64\.tar\.zst",
                sdk["path"],
            )
            assert re.fullmatch(r"[0-9a-f]{64}|", sdk["sha256"])
