# SPDX-License-Identifier: GPL-2.0-or-later
"""What the stand-in's module `ubus` promises; with PORTCULLIS_REAL_UBUS=1 python-ubus itself."""

import signal
import subprocess
import time
from typing import Any

import pytest
from router.standin import Bus, probe, wire
from router.standin.bus import CallFailed
from router.standin.probe import Program, context, program, run, status_of
from router.standin.wire import Status

bus = probe.bus
own_bus = probe.own_bus
shared_bus = probe.shared_bus
ECHO = """
def echo(request, message):
    request.reply({"got": message})
ubus.add("test", {"echo": {"signature": {"text": ubus.BLOBMSG_TYPE_STRING}, "method": echo}})
"""


def test_calls_fail_with_the_texts_of_python_ubus(bus: Bus) -> None:
    lines = run(
        bus,
        """
out(attempt(ubus.connect, SOCKET))
out(attempt(ubus.call, "nosuch", "m", {}, 2000))
out(attempt(ubus.call, "", "m", {}, 2000))
out(attempt(ubus.call, "uci", "nosuch", {}, 2000))
out(attempt(ubus.call, "uci", "get", {}, 2000))
out(attempt(ubus.call, "uci", "get", {"config": "nosuch"}, 2000))
out(attempt(ubus.call, "uci", "get", {"config": "x" * 1100000}, 2000))
out(attempt(ubus.call, "uci", "configs", {}, -1))
out(attempt(ubus.call, "uci", "configs", [], 2000))
out(attempt(ubus.call, "uci", "configs", {1: {2}}, 2000))
out(attempt(ubus.add, "uci", {}))
out(attempt(ubus.objects, ""))
out(attempt(ubus.listen))
out(attempt(ubus.listen, "x"))
out(attempt(ubus.listen, ("x", 1)))
ubus.disconnect()
out(attempt(ubus.disconnect))
out(attempt(ubus.call, "uci", "configs", {}))
out(attempt(ubus.connect, "/nonexistent"))
out(ubus.get_connected(), ubus.get_socket_path())
""",
    )
    error = "ubus error occured: "
    json_error = ["TypeError", "Failed to create json for ubus."]
    assert [line[0] for line in lines[:-1]] == [
        ["RuntimeError", "You are already connected to ubus."],
        ["RuntimeError", "Object 'nosuch' was not found."],
        ["RuntimeError", "Object '' was not found."],
        ["RuntimeError", error + "Method not found"],
        ["RuntimeError", error + "Invalid argument"],
        ["RuntimeError", error + "Not found"],
        ["RuntimeError", error + "Invalid argument"],
        ["TypeError", "timeout can't be lower than 0"],
        json_error,
        ["TypeError", "Object of type set is not JSON serializable"],
        ["RuntimeError", error + "Invalid argument"],
        ["RuntimeError", error + "Invalid argument"],
        ["TypeError", "You need to set at least one event."],
        ["TypeError", "Expected (event, callback) tuple"],
        ["TypeError", "Expected (event, callback) tuple"],
        ["RuntimeError", "You are not connected to ubus."],
        ["RuntimeError", "You are not connected to ubus."],
        ["OSError", "Failed to connect to the ubus socket '/nonexistent'\n"],
    ]
    assert lines[-1] == [False, None]


@pytest.mark.parametrize(
    "methods",
    [
        '{"m": {}}',
        '{"m": {"signature": {}, "method": 1}}',
        '{"m": {"signature": {"a": 9}, "method": print}}',
        '{"m": {"signature": {"a": "s"}, "method": print}}',
        '{"m": {"signature": {}, "method": print, "more": 1}}',
        "{1: {}}",
    ],
)
def test_ill_formed_methods_are_refused(bus: Bus, methods: str) -> None:
    (line,) = run(bus, f'out(attempt(ubus.add, "test.bad", {methods}))')
    assert line[0][0] == "TypeError"
    assert line[0][1].startswith("Incorrect method arguments!\nExpected:\n\t(<obj_name>")


