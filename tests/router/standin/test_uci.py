# SPDX-License-Identifier: GPL-2.0-or-later
"""The stand-in for `uci` errs where libuci's does; PORTCULLIS_REAL_UCI=PATH tries that one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from router.rootfs import RootFilesystem

STAGED = "/tmp/.uci/network"


@pytest.fixture
def root() -> Iterator[RootFilesystem]:
    with RootFilesystem() as found:
        yield found


def uci(root: RootFilesystem, *words: str) -> tuple[int, str]:
    done = root.run("uci", "-q", *words, check=False)
    return done.returncode, done.stdout


def test_a_commit_takes_what_others_staged_along_whatever_t_says(root: RootFilesystem) -> None:
    uci(root, "set", "network.lan.mtu=1400")
    uci(root, "-t", "/tmp/mine", "set", "network.lan.metric=7")
    assert uci(root, "get", "network.lan.metric")[0] == 1
    uci(root, "-t", "/tmp/mine", "commit", "network")
    text = root.config("network")
    assert "mtu '1400'" in text and "metric '7'" in text
    assert "mtu" in root.path(STAGED).read_text(), "and leaves it staged"


def test_by_its_path_a_configuration_is_read_as_it_is_committed(root: RootFilesystem) -> None:
    uci(root, "set", "network.lan.proto=dhcp")
    assert uci(root, "get", "network.lan.proto") == (0, "dhcp\n")
    assert uci(root, "get", "/etc/config/network.lan.proto") == (0, "static\n")


def test_by_its_path_a_configuration_is_written_at_once(root: RootFilesystem) -> None:
    uci(root, "set", "/etc/config/network.lan.mtu=1400")
    assert "mtu '1400'" in root.config("network")
    assert not root.path(STAGED).exists()


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("get", "network.lan"), (0, "interface\n")),
        (("get", "network.nowhere"), (1, "")),
        (("get", "network.lan.nothing"), (1, "")),
        (("get", "nowhere.lan"), (1, "")),
        (("get", "network.@interface[1].device"), (0, "br-lan\n")),
        (("get", "network.@interface[-1].device"), (0, "eth1\n")),
        (("get", "network.@interface[9].device"), (1, "")),
        (("get", "network.lan.device.more"), (1, "")),
        (("set", "network.nowhere.option=1"), (1, "")),
        (("set", "network.lan.bad-name=1"), (1, "")),
        (("set", "network.lan"), (1, "")),
        (("delete", "network.nowhere"), (1, "")),
        (("delete", "network.lan.nothing"), (1, "")),
        (("add_list", "network.nowhere.x=1"), (1, "")),
        (("show", "network.nowhere"), (1, "")),
        (("show", "network.lan.device"), (0, "network.lan.device='br-lan'\n")),
        (("show", "firewall.@forwarding[0].src"), None),
        (("-X", "show", "network.@device[0]"), None),
        (("nonsense", "network"), (255, None)),
    ],
)
def test_answers_and_exit_codes(
    root: RootFilesystem, words: tuple[str, ...], answer: tuple[int, str | None] | None
) -> None:
    code, text = uci(root, *words)
    if answer is None:
        assert code == 0 and text.startswith(("firewall.cfg", "network.cfg"))
        return
    assert code == answer[0]
    assert answer[1] is None or text == answer[1]


def test_a_batch_goes_on_after_an_error(root: RootFilesystem) -> None:
    lines = "set network.nowhere.x=1\\nset network.lan.mtu=1400\\n"
    done = root.script(f"printf '{lines}' | uci -q batch; echo $?")
    assert done.stdout.splitlines()[-1] == "0"
    assert uci(root, "get", "network.lan.mtu") == (0, "1400\n")
