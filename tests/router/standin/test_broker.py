# SPDX-License-Identifier: GPL-2.0-or-later
"""The broker and the bytes it speaks; with PORTCULLIS_REAL_UBUS=1 the real ubusd."""

import json
import random
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from . import probe, wire
from .bus import Bus, CallFailed
from .context import Call, Context
from .probe import PRELUDE, context, open_directory, program
from .wire import Attr, Kind, Status

bus = probe.bus
shared_bus = probe.shared_bus


# The wire


def test_values_are_encoded_byte_for_byte_as_libubox_does() -> None:
    recorded = (
        "8300000d000173006974c3a9000000008500000c00016900fffffffe840000140003626967000000000000012a"
        "05f2008700000900017400010000008000000800016e0088000010000164003fe00000000000008100002800016c"
        "008500000c00000000000000018300000a000000007800000082000008000000008200001800016f008200001000"
        "016b008100000800017a00830000110003737572000000efbfbd78000000008300000e00036e756c00000061"
        "000000"
    )
    values = {
        "s": "it\u00e9",
        "i": -2,
        "big": 5000000000,
        "t": True,
        "n": None,
        "d": 0.5,
        "l": [1, "x", {}],
        "o": {"k": {"z": []}},
        "sur": "\ufffdx",
        "nul": "a\0b",
    }
    assert wire.encode(values).hex() == recorded
    assert wire.decode(wire.encode(values)) == {**values, "nul": "a"}


def test_values_of_every_width_survive_encoding() -> None:
    values = {"a": wire.Int16(-3), "b": wire.Int64(5), "c": 2**70, "d": -(2**70), "e": 1.25}
    clamped = {**values, "c": 2**63 - 1, "d": -(2**63)}
    assert wire.decode(wire.encode(values)) == clamped


# The broker


def greet(bus: Bus) -> socket.socket:
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    raw.settimeout(5)
    raw.connect(str(bus.socket))
    greeting = raw.recv(12, socket.MSG_WAITALL)
    assert greeting[:4] == bytes(4)
    assert struct.unpack(">I", greeting[8:]) == (4,)
    return raw


def answer(raw: socket.socket) -> tuple[int, dict[int, bytes]]:
    header = wire.unpack_header(raw.recv(12, socket.MSG_WAITALL))
    body = raw.recv(header.body_size, socket.MSG_WAITALL) if header.body_size else b""
    return header.kind, wire.parse(body)


def ask(bus: Bus, kind: int, body: bytes = b"") -> int:
    with greet(bus) as raw:
        raw.sendall(wire.Message(kind, 7, 9, body).pack())
        kind, attrs = answer(raw)
        assert kind == Kind.STATUS
        return wire.u32(attrs[Attr.STATUS])


def ident(number: int) -> bytes:
    return wire.attr_u32(Attr.OBJID, number)


def method(name: bytes) -> bytes:
    return wire.attr_string(Attr.METHOD, name)


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        (99, b"", Status.INVALID_COMMAND),
        (Kind.HELLO, b"", Status.INVALID_COMMAND),
        (Kind.MONITOR, b"", Status.INVALID_COMMAND),
        (Kind.INVOKE, b"", Status.INVALID_ARGUMENT),
        (Kind.INVOKE, ident(5000), Status.INVALID_ARGUMENT),
        (Kind.INVOKE, ident(5000) + method(b"x"), Status.NOT_FOUND),
        (Kind.INVOKE, ident(1) + method(b"x"), Status.INVALID_COMMAND),
        (Kind.INVOKE, ident(1) + method(b"register"), Status.INVALID_ARGUMENT),
        (Kind.INVOKE, wire.attr(Attr.OBJID, b"12") + method(b"x"), Status.INVALID_ARGUMENT),
        (Kind.INVOKE, ident(5000) + wire.attr(Attr.METHOD, b"x"), Status.INVALID_ARGUMENT),
        (Kind.LOOKUP, wire.attr_string(Attr.OBJPATH, b"nosuch"), Status.NOT_FOUND),
        (Kind.LOOKUP, wire.attr_string(Attr.OBJPATH, b""), Status.INVALID_ARGUMENT),
        (Kind.REMOVE_OBJECT, b"", Status.INVALID_ARGUMENT),
        (Kind.REMOVE_OBJECT, ident(5000), Status.NOT_FOUND),
        (Kind.SUBSCRIBE, ident(5000), Status.INVALID_ARGUMENT),
        (Kind.NOTIFY, ident(5000) + method(b"x"), Status.NOT_FOUND),
    ],
)
def test_a_request_the_broker_cannot_serve_gets_its_status(
    bus: Bus, kind: int, body: bytes, status: int
) -> None:
    assert ask(bus, kind, body) == status


