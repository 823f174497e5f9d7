# SPDX-License-Identifier: GPL-2.0-or-later
"""The ubus object `portcullis`, which is root's.

python-ubus knows no error codes and no optional arguments: every reply has `ok`, and where that
is false a `code` for programs and a `reason` for people; "" stands for a default.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from portcullis import __version__, commands, profiles
from portcullis.alarms import Alarm
from portcullis.bus import Methods
from portcullis.commands import Refusal
from portcullis.core import Core
from portcullis.door import Door
from portcullis.logs import LastLines
from portcullis.policy import TUNNEL
from portcullis.profile import quoted
from portcullis.rights import OBJECT as WEB_OBJECT
from portcullis.selftest.process import question
from portcullis.settings import LISTS, Settings
from portcullis.states import row

OBJECT = "portcullis"
STATE_EVENT = "portcullis.state"
_WHOLE, _SHORT = 1000, 60  # a ubus message has 1 MiB: of more profiles it holds short texts only
ALARM_EVENT = "portcullis.alarm"
Reply = dict[str, Any]
log = logging.getLogger("portcullis")


def objects(core: Core, door: Door, lines: LastLines, ubus: Any) -> dict[str, Methods]:
    """The objects to register, in python-ubus's form."""
    text = ubus.BLOBMSG_TYPE_STRING
    found: dict[str, Methods] = {
        OBJECT: {
            "status": _method(lambda _: status(core), {}),
            "connect": _method(lambda a: _connect(core, a["profile"]), {"profile": text}),
            "disconnect": _method(lambda _: _disconnect(core), {}),
            "set": _method(
                lambda a: _set(core, a["name"], a["value"]), {"name": text, "value": text}
            ),
            "get": _method(lambda _: {"ok": True, **shown(core.settings)}, {}),
            "profiles": _method(lambda _: _profiles(core), {}),
            "find_profiles": _method(lambda a: _find_profiles(core, a["search"]), {"search": text}),
            "reload": _method(lambda _: _reload(core), {}),
            "events": _method(lambda _: _events(core), {}),
            "import_profile": _method(
                lambda a: _import_profile(core, a["name"], a["text"]), {"name": text, "text": text}
            ),
            "rename_profile": _method(
                lambda a: _rename_profile(core, a["name"], a["new_name"]),
                {"name": text, "new_name": text},
            ),
            "delete_profile": _method(lambda a: _delete_profile(core, a["name"]), {"name": text}),
            "devices": _method(lambda _: _devices(core), {}),
            "set_device": _method(
                lambda a: _set_device(core, a["mac"], a["access"]), {"mac": text, "access": text}
            ),
            "selftest": _method(lambda _: _selftest(core), {}),
            "selftest_result": _method(lambda _: core.selftest.result(), {}),
            "traffic": _method(lambda _: _traffic(core), {}),
            "log": _method(lambda _: {"ok": True, "lines": lines.lines()}, {}),
            "token": _method(lambda a: door.token(a["session"]), {"session": text}),
        }
    }
    found[WEB_OBJECT] = door.methods(found[OBJECT], _method, text)
    return found


def status(core: Core) -> Reply:
    """Everything a person or a page may want to know at a glance; no secrets."""
    state, mode, tunnel = core.state, core.settings.mode, core.tunnel
    explained = row(state, mode)
    policy = core.policy()
    return {
        "ok": True,
        "version": __version__,
        "state": state.value,
        "since": int(core.since.shown),
        "reason": core.reason,
        "intent": "connected" if core.intent.connected else "disconnected",
        "kill_switch": {
            "enabled": True,
            "active": explained.active,
            "mode": mode.value,
            "verified": core.block.verified,
            "meaning": explained.meaning,
            "advice": explained.advice,
        },
        "lan_access": core.settings.lan_access,
        "profile": tunnel.name or core.intent.profile,
        "tunnel": _tunnel(core),
        "networks": [
            {"name": n.name, "device": n.device, "prefixes": list(n.prefixes)}
            for n in core.networks
        ],
        "interfaces": _interfaces(core),
        "served": [network.device for network in policy.served],
        "upstream": list(core.surroundings.upstream),
        "endpoints": [f"{e.address} {e.transport} {e.port}" for e in policy.endpoints],
        "resolvers": list(policy.chosen or policy.resolvers),
        "blocked": core.block.counters(),
        "restored": core.alarms.restored,
        "alarms": [alarm_event(alarm) for alarm in core.alarms.recent],
        "layers": core.block.layers,
        "faults": core.faults.lines(),
    }


def _interfaces(core: Core) -> list[Reply]:
    """netifd's interfaces, and what Portcullis takes them for."""
    protected = {network.name for network in core.networks}

    def kind(name: str, device: str) -> str:
        if name in protected:
            return "protected"
        return "internet" if device in core.surroundings.upstream else "other"

    return [
        {"name": name, "device": device, "kind": kind(name, device)}
        for name, device in core.surroundings.interfaces
        if device not in ("lo", TUNNEL)
    ]


def transition_event(core: Core, old: str, reason: str) -> Reply:
    """What the event `portcullis.state` carries."""
    explained = row(core.state, core.settings.mode)
    return {
        "state": core.state.value,
        "old_state": old,
        "reason": reason,
        "since": int(core.since.shown),
        "kill_switch_active": explained.active,
    }


