# SPDX-License-Identifier: GPL-2.0-or-later
"""rpcd's object `uci`: reading and changing configuration, with and without a session."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .context import Call
from .rpcd_apply import Apply
from .rpcd_session import Sessions
from .uci_package import NotFound, Package, Section, UciError, Value, is_name
from .uci_store import Store
from .wire import Status, Type, encode, pick

_SESSION = {"ubus_rpc_session": Type.STRING}
_MATCH = {"config": Type.STRING, "section": Type.STRING, "type": Type.STRING, "match": Type.TABLE}
_GET = {
    "config": Type.STRING,
    "section": Type.STRING,
    "option": Type.STRING,
    "type": Type.STRING,
    "match": Type.TABLE,
    **_SESSION,
}
SIGNATURES: Mapping[str, Mapping[str, int]] = {
    "configs": {},
    "get": _GET,
    "state": _GET,
    "add": {
        "config": Type.STRING,
        "type": Type.STRING,
        "name": Type.STRING,
        "values": Type.TABLE,
        **_SESSION,
    },
    "set": {**_MATCH, "values": Type.TABLE, **_SESSION},
    "delete": {**_MATCH, "option": Type.STRING, "options": Type.ARRAY, **_SESSION},
    "rename": {
        "config": Type.STRING,
        "section": Type.STRING,
        "option": Type.STRING,
        "name": Type.STRING,
        **_SESSION,
    },
    "order": {"config": Type.STRING, "sections": Type.ARRAY, **_SESSION},
    "changes": {"config": Type.STRING, **_SESSION},
    "revert": {"config": Type.STRING, **_SESSION},
    "commit": {"config": Type.STRING, **_SESSION},
    "apply": {"rollback": Type.INT8, "timeout": Type.INT32, **_SESSION},
    "confirm": _SESSION,
    "rollback": _SESSION,
    "reload_config": {},
}
Arguments = Mapping[str, Any]


class Refused(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class UciObject:
    def __init__(
        self,
        store: Store,
        save_dir: Path,
        run_dir: Path,
        sessions: Sessions,
        *,
        changed: Callable[[str], None],
        reload_config: Callable[[], None],
    ) -> None:
        self._store = store
        self._save_dir = save_dir
        self._run_dir = run_dir
        self._sessions = sessions
        self._changed = changed
        self._reload = reload_config
        self.apply = Apply(store, run_dir, sessions, changed)

    def handle(self, call: Call, data: bytes) -> int:
        arguments = pick(SIGNATURES[call.method], data)
        try:
            answer = getattr(self, f"_{call.method}")(arguments)
        except Refused as refusal:
            return refusal.status
        except UciError as error:
            return error.status
        if answer is not None:
            call.reply(encode(answer))
        return Status.OK

    # Access

    def _saves(self, arguments: Arguments) -> Path:
        session = arguments.get("ubus_rpc_session")
        return self._save_dir if session is None else self._run_dir / f"uci-{session}"

    def _allow(self, arguments: Arguments, right: str) -> Path:
        session = arguments.get("ubus_rpc_session")
        allowed = session is None or self._sessions.may(session, "uci", arguments["config"], right)
        if not allowed:
            raise Refused(Status.PERMISSION_DENIED)
        return self._saves(arguments)

    def _stage(self, package: Package, saves: Path) -> None:
        try:
            self._store.stage(package, saves)
        except OSError:
            # rpcd does not look at the outcome of saving.
            return

    # Reading

    def _configs(self, _: Arguments) -> dict[str, Any]:
        return {"configs": self._store.configs()}

    def _state(self, arguments: Arguments) -> dict[str, Any] | None:
        return self._get(arguments)

    def _get(self, arguments: Arguments) -> dict[str, Any] | None:
        _need(arguments, "config")
        package = self._store.load(arguments["config"], self._allow(arguments, "read"))
        if "section" not in arguments:
            return {"values": _dump_all(package, arguments.get("type"), arguments.get("match"))}
        # A section or option that is not there is no error: the answer is missing, that is all.
        try:
            section = package.lookup(arguments["section"])
        except UciError:
            return None
        if section is None:
            return None
        if "option" not in arguments:
            return {"values": _dump(section)}
        value = section.options.get(arguments["option"])
        return None if value is None else {"value": value}

    def _changes(self, arguments: Arguments) -> dict[str, Any]:
        if "config" in arguments:
            package = self._store.load(arguments["config"], self._allow(arguments, "read"))
            return {"changes": _dump_changes(package)}
        saves, session = self._saves(arguments), arguments.get("ubus_rpc_session")
        found: dict[str, Any] = {}
        for name in self._store.configs():
            if session is not None and not self._sessions.may(session, "uci", name, "read"):
                continue
            try:
                package = self._store.load(name, saves)
            except UciError:
                continue
            if package.staged:
                found[name] = _dump_changes(package)
        return {"changes": found}

    # Changing

    def _add(self, arguments: Arguments) -> dict[str, Any]:
        _need(arguments, "config", "type")
        saves = self._allow(arguments, "write")
        name = arguments.get("name")
        if not is_name(arguments["type"], package=True) or (name is not None and not is_name(name)):
            raise Refused(Status.INVALID_ARGUMENT)
        package = self._store.load(arguments["config"], saves)
        if name is None:
            section = package.add(arguments["type"])
        else:
            section = package.set_section(name, arguments["type"])
        status = Status.OK
        for option, value in arguments.get("values", {}).items():
            status = status or _add_value(package, section, option, value)
        if status:
            raise Refused(status)
        self._stage(package, saves)
        return {"section": section.name}

    def _set(self, arguments: Arguments) -> None:
        _need(arguments, "config", "values")
        saves = self._change_access(arguments)
        package = self._store.load(arguments["config"], saves)
        status = Status.OK
        section = None
        for target in _targets(package, arguments):
            for option, value in arguments["values"].items():
                if not is_name(option):
                    status = Status.INVALID_ARGUMENT
                elif target is None:
                    status = Status.NOT_FOUND
                else:
                    section = target
                    status = _merge(package, target, option, value) or status
        if section is None and not status:
            status = Status.NOT_FOUND
        if status:
            raise Refused(status)
        self._stage(package, saves)

    def _change_access(self, arguments: Arguments) -> Path:
        if not {"section", "type", "match"} & arguments.keys():
            raise Refused(Status.INVALID_ARGUMENT)
        saves = self._allow(arguments, "write")
        if "section" in arguments and not _is_reference(arguments["section"]):
            raise Refused(Status.INVALID_ARGUMENT)
        return saves

    def _delete(self, arguments: Arguments) -> None:
        _need(arguments, "config")
        saves = self._change_access(arguments)
        if "type" in arguments and not is_name(arguments["type"], package=True):
            raise Refused(Status.INVALID_ARGUMENT)
        package = self._store.load(arguments["config"], saves)
        option = arguments.get("options", arguments.get("option"))
        targets = list(_targets(package, arguments))
        status = Status.OK if targets else Status.NOT_FOUND
        for target in targets:
            # The last section decides, as it does in rpcd.
            status = _delete(package, target, option) if target else Status.NOT_FOUND
        if status:
            raise Refused(status)
        self._stage(package, saves)

    def _rename(self, arguments: Arguments) -> None:
        _need(arguments, "config", "section", "name")
        saves = self._allow(arguments, "write")
        if not is_name(arguments["name"]):
            raise Refused(Status.INVALID_ARGUMENT)
        package = self._store.load(arguments["config"], saves)
        section = package.find(arguments["section"])
        option = arguments.get("option")
        # rpcd loses the error here and reports success.
        if section is None or (option is not None and option not in section.options):
            return
        package.rename(section, option, arguments["name"])
        self._stage(package, saves)

    def _order(self, arguments: Arguments) -> None:
        _need(arguments, "config", "sections")
        saves = self._allow(arguments, "write")
        package = self._store.load(arguments["config"], saves)
        status, place = Status.OK, 0
        for name in arguments["sections"]:
            section = package.find(name) if isinstance(name, str) else None
            if section is None:
                wrong = Status.NOT_FOUND if isinstance(name, str) else Status.INVALID_ARGUMENT
                status = status or wrong
                continue
            package.reorder(section, place)
            place += 1
        if status:
            raise Refused(status)
        self._stage(package, saves)

    def _revert(self, arguments: Arguments) -> None:
        saves = self._settle(arguments)
        self._store.revert(arguments["config"], saves)

    def _commit(self, arguments: Arguments) -> None:
        saves = self._settle(arguments)
        self._store.commit(arguments["config"], saves)
        self._changed(arguments["config"])

    def _settle(self, arguments: Arguments) -> Path:
        if self.apply.session:
            raise Refused(Status.PERMISSION_DENIED)
        _need(arguments, "config")
        return self._allow(arguments, "write")

    # Apply

    def _apply(self, arguments: Arguments) -> None:
        _pass(self.apply.start(arguments))

    def _confirm(self, arguments: Arguments) -> None:
        _pass(self.apply.confirm(arguments.get("ubus_rpc_session")))

    def _rollback(self, arguments: Arguments) -> None:
        _pass(self.apply.rollback(arguments.get("ubus_rpc_session")))

    def _reload_config(self, _: Arguments) -> None:
        self._reload()


def _pass(status: int) -> None:
    if status:
        raise Refused(status)


def _need(arguments: Arguments, *names: str) -> None:
    if any(name not in arguments for name in names):
        raise Refused(Status.INVALID_ARGUMENT)


def _is_reference(text: str) -> bool:
    if not text.startswith("@"):
        return is_name(text)
    kind, bracket, rest = text[1:].partition("[")
    digits = rest.removesuffix("]").removeprefix("-")
    return bool(bracket) and is_name(kind or "x", package=True) and digits.isdigit()


def _targets(package: Package, arguments: Arguments) -> list[Section | None]:
    if "section" in arguments:
        try:
            return [package.lookup(arguments["section"])]
        except UciError:
            return [None]
    kind, match = arguments.get("type"), arguments.get("match")
    return [section for section in package.sections if _matches(section, kind, match)]


def _matches(section: Section, kind: str | None, match: Mapping[str, Any] | None) -> bool:
    if kind is not None and section.type != kind:
        return False
    texts = {name: _format(value) for name, value in (match or {}).items()}
    wanted = {name: text for name, text in texts.items() if text is not None}
    matched = not wanted
    for name, text in wanted.items():
        if name in section.options:
            if text not in _tokens(section.options[name]):
                return False
            matched = True
    return matched


def _tokens(value: Value) -> list[str]:
    return value.replace("\t", " ").split(" ") if isinstance(value, str) else value


def _format(value: Any) -> str | None:
    """What rpcd makes of a value: integers as unsigned, no floats, tables or nulls."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int):
        return str(value & (0xFFFFFFFF if -(1 << 31) <= value < 1 << 31 else (1 << 64) - 1))
    return None