@pytest.mark.parametrize(
    "length", [0, 3, (1 << 20) + 4, 0xFFFFFF], ids=["none", "short", "long", "longest"]
)
def test_a_message_of_impossible_length_ends_the_connection(bus: Bus, length: int) -> None:
    with greet(bus) as raw:
        raw.sendall(struct.pack(">BBHII", 0, Kind.PING, 1, 0, length))
        assert raw.recv(1) == b""


def test_malformed_packets_leave_the_broker_serving(bus: Bus) -> None:
    chance = random.Random(1)
    for _ in range(300):
        body = chance.randbytes(chance.randrange(64))
        if chance.random() < 0.5:
            body = wire.attr(chance.randrange(16), body) + chance.randbytes(chance.randrange(9))
        kind = chance.choice([*Kind, 77])
        packet = wire.Message(kind, chance.randrange(1 << 16), chance.randrange(1 << 32), body)
        with greet(bus) as raw, suppress(OSError):
            raw.sendall(packet.pack()[: chance.randrange(1, 200)])
    assert ask(bus, Kind.INVOKE) == Status.INVALID_ARGUMENT
    assert bus.call("uci", "configs")


def test_a_bad_signature_makes_an_object_nobody_can_find(bus: Bus) -> None:
    bad = wire.attr(Attr.SIGNATURE, wire.attr(wire.Type.TABLE, b"no name"))
    with greet(bus) as raw:
        path = wire.attr_string(Attr.OBJPATH, b"test.bad")
        raw.sendall(wire.Message(Kind.ADD_OBJECT, 1, 0, path + bad).pack())
        assert answer(raw)[0] == Kind.DATA
        looked_up = context(bus)
        assert looked_up.lookup_ident("test.bad") == (Status.OK, 0)
        looked_up.close()


def test_a_caller_hears_nothing_when_the_callee_vanishes(bus: Bus) -> None:
    code = 'ubus.add("test.dies", {"m": {"signature": {}, "method": lambda *_: os._exit(0)}})\n'
    with program(bus, code + 'out("ready"); ubus.loop(-1)'):
        started = time.monotonic()
        with pytest.raises(CallFailed, match="Request timed out"):
            bus.call("test.dies", "m", timeout=300)
        assert time.monotonic() - started >= 0.29


def test_objects_come_and_go_with_an_event_each(bus: Bus) -> None:
    seen: list[tuple[str, Any]] = []
    listener = context(bus)
    listener.listen("ubus.object.*", partial(note, seen))
    client = context(bus)
    _, number = client.add_object("test.event", {}, {})
    assert client.add_object("test.event", {}, {})[0] == Status.INVALID_ARGUMENT
    client.close()
    wait(listener, lambda: len(seen) == 2)
    signed = number - (1 << 32) if number >> 31 else number
    told = {"id": signed, "path": "test.event"}
    assert seen == [("ubus.object.add", told), ("ubus.object.remove", told)]
    listener.close()


def note(seen: list[tuple[str, Any]], call: Call, data: bytes) -> int:
    seen.append((call.method, wire.decode(data)))
    return Status.OK


def wait(client: Context, done: Any) -> None:
    end = time.monotonic() + 5
    while not done():
        assert time.monotonic() < end
        client.handle_data()
        time.sleep(0.001)


