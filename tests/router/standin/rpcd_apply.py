# SPDX-License-Identifier: GPL-2.0-or-later
"""rpcd's apply with rollback: a session's staged changes go live and, unconfirmed, back again."""

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .rpcd_session import Sessions
from .uci_package import UciError
from .uci_store import Store
from .wire import Status

_DEFAULT_TIMEOUT = 60


class Apply:
    def __init__(
        self, store: Store, run_dir: Path, sessions: Sessions, changed: Callable[[str], None]
    ) -> None:
        self._store = store
        self._run_dir = run_dir
        self._files = run_dir / "snapshot-files"
        self._delta = run_dir / "snapshot-delta"
        self._sessions = sessions
        self._changed = changed
        self.session = ""
        """Whose changes wait for confirmation; nobody may commit meanwhile."""
        self.due: float | None = None

    def _saves(self, session: str) -> Path:
        return self._run_dir / f"uci-{session}"

    def _purge(self) -> None:
        for directory in (self._files, self._delta):
            shutil.rmtree(directory, ignore_errors=True)

    def _end(self) -> None:
        self._purge()
        self.session, self.due = "", None

    def start(self, arguments: Mapping[str, Any]) -> int:
        rollback = arguments.get("rollback", False)
        if self.session and rollback:
            return Status.PERMISSION_DENIED
        session = arguments.get("ubus_rpc_session")
        if session is None:
            return Status.INVALID_ARGUMENT
        # Even an apply without rollback throws away what an open window would go back to.
        self._purge()
        if self.session:
            return Status.OK
        self._files.mkdir(mode=0o700)
        self._delta.mkdir(mode=0o700)
        saves = self._saves(session)
        status = self._access(session, saves)
        if status:
            return status
        if rollback:
            self.session = session[:32]
        for path in _files(saves):
            if not path.stat().st_size:
                continue
            _copy(self._store.config_dir / path.name, self._files / path.name)
            _copy(path, self._delta / path.name)
            self._activate(path.name, saves)
        if rollback:
            self.due = time.monotonic() + arguments.get("timeout", _DEFAULT_TIMEOUT)
        return Status.OK

    def _access(self, session: str, changes: Path) -> int:
        found = [path for path in _files(changes) if path.stat().st_size]
        for path in found:
            if not self._sessions.may(session, "uci", path.name, "write"):
                return Status.PERMISSION_DENIED
        return Status.OK if found else Status.NO_DATA

    def _activate(self, name: str, saves: Path | None) -> None:
        with suppress(UciError):
            self._store.commit(name, saves)
        self._changed(name)

    def confirm(self, session: str | None) -> int:
        if session is None:
            return Status.INVALID_ARGUMENT
        if not self.session:
            return Status.NO_DATA
        if session != self.session:
            return Status.PERMISSION_DENIED
        self._end()
        return Status.OK

    def rollback(self, session: str | None) -> int:
        if not self.session:
            return Status.NO_DATA
        if session is None:
            return Status.INVALID_ARGUMENT
        if session != self.session:
            return Status.PERMISSION_DENIED
        self._go_back()
        return Status.OK

    def expire(self) -> None:
        if self.due is not None and self.due <= time.monotonic():
            self._go_back()

    def _go_back(self) -> None:
        # The staged changes come back too, if whoever made them is still there to see them.
        restore = self._access(self.session, self._files) == Status.OK
        saves = self._saves(self.session)
        if restore:
            saves.mkdir(mode=0o700, exist_ok=True)
        for path in _files(self._files):
            _copy(path, self._store.config_dir / path.name)
            self._activate(path.name, None)
            if restore:
                _copy(self._delta / path.name, saves / path.name)
        self._end()


def _files(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if not path.name.startswith("."))


def _copy(source: Path, target: Path) -> None:
    # In place, as rpcd writes: the file keeps its mode and its inode.
    target.write_bytes(source.read_bytes() if source.exists() else b"")