def _dump(section: Section, index: int | None = None) -> dict[str, Any]:
    head: dict[str, Any] = {
        ".anonymous": section.anonymous,
        ".type": section.type,
        ".name": section.name,
    }
    if index is not None:
        head[".index"] = index
    return {**head, **section.options}


def _dump_all(
    package: Package, kind: str | None, match: Mapping[str, Any] | None
) -> dict[str, Any]:
    return {
        section.name: _dump(section, index)
        for index, section in enumerate(package.sections)
        if _matches(section, kind, match)
    }


def _dump_changes(package: Package) -> list[list[Any]]:
    found = []
    for change in package.staged:
        line: list[Any] = [change.command, change.section]
        line += [] if change.option is None else [change.option]
        if change.value is not None:
            order = change.command == "order"
            line.append(int(change.value) if order else change.value)
        found.append(line)
    return found


def _add_value(package: Package, section: Section, option: str, value: Any) -> Status:
    if not is_name(option):
        return Status.INVALID_ARGUMENT
    items = value if isinstance(value, list) else [value]
    texts = [_format(item) for item in items]
    for text in texts:
        if text is not None and isinstance(value, list):
            package.add_item(section, option, text)
        elif text is not None:
            package.set_option(section, option, text)
    return Status.INVALID_ARGUMENT if None in texts else Status.OK


def _merge(package: Package, section: Section, option: str, value: Any) -> Status:
    known = section.options.get(option)
    if isinstance(value, list):
        if known is not None:
            package.delete_option(section, option)
        texts = [text for text in map(_format, value) if text is not None]
        for text in texts:
            package.add_item(section, option, text)
        return Status.OK if texts else Status.INVALID_ARGUMENT
    if isinstance(known, list):
        package.delete_option(section, option)
    new = _format(value)
    if new is None:
        return Status.INVALID_ARGUMENT
    package.set_option(section, option, new)
    return Status.OK


def _delete(package: Package, section: Section, option: str | list[Any] | None) -> Status:
    if option is None:
        package.delete_section(section)
        return Status.OK
    status = Status.NOT_FOUND
    for name in option if isinstance(option, list) else [option]:
        try:
            package.delete_option(section, name)
        except (NotFound, TypeError):
            continue
        status = Status.OK
    return status
