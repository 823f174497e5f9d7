# SPDX-License-Identifier: GPL-2.0-or-later
"""rpcd, procd and netifd as the daemon meets them: `python rpcd.py --socket S …`.

The three talk through connections of their own, as the real programs do. With `--without-rpcd` only
the latter two are here, for use beside the real rpcd. The object `standin` is for tests:
`interface_event {interface, action}` and `service_events {}`.
"""

import argparse
import hashlib
import json
import selectors
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import FrameType

if __name__ == "__main__" and not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = "standin"

from . import rpcd_session, rpcd_uci
from .context import Call, Context, Handler
from .netifd import InterfaceObjects
from .procd import ServiceObject, parse_service
from .rpcd_session import Sessions
from .rpcd_uci import UciObject
from .uci_store import Store
from .wire import Status, Type, encode, pick

_LOOK_AROUND = 0.2
"""Seconds between looks at the interfaces file, which tests edit behind our back."""
_RELOAD_DELAY = 2.0
_EVENT = {"interface": Type.STRING, "action": Type.STRING}


class Programs:
    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._selector = selectors.DefaultSelector()
        self._contexts: list[Context] = []
        pid_files: dict[str, dict[str, Path]] = {}
        for service, instance, path in map(parse_service, options.service):
            pid_files.setdefault(service, {})[instance] = path
        self._procd = ServiceObject(pid_files)
        self._procd.publish(self._connect())
        self._netifd: InterfaceObjects | None = None
        if options.interfaces:
            self._netifd = InterfaceObjects(options.interfaces)
            self._netifd.publish(self._connect())
            self._selector.register(self._netifd.changes, selectors.EVENT_READ, None)
        self._sessions: Sessions | None = None
        self._uci: UciObject | None = None
        self._digests: dict[str, str] = {}
        self._reload_due: float | None = None
        if not options.without_rpcd:
            self._start_rpcd()
        self._start_board()
        # Last, so that whoever finds it finds everything.
        self._publish(
            "standin",
            {"interface_event": _EVENT, "service_events": {}},
            {"interface_event": self._interface_event, "service_events": self._service_events},
        )

    def _connect(self) -> Context:
        context = Context(str(self._options.socket))
        self._contexts.append(context)
        self._selector.register(context.socket, selectors.EVENT_READ, context)
        return context

    def _publish(
        self,
        name: str,
        signatures: Mapping[str, Mapping[str, int]],
        handlers: dict[str, Handler],
        context: Context | None = None,
    ) -> None:
        status, _ = (context or self._connect()).add_object(name, signatures, handlers)
        if status:
            raise SystemExit(f"cannot publish `{name}`: status {status}")

    # rpcd

    def _start_rpcd(self) -> None:
        options = self._options
        run_dir = options.run_dir or Path(f"{options.save_dir}-rpcd")
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in run_dir.glob("uci-*"):
            shutil.rmtree(left)
        store = Store(options.config_dir)
        sessions = Sessions(store, options.users, options.acl_dir)
        uci = UciObject(
            store,
            options.save_dir,
            run_dir,
            sessions,
            changed=self._config_changed,
            reload_config=self._plan_reload,
        )
        sessions.on_end = lambda ident: shutil.rmtree(run_dir / f"uci-{ident}", ignore_errors=True)
        sessions.waiting_for = lambda: uci.apply.session
        context = self._connect()
        for name, module, handle in (
            ("session", rpcd_session.SIGNATURES, sessions.handle),
            ("uci", rpcd_uci.SIGNATURES, uci.handle),
        ):
            self._publish(name, module, dict.fromkeys(module, handle), context)
        self._sessions, self._uci, self._store = sessions, uci, store
        self._digests = self._digest()

    def _config_changed(self, name: str) -> None:
        self._procd.raise_event("config.change", {"package": name})

    def _plan_reload(self) -> None:
        self._reload_due = time.monotonic() + _RELOAD_DELAY

    def _digest(self) -> dict[str, str]:
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self._options.config_dir.iterdir()
            if path.is_file() and "." not in path.name
        }

    def _reload(self) -> None:
        """/sbin/reload_config: tells of the files that differ from when it last looked."""
        self._reload_due = None
        before, self._digests = self._digests, self._digest()
        for name in sorted(before):
            if self._digests.get(name) != before[name]:
                self._config_changed(name)

    # The board, and the tests' own door

    def _start_board(self) -> None:
        if not self._options.board:
            return

        def board(call: Call, _: bytes) -> int:
            call.reply(encode(json.loads(self._options.board.read_text())))
            return Status.OK

        self._publish("system", {"board": {}}, {"board": board})

    def _interface_event(self, call: Call, data: bytes) -> int:
        asked = pick(_EVENT, data)
        if len(asked) < 2 or asked["action"] not in ("ifup", "ifdown"):
            return Status.INVALID_ARGUMENT
        if self._netifd is None:
            return Status.NOT_SUPPORTED
        return self._netifd.tell(asked["interface"], asked["action"])

    def _service_events(self, call: Call, _: bytes) -> int:
        call.reply(encode({"events": self._procd.events}))
        return Status.OK

    # The loop

    def serve(self) -> None:
        while True:
            for key, _ in self._selector.select(self._wait()):
                context: Context | None = key.data
                if context is None:
                    continue
                context.handle_data()
                if context.eof:
                    raise SystemExit("the broker is gone")
            self._on_time()
            for context in self._contexts:
                context.process_pending()

    def _wait(self) -> float:
        moments = [time.monotonic() + _LOOK_AROUND]
        moments += [self._reload_due] if self._reload_due is not None else []
        if self._uci is not None and self._uci.apply.due is not None:
            moments.append(self._uci.apply.due)
        return max(0.0, min(moments) - time.monotonic())

    def _on_time(self) -> None:
        if self._netifd is not None:
            self._netifd.refresh()
        if self._sessions is not None:
            self._sessions.expire()
        if self._uci is not None:
            self._uci.apply.expire()
        if self._reload_due is not None and self._reload_due <= time.monotonic():
            self._reload()


def _path(text: str) -> Path:
    return Path(text).absolute()


def main(arguments: Iterable[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", type=_path, required=True)
    parser.add_argument("--config-dir", type=_path, help="rpcd's /etc/config")
    parser.add_argument("--save-dir", type=_path, help="rpcd's /tmp/.uci")
    parser.add_argument("--run-dir", type=_path, help="rpcd's /var/run/rpcd")
    parser.add_argument("--users", type=_path, help="lines of NAME:PASSWORD")
    parser.add_argument("--acl-dir", type=_path, help="rpcd's /usr/share/rpcd/acl.d")
    parser.add_argument("--interfaces", type=_path, help="what `network.interface dump` says")
    parser.add_argument("--board", type=_path, help="what `system board` says")
    parser.add_argument("--service", action="append", default=[], metavar="NAME[/INSTANCE]=PIDFILE")
    parser.add_argument("--without-rpcd", action="store_true", help="no `uci`, no `session`")
    options = parser.parse_args(list(arguments))
    if not options.without_rpcd and not (options.config_dir and options.save_dir):
        parser.error("--config-dir and --save-dir are needed, unless --without-rpcd")

    def leave(_signum: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    Programs(options).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
