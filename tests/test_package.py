# SPDX-License-Identifier: GPL-2.0-or-later
"""The packages: what is in them, and that recipe and builder make the same ones."""

from __future__ import annotations

import io
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from portcullis import __version__
from portcullis.policy import CLOSED
from portcullis.ruleset import render

TOP = Path(__file__).resolve().parent.parent
PACKAGES = ("portcullis", "luci-app-portcullis")
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
EPOCH = "1700000000"
SOURCES = ("LICENSE", "files", "openwrt-sdk.cfg", "package", "src", "www")


class Package(NamedTuple):
    path: Path
    control: dict[str, tarfile.TarInfo]
    data: dict[str, tarfile.TarInfo]
    text: dict[str, str]  # control files
    content: dict[str, bytes]  # installed files

    @property
    def fields(self) -> dict[str, str]:
        return dict(re.findall(r"^([A-Z][\w-]+): (.*)$", self.text["./control"], re.MULTILINE))


def build(
    output: Path, *options: str, top: Path = TOP, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, top / "package/build.py", "--output", output, *options],
        env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH, **environment},
        capture_output=True,
        text=True,
    )


def unpack(output: Path, name: str) -> Package:
    (path,) = output.glob(f"{name}_*.ipk")
    with tarfile.open(path, "r:gz") as outer:
        assert outer.getnames() == ["./debian-binary", "./data.tar.gz", "./control.tar.gz"]
        inner = {part.name: outer.extractfile(part).read() for part in outer}  # type: ignore[union-attr]
    assert inner["./debian-binary"] == b"2.0\n"
    members, contents = [], []
    for part in ("./control.tar.gz", "./data.tar.gz"):
        with tarfile.open(fileobj=io.BytesIO(inner[part]), mode="r:gz") as tar:
            members.append({member.name: member for member in tar})
            contents.append(
                {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]
            )
    return Package(
        path, *members, {name: text.decode() for name, text in contents[0].items()}, contents[1]
    )


def copy(to: Path) -> Path:
    """The sources without git, somewhere else, touched at another time."""
    for name in SOURCES:
        source = TOP / name
        if source.is_dir():
            shutil.copytree(source, to / name, copy_function=shutil.copy)
        else:
            shutil.copy(source, to / name)
    return to


def extract(package: Package, root: Path) -> Path:
    for name, content in package.content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def version_of(root: Path) -> str:
    return subprocess.run(
        [sys.executable, "-m", "portcullis", "--version"],
        env={"PYTHONPATH": str(root / "usr/lib/portcullis"), "PATH": os.environ["PATH"]},
        cwd=root,
        capture_output=True,
        check=True,
        text=True,
    ).stdout.strip()


def listed(name: str) -> list[tuple[str, str, str]]:
    lines = (TOP / "package" / name / "files.txt").read_text().splitlines()
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    return [(mode, source, target) for mode, source, target in rows]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("built")
    done = build(output, "--bytecode", HERE)
    assert done.returncode == 0, done.stderr
    return output


