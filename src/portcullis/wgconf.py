# SPDX-License-Identifier: GPL-2.0-or-later
"""Read a WireGuard profile, the file of wg-quick(8) and wg(8).

Profiles come from providers' pages, mail and forums, so the text is hostile: what it may say is a
closed list, every line that is wrong is reported by number, no key material gets into an error,
nothing is ever executed, and the limits bound the work. What wg takes by accident (blanks inside
keys, a second value that overrides the first) is refused.
"""

import re
from binascii import a2b_base64
from collections.abc import Callable
from ipaddress import ip_interface
from typing import NamedTuple, TypeVar

from portcullis.dns import LINK_LOCAL, DNSError, labels, unfit
from portcullis.profile import (
    KEY_LIKE,
    Interface,
    Network,
    Peer,
    Problem,
    Profile,
    ProfileError,
    Secret,
    secrets_removed,
    valid_name,
)

T = TypeVar("T")

SIZE_MAX = 64 * 1024
LINES_MAX = 4096
PEERS_MAX = 64
_PROBLEMS_MAX = 100

_BLANK = " \t\r\v\f"
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]{0,23}")
_DECIMAL = re.compile(r"[0-9]{1,6}")
_ADDRESS = re.compile(r"[0-9A-Fa-f.:]+(/[0-9]{1,3})?")
_ENDPOINT = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]+):([^:]+)")
# 32 octets are 43 characters of six bits; the last one carries four, so its low bits are zero.
_KEY = re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=")

_SECTIONS = {"[interface]": "Interface", "[peer]": "Peer"}
_KEYS = {
    key.lower(): (section, key)
    for section, keys in (
        ("Interface", "PrivateKey Address DNS MTU ListenPort"),
        ("Peer", "PublicKey PresharedKey AllowedIPs Endpoint PersistentKeepalive"),
    )
    for key in keys.split()
}
# Keys that hold a list, and how many entries a whole profile may have of each.
_LISTS = {"Address": 16, "DNS": 16, "AllowedIPs": 4096}
_COMMAND = "Portcullis never executes commands from a profile; remove this line"
_REFUSED = {
    "FwMark": "Portcullis sets this itself: its block knows the tunnel's packets by it",
    "Table": "Portcullis sets the routes itself; remove this line",
    "SaveConfig": "Portcullis never executes commands and never rewrites a profile",
    "PreUp": _COMMAND,
    "PostUp": _COMMAND,
    "PreDown": _COMMAND,
    "PostDown": _COMMAND,
}
_REFUSED_KEYS = {key.lower(): key for key in _REFUSED}


def parse(text: str | bytes, name: str) -> Profile:
    """Read a profile; ProfileError with every problem found if it is not wholly acceptable."""
    reader = _Reader()
    if reason := valid_name(name):
        reader.refuse(None, None, reason)
    interface, sections = reader.sections(_decoded(text))

    private_key = reader.one(interface, "PrivateKey", _key, required=True)
    addresses = reader.many(interface, "Address", _interface, required=True)
    dns = reader.many(interface, "DNS", _resolver)
    # IPv6 has no links of less than 1280 octets (RFC 8200 §5), the kernel then removes it.
    mtu_min = 1280 if any(address.version == 6 for address in addresses) else 576
    mtu = reader.one(interface, "MTU", lambda value: _number(value, mtu_min, 65535))
    port = reader.one(interface, "ListenPort", lambda value: _number(value, 0, 65535))

    peers: list[tuple[int, Peer]] = []
    keys: dict[bytes, int] = {}
    for section in sections:
        public_key = reader.one(section, "PublicKey", _key, required=True)
        peer = Peer(
            public_key=bytes(public_key or b""),
            preshared_key=reader.one(section, "PresharedKey", _key),
            allowed_ips=reader.many(section, "AllowedIPs", _network, required=True),
            endpoint=reader.one(section, "Endpoint", _endpoint),
            keepalive=reader.one(section, "PersistentKeepalive", _seconds) or 0,
        )
        if public_key and (first := keys.setdefault(public_key, section.line)) != section.line:
            line = section.values["PublicKey"][0][0]
            reader.refuse(line, "PublicKey", f"the same as of the peer in line {first}")
        peers.append((section.line, peer))
    if sections and not any("Endpoint" in section.values for section in sections):
        reader.refuse(sections[0].line, "Endpoint", "missing; one peer at least must have it")
    _refuse_overlaps(reader, peers)

    if reader.problems or private_key is None:
        raise ProfileError(reader.problems)
    return Profile(
        name=name,
        private_key=private_key,
        addresses=addresses,
        dns=tuple(value for value, is_address in dns if is_address),
        search=tuple(value for value, is_address in dns if not is_address),
        mtu=mtu,
        listen_port=port or None,
        peers=tuple(peer for _, peer in peers),
    )


