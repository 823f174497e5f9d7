# SPDX-License-Identifier: GPL-2.0-or-later
"""What LuCI and rpcd read agrees: plugin, access list, menu, views, translations; and the core."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from luci import contract
from luci.template import PO, TEMPLATE, read, strings
from router.appliance import Appliance
from router.standin.bus import Bus, CallFailed, real_wanted, running

from portcullis import api
from portcullis.core import Core
from portcullis.door import Door
from portcullis.logs import LastLines
from portcullis.rights import READ, WRITE

STRING = 3
OF_LUCI = {"baseclass", "dom", "poll", "rpc", "ui", "view"}
READER = """
config login
	option username 'root'
	option password '$p$root'
	list read '*'

"""


class Binding:
    BLOBMSG_TYPE_STRING = STRING


class NoDoor:
    def methods(self, *_: object) -> dict[str, Any]:
        return {}


def daemon_methods() -> dict[str, tuple[str, ...]]:
    methods = api.objects(cast(Core, None), cast(Door, NoDoor()), LastLines(), Binding)[api.OBJECT]
    assert all(kind == STRING for m in methods.values() for kind in m["signature"].values())
    return {name: tuple(method["signature"]) for name, method in methods.items()}


def test_every_method_is_granted_once_by_reading_or_by_writing() -> None:
    granted = contract.granted("read") + contract.granted("write")
    assert sorted(granted) == sorted(contract.plugin_methods())


def test_reading_grants_nothing_that_changes_anything() -> None:
    assert set(contract.granted("read")) == {
        *("status", "get", "profiles", "events", "devices", "log", "selftest_result")
    }


def test_the_access_group_grants_the_plugins_methods_and_nothing_else() -> None:
    acl = json.loads(contract.ACL.read_text())
    assert list(acl) == ["portcullis"]
    for right in ("read", "write"):
        assert list(acl["portcullis"][right]) == ["ubus"]
        assert list(acl["portcullis"][right]["ubus"]) == [contract.OBJECT]


def test_the_plugin_forwards_to_methods_of_the_daemon_with_their_arguments() -> None:
    daemon = daemon_methods()
    for name, arguments in contract.plugin_methods().items():
        assert daemon[name] == ((*arguments, "session") if name == "token" else arguments), name


def test_the_web_page_asks_for_the_rights_that_the_access_group_grants() -> None:
    assert set(READ.values()) == set(contract.granted("read"))
    assert {*WRITE, "token"} == set(contract.granted("write"))


def test_what_the_plugin_leaves_out_has_a_right_of_another_method() -> None:
    left_out = daemon_methods().keys() - contract.plugin_methods().keys()
    assert left_out == {name for name, function in READ.items() if name != function}


def test_the_view_calls_what_the_plugin_has() -> None:
    plugin = contract.plugin_methods()
    assert contract.view_methods().items() <= plugin.items()


def test_the_menu_leads_to_a_view_for_those_who_may() -> None:
    (entry,) = json.loads(contract.MENU.read_text()).values()
    assert (contract.VIEWS / f"view/{entry['action']['path']}.js").is_file()
    assert entry["depends"]["acl"] == list(json.loads(contract.ACL.read_text()))


def test_views_require_what_exists() -> None:
    required = contract.required()
    for name, needed in required.items():
        assert set(needed) <= OF_LUCI | required.keys(), name


def test_the_template_has_every_string() -> None:
    """If it fails: PYTHONPATH=src:tests .venv/bin/python -m luci.template"""
    assert read(TEMPLATE).keys() == strings().keys()


@pytest.mark.parametrize("path", sorted(PO.glob("*/portcullis.po")), ids=lambda p: p.parent.name)
def test_a_translation_is_whole_and_keeps_what_is_filled_in(path: Path) -> None:
    translated = read(path)
    assert translated.keys() == read(TEMPLATE).keys()
    for text, translation in translated.items():
        assert translation, text
        assert _placeholders(translation) == _placeholders(text), text


def _placeholders(text: str) -> list[str]:
    return re.findall(r"%[\d.]*[a-z%]", text)


@pytest.mark.parametrize(("login", "may_write"), [("", True), (READER, False)])
def test_a_login_with_read_rights_alone_may_look_and_not_touch(
    tmp_path: Path, login: str, may_write: bool
) -> None:
    bus = Bus(tmp_path)
    shutil.copy(contract.ACL, bus.rpcd_acl_dir)
    if login:
        (bus.config_dir / "rpcd").write_text(login)
    with running(tmp_path) as bus:
        user = {"username": "root", "password": ""}
        session = bus.call("session", "login", user)[0]["ubus_rpc_session"]
        for method in contract.plugin_methods():
            asked = {"scope": "ubus", "object": contract.OBJECT, "function": method}
            (answer,) = bus.call("session", "access", {"ubus_rpc_session": session, **asked})
            assert answer["access"] is (may_write or method in contract.granted("read")), method


@pytest.fixture
def plugin() -> Iterator[Appliance]:
    """The daemon behind the plugin in the real rpcd."""
    if not real_wanted():
        pytest.skip("PORTCULLIS_REAL_UBUS is not 1: only the real rpcd runs ucode")
    with Appliance() as found:
        found.start()
        yield found


def ask(appliance: Appliance, method: str, **arguments: Any) -> dict[str, Any]:
    (answer,) = appliance.bus.call(contract.OBJECT, method, arguments)
    return answer


def test_the_plugin_passes_on_what_the_daemon_says(plugin: Appliance) -> None:
    mine, through = plugin.status(), ask(plugin, "status", ubus_rpc_session="0" * 32)
    assert mine.keys() == through.keys()
    assert through["state"] == "not_connected"
    assert ask(plugin, "connect", profile="nowhere")["code"] == "bad_profile"
    assert ask(plugin, "connect", profile="vpn1", ubus_rpc_session="0" * 32)["ok"]
    plugin.until_state("connected")
    assert ask(plugin, "disconnect")["ok"]


def test_what_is_left_out_means_the_default(plugin: Appliance) -> None:
    assert ask(plugin, "connect")["ok"]
    plugin.until_state("connected")
    assert ask(plugin, "set", name="mode")["code"] == "invalid_value"


def test_a_setting_is_saved_through_the_rpcd_that_waits_for_the_daemon(plugin: Appliance) -> None:
    answer = ask(plugin, "set", name="mode", value="at_all_times")
    assert answer["ok"]
    assert answer["warning"] == ""
    assert "'at_all_times'" in (plugin.bus.config_dir / "portcullis").read_text()


@pytest.mark.parametrize("arguments", [{"profile": 5}, {"profil": "vpn1"}, {"session": "x"}])
def test_the_plugin_refuses_wrong_types_and_unknown_arguments(
    plugin: Appliance, arguments: dict[str, Any]
) -> None:
    with pytest.raises(CallFailed, match="Invalid argument"):
        ask(plugin, "connect", **arguments)
    assert plugin.state == "not_connected"


def test_without_the_daemon_the_plugin_says_so_and_finds_it_again(plugin: Appliance) -> None:
    plugin.kill()
    answer = ask(plugin, "status")
    assert answer["ok"] is False
    assert answer["code"] == "unreachable"
    plugin.start()
    assert ask(plugin, "status")["ok"]