def test_events_reach_each_listener_once_by_exact_name_or_prefix(bus: Bus) -> None:
    seen: dict[str, list[tuple[str, Any]]] = {"a.b": [], "a.*": [], "*": [], "a": [], "b.*": []}
    listener = context(bus)
    for pattern, found in seen.items():
        listener.listen(pattern, partial(note, found))
    twice = seen["a.*"]
    _, number = listener.listen("a.b.c*", partial(note, twice))
    for event in ("a.b", "a.bc", "b.", "stop"):
        bus.send(event, {"from": event})
    wait(listener, lambda: ("stop", {"from": "stop"}) in seen["*"])
    names = {pattern: [name for name, _ in found] for pattern, found in seen.items()}
    assert names.pop("*")[-4:] == ["a.b", "a.bc", "b.", "stop"]
    assert names == {"a.b": ["a.b"], "a.*": ["a.b", "a.bc"], "a": [], "b.*": ["b."]}
    with pytest.raises(CallFailed, match="Permission denied"):
        bus.send("ubus.fake", {})
    assert status_of_register(listener, number, "") == Status.PERMISSION_DENIED
    assert status_of_register(listener, 12345678, "x") == Status.NOT_FOUND
    listener.close()


def status_of_register(client: Context, number: int, pattern: str) -> int:
    signed = number - (1 << 32) if number >> 31 else number
    return client.invoke(1, "register", wire.encode({"object": signed, "pattern": pattern}))


def test_subscribers_hear_notifications(bus: Bus) -> None:
    seen: list[tuple[str, Any]] = []
    owner, subscriber = context(bus), context(bus)
    _, number = owner.add_object("test.notify", {}, {})
    _, mine = subscriber.add_object(None, {}, partial(note, seen))
    target = wire.attr_u32(Attr.OBJID, mine) + wire.attr_u32(Attr.TARGET, number)
    subscriber.send(wire.Message(Kind.SUBSCRIBE, 99, 0, target))
    assert subscriber.lookup_ident("test.notify") == (Status.OK, number)
    owner.notify(number, "changed", {"x": 1})
    wait(subscriber, lambda: seen)
    assert seen == [("changed", {"x": 1})]
    owner.close()
    subscriber.close()


def run_as_nobody(bus: Bus, code: str) -> list[Any]:
    text = PRELUDE.replace("{socket!r}", repr(str(bus.socket))) + code
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    command += [sys.executable, "-c"]
    harmless = subprocess.run([*command, "import ubus"], env=bus.environment(), capture_output=True)
    if harmless.returncode:
        pytest.skip("cannot run this Python as another user here")
    command.append(text)
    result = subprocess.run(command, env=bus.environment(), capture_output=True, text=True)
    assert not result.stderr
    return [json.loads(line)[0] for line in result.stdout.splitlines()]


def test_a_user_without_an_access_list_is_refused_everything(bus: Bus) -> None:
    code = """
out(attempt(ubus.call, "uci", "configs", {}, 2000))
out(attempt(ubus.add, "test.mine", {}))
out(attempt(ubus.send, "test.event", {}))
out(ubus.objects("uci"))
"""
    assert run_as_nobody(bus, code) == [
        ["RuntimeError", "ubus error occured: Not found"],
        ["RuntimeError", "ubus error occured: Invalid argument"],
        False,
        {},
    ]


def test_an_access_list_opens_what_it_names_and_no_more() -> None:
    with open_directory() as directory:
        bus = Bus(directory)
        access = {"session": {"methods": ["login", "list"]}, "uc*": {"methods": ["configs"]}}
        rights = {"user": "nobody", "access": access, "publish": ["test.*"], "send": ["test.sent"]}
        (bus.acl_dir / "web.json").write_text(json.dumps(rights))
        (bus.acl_dir / "ignored.json").write_text(json.dumps({**rights, "send": ["*"]}))
        (bus.acl_dir / "ignored.json").chmod(0o666)
        bus.start()
        code = """
out({name: sorted(methods) for name, methods in ubus.objects().items()})
out(attempt(ubus.call, "uci", "configs", {}, 2000))
out(attempt(ubus.call, "uci", "get", {"config": "rpcd"}, 2000))
out(attempt(ubus.add, "test.mine", {}))
out(attempt(ubus.add, "other", {}))
out([ubus.send(name, {}) for name in ("test.sent", "test.other")])
"""
        try:
            assert run_as_nobody(bus, code) == [
                {"session": ["list", "login"], "uci": ["configs"]},
                [{"configs": ["rpcd"]}],
                ["RuntimeError", "ubus error occured: Permission denied"],
                None,
                ["RuntimeError", "ubus error occured: Invalid argument"],
                [True, False],
            ]
        finally:
            bus.stop()