SIGNATURE = """
def echo(request, message): request.reply(message)
types = {"s": 3, "i": 5, "b": 7, "d": 8, "l": 1, "t": 2, "any": 0}
ubus.add("test.types", {"m": {"signature": types, "method": echo}})
out("ready"); ubus.loop(-1)
"""
COMPLETE = {"s": "x", "i": 1, "b": True, "d": 0.5, "l": [1], "t": {"k": None}, "any": [2]}


def test_every_declared_argument_is_required_with_its_type_and_no_other(bus: Bus) -> None:
    with program(bus, SIGNATURE):

        def status(**changes: Any) -> int:
            asked = {**COMPLETE, **changes}
            return status_of(bus, "test.types", "m", {k: v for k, v in asked.items() if v != ()})

        assert bus.call("test.types", "m", COMPLETE) == [COMPLETE]
        assert {name: status(**{name: ()}) for name in COMPLETE} == dict.fromkeys(COMPLETE, 2)
        assert status(more=1) == Status.INVALID_ARGUMENT
        assert status(ubus_rpc_session="x") == Status.INVALID_ARGUMENT
        assert status(i=1 << 31) == Status.INVALID_ARGUMENT
        assert status(i=True) == Status.INVALID_ARGUMENT
        assert status(d=1) == Status.INVALID_ARGUMENT
        assert status(s=None) == Status.INVALID_ARGUMENT
        assert status(any=None) == Status.OK


def test_handlers_answer_as_often_as_they_reply_and_fail_as_unknown_error(bus: Bus) -> None:
    code = """
kept = []
def fails(request, message): raise ValueError("handler broke")
def silent(request, message): kept.append(request)
def twice(request, message): out(request.reply({"n": 1})); out(request.reply({"n": 2}))
def wrong(request, message): out(attempt(request.reply, [1])); out(attempt(kept[0].reply, {}))
names = (fails, silent, twice, wrong)
ubus.add("test.h", {f.__name__: {"signature": {}, "method": f} for f in names})
out("ready"); ubus.loop(-1)
"""
    with program(bus, code) as server:
        with pytest.raises(CallFailed, match="Unknown error"):
            bus.call("test.h", "fails")
        assert bus.call("test.h", "silent") == []
        assert bus.call("test.h", "twice") == [{"n": 1}, {"n": 2}]
        assert server.line() == server.line() == [True]
        assert bus.call("test.h", "wrong") == []
        assert server.line() == [["TypeError", "Failed to create json for ubus."]]
        lost = "Handler is not linked to a call response."
        assert server.line() == [["RuntimeError", lost]]
        with pytest.raises(CallFailed, match="Method not found"):
            bus.call("test.h", "nosuch")
        server.process.terminate()
        assert "ValueError: handler broke" in server.finish()[1]


def test_a_payload_that_does_not_fit_its_type_is_missing_from_the_message(bus: Bus) -> None:
    with program(bus, ECHO + 'out("ready"); ubus.loop(-1)'):
        client = context(bus)
        _, number = client.lookup_ident("test")
        answers: list[bytes] = []
        data = wire.field(b"text", wire.Type.STRING, b"no end")
        assert client.invoke(number, "echo", data, 2000, answers.append) == Status.OK
        assert wire.decode(answers[0]) == {"got": {}}
        client.close()


def test_what_is_not_sound_text_never_reaches_a_handler(bus: Bus) -> None:
    with program(bus, ECHO + 'out("ready"); ubus.loop(-1)'):
        for data in (
            wire.field(b"text", wire.Type.STRING, b"\xff\xfe\0"),
            wire.field(b"text", wire.Type.STRING, b"\xe9\0"),
        ):
            client = context(bus)
            _, number = client.lookup_ident("test")
            assert client.invoke(number, "echo", data, 2000) == Status.UNKNOWN_ERROR
            client.close()


