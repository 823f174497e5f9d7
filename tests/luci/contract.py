# SPDX-License-Identifier: GPL-2.0-or-later
"""What the files that LuCI and rpcd read say of each other: plugin, access list, menu."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

SHARE = Path(__file__).resolve().parents[2] / "files/usr/share"
PLUGIN = SHARE / "rpcd/ucode/portcullis.uc"
ACL = SHARE / "rpcd/acl.d/portcullis.json"
MENU = SHARE / "luci/menu.d/luci-app-portcullis.json"
OBJECT = "luci.portcullis"
VIEWS = SHARE.parents[2] / "www/luci"
DAEMON = "portcullis/daemon.js"


def plugin_methods() -> dict[str, tuple[str, ...]]:
    """The plugin's table: method → its arguments."""
    table = re.search(
        r"^const METHODS = \{\n(.*?)^\};$", PLUGIN.read_text(), re.DOTALL | re.MULTILINE
    )
    assert table, f"{PLUGIN} has no table METHODS"
    lines = re.findall(r"(?m)^\t(\w+): \[(.*)\],$", table[1])
    assert len(lines) == table[1].count("\n"), f"{PLUGIN}: a line of METHODS is of another form"
    return {name: tuple(re.findall(r"'(\w+)'", arguments)) for name, arguments in lines}


def granted(right: str) -> list[str]:
    """Methods of the plugin's object that the access group `portcullis` grants."""
    group: dict[str, Any] = json.loads(ACL.read_text())["portcullis"][right]
    methods: list[str] = group["ubus"][OBJECT]
    return methods


def view_methods() -> dict[str, tuple[str, ...]]:
    """What LuCI's side declares: method → its arguments."""
    table = re.search(r"(?ms)^const METHODS = \{\n(.*?)^\};$", VIEWS.joinpath(DAEMON).read_text())
    assert table, f"{DAEMON} has no table METHODS"
    lines = re.findall(r"(?m)^\t(\w+): \[(.*)\],?$", table[1])
    return {name: tuple(re.findall(r"'(\w+)'", arguments)) for name, arguments in lines}


def required() -> dict[str, list[str]]:
    """LuCI classes of ours → the classes they require."""
    return {
        ".".join(path.relative_to(VIEWS).with_suffix("").parts): re.findall(
            r"(?m)^'require (\S+?)(?: as \S+)?';$", path.read_text()
        )
        for path in VIEWS.rglob("*.js")
    }