@pytest.mark.parametrize("bytecode", [HERE, "none"])
def test_the_same_sources_give_the_same_bytes_anywhere_and_any_time(
    tmp_path: Path, bytecode: str
) -> None:
    here, there, elsewhere = tmp_path / "here", tmp_path / "there", tmp_path / "elsewhere"
    elsewhere.mkdir()
    build(here, "--bytecode", bytecode, TZ="UTC")
    done = build(there, "--bytecode", bytecode, top=copy(elsewhere), TZ="Asia/Tokyo", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    for name in PACKAGES:
        assert unpack(here, name).path.read_bytes() == unpack(there, name).path.read_bytes()


def test_the_control_file_says_what_opkg_has_to_know(built: Path) -> None:
    fields = unpack(built, "portcullis").fields
    assert fields["Package"] == "portcullis"
    assert fields["Version"] == f"{__version__}-r1"
    assert fields["Architecture"] == "all"
    assert fields["License"] == "GPL-2.0-or-later"
    assert fields["Require-User"] == "portcullis=6443:portcullis=6443"
    assert fields["SourceDateEpoch"] == EPOCH
    depends = fields["Depends"].split(", ")
    assert {"libc", "python3", "python3-ubus", "python3-pyroute2", "python3-bottle"} < set(depends)
    assert {"wireguard-tools", "firewall4", "nftables-json", "rpcd"} < set(depends)
    assert {"kmod-nft-bridge", "kmod-nft-netdev", "kmod-nf-conntrack-netlink", "kmod-tun"} < set(
        depends
    )


def test_byte_code_wants_the_python_it_was_made_by(built: Path, tmp_path: Path) -> None:
    minor = sys.version_info.minor
    assert (
        f"python3 (>= 3.{minor}), python3 (<< 3.{minor + 1})"
        in unpack(built, "portcullis").fields["Depends"]
    )
    build(tmp_path, "--bytecode", "none")
    assert "(" not in unpack(tmp_path, "portcullis").fields["Depends"]


def test_the_luci_app_brings_the_daemon(built: Path) -> None:
    depends = unpack(built, "luci-app-portcullis").fields["Depends"].split(", ")
    assert {"portcullis", "luci-base", "rpcd-mod-ucode"} < set(depends)


@pytest.mark.parametrize("name", PACKAGES)
def test_all_belongs_to_root_with_the_modes_of_the_list(built: Path, name: str) -> None:
    package = unpack(built, name)
    for member in [*package.control.values(), *package.data.values()]:
        assert (member.uid, member.gid, member.mtime) == (0, 0, int(EPOCH))
        assert member.mode == 0o755 if member.isdir() else member.mode & 0o022 == 0
    for mode, source, target in listed(name):
        if not source.endswith("/"):
            assert package.data[f".{target}"].mode == int(mode, 8), target


def test_a_sysupgrade_keeps_configuration_and_state(built: Path) -> None:
    package = unpack(built, "portcullis")
    assert package.text["./conffiles"] == "/etc/config/portcullis\n"
    assert package.content["./lib/upgrade/keep.d/portcullis"] == b"/etc/portcullis/\n"


def test_opkg_runs_our_scripts_through_the_default_ones(built: Path) -> None:
    package = unpack(built, "portcullis")
    assert "default_postinst $0 $@" in package.text["./postinst"]
    assert "default_prerm $0 $@" in package.text["./prerm"]
    for inside, beside in (("postinst-pkg", "postinst"), ("postrm", "postrm")):
        assert package.text[f"./{inside}"] == (TOP / "package/portcullis" / beside).read_text()
        assert package.control[f"./{inside}"].mode == 0o755


@pytest.mark.parametrize(("bytecode", "suffix"), [(HERE, ".pyc"), ("none", ".py")])
def test_the_daemon_runs_from_what_is_installed(tmp_path: Path, bytecode: str, suffix: str) -> None:
    build(tmp_path, "--bytecode", bytecode)
    package = unpack(tmp_path, "portcullis")
    modules = {Path(name).suffix for name in package.content if "/usr/lib/portcullis/" in name}
    assert modules == {suffix}
    assert version_of(extract(package, tmp_path / "root")) == __version__


def test_the_boot_guard_gets_the_table_the_daemon_renders(built: Path, tmp_path: Path) -> None:
    table = unpack(built, "portcullis").content["./usr/share/portcullis/table.nft"].decode()
    assert table.strip() == render(CLOSED).strip()


def test_the_version_stands_in_one_place(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    place = copy(top) / "src/portcullis/__init__.py"
    place.write_text(place.read_text().replace(__version__, "9.8.7"))
    done = build(tmp_path / "out", "--bytecode", HERE, top=top)
    assert done.returncode == 0, done.stderr
    for name in PACKAGES:
        package = unpack(tmp_path / "out", name)
        assert package.path.name == f"{name}_9.8.7-r1_all.ipk"
        assert package.fields["Version"] == "9.8.7-r1"
    assert version_of(extract(unpack(tmp_path / "out", "portcullis"), tmp_path / "root")) == "9.8.7"


def test_every_file_is_installed_by_exactly_one_list() -> None:
    present = {
        str(path.relative_to(TOP))
        for folder in ("files", "www", "src/portcullis")
        for path in (TOP / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    installed = Counter(
        file
        for name in PACKAGES
        for _, source, _ in listed(name)
        for file in present
        if file == source or (source.endswith("/") and file.startswith(source))
    )
    assert {file for file, times in installed.items() if times > 1} == set()
    assert present - set(installed) == set()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("0644 LICENSE", "MODE SOURCE TARGET"),
        ("0644 LICENSE /a /b", "MODE SOURCE TARGET"),
        ("rw LICENSE /a", "four octal digits"),
        ("0144 LICENSE /a", "four octal digits"),
        ("0644 LICENSE a", "starts with /"),
        ("0644 LICENSE /../a", "no .."),
        ("0644 ../LICENSE /a", "no .."),
        ("0644 files/nothing /a", "no file files/nothing"),
        ("0644 nothing/ /a/", "no folder nothing/"),
        ("0644 src/portcullis/ /a", "ends with /"),
        ("0644 python:portcullis.nothing /a", "-m portcullis.nothing failed"),
        ("0644 python:portcullis.states /a", "printed nothing"),
        ("0644 lmo:nothing.po /a", "nothing.po failed"),
        ("0644 LICENSE /x", "installed twice"),
    ],
)
def test_a_list_that_is_wrong_is_refused_with_its_line(
    tmp_path: Path, line: str, complaint: str
) -> None:
    wrong = tmp_path / "files.txt"
    wrong.write_text(f"# comment\n0644 LICENSE /x\n{line}\n")
    done = subprocess.run(
        [TOP / "package/install.sh", wrong, tmp_path / "root"],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert complaint in done.stderr
    assert f"{wrong}:3:" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("PKG_LICENSE:=GPL", "PKG_LICENSE:=$(X)GPL", "PKG_LICENSE is not a plain value"),
        ("PKG_RELEASE:=1\n", "", "no PKG_RELEASE"),
        ("+rpcd ", "+X:rpcd ", "dependencies of a form not known: +X:rpcd"),
        ("$(file <postrm)", "$(file <nowhere)", "there is no nowhere"),
        ("$(file <postrm)", "exit 0", "in a file of its own"),
    ],
)
def test_a_recipe_the_builder_cannot_read_is_refused(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    top = tmp_path / "top"
    top.mkdir()
    recipe = copy(top) / "package/portcullis/Makefile"
    assert old in recipe.read_text()
    recipe.write_text(recipe.read_text().replace(old, new, 1))
    done = build(tmp_path / "out", top=top)
    assert done.returncode == 1
    assert complaint in done.stderr


def test_without_the_asked_for_python_nothing_is_built(tmp_path: Path) -> None:
    done = build(tmp_path, "--bytecode", "3.1")
    assert done.returncode == 1
    assert "no python3.1 here" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_feed_scanning_finds_the_two_recipes_and_nothing_else(tmp_path: Path) -> None:
    """As include/scan.mk of OpenWrt does it, through the link that scripts/feeds makes."""
    feed = tmp_path / "feeds/portcullis"
    feed.parent.mkdir()
    feed.symlink_to(TOP)
    found = subprocess.run(
        "find -L feeds/portcullis -mindepth 1 -maxdepth 5 -name Makefile | xargs grep -aHE"
        " 'call (Build/DefaultTargets|BuildPackage|KernelPackage|BuildTarget)'"
        " | sed -e 's#^feeds/portcullis/##' -e 's#/Makefile:.*##' | sort -u",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert found == ["package/luci-app-portcullis", "package/portcullis"]


@pytest.mark.parametrize("name", PACKAGES)
def test_the_recipe_installs_what_the_builder_does(tmp_path: Path, name: str) -> None:
    """The recipe as make reads it, through the links a feed has, with what it includes stubbed."""
    stubs = {
        "rules.mk": "INCLUDE_DIR:=$(TOPDIR)/include\n",
        "include/package.mk": "define BuildPackage\n$(eval $(Package/$(1)))\n"
        "all:\n\t$(call Package/$(1)/install,$(ROOT))\n"
        "\t$(foreach key,SECTION PKGARCH USERID DEPENDS,$(info $(key)=$($(key))))\n"
        "\t$(info VERSION=$(PKG_VERSION)-r$(PKG_RELEASE))\n"
        "\t$(file >$(ROOT).postrm,$(Package/$(1)/postrm))\nendef\n",
        "feeds/packages/lang/python/python3-package.mk": f"HOST_PYTHON3_BIN:={sys.executable}\n",
    }
    for path, text in stubs.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "feeds/portcullis").symlink_to(TOP)
    link = tmp_path / "package/feeds/portcullis" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(Path("../../../feeds/portcullis/package") / name)
    root = tmp_path / "root"
    made = subprocess.run(
        ["make", "-s", "-C", link, f"TOPDIR={tmp_path}", f"ROOT={root}"],
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    values = dict(line.split("=", 1) for line in made.stdout.splitlines() if "=" in line)

    build(tmp_path / "out", "--bytecode", "none")
    package = unpack(tmp_path / "out", name)
    assert values["VERSION"] == package.fields["Version"]
    assert values["SECTION"] == package.fields["Section"]
    assert values["PKGARCH"] == package.fields["Architecture"]
    assert values["USERID"] == package.fields.get("Require-User", "")
    depends = [word.removeprefix("+") for word in values["DEPENDS"].split()]
    assert ["libc", *depends] == package.fields["Depends"].split(", ")
    postrm = (tmp_path / "root.postrm").read_text()
    assert postrm.strip() == package.text["./postrm"].strip()
    keep = "./lib/upgrade/keep.d/"  # by OpenWrt's package-pack.mk
    made_files = {
        f"./{path.relative_to(root)}": (path.read_bytes(), path.stat().st_mode & 0o777)
        for path in root.rglob("*")
        if path.is_file()
    }
    shipped = {
        path: (content, package.data[path].mode) for path, content in package.content.items()
    }
    assert {path: made_files[path] for path in made_files if not path.startswith(keep)} == {
        path: shipped[path] for path in shipped if not path.startswith(keep)
    }


def test_a_translation_becomes_what_luci_reads(tmp_path: Path) -> None:
    """Hashes and layout as LuCI's po2lmo has them."""
    (tmp_path / "de.po").write_text(
        'msgid ""\nmsgstr ""\n"Language: de\\n"\n"Plural-Forms: nplurals=2; plural=n != 1;\\n"\n'
        '\nmsgid "Profile"\nmsgstr "Profil"\n'
        '\nmsgid "a"\nmsgstr ""\n"\\"ä\\"\\n"\n'
        '\nmsgid "same"\nmsgstr "same"\n\nmsgid "untranslated"\nmsgstr ""\n'
    )
    done = subprocess.run(
        [sys.executable, TOP / "package/lmo.py", tmp_path / "de.po"], capture_output=True
    )
    assert done.returncode == 0, done.stderr
    values = b"nplurals=2; plural=n != 1;\0\0" + b"Profil\0\0" + '"ä"\\n'.encode() + b"\0\0"
    index = struct.pack(">12I", 0, 0, 0, 26, 291415938, 1, 36, 6, 482868136, 1, 28, 6)
    assert done.stdout == values + index + struct.pack(">I", len(values))


def test_without_apk_tools_the_builder_says_what_is_missing(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "env", "dirname", "find", "sort", "install"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    done = build(tmp_path / "out", "--bytecode", HERE, PATH=str(tools))
    assert done.returncode == 0, done.stderr
    assert "no .apk: this needs apk-tools 3" in done.stdout
    assert not list(tmp_path.glob("out/*.apk"))


def test_apk_tools_make_the_same_package_twice(tmp_path: Path) -> None:
    version = (
        shutil.which("apk")
        and subprocess.run(["apk", "--version"], capture_output=True, text=True).stdout
    )
    if not version or not version.startswith("apk-tools 3."):
        pytest.skip("apk-tools 3 are not installed; no Debian release has them")
    for output in ("a", "b"):
        build(tmp_path / output, "--bytecode", HERE)
    (one,) = tmp_path.glob("a/portcullis-*.apk")
    assert one.read_bytes() == (tmp_path / "b" / one.name).read_bytes()
    dump = subprocess.run(["apk", "adbdump", one], capture_output=True, text=True).stdout
    assert "export PKG_UPGRADE=1" in dump
    assert "portcullis.rusers" in dump
    assert f"python3>={HERE}" in dump
