# SPDX-License-Identifier: GPL-2.0-or-later
"""rpcd's object `session`: logins, what they may do, and when they end."""

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from .context import Call
from .uci_package import Section, UciError
from .uci_store import Store
from .wire import Int64, Status, Type, encode, pick

NOBODY = "0" * 32
_DEFAULT_TIMEOUT = 300
_SID = {"ubus_rpc_session": Type.STRING}
_GRANT = {**_SID, "scope": Type.STRING, "objects": Type.ARRAY}
_KEYS = {**_SID, "keys": Type.ARRAY}
SIGNATURES: Mapping[str, Mapping[str, int]] = {
    "create": {"timeout": Type.INT32},
    "list": _SID,
    "grant": _GRANT,
    "revoke": _GRANT,
    "access": {**_SID, "scope": Type.STRING, "object": Type.STRING, "function": Type.STRING},
    "set": {**_SID, "values": Type.TABLE},
    "get": _KEYS,
    "unset": _KEYS,
    "destroy": _SID,
    "login": {"username": Type.STRING, "password": Type.STRING, "timeout": Type.INT32},
}


@dataclass
class Session:
    ident: str
    timeout: int
    ends: float | None = None
    data: dict[str, Any] = field(default_factory=dict)
    grants: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def touch(self) -> None:
        if self.timeout > 0:
            self.ends = time.monotonic() + self.timeout

    def grant(self, scope: str, item: str, function: str) -> None:
        known = self.grants.setdefault(scope, [])
        if (item, function) not in known:
            known.append((item, function))

    def may(self, scope: str, item: str, function: str) -> bool:
        return any(
            fnmatchcase(item, pattern) and fnmatchcase(function, functions)
            for pattern, functions in self.grants.get(scope, [])
        )

    def acls(self) -> dict[str, dict[str, list[str]]]:
        found: dict[str, dict[str, list[str]]] = {}
        for scope in sorted(self.grants):
            listed = found.setdefault(scope, {})
            for item, function in sorted(self.grants[scope], key=lambda pair: _fixed_part(pair[0])):
                listed.setdefault(item, []).append(function)
        return found

    def dump(self) -> dict[str, Any]:
        left = 0 if self.ends is None else int(self.ends - time.monotonic() + 0.0005)
        return {
            "ubus_rpc_session": self.ident,
            "timeout": self.timeout,
            "expires": Int64(left),
            "acls": self.acls(),
            "data": dict(sorted(self.data.items())),
        }


def _fixed_part(pattern: str) -> str:
    return pattern[: next((at for at, char in enumerate(pattern) if char in "*?["), len(pattern))]


