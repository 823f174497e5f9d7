# SPDX-License-Identifier: GPL-2.0-or-later
"""python-ubus 0.1.3's functions, with its limits; `ubus.py` hands them out under that name.

Where the real module would crash or hang for good (a handler that disconnects, a second thread, a
pattern that may not be listened to) a SystemError says so: no program catches that by accident.
"""

import atexit
import ctypes
import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from . import wire
from .context import Call, Context
from .uloop import Uloop, python_handlers_free, python_handlers_held
from .wire import Status

DEFAULT_SOCKET = "/var/run/ubus/ubus.sock"
_NOT_CONNECTED = "You are not connected to ubus."
_ALREADY_CONNECTED = "You are already connected to ubus."
_TO_UBUS_FAILED = "Failed to create json for ubus."
_LISTEN_TUPLE = "Expected (event, callback) tuple"
_ADD_ARGUMENTS = (
    "Incorrect method arguments!\nExpected:\n"
    "\t(<obj_name>, { "
    "<method_name>: {'signature': <method_signature>, 'method': <callable>}"
    ", ...})"
)


class _Connected(NamedTuple):
    context: Context
    path: str
    owned: list[int]
    """Ids of our objects and listeners."""


# The real module keeps one connection in C globals.
_state: list[_Connected] = []
_uloop = Uloop()


