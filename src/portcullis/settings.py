# SPDX-License-Identifier: GPL-2.0-or-later
"""The owner's settings: what UCI's `portcullis` may hold, and what it means.

Pure. A value that makes no sense is named and replaced by its *closed* meaning, never by the
default of convenience. There is no setting that turns the kill switch off, and whoever tries
to, by whatever name, is told so.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, NamedTuple

from portcullis.dns import unfit
from portcullis.policy import Socket
from portcullis.profile import quoted, secrets_removed, valid_name
from portcullis.rights import PORT
from portcullis.states import Mode

PORT_MIN = 1024
"""The page's process may bind no port below: it has no rights at all (K17)."""

MOST = 100
"""Entries of a list. Each resolver takes a socket when the tunnel is proven, and a message of ubus,
such as the status with all that is wrong, has an end."""

CONFIG, SECTION, TYPE = "portcullis", "main", "portcullis"
SCHEMA = "schema"
"""The number of the format, for migrations (uci-defaults); nothing the owner sets."""


class Settings(NamedTuple):
    """`dns`: owner's resolvers, instead of the profile's. `bootstrap_dns`: resolvers that a
    VPN server's name is asked of. `profiles`: fallbacks, tried in this order.
    `protected_networks` and `internet_networks`: interfaces of netifd that are, or are not, to
    be protected, whatever the evidence says. `port`: the web page's."""

    mode: Mode = Mode.STANDARD
    lan_access: bool = True
    dns: tuple[str, ...] = ()
    bootstrap_dns: tuple[str, ...] = ("9.9.9.9", "1.1.1.1", "2620:fe::fe", "2606:4700:4700::1111")
    profiles: tuple[str, ...] = ()
    protected_networks: tuple[str, ...] = ()
    internet_networks: tuple[str, ...] = ()
    port: int = PORT

    def bootstrap(self) -> tuple[Socket, ...]:
        return tuple(Socket(address, "udp", 53) for address in self.bootstrap_dns)


DEFAULT = Settings()
CLOSED = Settings(mode=Mode.AT_ALL_TIMES, lan_access=False)