class Sessions:
    def __init__(self, store: Store, users: Path | None, acl_dir: Path | None) -> None:
        self._store = store
        self._users = users
        self._acl_dir = acl_dir
        self._sessions: dict[str, Session] = {}
        self.on_end: Callable[[str], None] = lambda ident: None
        self.waiting_for: Callable[[], str] = str
        """The session whose apply waits for confirmation: its user gets it back at login."""
        nobody = Session(NOBODY, 0)
        self._load_acls(nobody, None)
        self._sessions[NOBODY] = nobody

    def may(self, ident: str, scope: str, item: str, function: str) -> bool:
        session = self._find(ident)
        return session is not None and session.may(scope, item, function)

    def expire(self) -> None:
        now = time.monotonic()
        for session in list(self._sessions.values()):
            if session.ends is not None and session.ends <= now:
                self._end(session)

    def next_end(self) -> float | None:
        ends = [session.ends for session in self._sessions.values() if session.ends is not None]
        return min(ends, default=None)

    def _end(self, session: Session) -> None:
        del self._sessions[session.ident]
        self.on_end(session.ident)

    def _find(self, ident: str) -> Session | None:
        self.expire()
        session = self._sessions.get(ident)
        if session:
            session.touch()
        return session

    def _new(self, timeout: int) -> Session:
        session = Session(secrets.token_hex(16), timeout)
        session.touch()
        self._sessions[session.ident] = session
        return session

    # Calls

    def handle(self, call: Call, data: bytes) -> int:
        arguments = pick(SIGNATURES[call.method], data)
        if call.method in ("create", "list", "login"):
            return int(getattr(self, f"_{call.method}")(call, arguments))
        if "ubus_rpc_session" not in arguments:
            return Status.INVALID_ARGUMENT
        ident = arguments["ubus_rpc_session"]
        if call.method == "destroy" and ident == NOBODY:
            return Status.PERMISSION_DENIED
        if call.method == "set" and "values" not in arguments:
            return Status.INVALID_ARGUMENT
        session = self._find(ident)
        if session is None:
            return Status.NOT_FOUND
        answer = getattr(self, f"_{call.method}")(session, arguments)
        if answer is not None:
            call.reply(encode(answer))
        return Status.OK

    def _create(self, call: Call, arguments: Mapping[str, Any]) -> int:
        call.reply(encode(self._new(arguments.get("timeout", _DEFAULT_TIMEOUT)).dump()))
        return Status.OK

    def _list(self, call: Call, arguments: Mapping[str, Any]) -> int:
        if "ubus_rpc_session" in arguments:
            session = self._find(arguments["ubus_rpc_session"])
            if session is None:
                return Status.NOT_FOUND
            call.reply(encode(session.dump()))
            return Status.OK
        for ident in sorted(self._sessions):
            call.reply(encode(self._sessions[ident].dump()))
        return Status.OK

    def _grant(self, session: Session, arguments: Mapping[str, Any]) -> None:
        for item, function in _pairs(arguments.get("objects", [])):
            session.grant(arguments.get("scope", "ubus"), item, function)

    def _revoke(self, session: Session, arguments: Mapping[str, Any]) -> None:
        scope = arguments.get("scope", "ubus")
        known = session.grants.get(scope, [])
        gone = _pairs(arguments["objects"]) if "objects" in arguments else known
        left = [pair for pair in known if pair not in gone]
        if left:
            session.grants[scope] = left
        else:
            session.grants.pop(scope, None)

    def _access(self, session: Session, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if "object" not in arguments or "function" not in arguments:
            return session.acls()
        scope = arguments.get("scope", "ubus")
        return {"access": session.may(scope, arguments["object"], arguments["function"])}

    def _set(self, session: Session, arguments: Mapping[str, Any]) -> None:
        session.data.update((name, value) for name, value in arguments["values"].items() if name)

    def _get(self, session: Session, arguments: Mapping[str, Any]) -> dict[str, Any]:
        keys = arguments.get("keys", sorted(session.data))
        return {"values": {key: session.data[key] for key in keys if key in session.data}}

    def _unset(self, session: Session, arguments: Mapping[str, Any]) -> None:
        for key in arguments.get("keys", list(session.data)):
            session.data.pop(key, None)

    def _destroy(self, session: Session, _: Mapping[str, Any]) -> None:
        self._end(session)

    # Login

    def _login(self, call: Call, arguments: Mapping[str, Any]) -> int:
        if "username" not in arguments or "password" not in arguments:
            return Status.INVALID_ARGUMENT
        username = arguments["username"]
        login = self._find_login(username, arguments["password"])
        if login is None:
            return Status.PERMISSION_DENIED
        waiting = self._sessions.get(self.waiting_for())
        if waiting and waiting.data.get("username") == username:
            session = waiting
            session.touch()
        else:
            session = self._new(arguments.get("timeout", _DEFAULT_TIMEOUT))
        self._load_acls(session, login)
        session.data["username"] = username
        call.reply(encode(session.dump()))
        return Status.OK

    def _find_login(self, username: str, password: str) -> Section | None:
        try:
            package = self._store.load("rpcd", None)
        except UciError:
            return None
        for section in package.sections:
            if section.type != "login" or section.options.get("username") != username:
                continue
            wanted = section.options.get("password")
            # A crypted password in the file itself is out of this stand-in's reach.
            if isinstance(wanted, str) and wanted.startswith("$p$"):
                known = self._password(wanted[3:])
                if known is not None and known in ("", password):
                    return section
        return None

    def _password(self, user: str) -> str | None:
        """From the user file's `name:password` lines, read anew each time; "" lets anybody in."""
        for line in self._users.read_text().splitlines() if self._users else []:
            name, _, password = line.partition(":")
            if name == user:
                return password
        return None

    def _load_acls(self, session: Session, login: Section | None) -> None:
        for path in sorted(self._acl_dir.glob("*.json")) if self._acl_dir else []:
            try:
                content = json.loads(path.read_text())
            except ValueError:
                continue
            for group, rights in content.items():
                for right in ("read", "write"):
                    scopes = rights.get(right) if isinstance(rights, dict) else None
                    if isinstance(scopes, dict) and _in_group(login, right, group):
                        _grant_scopes(session, group, right, scopes)


def _in_group(login: Section | None, right: str, group: str) -> bool:
    if login is None:
        return group == "unauthenticated"
    patterns = login.options.get(right)
    if isinstance(patterns, list):
        if any(fnmatchcase(group, item[1:].lstrip()) for item in patterns if item[:1] == "!"):
            return False
        if any(fnmatchcase(group, item) for item in patterns if item[:1] not in ("", "!")):
            return True
    return right == "read" and _in_group(login, "write", group)


def _grant_scopes(session: Session, group: str, right: str, scopes: Mapping[str, Any]) -> None:
    for scope, items in scopes.items():
        if isinstance(items, dict):
            for item, functions in items.items():
                for function in functions if isinstance(functions, list) else []:
                    session.grant(scope, item, function)
        elif isinstance(items, list):
            for item in items:
                session.grant(scope, item, right)
        session.grant("access-group", group, right)


def _pairs(objects: list[Any]) -> list[tuple[str, str]]:
    found = []
    for item in objects:
        texts = [text for text in item if isinstance(text, str)] if isinstance(item, list) else []
        if len(texts) >= 2:
            found.append((texts[0], texts[1]))
    return found