class _PollFd(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


# PyDLL keeps the interpreter lock: the real module's requests stop every Python thread.
_libc = ctypes.PyDLL(None)
_POLLIN = 1


def _poll(descriptor: int, timeout: int) -> None:
    _libc.poll(ctypes.byref(_PollFd(descriptor, _POLLIN, 0)), 1, timeout)


def _connection() -> Context:
    if not _state:
        raise RuntimeError(_NOT_CONNECTED)
    if _uloop.thread not in (None, threading.get_ident()):
        raise SystemError("another thread is in ubus.loop(): the real module would hang for good")
    return _state[0].context


def _encode(data: object) -> bytes:
    """What json.dumps, json-c and libubox make of `data`."""
    text = json.dumps(data)
    if "\\ud" in text:
        # json-c puts U+FFFD in the place of surrogates that stand alone.
        wide = json.dumps(json.loads(text), ensure_ascii=False).encode("utf-16", "surrogatepass")
        text = wide.decode("utf-16", "replace")
    values = json.loads(text)
    if not isinstance(values, dict):
        raise TypeError(_TO_UBUS_FAILED)
    try:
        return wire.encode(values)
    except wire.NotRepresentable:
        raise TypeError(_TO_UBUS_FAILED) from None


def _print_error() -> None:
    kind, error, trace = sys.exc_info()
    if isinstance(error, SystemExit):
        _exit(error)
    assert kind is not None and error is not None
    sys.excepthook(kind, error, trace)


def _exit(error: SystemExit) -> NoReturn:
    # PyErr_Print ends the process at once: no `finally` of the program's gets to run.
    code = error.code
    if isinstance(code, str):
        print(code, file=sys.stderr)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def connect(socket_path: str = DEFAULT_SOCKET) -> bool:
    if _state:
        raise RuntimeError(_ALREADY_CONNECTED)
    if not isinstance(socket_path, str):
        raise TypeError(f"argument 1 must be str, not {type(socket_path).__name__}")
    _uloop.init()
    try:
        context = Context(socket_path, _poll)
    except OSError:
        _uloop.done()
        raise OSError(f"Failed to connect to the ubus socket '{socket_path}'\n") from None
    _state.append(_Connected(context, socket_path, []))
    _uloop.watch(context.socket.fileno())
    return True


def disconnect(deregister: bool = True) -> None:
    context = _connection()
    if not isinstance(deregister, bool):
        raise TypeError(f"argument 1 must be bool, not {type(deregister).__name__}")
    if context.depth:
        raise SystemError("disconnect() inside a callback: the real module would use freed memory")
    if deregister:
        for ident in _state[0].owned:
            context.remove_object(ident)
    context.close()
    _state.clear()
    _uloop.done()


def get_connected() -> bool:
    return bool(_state)


def get_socket_path() -> str | None:
    return _state[0].path if _state else None


def send(event: str, data: object) -> bool:
    context = _connection()
    if not isinstance(event, str):
        raise TypeError(f"argument 1 must be str, not {type(event).__name__}")
    encoded = _encode(data)
    with python_handlers_held():
        return context.send_event(event, encoded) == Status.OK


def listen(*events: tuple[str, Callable[[str, Any], object]]) -> None:
    context = _connection()
    if not events:
        raise TypeError("You need to set at least one event.")
    for item in events:
        if not isinstance(item, tuple) or len(item) != 2:
            raise TypeError(_LISTEN_TUPLE)
        if not isinstance(item[0], str) or not callable(item[1]):
            raise TypeError(_LISTEN_TUPLE)
    for pattern, callback in events:
        with python_handlers_held():
            status, ident = context.listen(pattern, _listener(callback))
        if status:
            raise SystemError(f"listening to {pattern!r} failed: the real module corrupts memory")
        _state[0].owned.append(ident)


def _listener(callback: Callable[[str, Any], object]) -> Callable[[Call, bytes], int]:
    def deliver(call: Call, data: bytes) -> int:
        try:
            event = call.method.encode("utf-8", "surrogateescape").decode()
            values = json.loads(wire.to_json(data).decode())
        except ValueError:
            return Status.OK
        with python_handlers_free():
            try:
                callback(event, values)
            except BaseException:
                _print_error()
        return Status.OK

    return deliver


def loop(timeout: int = -1) -> None:
    context = _connection()
    if not isinstance(timeout, int):
        raise TypeError(f"'{type(timeout).__name__}' object cannot be interpreted as an integer")
    if timeout == 0:
        with python_handlers_held():
            context.handle_data()
        return
    _uloop.init()
    _uloop.run(context, timeout)


class ResponseHandler:
    """__ResponseHandler

    Object which is used to handle responses to ubus calls.
    """

    def __init__(self) -> None:
        self._call: Call | None = None

    def reply(self, data: object) -> bool:
        if not _state:
            raise RuntimeError(_NOT_CONNECTED)
        encoded = _encode(data)
        if self._call is None:
            raise RuntimeError("Handler is not linked to a call response.")
        return self._call.reply(encoded)


ResponseHandler.__name__ = ResponseHandler.__qualname__ = "__ResponseHandler"
ResponseHandler.__module__ = "ubus"


def _well_formed(methods: dict[Any, Any]) -> bool:
    for name, value in methods.items():
        if not isinstance(name, str) or not isinstance(value, dict) or len(value) != 2:
            return False
        signature = value.get("signature")
        if not isinstance(signature, dict) or not callable(value.get("method")):
            return False
        for argument, kind in signature.items():
            if not isinstance(argument, str) or not isinstance(kind, int):
                return False
            if not 0 <= kind <= wire.Type.DOUBLE:
                return False
    return True


def add(object_name: str, methods: dict[str, dict[str, Any]]) -> None:
    context = _connection()
    if not isinstance(object_name, str):
        raise TypeError(_ADD_ARGUMENTS)
    if not isinstance(methods, dict):
        raise SystemError("methods is no dict: the real module fails in C")
    if not _well_formed(methods):
        raise TypeError(_ADD_ARGUMENTS)
    # What was declared now is what callers are held to; the callables are looked up at each call.
    declared = {name: dict(value["signature"]) for name, value in methods.items()}
    handlers = {name: _method(methods, name, args) for name, args in declared.items()}
    with python_handlers_held():
        status, ident = context.add_object(object_name, declared, handlers)
    if status:
        raise RuntimeError(f"ubus error occured: {wire.status_text(status)}")
    _state[0].owned.append(ident)


def _accepts(declared: dict[str, int], data: bytes) -> bool:
    # Names and types only: a payload that does not fit its type is left out of the message later.
    passed = 0
    for item in wire.iterate(data):
        kind = declared.get(wire.c_string(item.payload[2:]).decode("utf-8", "replace"))
        if kind is None or kind not in (wire.Type.UNSPEC, item.ident):
            return False
        passed += 1
    return passed == len(declared)


def _method(
    methods: dict[str, dict[str, Any]], name: str, declared: dict[str, int]
) -> Callable[[Call, bytes], int]:
    def handle(call: Call, data: bytes) -> int:
        if not _accepts(declared, data):
            return Status.INVALID_ARGUMENT
        if name not in methods:
            return Status.METHOD_NOT_FOUND
        try:
            values = json.loads(wire.to_json(data).decode())
        except ValueError:
            return Status.UNKNOWN_ERROR
        handler = ResponseHandler()
        handler._call = call
        try:
            with python_handlers_free():
                methods[name]["method"](handler, values)
        except BaseException:
            _print_error()
            return Status.UNKNOWN_ERROR
        finally:
            handler._call = None
        return Status.OK

    return handle


def objects(path: str = "*") -> dict[str, dict[str, dict[str, int]]]:
    context = _connection()
    if not isinstance(path, str):
        raise TypeError(f"argument 1 must be str, not {type(path).__name__}")
    found: dict[str, dict[str, dict[str, int]]] = {}

    def note(attrs: dict[int, bytes]) -> None:
        name = wire.c_string(attrs[wire.Attr.OBJPATH]).decode()
        found[name] = wire.decode(attrs.get(wire.Attr.SIGNATURE, b""))

    with python_handlers_held():
        status = context.lookup(path, note)
    if status not in (Status.OK, Status.NOT_FOUND):
        raise RuntimeError(f"ubus error occured: {wire.status_text(status)}")
    return found


def call(object: str, method: str, arguments: object, timeout: int = 0) -> list[Any]:  # noqa: A002
    context = _connection()
    for place, value in enumerate((object, method), 1):
        if not isinstance(value, str):
            raise TypeError(f"argument {place} must be str, not {type(value).__name__}")
    if timeout < 0:
        raise TypeError("timeout can't be lower than 0")
    answers: list[bytes] = []
    with python_handlers_held():
        status, ident = context.lookup_ident(object)
        if status:
            raise RuntimeError(f"Object '{object}' was not found.")
        encoded = _encode(arguments)
        status = context.invoke(ident, method, encoded, timeout, answers.append)
    if status:
        raise RuntimeError(f"ubus error occured: {wire.status_text(status)}")
    try:
        return [json.loads(wire.to_json(answer).decode()) for answer in answers]
    except ValueError:
        raise SystemError("an answer is no JSON: the real module would use freed memory") from None
