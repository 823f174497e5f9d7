# SPDX-License-Identifier: GPL-2.0-or-later
"""Every method of both ubus objects, with random arguments: no crash, no unspecific error, no
secret in an answer, and nothing changed by what was refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from router.appliance import Appliance
from router.standin.bus import CallFailed
from router.standin.wire import Status

from portcullis import api, settings
from portcullis.core import Core
from portcullis.door import Door
from portcullis.logs import LastLines

PASSWORD = "open sesame"
NO_SUCH_CALL = (Status.INVALID_ARGUMENT, Status.METHOD_NOT_FOUND)
GIVES_A_KEY = {"certificate"}  # the web process ends TLS
OF_NO_ARGUMENTS_BUT_EFFECT = {"disconnect", "selftest"}


class Binding:
    BLOBMSG_TYPE_STRING = 3


LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")  # what ubus can carry


def methods() -> dict[tuple[str, str], tuple[str, ...]]:
    """(object, method) → its arguments, all of them text."""
    objects = api.objects(cast(Core, None), Door(cast(Core, None)), LastLines(), Binding)
    return {
        (name, method): tuple(described["signature"])
        for name, found in objects.items()
        for method, described in found.items()
    }


METHODS = methods()


@dataclass
class House:
    """A running router, who may look, who may change, and what no answer may hold."""

    appliance: Appliance
    reader: str
    owner: str
    secrets: tuple[str, ...]

    def call(self, where: tuple[str, str], arguments: dict[str, Any]) -> dict[str, Any] | None:
        """The answer, or None where there is no such method with such arguments."""
        try:
            (answer,) = self.appliance.bus.call(*where, arguments)
        except CallFailed as failed:
            assert failed.status in NO_SUCH_CALL, failed
            return None
        text = json.dumps(answer)
        assert not [secret for secret in self.secrets if secret in text]
        if not answer["ok"]:
            assert re.fullmatch(r"[a-z_]+", answer["code"]) and answer["code"] != "internal", answer
            assert 10 < len(answer["reason"]) < 1000, answer
        return dict(answer)

    def condition(self) -> tuple[Any, ...]:
        """What a refused call must leave as it is."""
        status = self.appliance.status()
        kept = ("state", "intent", "profile", "lan_access", "kill_switch", "faults")
        files = sorted(
            (str(path), path.read_bytes())
            for path in (self.appliance.home, self.appliance.bus.config_dir)
            for path in path.rglob("*")
            if path.is_file()
        )
        known = self.appliance.call("devices")["devices"]  # one may be seen for the first time
        devices = [(d["mac"], d["access"]) for d in known if d["access"] != "default"]
        return {k: status[k] for k in kept}, self.appliance.call("get"), files, devices


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with Appliance(users={"root": PASSWORD, "guest": "guest"}) as found:
        config = found.bus.config_dir / "rpcd"
        more = "\nconfig login\n\toption username 'guest'\n\toption password '$p$guest'\n"
        config.write_text(config.read_text() + more + "\tlist read 'portcullis'\n")
        found.start()

        def session(name: str, password: str) -> str:
            who = {"username": name, "password": password, "timeout": 3600}
            return str(found.bus.call("session", "login", who)[0]["ubus_rpc_session"])

        keys = re.findall(r"(?m)^(?:Private|Preshared)Key = (\S+)", found.world.vpn1.profile())
        yield House(found, session("guest", "guest"), session("root", PASSWORD), tuple(keys))
        assert found.daemon and found.daemon.poll() is None
        log = found.log.read_text()
        assert "Traceback" not in log
        assert not [key for key in keys if key in log]


def words(house: House) -> st.SearchStrategy[str]:
    """Texts as somebody might send them, good and bad ones, and what lies between."""
    profile = house.appliance.world.vpn1.profile()
    near = st.sampled_from(
        [
            *("", " ", "vpn1", "vpn2", "VPN1", "vpn1.conf", "../vpn1", "/etc/shadow", "a" * 64),
            *settings.Settings._fields,
            *("kill_switch", "enabled", "0", "1", "off", "standard", "at_all_times", "default"),
            *("allowed", "denied", "02:00:5e:00:53:10", "02:00:5E:00:53:10:11", "ff" * 6),
            *("9.9.9.9", "fe80::1", "::", "1.1.1.1 1.1.1.1", "65535", "99999999999", "-1"),
            *("<script>alert(1)</script>", "'; reboot #", "$(reboot)", "%s%n", "\u202egpj"),
            *("x" * 5000, "\n", "\r\n", "\x1b[2J", "ÿ", "\U0001f512", house.reader, "0" * 32),
            *(house.secrets[0], f"vpn1 {house.secrets[0]}"),
        ]
    )
    ends, more = st.integers(0, len(profile)), st.text(LETTERS, max_size=20)
    cut = st.tuples(ends, st.integers(0, 40), more).map(
        lambda c: profile[: c[0]] + c[2] + profile[c[0] + c[1] :]
    )
    return st.one_of(near, cut, st.text(LETTERS, max_size=200))


quick = effort(
    max_examples=400,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def test_all_methods_of_both_objects_are_tried() -> None:
    assert {name for name, _ in METHODS} == {"portcullis", "portcullis.web"}
    assert len(METHODS) > 30


@given(where=st.sampled_from(sorted(METHODS)), data=st.data())
@quick
def test_arguments_of_the_right_names_with_random_texts(
    house: House, where: tuple[str, str], data: st.DataObject
) -> None:
    """As root's tools, as nobody, as a reader and as the owner send them."""
    assume(METHODS[where] or where[1] not in OF_NO_ARGUMENTS_BUT_EFFECT)
    text = words(house)
    arguments = {name: data.draw(text, label=name) for name in METHODS[where]}
    who = ""
    if "session" in arguments:
        who = data.draw(st.sampled_from([house.reader, house.owner, "f" * 32, ""]), label="who")
        arguments["session"] = who
    assume(set(METHODS[where]) != {"session"} or where[1] not in OF_NO_ARGUMENTS_BUT_EFFECT)
    before = house.condition()
    answer = house.call(where, arguments)
    assert answer is not None, "these are its arguments"
    if where[0] == "portcullis.web" and who not in (house.reader, house.owner):
        open_to_all = where[1] in ("why", "listen", *GIVES_A_KEY)
        assert answer["ok"] is open_to_all or answer.get("code") == "no_certificate"
        assert house.condition() == before
    elif not answer["ok"] or who == house.reader:
        assert house.condition() == before
    if house.appliance.status()["intent"] == "connected":  # connect with "" or with a good name
        assert where[1] == "connect"
        house.appliance.disconnect()
    if where[1] == "set" and answer["ok"]:
        for option in settings.Settings._fields:
            value = settings.uci_value(settings.DEFAULT, option)
            house.appliance.call(
                "set", name=option, value=value if isinstance(value, str) else " ".join(value)
            )


VALUE = st.one_of(
    st.text(LETTERS, max_size=40),
    st.integers(-(2**31), 2**31 - 1),
    st.booleans(),
    st.lists(st.text(LETTERS, max_size=5), max_size=3),
    st.dictionaries(st.text(LETTERS, max_size=5), st.booleans()),
)
NAMES = sorted({name for names in METHODS.values() for name in names} | {"x", "ubus_rpc_session"})


@given(
    where=st.sampled_from(sorted(METHODS)),
    arguments=st.dictionaries(st.sampled_from(NAMES), VALUE, max_size=4),
)
@quick
def test_arguments_of_other_names_and_types_are_refused_as_such(
    house: House, where: tuple[str, str], arguments: dict[str, Any]
) -> None:
    fitting = set(arguments) == set(METHODS[where])
    assume(not (fitting and all(isinstance(value, str) for value in arguments.values())))
    before = house.condition()
    assert house.call(where, arguments) is None
    assert house.condition() == before
