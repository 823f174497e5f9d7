# SPDX-License-Identifier: GPL-2.0-or-later
"""rpcd's objects; with PORTCULLIS_REAL_UBUS=1 the real rpcd's."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import probe
from .bus import Bus, CallFailed, running
from .probe import status_of
from .wire import Status

bus = probe.bus
shared_bus = probe.shared_bus
FIREWALL = """config defaults
	option syn_flood	1
	option input		REJECT
# Uncomment this line to disable ipv6 rules
#	option disable_ipv6	1

config zone
	option name		lan
	list   network		'lan'

config zone
	option name		wan
	list   network		'wan'
	list   network		'wan6'
	option forward		DROP  # not ours

config forwarding lan_wan
	option src		"lan"
	option dest		it\\'s
"""
FIREWALL_WRITTEN = """
config defaults
	option syn_flood '1'
	option input 'REJECT'

config zone
	option name 'lan'
	list network 'lan'

config zone
	option name 'wan'
	list network 'wan'
	list network 'wan6'
	option forward 'ACCEPT'

config forwarding 'lan_wan'
	option src 'lan'
	option dest 'it'\\''s'

"""


def section(kind: str, name: str, index: int, /, **options: Any) -> dict[str, Any]:
    head = {".anonymous": name.startswith("cfg"), ".type": kind, ".name": name, ".index": index}
    return {**head, **options}


def write(bus: Bus, text: str) -> None:
    (bus.config_dir / "test").write_text(text)


def text(bus: Bus) -> str:
    return (bus.config_dir / "test").read_text()


def uci(bus: Bus, method: str, **arguments: Any) -> Any:
    answers = bus.call("uci", method, {"config": "test", **arguments})
    return answers[0] if answers else None


def values(bus: Bus, name: str) -> dict[str, Any]:
    found = uci(bus, "get", section=name)["values"]
    return {option: value for option, value in found.items() if not option.startswith(".")}


def test_a_file_is_read_as_recorded_from_rpcd(bus: Bus) -> None:
    write(bus, FIREWALL)
    found = uci(bus, "get")
    assert found == {
        "values": {
            "cfg01e63d": section("defaults", "cfg01e63d", 0, syn_flood="1", input="REJECT"),
            "cfg02dc81": section("zone", "cfg02dc81", 1, name="lan", network=["lan"]),
            "cfg03dc81": section(
                "zone", "cfg03dc81", 2, name="wan", network=["wan", "wan6"], forward="DROP"
            ),
            "lan_wan": section("forwarding", "lan_wan", 3, src="lan", dest="it's"),
        }
    }
    assert list(found["values"]) == ["cfg01e63d", "cfg02dc81", "cfg03dc81", "lan_wan"]
    assert uci(bus, "get", section="@zone[-1]", option="network") == {"value": ["wan", "wan6"]}
    assert list(uci(bus, "get", type="zone", match={"network": "wan6"})["values"]) == ["cfg03dc81"]


def test_a_commit_writes_the_whole_file_anew_without_its_comments(bus: Bus) -> None:
    write(bus, FIREWALL)
    (bus.config_dir / "test").chmod(0o640)
    uci(bus, "commit")
    assert text(bus) == FIREWALL, "nothing was staged, so nothing is written"
    uci(bus, "set", section="cfg03dc81", values={"forward": "ACCEPT"})
    assert text(bus) == FIREWALL, "staged is not written"
    uci(bus, "commit")
    assert text(bus) == FIREWALL_WRITTEN
    assert (bus.config_dir / "test").stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in bus.config_dir.glob(".*")) == []


def test_a_session_of_writing_leaves_what_was_recorded(bus: Bus) -> None:
    added = uci(bus, "add", type="thing", name="one", values={"a": "1", "l": ["x", "y"]})
    assert added == {"section": "one"}
    changes = [
        ["set", "one", "thing"],
        ["set", "one", "a", "1"],
        ["list-add", "one", "l", "x"],
        ["list-add", "one", "l", "y"],
    ]
    assert uci(bus, "changes") == {"changes": changes}
    assert bus.call("uci", "changes") == [{"changes": {"test": changes}}]
    uci(bus, "commit")
    assert text(bus) == "\nconfig thing 'one'\n\toption a '1'\n\tlist l 'x'\n\tlist l 'y'\n\n"
    assert uci(bus, "changes") == {"changes": []}
    uci(bus, "set", section="one", values={"a": "2"})
    uci(bus, "delete", section="one", option="l")
    uci(bus, "commit")
    assert text(bus) == "\nconfig thing 'one'\n\toption a '2'\n\n"


@pytest.mark.parametrize("value", ["it's", "two\nlines", " #;", "tab\there", '"\\', "é"])
def test_any_text_survives_staging_and_writing(bus: Bus, value: str) -> None:
    uci(bus, "add", type="thing", name="one", values={"a": value, "l": [value, "x"]})
    assert values(bus, "one") == {"a": value, "l": [value, "x"]}
    uci(bus, "commit")
    assert values(bus, "one") == {"a": value, "l": [value, "x"]}


def test_a_control_character_is_lost_without_a_word(bus: Bus) -> None:
    uci(bus, "add", type="thing", name="one", values={"a": "\x01", "b": "2"})
    assert values(bus, "one") == {"b": "2"}


def test_values_are_stored_as_text_and_an_empty_one_deletes(bus: Bus) -> None:
    write(bus, "config t 'n'\n\toption a 'x'\n\tlist l '1'\n")
    uci(bus, "set", section="n", values={"a": "", "b": True, "c": -1, "d": 5, "l": "one", "e": ""})
    assert values(bus, "n") == {"b": "1", "c": "4294967295", "d": "5", "l": "one"}
    assert status_of(bus, "uci", "set", {**at("n"), "values": {"f": 1.5}}) == 2
    assert status_of(bus, "uci", "set", {**at("n"), "values": {"l": []}}) == 2


def at(name: str) -> dict[str, Any]:
    return {"config": "test", "section": name}


def test_setting_what_is_so_already_stages_nothing(bus: Bus) -> None:
    write(bus, "config t 'n'\n\toption a 'x'\n")
    uci(bus, "set", section="n", values={"a": "x"})
    assert uci(bus, "changes") == {"changes": []}


def test_sections_are_added_renamed_ordered_and_deleted(bus: Bus) -> None:
    write(bus, "config t 'a'\n\toption o '1'\nconfig t 'b'\nconfig u 'c'\n")
    anonymous = uci(bus, "add", type="t")["section"]
    assert anonymous.startswith("cfg04")
    uci(bus, "rename", section="a", name="first")
    uci(bus, "rename", section="first", option="o", name="p")
    uci(bus, "order", sections=["c", "first"])
    uci(bus, "delete", section="@t[1]")
    uci(bus, "commit")
    assert text(bus) == "\nconfig u 'c'\n\nconfig t 'first'\n\toption p '1'\n\nconfig t\n\n"
    uci(bus, "delete", type="t")
    uci(bus, "commit")
    assert text(bus) == "\nconfig u 'c'\n\n"


@pytest.mark.parametrize(
    ("method", "arguments", "status"),
    [
        ("get", {"config": "nosuch"}, Status.NOT_FOUND),
        ("get", {"config": ""}, Status.INVALID_ARGUMENT),
        ("get", {}, Status.INVALID_ARGUMENT),
        ("get", {"config": 5}, Status.INVALID_ARGUMENT),
        ("set", {"config": "nosuch", "section": "n", "values": {"a": "1"}}, Status.NOT_FOUND),
        ("set", {**at("nosuch"), "values": {"a": "1"}}, Status.NOT_FOUND),
        ("set", {**at("bad-name"), "values": {"a": "1"}}, Status.INVALID_ARGUMENT),
        ("set", {**at("n"), "values": {"bad-name": "1"}}, Status.INVALID_ARGUMENT),
        ("set", {"config": "test", "values": {"a": "1"}}, Status.INVALID_ARGUMENT),
        ("add", {"config": "test", "type": "bad type"}, Status.INVALID_ARGUMENT),
        ("add", {"config": "test", "type": "t", "name": "bad-name"}, Status.INVALID_ARGUMENT),
        ("delete", at("nosuch"), Status.NOT_FOUND),
        ("delete", {**at("n"), "option": "nosuch"}, Status.NOT_FOUND),
        ("order", {"config": "test", "sections": ["nosuch"]}, Status.NOT_FOUND),
        ("rename", {**at("n"), "name": "bad-name"}, Status.INVALID_ARGUMENT),
        ("commit", {"config": "nosuch"}, Status.NOT_FOUND),
        ("apply", {}, Status.INVALID_ARGUMENT),
        ("confirm", {}, Status.INVALID_ARGUMENT),
        ("rollback", {}, Status.NO_DATA),
        ("nosuch", {}, Status.METHOD_NOT_FOUND),
    ],
)
def test_what_rpcd_refuses(
    bus: Bus, method: str, arguments: dict[str, Any], status: Status
) -> None:
    write(bus, "config t 'n'\n\toption a 'x'\n")
    assert status_of(bus, "uci", method, arguments) == status


def test_a_section_or_option_that_is_missing_is_an_answer_without_data(bus: Bus) -> None:
    write(bus, "config t 'n'\n\toption a 'x'\n")
    assert uci(bus, "get", section="nosuch") is None
    assert uci(bus, "get", section="n", option="nosuch") is None
    assert uci(bus, "rename", section="nosuch", name="x") is None


@pytest.mark.parametrize(
    "bad",
    [
        "option a 'x'\n",
        "config\n",
        "config t 'n'\n\toption\n",
        "config t 'n'\n\toption a 'x' y\n",
        "config t 'n'\n\toption a 'unterminated\n",
        'config t "unterminated\n',
        "config t 'bad-name'\n",
        "config t 'n'\n\toption bad-name x\n",
        "config t 'n'\nnonsense\n",
        "config t 'n'\nconfig u 'n'\n",
    ],
)
def test_a_file_with_any_error_is_refused_whole_and_kept(bus: Bus, bad: str) -> None:
    write(bus, bad)
    for method in ("get", "commit", "changes", "revert"):
        assert status_of(bus, "uci", method, {"config": "test"}) == Status.UNKNOWN_ERROR
    changed = {**at("n"), "values": {"a": "1"}}
    assert status_of(bus, "uci", "set", changed) == Status.UNKNOWN_ERROR
    assert text(bus) == bad
    assert "test" in bus.call("uci", "configs")[0]["configs"]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("option a x#y", "x"),
        ("option a 'x#y' # z", "x#y"),
        ("option a x\\\n  y", None),
        ("option a x\\\ny", "xy"),
        ("option a 'x\n y'", "x\n y"),
        ("option a 'x'y\"z\"", "xyz"),
        ('option a "x\\"y"', 'x"y'),
        ("option a 'x';option b y", "x"),
        ("option a x;option b y", "x"),
        ("o a x", "x"),
        ("option a ''", None),
        ("package other", None),
    ],
)
def test_the_finer_points_of_the_file_format(bus: Bus, line: str, value: str | None) -> None:
    write(bus, f"config t 'n'\n\t{line}\n")
    refused = line == "option a x\\\n  y"
    if refused:
        assert status_of(bus, "uci", "get", {"config": "test"}) == Status.UNKNOWN_ERROR
    else:
        assert values(bus, "n").get("a") == value


def test_what_others_staged_is_seen_and_committed_along(bus: Bus) -> None:
    write(bus, "config t 'n'\n\toption a 'x'\n")
    staged = "test.n.a='owner'\n+test.cfg02bd4c='t'\n|test.n.l='it'\\''s'\n-test.n.z\nnonsense\n"
    (bus.save_dir / "test").write_text(staged)
    assert uci(bus, "changes")["changes"] == [
        ["set", "n", "a", "owner"],
        ["add", "cfg02bd4c", "t"],
        ["list-add", "n", "l", "it's"],
        ["remove", "n", "z"],
    ]
    uci(bus, "set", section="n", values={"b": "mine"})
    uci(bus, "commit")
    wanted = "\toption a 'owner'\n\tlist l 'it'\\''s'\n\toption b 'mine'\n"
    assert text(bus) == f"\nconfig t 'n'\n{wanted}\nconfig t\n\n"
    assert (bus.save_dir / "test").read_text() == ""


def test_revert_forgets_what_is_staged_unless_a_line_cannot_be_read(bus: Bus) -> None:
    write(bus, "config t 'n'\n")
    uci(bus, "set", section="n", values={"a": "1"})
    uci(bus, "revert")
    assert uci(bus, "changes") == {"changes": []}
    (bus.save_dir / "test").write_text("test.n.a='1'\nnonsense\n")
    uci(bus, "revert")
    assert uci(bus, "changes") == {"changes": [["set", "n", "a", "1"]]}


def test_every_commit_raises_config_change(bus: Bus) -> None:
    before = len(bus.service_events())
    uci(bus, "commit")
    write(bus, "config t 'n'\n")
    uci(bus, "set", section="n", values={"a": "1"})
    assert len(bus.service_events()) == before + 1
    uci(bus, "commit")
    event = {"type": "config.change", "data": {"package": "test"}}
    assert bus.service_events()[before:] == [event, event]


# Sessions


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bus]:
    """A bus where root has a password, and may read and write `test` (but only read `other`)."""
    with running(tmp_path_factory.mktemp("guarded"), users={"root": "secret"}) as bus:
        rights = {"read": {"uci": ["test", "other"], "ubus": {"x*": ["y"]}}}
        group = {"group": {**rights, "write": {"uci": ["test"]}}}
        (bus.rpcd_acl_dir / "test.json").write_text(json.dumps(group))
        yield bus


def login(bus: Bus, **more: Any) -> str:
    arguments = {"username": "root", "password": "secret", **more}
    return str(bus.call("session", "login", arguments)[0]["ubus_rpc_session"])


def test_login_needs_the_password(guarded: Bus) -> None:
    for wrong in ({"password": "wrong"}, {"username": "nobody"}, {"password": ""}):
        with pytest.raises(CallFailed, match="Permission denied"):
            login(guarded, **wrong)
    assert status_of(guarded, "session", "login", {"username": "root"}) == 2
    asked = {"username": "root", "password": "secret"}
    (answer,) = guarded.call("session", "login", asked)
    assert len(answer.pop("ubus_rpc_session")) == 32
    assert answer.pop("expires") in (299, 300), "whole seconds, rounded down"
    assert answer == {
        "timeout": 300,
        "acls": {
            "access-group": {"group": ["read", "write"], "unauthenticated": ["read"]},
            "ubus": {"session": ["access", "login"], "x*": ["y"]},
            "uci": {"other": ["read"], "test": ["read", "write"]},
        },
        "data": {"username": "root"},
    }


def test_a_root_without_password_lets_anybody_in(bus: Bus) -> None:
    answer = bus.call("session", "login", {"username": "root", "password": "anything"})
    assert answer[0]["data"] == {"username": "root"}


def may(bus: Bus, session: str, item: str, function: str, **more: str) -> bool:
    asked = {"ubus_rpc_session": session, "object": item, "function": function, **more}
    return bool(bus.call("session", "access", asked)[0]["access"])


def test_access_follows_grants_until_the_session_is_destroyed(guarded: Bus) -> None:
    session = login(guarded)
    sid = {"ubus_rpc_session": session}
    assert may(guarded, session, "xyz", "y")
    assert not may(guarded, session, "xyz", "z")
    assert not may(guarded, session, "a", "b")
    guarded.call("session", "grant", {**sid, "objects": [["a", "*"], ["broken"]]})
    assert may(guarded, session, "a", "b")
    guarded.call("session", "revoke", {**sid, "objects": [["a", "*"]]})
    assert not may(guarded, session, "a", "b")
    assert may(guarded, session, "test", "write", scope="uci")
    guarded.call("session", "destroy", sid)
    for method in ("access", "destroy", "grant", "get"):
        assert status_of(guarded, "session", method, sid) == Status.NOT_FOUND
    nobody = {"ubus_rpc_session": "0" * 32}
    assert status_of(guarded, "session", "destroy", nobody) == Status.PERMISSION_DENIED
    assert status_of(guarded, "session", "access", {}) == Status.INVALID_ARGUMENT


def test_sessions_keep_data_and_end_when_unused(guarded: Bus) -> None:
    (made,) = guarded.call("session", "create", {"timeout": 1})
    sid = {"ubus_rpc_session": made["ubus_rpc_session"]}
    assert made == {**sid, "timeout": 1, "expires": made["expires"], "acls": {}, "data": {}}
    guarded.call("session", "set", {**sid, "values": {"b": [1], "a": "x"}})
    assert guarded.call("session", "get", sid) == [{"values": {"a": "x", "b": [1]}}]
    guarded.call("session", "unset", {**sid, "keys": ["b"]})
    assert guarded.call("session", "list", sid)[0]["data"] == {"a": "x"}
    end = time.monotonic() + 5
    while guarded.call("session", "list")[1:] and time.monotonic() < end:
        if made["ubus_rpc_session"] not in idents(guarded):
            break
        time.sleep(0.05)
    assert made["ubus_rpc_session"] not in idents(guarded)


def idents(bus: Bus) -> list[str]:
    return [session["ubus_rpc_session"] for session in bus.call("session", "list")]


# Apply


@pytest.fixture
def session(guarded: Bus) -> Iterator[str]:
    """Of a user who has staged `a` = `new` in `test`."""
    write(guarded, "config t 'n'\n\toption a 'old'\n")
    (guarded.config_dir / "other").write_text("config t 'n'\n")
    found = login(guarded)
    uci(guarded, "set", section="n", values={"a": "new"}, ubus_rpc_session=found)
    yield found
    status_of(guarded, "uci", "rollback", {"ubus_rpc_session": found})
    guarded.call("session", "destroy", {"ubus_rpc_session": found})


def test_a_session_stages_apart_and_within_its_rights(guarded: Bus, session: str) -> None:
    assert values(guarded, "n") == {"a": "old"}
    assert uci(guarded, "get", section="n", option="a", ubus_rpc_session=session) == {
        "value": "new"
    }
    changed = {"config": "other", "section": "n", "values": {"a": "1"}}
    mine = {"ubus_rpc_session": session}
    assert status_of(guarded, "uci", "set", {**changed, **mine}) == Status.PERMISSION_DENIED
    assert status_of(guarded, "uci", "get", {"config": "rpcd", **mine}) == Status.PERMISSION_DENIED
    unknown = {"config": "test", "ubus_rpc_session": "1" * 32}
    assert status_of(guarded, "uci", "get", unknown) == Status.PERMISSION_DENIED


def test_nobody_commits_while_an_apply_waits_for_confirmation(guarded: Bus, session: str) -> None:
    mine = {"ubus_rpc_session": session}
    guarded.call("uci", "apply", {"rollback": True, "timeout": 30, **mine})
    assert values(guarded, "n") == {"a": "new"}
    uci(guarded, "set", section="n", values={"b": "wish"})
    for method in ("commit", "revert"):
        asked = {"config": "test"}
        assert status_of(guarded, "uci", method, asked) == Status.PERMISSION_DENIED
    again = {"rollback": True, **mine}
    assert status_of(guarded, "uci", "apply", again) == Status.PERMISSION_DENIED
    other = {"ubus_rpc_session": "1" * 32}
    assert status_of(guarded, "uci", "confirm", other) == Status.PERMISSION_DENIED
    assert login(guarded) == session, "the same user is given the waiting session back"
    guarded.call("uci", "confirm", mine)
    assert status_of(guarded, "uci", "confirm", mine) == Status.NO_DATA
    uci(guarded, "commit")
    assert values(guarded, "n") == {"a": "new", "b": "wish"}


def test_a_rollback_restores_file_and_staged_changes(guarded: Bus, session: str) -> None:
    mine = {"ubus_rpc_session": session}
    guarded.call("uci", "apply", {"rollback": True, "timeout": 30, **mine})
    before = len(guarded.service_events())
    guarded.call("uci", "rollback", mine)
    assert text(guarded) == "config t 'n'\n\toption a 'old'\n"
    changes = uci(guarded, "changes", ubus_rpc_session=session)
    assert changes == {"changes": [["set", "n", "a", "new"]]}
    event = {"type": "config.change", "data": {"package": "test"}}
    assert guarded.service_events()[before:] == [event]


def test_an_apply_without_confirmation_rolls_itself_back(guarded: Bus, session: str) -> None:
    mine = {"ubus_rpc_session": session}
    guarded.call("uci", "apply", {"rollback": True, "timeout": 1, **mine})
    assert values(guarded, "n") == {"a": "new"}
    end = time.monotonic() + 5
    while values(guarded, "n") == {"a": "new"} and time.monotonic() < end:
        time.sleep(0.02)
    assert values(guarded, "n") == {"a": "old"}
    uci(guarded, "commit")


def test_an_apply_needs_something_staged(guarded: Bus) -> None:
    mine = {"ubus_rpc_session": login(guarded)}
    assert status_of(guarded, "uci", "apply", {"rollback": True, **mine}) == Status.NO_DATA
    guarded.call("session", "destroy", mine)


def test_a_plain_apply_is_final(guarded: Bus, session: str) -> None:
    guarded.call("uci", "apply", {"ubus_rpc_session": session})
    assert values(guarded, "n") == {"a": "new"}
    uci(guarded, "commit")


def test_the_programs_leave_nothing_behind_but_their_directory(tmp_path: Path) -> None:
    with running(tmp_path) as bus:
        assert bus.call("uci", "configs") == [{"configs": ["rpcd"]}]
    assert not [path for path in bus.run_dir.iterdir() if path.name.startswith("uci-")]