class _BadValueError(ValueError):
    """Why a value is refused; its text holds nothing secret."""


class _Section(NamedTuple):
    line: int
    kind: str
    """Empty for a section that was refused: what stands in it is passed over."""
    values: dict[str, list[tuple[int, str]]]


class _Reader:
    """Goes through a profile and collects what is wrong with it instead of stopping there."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._counts = dict.fromkeys(_LISTS, 0)

    def refuse(self, line: int | None, key: str | None, reason: str) -> None:
        self.problems.append(Problem(line or None, key, reason))
        if len(self.problems) >= _PROBLEMS_MAX:
            raise ProfileError([*self.problems, Problem(line, None, "too many errors, stopped")])

    def sections(self, text: str) -> tuple[_Section, list[_Section]]:
        interface: _Section | None = None
        peers: list[_Section] = []
        current = _Section(0, "", {})
        for number, raw in enumerate(text.split("\n"), 1):
            line = raw.partition("#")[0].strip(_BLANK)
            if line.startswith("["):
                current = _Section(number, _SECTIONS.get(line.lower(), ""), {})
                if not current.kind:
                    self.refuse(number, None, f"unknown section {_shown(line)}")
                elif current.kind == "Peer":
                    peers.append(current)
                elif interface:
                    first = interface.line
                    self.refuse(number, None, f"a second [Interface], the first is in line {first}")
                    current = interface
                else:
                    interface = current
            elif line and current.line == 0:
                self.refuse(number, None, "stands before the first [section]")
            elif line and current.kind:
                self._enter(current, number, line)
        if not interface:
            self.refuse(None, None, "[Interface] is missing")
        if not 1 <= len(peers) <= PEERS_MAX:
            self.refuse(None, None, f"{len(peers)} [Peer] sections where 1 to {PEERS_MAX} may be")
        return interface or _Section(0, "Interface", {}), peers[:PEERS_MAX]

    def _enter(self, section: _Section, number: int, line: str) -> None:
        word, _, value = (part.strip(_BLANK) for part in line.partition("="))
        home, key = _KEYS.get(word.lower(), ("", ""))
        if refused := _REFUSED_KEYS.get(word.lower()):
            self.refuse(number, refused, _REFUSED[refused])
        elif key and not value:
            self.refuse(number, key, "has no value")
        elif key and home != section.kind:
            self.refuse(number, key, f"belongs into [{home}], not [{section.kind}]")
        elif key in section.values and key not in _LISTS:
            self.refuse(number, key, f"given twice, first in line {section.values[key][0][0]}")
        elif key:
            section.values.setdefault(key, []).append((number, value))
        elif value and _WORD.fullmatch(word):
            self.refuse(number, word, "unknown key")
        else:
            # Not quoted: it may be the other half of a key that was broken into two lines.
            self.refuse(number, None, "neither a [section], nor Key = value, nor a # comment")

    def one(
        self, section: _Section, key: str, convert: Callable[[str], T], required: bool = False
    ) -> T | None:
        found = self.many(section, key, convert, required)
        return found[0] if found else None

    def many(
        self, section: _Section, key: str, convert: Callable[[str], T], required: bool = False
    ) -> tuple[T, ...]:
        found: dict[T, None] = {}
        if required and key not in section.values:
            self.refuse(section.line, key, f"missing from [{section.kind}]")
        for line, value in section.values.get(key, ()):
            items = [value]
            if key in _LISTS:
                # wg-quick parts Address and DNS at commas and at blanks.
                items = value.replace(",", " ").split()
                self._counts[key] += len(items)
                if self._counts[key] > _LISTS[key]:
                    self.refuse(line, key, f"more than {_LISTS[key]} entries in all")
                    break
                if not items:
                    self.refuse(line, key, "has no value")
            for item in items:
                try:
                    found[convert(item)] = None
                except _BadValueError as error:
                    self.refuse(line, key, str(error))
        return tuple(found)


def _decoded(text: str | bytes) -> str:
    # A str may hold what no file can, lone surrogates: they go the way of bytes that are not UTF-8.
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)
    if len(data) > SIZE_MAX:
        raise ProfileError([Problem(None, None, f"more than {SIZE_MAX} bytes")])
    try:
        decoded = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ProfileError([Problem(line, None, "not UTF-8 text")]) from None
    if "\0" in decoded:
        line = decoded[: decoded.index("\0")].count("\n") + 1
        raise ProfileError([Problem(line, None, "a NUL byte")])
    if decoded.count("\n") >= LINES_MAX:
        raise ProfileError([Problem(None, None, f"more than {LINES_MAX} lines")])
    return decoded


def _shown(value: str) -> str:
    """Quote a value for an error: escaped, without keys, and short."""
    if len(value) > 80:
        return f"a value of {len(value)} characters"
    return ascii(secrets_removed(value))


def _number(value: str, low: int, high: int, what: str = "") -> int:
    decimal = _DECIMAL.fullmatch(value)
    if not decimal or not low <= int(value) <= high:
        raise _BadValueError(
            f"{what}{value if decimal else _shown(value)} is not between {low} and {high}"
        )
    return int(value)


def _seconds(value: str) -> int:
    return 0 if value.lower() == "off" else _number(value, 0, 65535)


def _key(value: str) -> Secret:
    if not _KEY.fullmatch(value):
        raise _BadValueError(
            f"no key: 44 characters of base64, the last '='; this has {len(value)}"
        )
    key = Secret(a2b_base64(value))
    if not any(key):
        raise _BadValueError("all zero, which is no key")
    return key


def _address(value: str) -> Interface:
    try:
        # ipaddress alone would take netmasks and scopes too.
        if _ADDRESS.fullmatch(value):
            return ip_interface(value)
    except ValueError:
        pass
    raise _BadValueError(f"{_shown(value)} is no IPv4 or IPv6 address")


def _interface(value: str) -> Interface:
    address = _address(value)
    if (kind := unfit(address.ip)) and kind != LINK_LOCAL:
        raise _BadValueError(f"{address.ip} is {kind}")
    if address.network.prefixlen == 0:
        raise _BadValueError(f"{address} claims every address as its own network")
    return address


def _network(value: str) -> Network:
    return _address(value).network


def _literal(value: str) -> str:
    address = _address(value).ip
    if "/" in value:
        raise _BadValueError(f"{_shown(value)} is a network, not an address")
    if kind := unfit(address):
        raise _BadValueError(f"{address} is {kind}")
    return str(address)


def _host(value: str) -> str:
    try:
        labels(value)
    except DNSError as error:
        reason = f"{_shown(value)} is no host name" if KEY_LIKE.search(value) else str(error)
        raise _BadValueError(reason) from None
    return value.lower().removesuffix(".")


def _resolver(value: str) -> tuple[str, bool]:
    """Tell resolvers (True) from search domains the way wg-quick does."""
    if ":" in value or not value.strip("0123456789."):
        return _literal(value), True
    return _host(value), False


def _endpoint(value: str) -> tuple[str, int]:
    found = _ENDPOINT.fullmatch(value)
    if not found:
        raise _BadValueError(
            f"{_shown(value)} is not host:port, address:port or [IPv6 address]:port"
        )
    host = found[1].strip("[]")
    port = _number(found[2], 1, 65535, "port ")
    if found[1] != host:
        if ":" not in host:
            raise _BadValueError(f"{_shown(host)} in brackets, which are for IPv6 addresses")
        return _literal(host), port
    return _literal(host) if not host.strip("0123456789.") else _host(host), port


def _refuse_overlaps(reader: _Reader, peers: list[tuple[int, Peer]]) -> None:
    """Of two peers that accept one address the kernel would take either, by its prefix length."""
    spans = sorted(
        (network.version, int(network[0]), -int(network[-1]), line, network)
        for line, peer in peers
        for network in peer.allowed_ips
    )
    # Networks are nested or apart, so the ones around the current one are a stack.
    around: list[tuple[int, int, int, Network]] = []
    for version, first, last, line, network in spans:
        while around and around[-1][:2] < (version, first):
            around.pop()
        if around and around[-1][2] != line:
            _, _, other, outer = around[-1]
            reason = f"{network} overlaps {outer} of the peer in line {other}"
            reader.refuse(line, "AllowedIPs", reason)
        around.append((version, -last, line, network))
