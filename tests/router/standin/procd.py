# SPDX-License-Identifier: GPL-2.0-or-later
"""procd's object `service`: events, signals, and a list of the processes it was told of."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .context import Call, Context
from .wire import Status, Type, encode, pick

_SET = {
    "name": Type.STRING,
    "script": Type.STRING,
    "instances": Type.TABLE,
    "triggers": Type.ARRAY,
    "validate": Type.ARRAY,
    "autostart": Type.INT8,
    "data": Type.TABLE,
}
SIGNATURES: Mapping[str, Mapping[str, int]] = {
    "set": _SET,
    "add": _SET,
    "list": {"name": Type.STRING, "verbose": Type.INT8},
    "delete": {"name": Type.STRING, "instance": Type.STRING},
    "signal": {"name": Type.STRING, "instance": Type.STRING, "signal": Type.INT32},
    "event": {"type": Type.STRING, "data": Type.TABLE},
}
_FIRST_INSTANCE = "instance1"


class ServiceObject:
    def __init__(self, pid_files: Mapping[str, Mapping[str, Path]]) -> None:
        """`pid_files`: per service and instance the file that names the process, read each time."""
        self._pid_files = pid_files
        self.events: list[dict[str, Any]] = []
        """Every event raised so far, as `{"type": …, "data": …}`."""
        self._context: Context | None = None
        self._ident = 0

    def publish(self, context: Context) -> None:
        handlers = dict.fromkeys(SIGNATURES, self.handle)
        status, self._ident = context.add_object("service", SIGNATURES, handlers)
        if status:
            raise SystemExit(f"cannot publish `service`: status {status}")
        self._context = context

    def handle(self, call: Call, data: bytes) -> int:
        arguments = pick(SIGNATURES[call.method], data)
        match call.method:
            case "event":
                if len(arguments) < 2:
                    return Status.INVALID_ARGUMENT
                self.raise_event(arguments["type"], arguments["data"])
                return Status.OK
            case "list":
                call.reply(encode(self._list(arguments.get("name"))))
                return Status.OK
            case "signal":
                return self._signal(arguments)
        return Status.NOT_SUPPORTED

    def raise_event(self, kind: str, data: Mapping[str, Any]) -> None:
        event = {"type": kind, "data": dict(data)}
        self.events.append(event)
        if self._context is None:
            return
        self._context.notify(self._ident, "event.trigger", event)
        if kind == "config.change" and isinstance(data.get("package"), str):
            self._context.notify(self._ident, kind, {"config": data["package"]})

    def _list(self, name: str | None) -> dict[str, Any]:
        return {
            service: {"instances": {key: _describe(path) for key, path in instances.items()}}
            for service, instances in sorted(self._pid_files.items())
            if name in (None, service)
        }

    def _signal(self, arguments: Mapping[str, Any]) -> int:
        instances = self._pid_files.get(arguments.get("name", ""))
        if instances is None:
            return Status.NOT_FOUND
        number = arguments.get("signal", int(signal.SIGHUP))
        if "instance" in arguments:
            path = instances.get(arguments["instance"])
            return Status.NOT_FOUND if path is None else _kill(path, number)
        status: int = Status.OK
        for path in instances.values():
            status = _kill(path, number)
        return status


def parse_service(text: str) -> tuple[str, str, Path]:
    """`NAME=PIDFILE` or `NAME/INSTANCE=PIDFILE`."""
    name, _, path = text.partition("=")
    service, _, instance = name.partition("/")
    return service, instance or _FIRST_INSTANCE, Path(path)


def _pid(path: Path) -> int | None:
    try:
        pid = int(path.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return pid if pid > 1 else None


def _describe(path: Path) -> dict[str, Any]:
    pid = _pid(path)
    rest = {"term_timeout": 5, "respawn": {"threshold": 3600, "timeout": 5, "retry": 5}}
    try:
        command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1] if pid else []
    except OSError:
        command = []
    if pid is None or not command:
        return {"running": False, "command": command, **rest}
    return {"running": True, "pid": pid, "command": command, **rest}


def _kill(path: Path, number: int) -> int:
    pid = _pid(path)
    if pid is None:
        return Status.NOT_FOUND
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return Status.NOT_FOUND
    except PermissionError:
        return Status.PERMISSION_DENIED
    except OSError:
        return Status.INVALID_ARGUMENT
    return Status.OK