def test_values_pass_through_json_and_blobmsg(bus: Bus) -> None:
    code = """
def echo(request, message): request.reply({"got": message["x"]})
ubus.add("test.values", {"m": {"signature": {"x": 0}, "method": echo}})
out("ready"); ubus.loop(-1)
"""
    with program(bus, code):
        calls = """
for value in (1/3, 1e-9, 2**70, -2**70, "a\\0b", "\\ud800x", "\\u00e9\\n\\x01", None, True, [{}]):
    out(attempt(ubus.call, "test.values", "m", {"x": value}, 2000))
deep = {}
for _ in range(30): deep = {"a": deep}
out(len(attempt(ubus.call, "test.values", "m", {"x": deep}, 2000)))
out(attempt(ubus.call, "test.values", "m", {"x": {"a": deep}}, 2000))
out(attempt(ubus.call, "test.values", "m", {"x": float("inf")}, 2000))
"""
        lines = [line[0] for line in run(bus, calls)]
    values = [line[0]["got"] for line in lines[:10]]
    assert values[:4] == [0.333333, 0.0, 2**63 - 1, -(2**63)]
    assert values[4:] == ["a", "\ufffdx", "\u00e9\n\x01", None, True, [{}]]
    # A reply one level deeper than the call is one too many, so that call stays without an answer.
    assert lines[10] in (1, 2)
    assert lines[11:] == [
        ["TypeError", "Failed to create json for ubus."],
        ["RuntimeError", "ubus error occured: Unknown error"],
    ]


def test_calling_ones_own_object_times_out(bus: Bus) -> None:
    lines = run(
        bus,
        ECHO
        + """
start = time.monotonic()
out(attempt(ubus.call, "test", "echo", {"text": "x"}, 300))
out(0.29 < time.monotonic() - start < 2)
""",
    )
    assert lines == [[["RuntimeError", "ubus error occured: Request timed out"]], [True]]


def test_own_events_are_not_delivered_to_oneself(bus: Bus) -> None:
    code = """
seen = []
ubus.listen(("test.*", lambda event, data: seen.append([event, data])))
out(ubus.send("test.own", {}))
out("ready"); sys.stdin.readline(); ubus.loop(0); out(seen)
"""
    started = Program(bus, code)
    assert started.line() == [True]
    assert started.line() == ["ready"]
    bus.send("test.other", {"x": [1]})
    started.go_on()
    assert started.finish() == ([[[["test.other", {"x": [1]}]]]], "")


def test_a_callback_that_raises_is_reported_and_forgotten(bus: Bus) -> None:
    code = """
def fails(event, data): raise KeyError("in callback")
ubus.listen(("test.*", fails))
out("ready"); sys.stdin.readline(); ubus.loop(0); out("alive")
"""
    with program(bus, code) as listener:
        bus.send("test.x", {})
        listener.go_on()
        lines, errors = listener.finish()
    assert lines == [["alive"]]
    assert "KeyError: 'in callback'" in errors


def test_requests_that_arrive_during_a_call_wait_for_the_loop(bus: Bus) -> None:
    """They are read off the socket meanwhile, so the descriptor is silent when the call is over."""
    slow = """
ubus.add("test.slow", {"m": {"signature": {}, "method": lambda *_: time.sleep(0.4)}})
out("ready"); ubus.loop(-1)
"""
    waiting = """
import select
seen = []
ubus.listen(("test.*", lambda event, data: seen.append(event)))
fd = [int(f) for f in os.listdir("/proc/self/fd") if int(f) > 2 and
      os.path.lexists(f"/proc/self/fd/{f}") and "socket" in os.readlink(f"/proc/self/fd/{f}")][-1]
out("ready"); ubus.call("test.slow", "m", {}, 5000)
out(seen, select.select([fd], [], [], 0)[0]); ubus.loop(0); out(seen)
"""
    with program(bus, slow), program(bus, waiting) as caller:
        time.sleep(0.1)
        for event in ("test.one", "test.two"):
            bus.send(event, {})
        assert caller.finish() == ([[[], []], [["test.one", "test.two"]]], "")


def test_after_a_call_loop_0_takes_one_message_from_the_socket(bus: Bus) -> None:
    """libubus leaves its cancel mark set, so call again for as long as the socket is readable."""
    code = """
seen = []
ubus.listen(("test.*", lambda event, data: seen.append(event)))
out("ready"); sys.stdin.readline()
for _ in range(3): ubus.loop(0); out(len(seen))
"""
    with program(bus, code) as listener:
        for event in ("test.one", "test.two", "test.three"):
            bus.send(event, {})
        listener.go_on()
        assert listener.finish()[0] == [[1], [2], [3]]


