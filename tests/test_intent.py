# SPDX-License-Identifier: GPL-2.0-or-later
"""What the owner last asked for: remembered durably, and taken for connected in doubt."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from portcullis.intent import NEVER_CONNECTED, Intent, read, save
from portcullis.storage import write_durably


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "intent"


@pytest.fixture
def flash(tmp_path: Path) -> Iterator[Path]:
    """A file system of two pages and four files, one of which is the folder."""
    folder = tmp_path / "flash"
    folder.mkdir()
    options = "size=8k,nr_inodes=4"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(
    "intent", [Intent(True), Intent(False), Intent(True, "vpn1"), Intent(False, "vpn-2.nl")]
)
def test_an_intent_is_remembered_as_it_was(path: Path, intent: Intent) -> None:
    save(path, intent)
    assert read(path) == (intent, None)


@pytest.mark.parametrize(
    ("intent", "line"), [(Intent(True, "vpn1"), "connected"), (Intent(False, "v"), "disconnected")]
)
def test_a_shell_can_read_the_first_line(path: Path, intent: Intent, line: str) -> None:
    save(path, intent)
    command = ["sh", "-c", 'read -r word < "$1" && printf %s "$word"', "sh", str(path)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == line


def test_a_missing_file_is_a_router_that_was_never_connected(path: Path) -> None:
    assert read(path) == (NEVER_CONNECTED, None)


def test_a_missing_file_with_traces_of_a_connection_is_connected(path: Path) -> None:
    trace = path.with_name("endpoints")
    trace.touch()
    found, wrong = read(path, (path.with_name("other"), trace))
    assert (found, "endpoints shows a connection" in str(wrong)) == (Intent(True), True)


def test_traces_that_are_not_there_show_nothing(path: Path) -> None:
    assert read(path, (path.with_name("endpoints"),)) == (NEVER_CONNECTED, None)


def test_traces_do_not_outweigh_the_owners_word(path: Path) -> None:
    save(path, Intent(False))
    path.with_name("endpoints").touch()
    assert read(path, (path.with_name("endpoints"),)) == (Intent(False), None)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\n", b"\0" * 4096, b"\xff\xfe", b"disconnected\xff", b"disconnecte", b"0\n"),
        *(b"Disconnected\n", b" disconnected\n", b"disconnected \n", b"not disconnected\n"),
        *(b"\ndisconnected\n", b"disconnectedconnected\n", b"connect\n"),
        b"disconnected\0\n",
    ],
)
def test_whatever_else_stands_there_means_connected_and_is_told(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    found, wrong = read(path)
    assert (found.connected, str(path) in str(wrong)) == (True, True)


def test_a_word_without_a_line_end_is_understood(path: Path) -> None:
    path.write_text("disconnected")
    assert read(path) == (Intent(False), None)


def test_an_unreadable_file_means_connected_and_is_told(path: Path) -> None:
    path.mkdir()
    found, wrong = read(path)
    assert (found, "cannot be read" in str(wrong)) == (Intent(True), True)


def test_a_loop_of_links_means_connected(path: Path) -> None:
    path.symlink_to(path.name)
    assert read(path)[0] == Intent(True)


def test_saving_makes_the_folder_for_root_alone(tmp_path: Path) -> None:
    save(tmp_path / "new" / "intent", Intent(True))
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_a_file_written_durably_is_for_root_alone(path: Path) -> None:
    path.write_text("old")
    path.chmod(0o644)
    write_durably(path, "new")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_written_durably_leaves_no_other_behind(path: Path) -> None:
    write_durably(path, "text")
    assert [entry.name for entry in path.parent.iterdir()] == ["intent"]


def test_the_text_is_on_the_medium_before_the_name_and_the_name_before_the_return(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def noted_fsync(descriptor: int) -> None:
        kind = "folder" if Path(f"/proc/self/fd/{descriptor}").is_dir() else "file"
        steps.append(f"fsync {kind}")
        fsync(descriptor)

    def noted_rename(source: Path, to: Path) -> None:
        steps.append(f"rename {len(source.read_text())}")
        rename(source, to)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    write_durably(path, "text")
    assert steps == ["fsync file", "rename 4", "fsync folder"]


def test_on_a_full_flash_the_old_intent_stands_whole(flash: Path) -> None:
    save(flash / "intent", Intent(True, "vpn1"))
    (flash / "filler").write_bytes(b"x" * 4096)
    with pytest.raises(OSError) as caught:
        save(flash / "intent", Intent(False))
    assert (caught.value.errno, read(flash / "intent")) == (
        errno.ENOSPC,
        (Intent(True, "vpn1"), None),
    )


def test_on_a_full_flash_nothing_half_written_stays(flash: Path) -> None:
    (flash / "filler").write_bytes(b"x" * 8192)
    with pytest.raises(OSError):
        save(flash / "intent", Intent(False))
    assert [entry.name for entry in flash.iterdir()] == ["filler"]


def test_without_room_for_another_file_the_old_intent_stands_whole(flash: Path) -> None:
    save(flash / "intent", Intent(True, "vpn1"))
    for name in "ab":
        (flash / name).touch()
    with pytest.raises(OSError):
        save(flash / "intent", Intent(False))
    assert read(flash / "intent")[0] == Intent(True, "vpn1")


def test_a_rest_of_an_interrupted_write_does_not_stand_in_the_way(path: Path) -> None:
    (path.parent / ".intent.new").write_text("connec")
    save(path, Intent(False))
    assert read(path) == (Intent(False), None)


def test_a_link_in_the_temporary_files_place_is_not_followed(path: Path) -> None:
    victim = path.with_name("victim")
    victim.write_text("precious")
    (path.parent / ".intent.new").symlink_to(victim)
    with pytest.raises(OSError):
        save(path, Intent(True))
    assert victim.read_text() == "precious"


def test_a_read_only_flash_is_an_os_error_and_the_old_intent_stands(flash: Path) -> None:
    save(flash / "intent", Intent(True, "vpn1"))
    subprocess.run(["mount", "-o", "remount,ro", str(flash)], check=True)
    with pytest.raises(OSError) as caught:
        save(flash / "intent", Intent(False))
    assert (caught.value.errno, read(flash / "intent")[0]) == (errno.EROFS, Intent(True, "vpn1"))


def test_a_text_that_cannot_be_encoded_leaves_nothing_behind(path: Path) -> None:
    with pytest.raises(ValueError):
        write_durably(path, "\udc80")
    assert list(path.parent.iterdir()) == []
