# SPDX-License-Identifier: GPL-2.0-or-later
"""portcullisctl: the command line. A thin client of the ubus object `portcullis`.

Exit codes: 0 done; 1 refused; 2 wrong usage; 3 the daemon or ubus cannot be reached; `status`
ends with 0 only if the kill switch is active and verified or the owner is disconnected as wished.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from typing import Any

from portcullis import __version__, settings
from portcullis.bus import SOCKET
from portcullis.states import State

OK, REFUSED, USAGE, UNREACHABLE = 0, 1, 2, 3
_TIMEOUT_MS = 10000
_HEADLINES = {
    State.CONNECTED: "Protected: all traffic goes through {profile}",
    State.CONNECTING: "Blocked: connecting to {profile}",
    State.RECONNECTING: "Blocked: reconnecting to {profile}",
    State.CONNECTION_FAILED: "Blocked: the connection failed",
    State.DISCONNECTING: "Disconnecting",
    State.NOT_CONNECTED: "Not connected",
}


class UnreachableError(Exception):
    """Nobody answers on the bus."""


class Daemon:
    def __init__(self, path: str) -> None:
        try:
            import ubus
        except ImportError as error:
            raise UnreachableError(f"python-ubus is not installed: {error}") from None
        try:
            ubus.connect(path)
        except (OSError, RuntimeError) as error:
            raise UnreachableError(f"ubusd cannot be reached: {str(error).strip()}") from None
        self.ubus = ubus

    def call(self, method: str, **arguments: str) -> dict[str, Any]:
        try:
            (answer,) = self.ubus.call("portcullis", method, arguments, _TIMEOUT_MS)
        except (OSError, RuntimeError, ValueError) as error:
            text = str(error)
            if "not found" in text:
                text = "the daemon is not running (service portcullis start)"
            raise UnreachableError(text) from None
        return dict(answer)


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(sys.argv[1:] if argv is None else argv)
    try:
        return int(options.command(Daemon(options.ubus), options))
    except UnreachableError as error:
        print(f"portcullisctl: {error}. The block stays as it was.", file=sys.stderr)
        return UNREACHABLE
    except KeyboardInterrupt:
        return OK
    except BrokenPipeError:
        sys.stderr.close()
        return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="portcullisctl", description="Drive the Portcullis VPN kill switch."
    )
    parser.add_argument("--version", action="version", version=f"portcullisctl {__version__}")
    parser.add_argument("--ubus", default=SOCKET, metavar="SOCKET", help=argparse.SUPPRESS)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command)
        return sub

    sub = add("status", _status, "show the state, and the row of the state table at work")
    sub.add_argument("--json", action="store_true", help="everything, for programs")
    sub = add("connect", _connect, "connect, and keep connected until told otherwise")
    sub.add_argument("profile", nargs="?", default="", help="default: the last one")
    sub.add_argument("--wait", type=float, metavar="SECONDS", help="until connected, or fail")
    add("disconnect", _disconnect, "disconnect; in standard mode this ends the blocking")
    sub = add("get", _get, "show settings")
    sub.add_argument("name", nargs="?", default="", help="one of them; default: all")
    sub = add("set", _set, "change a setting")
    sub.add_argument("name", help="mode, lan_access, dns, bootstrap_dns, profiles, port …")
    sub.add_argument("value", nargs="*", help="lists: several values; none empties the list")
    add("profiles", _profiles, "list the profiles and what is wrong with them")
    add("devices", _devices, "list the devices of the house, and which may reach which")
    sub = add("device", _device, "except one device from LAN access, or end its exception")
    sub.add_argument("mac", help="its MAC address")
    sub.add_argument("access", help="default, allowed or denied")
    sub = add("selftest", _selftest, "prove the block on this router, now, with real packets")
    sub.add_argument("--json", action="store_true", help="the result alone, for programs")
    add("monitor", _monitor, "print every change of state, and every alarm, as it happens")
    return parser


def _status(daemon: Daemon, options: argparse.Namespace) -> int:
    found = daemon.call("status")
    if options.json:
        print(json.dumps(found, indent=2, sort_keys=True))
    else:
        print("\n".join(status_lines(found)))
    switch = found["kill_switch"]
    return OK if switch["verified"] and found["state"] != State.CONNECTION_FAILED else REFUSED


def status_lines(found: dict[str, Any]) -> list[str]:
    """Status for people, the headline first."""
    state, switch, tunnel = State(found["state"]), found["kill_switch"], found["tunnel"]
    lines = [_HEADLINES[state].format(profile=found["profile"] or "the VPN")]
    if switch["active"] and not switch["verified"]:
        lines = ["NOT VERIFIED: the block may have holes, see the faults below"]
    rows = [
        ("state", f"{state.value} since {_clock(found['since'])}"),
        ("reason", found["reason"]),
        ("kill switch", f"enabled, {_activity(switch)} ({switch['mode']} mode)"),
        ("", switch["meaning"]),
        ("advice", switch["advice"]),
        ("server", ", ".join(found["endpoints"])),
        ("handshake", _age(tunnel.get("handshake_age", -1))),
        ("transfer", _transfer(tunnel)),
        ("attempt", _attempt(tunnel)),
        ("resolvers", ", ".join(found["resolvers"])),
        ("protects", _protected(found["networks"])),
        ("lan access", "allowed" if found["lan_access"] else "denied"),
        ("blocked", _blocked(found["blocked"])),
        ("tampering", _alarm(found["alarms"][0]) if found["alarms"] else ""),
        *(("layer", text) for text in _layers(found["layers"])),
        *(("note", note) for note in tunnel["notes"]),
        *(("fault", fault) for fault in found["faults"]),
    ]
    return lines + [f"  {name:<12} {text}" for name, text in rows if text]


def _protected(networks: list[dict[str, Any]]) -> str:
    named = ", ".join(f"{network['name']} ({network['device']})" for network in networks)
    return named or "no network: none was found that this router serves"


def _alarm(alarm: dict[str, Any]) -> str:
    by = f" by {alarm['by']}" if alarm["by"] else ""
    times = f", {alarm['times']} times" if alarm["times"] > 1 else ""
    what = "; ".join(alarm["what"])
    return f"{_clock(alarm['time'])}  undone what was changed{by}{times}: {what}"


def _layers(layers: dict[str, str]) -> list[str]:
    """Those that are not simply in force."""
    found = layers.items()
    return [f"{name.replace('_', ' ')}: {how}" for name, how in found if how != "in force"]


def _activity(switch: dict[str, Any]) -> str:
    if not switch["active"]:
        return "inactive"
    return "active and verified" if switch["verified"] else "ACTIVE BUT NOT VERIFIED"


def _clock(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _age(seconds: int) -> str:
    return f"{seconds} s ago" if seconds >= 0 else ""


def _transfer(tunnel: dict[str, Any]) -> str:
    if "received" not in tunnel:
        return ""
    return f"{_octets(tunnel['received'])} received, {_octets(tunnel['sent'])} sent"


def _octets(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def _attempt(tunnel: dict[str, Any]) -> str:
    if not tunnel["attempt"]:
        return ""
    wait = tunnel["next_attempt_in"]
    return f"{tunnel['attempt']}" + (f", the next in {wait} s" if wait else "")


def _blocked(counters: dict[str, int]) -> str:
    named = [f"{count} {name.removeprefix('blocked_')}" for name, count in counters.items()]
    return ", ".join(text for text in named if not text.startswith("0 ")) and (
        ", ".join(text for text in named if not text.startswith("0 ")) + " (packets)"
    )


def _connect(daemon: Daemon, options: argparse.Namespace) -> int:
    answer = daemon.call("connect", profile=options.profile)
    if not answer["ok"]:
        return _refused(answer)
    if answer["warning"]:
        print(f"portcullisctl: {answer['warning']}", file=sys.stderr)
    if options.wait is None:
        print(f"{answer['state']}: the kill switch is active")
        return OK
    deadline = time.monotonic() + options.wait
    while True:
        found = daemon.call("status")
        if found["state"] == State.CONNECTED:
            print(_HEADLINES[State.CONNECTED].format(profile=found["profile"]))
            return OK
        if found["state"] == State.CONNECTION_FAILED or time.monotonic() > deadline:
            print(f"portcullisctl: {found['state']}: {found['reason']}", file=sys.stderr)
            return REFUSED
        time.sleep(0.05)


def _disconnect(daemon: Daemon, _options: argparse.Namespace) -> int:
    answer = daemon.call("disconnect")
    if not answer["ok"]:
        return _refused(answer)
    if answer["warning"]:
        print(f"portcullisctl: {answer['warning']}", file=sys.stderr)
    switch = daemon.call("status")["kill_switch"]
    print(f"disconnected: {switch['meaning'].partition(': ')[2]}")
    return OK


def _get(daemon: Daemon, options: argparse.Namespace) -> int:
    values = daemon.call("get")
    values.pop("ok")
    name = settings.canonical(options.name)
    if name == "at_all_times":
        name = "mode"
    if name and name not in values:
        print(f"portcullisctl: there is no setting {options.name!a}", file=sys.stderr)
        return REFUSED
    for key in [name] if name else sorted(values):
        print(_plain(values[key]) if name else f"{key} {_plain(values[key])}".rstrip())
    return OK


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return " ".join(value) if isinstance(value, list) else str(value)


def _set(daemon: Daemon, options: argparse.Namespace) -> int:
    answer = daemon.call("set", name=options.name, value=" ".join(options.value))
    if not answer["ok"]:
        return _refused(answer)
    if answer["warning"]:
        print(answer["warning"])
    return OK


def _profiles(daemon: Daemon, _options: argparse.Namespace) -> int:
    answer = daemon.call("profiles")
    while answer.get("unread"):  # thousands are read in small pieces
        time.sleep(0.2)
        answer = daemon.call("profiles")
    found = answer["profiles"]
    if not found:
        print("There are no profiles yet: put your provider's WireGuard files, NAME.conf, into")
        print("/etc/portcullis/profiles/")
    for profile in found:
        detail = profile.get("server") if profile["usable"] else f"UNUSABLE: {profile['problem']}"
        print(f"{profile['name']:<24} {detail}")
        if profile.get("note"):
            print(f"{'':<24} {profile['note']}")
    return OK


def _devices(daemon: Daemon, _options: argparse.Namespace) -> int:
    print("\n".join(device_lines(daemon.call("devices"))))
    return OK


def device_lines(found: dict[str, Any]) -> list[str]:
    """The devices for people, one a line, and under it what is worth knowing."""
    lines = [f"LAN access: {'allowed' if found['lan_access'] else 'denied'}"]
    for device in found["devices"]:
        place = f"{device['network']}/{device['device']}".strip("/") or "not seen"
        columns = (
            device["mac"],
            f"{device['access']:<7}",
            "online " if device["online"] else "offline",
            f"{place:<16}",
            f"{device['hostname'] or '?':<24}",
            next(iter((*device["ipv4"], *device["ipv6"])), ""),
        )
        lines.append("  ".join(columns).rstrip())
        if device["note"]:
            mark = "" if device["enforced"] else "NOT ENFORCED: "
            lines.append(f"{'':<19}{mark}{device['note']}")
    return lines


def _device(daemon: Daemon, options: argparse.Namespace) -> int:
    answer = daemon.call("set_device", mac=options.mac, access=options.access)
    if not answer["ok"]:
        return _refused(answer)
    if answer["warning"]:
        print(answer["warning"])
    return OK


def _selftest(daemon: Daemon, options: argparse.Namespace) -> int:
    found = daemon.call("selftest")
    if not found["ok"]:
        return _refused(found)
    told: set[str] = set()
    while True:
        for entry in found["properties"] if not options.json else ():
            if entry["property"] not in told and entry["result"] not in ("waiting", "running"):
                told.add(entry["property"])
                print("\n".join(property_lines(entry)), flush=True)
        if not found["running"]:
            break
        time.sleep(0.1)
        found = daemon.call("selftest_result")
    print(json.dumps(found, indent=2) if options.json else verdict_line(found))
    return OK if found["verdict"] == "pass" else REFUSED


def property_lines(entry: dict[str, Any]) -> list[str]:
    """One property's result for people."""
    word = {"pass": "pass", "fail": "FAIL"}.get(entry["result"], "not testable")
    return [
        f"{word:<13} {entry['property']:<4} {entry['title']}",
        f"{'':<18} {entry['detail']}",
    ]