def alarm_event(alarm: Alarm) -> Reply:
    """What the event `portcullis.alarm` carries, and status lists."""
    return {
        "time": int(alarm.time),
        "what": list(alarm.what),
        "by": alarm.by,
        "times": alarm.times,
    }


def shown(values: Settings) -> Reply:
    """Settings as a reply has them."""
    found: Reply = {}
    for option, value in values._asdict().items():
        found[option] = list(value) if option in LISTS else value
    return found | {"mode": values.mode.value, "kill_switch": True}


def _tunnel(core: Core) -> Reply:
    tunnel, driver = core.tunnel, core.driver
    wait = tunnel.next_attempt_at
    found: Reply = {
        "attempt": tunnel.attempt,
        "next_attempt_in": max(0, round(wait - time.monotonic())) if wait else 0,
        "notes": list(tunnel.notes) if tunnel.link else [],
        "implementation": driver.implementation,
    }
    if tunnel.link:
        found["addresses"] = list(tunnel.link.addresses)
        found["carries"] = list(tunnel.link.carries[:20])
        if reading := driver.reading():
            seen = core.clock.handshake_age
            age = round(seen) if seen is not None and reading.handshake else -1
            found |= {"handshake_age": age, "received": reading.received, "sent": reading.sent}
    return found


def _connect(core: Core, profile: str) -> Reply:
    warning = commands.connect(core, profile)
    return {"ok": True, "state": core.state.value, "warning": warning or ""}


def _disconnect(core: Core) -> Reply:
    warning = commands.disconnect(core)
    return {"ok": True, "state": core.state.value, "warning": warning or ""}


def _set(core: Core, name: str, value: str) -> Reply:
    warning = commands.set_option(core, name, value)
    return {"ok": True, "warning": warning, **shown(core.settings)}


def _reload(core: Core) -> Reply:
    core.reload()
    return {"ok": True, "faults": core.faults.lines()}


def _devices(core: Core) -> Reply:
    found = core.lan.devices(core.block.metered())
    return {"ok": True, "lan_access": core.settings.lan_access, "devices": found}


def _set_device(core: Core, mac: str, access: str) -> Reply:
    try:
        warning = core.lan.set(mac, access)
    except ValueError as error:
        code = "bad_mac" if str(error).startswith("mac ") else "bad_access"
        shown = quoted(mac if code == "bad_mac" else access)
        raise Refusal(code, f"Not set: {error}, not {shown}.") from None
    return {"ok": True, "warning": warning}


def _selftest(core: Core) -> Reply:
    core.selftest.start(question(core), core.state.value)
    return core.selftest.result()


def _traffic(core: Core) -> Reply:
    core.note_traffic()
    return {"ok": True, **core.traffic.shown(time.monotonic())}


def _profiles(core: Core) -> Reply:
    entries, fallbacks = core.catalogue.entries(), list(core.settings.profiles)
    if len(entries) > _WHOLE:
        entries = [
            {key: value if key == "name" else _cut(value) for key, value in entry.items()}
            for entry in entries
        ]
    unread = core.catalogue.unread
    return {"ok": True, "profiles": entries, "fallbacks": fallbacks, "unread": unread}


def _cut(value: Any) -> Any:
    return value if not isinstance(value, str) or len(value) <= _SHORT else value[:_SHORT] + "…"


def _find_profiles(core: Core, search: str) -> Reply:
    entries, matching, total, unread = core.catalogue.find(search)
    missing = [n for n in core.settings.profiles if not profiles.exists(core.profiles_folder, n)]
    counts = {"matching": matching, "total": total, "unread": unread}
    return {"ok": True, "profiles": entries, **counts, "missing": missing}


def _events(core: Core) -> Reply:
    return {
        "ok": True,
        "events": [
            {
                "time": int(event.time.shown),
                "state": event.new.value,
                "old_state": event.old.value,
                "reason": event.reason,
                "kill_switch_active": event.active,
            }
            for event in core.history.newest_first()
        ],
    }


def _import_profile(core: Core, name: str, text: str) -> Reply:
    commands.import_profile(core, name, text)
    return {"ok": True}


def _rename_profile(core: Core, name: str, new_name: str) -> Reply:
    return {"ok": True, "warning": commands.rename_profile(core, name, new_name) or ""}


def _delete_profile(core: Core, name: str) -> Reply:
    commands.delete_profile(core, name)
    return {"ok": True}


def _method(answer: Callable[[dict[str, Any]], Reply], signature: dict[str, int]) -> dict[str, Any]:
    def handle(handler: Any, arguments: dict[str, Any]) -> None:
        try:
            reply = answer(arguments)
        except Refusal as refusal:
            reply = {"ok": False, "code": refusal.code, "reason": str(refusal)}
        except profiles.ProfileRefusedError as refused:
            reply = {"ok": False, "code": "bad_profile", "reason": str(refused)}
            reply["problems"] = [
                {"line": p.line or 0, "key": p.key or "", "reason": p.reason}
                for p in refused.problems
            ]
        except OSError as error:
            reply = {"ok": False, "code": "not_saved", "reason": f"it cannot be saved: {error}"}
        except Exception as error:
            log.exception("a command failed")
            reply = {"ok": False, "code": "internal", "reason": f"internal error: {error!r}"}
        handler.reply(reply)

    return {"method": handle, "signature": signature}
