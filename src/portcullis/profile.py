# SPDX-License-Identifier: GPL-2.0-or-later
"""A WireGuard profile as an immutable value, and what it says about itself."""

import re
from collections.abc import Iterable
from ipaddress import (
    IPv4Interface,
    IPv4Network,
    IPv6Interface,
    IPv6Network,
    collapse_addresses,
)
from typing import NamedTuple

Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SECRET_LINE = re.compile(r"((?:private|preshared)[ \t]*_?key)[^\n]*", re.IGNORECASE)
KEY_LIKE = re.compile(r"[A-Za-z0-9+/]{40,}={0,2}")


class Secret(bytes):
    """Key material that does not show itself in a repr, a format, a log line or a traceback."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<secret>"

    __str__ = __repr__


class Problem(NamedTuple):
    """One thing wrong with a profile, without key material in it."""

    line: int | None
    """From 1; None if it is about the whole file or its name."""
    key: str | None
    reason: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return where + (f"{self.key}: " if self.key else "") + self.reason


class ProfileError(ValueError):
    """A profile is refused: `problems` holds all that is wrong with it, in the file's order.

    `line`, `key`, `reason` and str() are those of the first.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line or 0))
        self.line, self.key, self.reason = self.problems[0]
        super().__init__(str(self.problems[0]))


class Peer(NamedTuple):
    """One [Peer]; `public_key` and `preshared_key` have 32 octets."""

    public_key: bytes
    preshared_key: Secret | None
    allowed_ips: tuple[Network, ...]
    """Host bits cleared, none twice, in the file's order."""
    endpoint: tuple[str, int] | None
    """A canonical address or a host name in small letters without its trailing dot; a UDP port."""
    keepalive: int
    """Seconds; 0 is off."""


class Profile(NamedTuple):
    """What a profile says, checked; equal profiles compare equal."""

    name: str
    private_key: Secret
    addresses: tuple[Interface, ...]
    dns: tuple[str, ...]
    """Resolvers' addresses in canonical text; may be empty."""
    search: tuple[str, ...]
    """Search domains, as wg-quick takes from DNS what is no address."""
    mtu: int | None
    listen_port: int | None
    """None where the kernel may choose."""
    peers: tuple[Peer, ...]


class Routes(NamedTuple):
    """Networks collapsed and sorted, by family."""

    ipv4: tuple[IPv4Network, ...]
    ipv6: tuple[IPv6Network, ...]


class Carried(NamedTuple):
    ipv4: bool
    """The tunnel carries all of IPv4."""
    ipv6: bool
    sentence: str
    """For the owner, what it carries; "" if that is everything."""


def valid_name(name: str) -> str | None:
    """Say why `name` cannot name a profile, or None if it can.

    It is the stem of a file in /etc/portcullis/profiles and stands in UCI, shell and logs: no
    separators, blanks, quotes or leading dots and hyphens, nothing two scripts spell differently.
    """
    if not 1 <= len(name) <= 64:
        return "a profile's name has 1 to 64 characters"
    if not _NAME.fullmatch(name):
        return (
            "a profile's name has letters a-z, digits, '-', '_' and '.', and begins with a letter"
            " or digit"
        )
    return None


def secrets_removed(text: str) -> str:
    """Make a profile's text fit for a report: whatever is, or looks like, a key is replaced.

    Public keys go too: nothing tells them from a private key that was pasted into the wrong line.
    """
    return KEY_LIKE.sub("(removed)", _SECRET_LINE.sub(r"\1 = (removed)", text))


def quoted(text: str, most: int = 80) -> str:
    """Text of somebody's, to be shown in an answer: people paste keys where a name belongs."""
    shown = ascii(secrets_removed(text))
    return shown if len(shown) <= most else f"{shown[: most - 4]}...'"


def routes(profile: Profile) -> Routes:
    """Collapse what the peers accept, for the families the profile has an address of its own in."""
    families = {address.version for address in profile.addresses}
    allowed = [network for peer in profile.peers for network in peer.allowed_ips]
    ipv4 = (network for network in allowed if isinstance(network, IPv4Network) and 4 in families)
    ipv6 = (network for network in allowed if isinstance(network, IPv6Network) and 6 in families)
    return Routes(tuple(collapse_addresses(ipv4)), tuple(collapse_addresses(ipv6)))


def carried(profile: Profile) -> Carried:
    """Say whether the tunnel carries all of IPv4, all of IPv6, and what if not."""
    found = routes(profile)
    families = {address.version for address in profile.addresses}
    whole: list[bool] = []
    words: list[str] = []
    for version, networks in ((4, found.ipv4), (6, found.ipv6)):
        whole.append(any(network.prefixlen == 0 for network in networks))
        if whole[-1]:
            words.append(f"all of IPv{version}")
        elif networks:
            more = f" and {len(networks) - 3} more networks" if len(networks) > 3 else ""
            words.append(f"only {', '.join(map(str, networks[:3]))}{more} of IPv{version}")
        elif version in families:
            words.append(f"no IPv{version} (AllowedIPs names none)")
        else:
            words.append(f"no IPv{version} (the profile has no IPv{version} address)")
    rest = "the rest of the internet is blocked while the kill switch is active"
    sentence = "" if all(whole) else f"The tunnel carries {words[0]} and {words[1]}; {rest}."
    return Carried(whole[0], whole[1], sentence)