def verdict_line(found: dict[str, Any]) -> str:
    """The self-test's verdict for people, in the state in which it ran."""
    untested = [e["property"] for e in found["properties"] if e["result"] == "not_testable"]
    but = f"; not testable: {', '.join(untested)}" if untested else ""
    failed = [e["property"] for e in found["properties"] if e["result"] == "fail"]
    if found["verdict"] == "fail":
        return f"FAILED in state {found['state']}: {', '.join(failed)}{but}"
    if found["verdict"] == "pass":
        return f"Passed in state {found['state']}{but}"
    return f"The block could not be tested in state {found['state']}{but}"


def _monitor(daemon: Daemon, _options: argparse.Namespace) -> int:
    def show(_event: str, data: dict[str, Any]) -> None:
        activity = "active" if data["kill_switch_active"] else "inactive"
        reason = f"  ({data['reason']})" if data["reason"] else ""
        line = f"{_clock(data['since'])}  {data['state']:<18} kill switch {activity}{reason}"
        print(line, flush=True)

    def warn(_event: str, data: dict[str, Any]) -> None:
        print(_alarm(data), flush=True)

    # libubox takes it where nobody else does, ends its loop and says nothing of it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    found = daemon.call("status")
    daemon.ubus.listen(("portcullis.state", show))
    daemon.ubus.listen(("portcullis.alarm", warn))
    active = found["kill_switch"]["active"]
    show("", {**found, "kill_switch_active": active})
    while True:
        daemon.ubus.loop(500)
        daemon.call("status")  # ends with an error where ubusd or the daemon has gone


def _refused(answer: dict[str, Any]) -> int:
    print(f"portcullisctl: {answer['reason']}", file=sys.stderr)
    return REFUSED


if __name__ == "__main__":
    sys.exit(main())