def test_loop_takes_its_full_time(bus: Bus) -> None:
    code = """
for timeout in (0, 250):
    start = time.monotonic(); ubus.loop(timeout); out(time.monotonic() - start)
"""
    (none,), (full,) = run(bus, code)
    assert none < 0.05
    assert 0.24 < full < 1


def test_connecting_takes_over_default_signals_and_swallows_sigterm(bus: Bus) -> None:
    code = """
def caught():
    text = open("/proc/self/status").read().split("SigCgt:")[1].split()[0]
    return [n for n in (signal.SIGTERM, signal.SIGCHLD) if int(text, 16) >> (n - 1) & 1]
out(caught()); os.kill(os.getpid(), signal.SIGTERM); out("alive")
start = time.monotonic(); ubus.loop(200); out(time.monotonic() - start > 0.19)
child = subprocess.Popen(["true"]); time.sleep(0.1); ubus.loop(50)
out(attempt(os.waitpid, child.pid, 0)[0])
ubus.disconnect(); out(caught())
"""
    assert run(bus, code) == [[[15, 17]], ["alive"], [True], ["ChildProcessError"], [[]]]


def test_sigterm_ends_a_loop_without_ending_the_program(bus: Bus) -> None:
    code = 'out("ready"); ubus.loop(-1); out("still here")'
    with program(bus, code) as looping:
        time.sleep(0.1)
        looping.process.terminate()
        assert looping.finish() == ([["still here"]], "")


def test_handlers_of_ones_own_stay_and_run_when_the_loop_is_over(bus: Bus) -> None:
    code = """
ubus.disconnect()
signal.signal(signal.SIGTERM, lambda *_: out("mine", time.monotonic() - start > 0.3))
ubus.connect(SOCKET)
out("ready"); start = time.monotonic(); ubus.loop(500); out("looped")
"""
    with program(bus, code) as looping:
        time.sleep(0.1)
        looping.process.terminate()
        assert looping.finish() == ([["mine", True], ["looped"]], "")


def test_connect_opens_one_socket_among_its_descriptors(bus: Bus) -> None:
    code = """
ubus.disconnect()
def links(): return {f: os.readlink(f"/proc/self/fd/{f}").split(":")[0]
                     for f in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{f}")
                     or os.path.lexists(f"/proc/self/fd/{f}")}
before = links(); ubus.connect(SOCKET)
out(sorted(kind for f, kind in links().items() if before.get(f) != kind))
ubus.disconnect(); out(links() == before)
"""
    assert run(bus, code) == [[["anon_inode", "pipe", "pipe", "socket"]], [True]]


def test_a_dead_broker_raises_nothing_until_something_is_asked(own_bus: Bus) -> None:
    code = """
out("ready"); sys.stdin.readline()
start = time.monotonic(); ubus.loop(300); out(time.monotonic() - start > 0.29)
ubus.loop(0); out(ubus.get_connected(), ubus.get_socket_path() == SOCKET)
out(attempt(ubus.send, "x", {}))
out(attempt(ubus.call, "uci", "configs", {}, 500))
out(attempt(ubus.add, "x", {}))
out(attempt(ubus.disconnect)); out(attempt(ubus.connect, SOCKET)[0])
out("ready"); sys.stdin.readline()
ubus.connect(SOCKET); ubus.add("test.again", {}); out(list(ubus.objects("test.*")))
"""
    with program(own_bus, code) as client:
        own_bus.stop_others()
        own_bus.stop_broker()
        client.go_on()
        lines = list(iter(client.line, ["ready"]))
        own_bus.start_broker()
        client.go_on()
        assert client.finish() == ([[["test.again"]]], "")
    assert lines == [
        [True],
        [True, True],
        [False],
        [["RuntimeError", "Object 'uci' was not found."]],
        [["RuntimeError", "ubus error occured: Invalid argument"]],
        [None],
        ["OSError"],
    ]


def test_an_endless_loop_outlives_the_broker(own_bus: Bus) -> None:
    with program(own_bus, 'out("ready"); ubus.loop(-1); out("ended")') as looping:
        own_bus.stop_others()
        own_bus.stop_broker()
        with pytest.raises(subprocess.TimeoutExpired):
            looping.process.wait(0.5)
        looping.process.send_signal(signal.SIGTERM)
        assert looping.finish() == ([["ended"]], "")