class SettingError(ValueError):
    """A setting that does not exist, or a value it cannot have. `code` is for programs."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


_TRUE = ("1", "true", "on", "yes", "enable", "enabled", "allow", "allowed")
_FALSE = ("0", "false", "off", "no", "disable", "disabled", "deny", "denied", "none", "never")


def _boolean(value: str) -> bool:
    word = value.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("must be 1 (yes) or 0 (no)")


def _mode(value: str) -> Mode:
    word = value.strip().lower().replace("-", "_").replace(" ", "_")
    try:
        return Mode(word)
    except ValueError:
        raise ValueError("must be standard or at_all_times") from None


def _word(word: str) -> str:
    return secrets_removed(word)[:60]


def _listed(value: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(value.replace(",", " ").split()))
    if len(found) > MOST:
        raise ValueError(f"takes at most {MOST} entries")
    return found


def _resolvers(value: str) -> tuple[str, ...]:
    found = []
    for word in _listed(value):
        try:
            address = ip_address(word)
        except ValueError:
            raise ValueError(f"{_word(word)} is not an IP address") from None
        if "%" in word or (kind := unfit(address)):
            reason = "has a zone" if "%" in word else f"is {kind}"
            raise ValueError(f"{word} {reason} and cannot be a resolver")
        found.append(str(address))
    return tuple(dict.fromkeys(found))


def _bootstrap(value: str) -> tuple[str, ...]:
    return _resolvers(value) or DEFAULT.bootstrap_dns


def _names(value: str) -> tuple[str, ...]:
    found = _listed(value)
    for name in found:
        if reason := valid_name(name):
            raise ValueError(f"{_word(name)}: {reason}")
    return found


def _interfaces(value: str) -> tuple[str, ...]:
    found = _listed(value)
    for name in found:
        if not re.fullmatch(r"[A-Za-z0-9_.@-]{1,32}", name):
            raise ValueError(f"{_word(name)} is no name of an interface")
    return found


def _port(value: str) -> int:
    word = value.strip()
    if not re.fullmatch(r"[0-9]{1,5}", word) or not PORT_MIN <= int(word) <= 65535:
        raise ValueError(f"must be a number from {PORT_MIN} to 65535")
    return int(word)


_PARSERS: dict[str, Callable[[str], Any]] = {
    "mode": _mode,
    "lan_access": _boolean,
    "dns": _resolvers,
    "bootstrap_dns": _bootstrap,
    "profiles": _names,
    "protected_networks": _interfaces,
    "internet_networks": _interfaces,
    "port": _port,
}
LISTS = ("dns", "bootstrap_dns", "profiles", "protected_networks", "internet_networks")
NETWORKS = ("protected_networks", "internet_networks")
"""Settings that say which networks are protected: a change has them looked at again."""
TUNNEL = ("dns",)
"""Settings a running tunnel depends on: a change reconnects."""

_ALIASES = {
    "killswitchmode": "mode",
    "networklockmode": "mode",
    "advancedkillswitch": "at_all_times",
    "enableatalltimes": "at_all_times",
    "alltimes": "at_all_times",
    "atalltimes": "at_all_times",
    "lanaccess": "lan_access",
    "allowlan": "lan_access",
    "lan": "lan_access",
    "localnetwork": "lan_access",
    "allowaccesstodevicesonlocalnetwork": "lan_access",
    "resolvers": "dns",
    "resolver": "dns",
    "bootstrap": "bootstrap_dns",
    "bootstrapdns": "bootstrap_dns",
    "fallback": "profiles",
    "webport": "port",
}
_KILL_SWITCH_WORDS = ("killswitch", "networklock", "internetlock", "firewalllock", "leakprotection")
_KILL_SWITCH = (
    *("lock", "ks", "block", "blocking", "enable", "enabled", "disable", "disabled"),
    *("protection", "active", "portcullis", "firewall", "guard", "routingguard", "off", "on"),
)
_NEGATIONS = ("off", "disab", "no", "without", "stop", "bypass", "un", "dis")
REFUSAL = (
    "The kill switch cannot be disabled on a router. In standard mode it is inactive while you "
    "are disconnected: run `portcullisctl disconnect` to use the internet without the VPN."
)


def is_kill_switch(name: str) -> bool:
    """Whether `name` is a word people use for the kill switch itself."""
    word = _folded(name)
    return word in _KILL_SWITCH or any(part in word for part in _KILL_SWITCH_WORDS)


def change(settings: Settings, name: str, value: str) -> tuple[Settings, str]:
    """`settings` with one changed, and the option's own name.

    Raises SettingError: `kill_switch` for tries to disable it, `unknown_setting`,
    `invalid_value`. Setting the kill switch to *on* changes nothing and is no error.
    """
    option = canonical(name)
    if option == "at_all_times":
        try:
            wanted = Mode.AT_ALL_TIMES if _boolean(value) else Mode.STANDARD
        except ValueError as error:
            raise SettingError("invalid_value", f"{name} {error}, not {quoted(value)}") from None
        return settings._replace(mode=wanted), "mode"
    if option == "kill_switch":
        word = _folded(value)
        if word in ("alltimes", "atalltimes", "always", "standard"):
            standing = "standard" if word == "standard" else "at_all_times"
            return settings._replace(mode=Mode(standing)), "mode"
        negated = any(word in _folded(name) for word in _NEGATIONS)
        if value.strip().lower() in _TRUE and not negated:
            return settings, ""
        raise SettingError("kill_switch", REFUSAL)
    if option not in _PARSERS:
        known = ", ".join(_PARSERS)
        raise SettingError("unknown_setting", f"There is no setting {quoted(name)}. Known: {known}")
    try:
        parsed = _PARSERS[option](value)
    except ValueError as error:
        raise SettingError("invalid_value", f"{option} {error}, not {quoted(value)}") from None
    return settings._replace(**{option: parsed}), option


def canonical(name: str) -> str:
    """An option's own name for any that a person might use; unknown ones as they are."""
    word = _folded(name)
    for option in _PARSERS:
        if word == _folded(option):
            return option
    if word in _ALIASES:
        return _ALIASES[word]
    if name not in _PARSERS and is_kill_switch(name):
        return "kill_switch"
    return name


def read(values: dict[str, Any]) -> tuple[Settings, tuple[str, ...]]:
    """Settings from the options of UCI's section, and one sentence for each that is wrong.

    A missing option has its default; an invalid one its closed meaning.
    """
    settings, problems = DEFAULT, []
    for option, value in values.items():
        if option.startswith(".") or option == SCHEMA:
            continue
        if option not in _PARSERS:
            reason = REFUSAL if is_kill_switch(option) else "there is no such option"
            problems.append(f"{CONFIG}.{SECTION}.{quoted(option)} is ignored: {reason}")
            continue
        text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
        try:
            settings = settings._replace(**{option: _PARSERS[option](text)})
        except ValueError as error:
            settings = settings._replace(**{option: getattr(CLOSED, option)})
            problems.append(f"{CONFIG}.{SECTION}.{option} {error}, not {quoted(text)}")
    return settings, tuple(problems)


def uci_value(settings: Settings, option: str) -> str | list[str]:
    """An option's value as UCI stores it."""
    value = getattr(settings, option)
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, Mode):
        return value.value
    return str(value) if isinstance(value, int) else list(value)


def _folded(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
