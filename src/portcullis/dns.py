# SPDX-License-Identifier: GPL-2.0-or-later
"""As much of DNS messages (RFC 1035) as the daemon needs: one question out, one reply in.

Before there is a tunnel the daemon resolves the endpoint's name itself, over a marked UDP socket
and against named resolvers (K12); later the same question proves that a tunnel carries data. These
are pure functions of bytes. The caller owns the socket, draws `ident` and the source port at random
and takes replies from the address it asked only. A reply is as hostile as the network it crossed:
whatever is wrong with it raises DNSError, and its work is bounded by MESSAGE_MAX.
"""

import ipaddress
import re
import struct
from typing import NamedTuple

A, AAAA = 1, 28
NOERROR, NXDOMAIN = 0, 3

# Without EDNS0 a UDP reply has at most 512 octets (RFC 1035 §4.2.1). Some servers send more; none
# needs more than this for addresses.
MESSAGE_MAX = 4096

LINK_LOCAL = "a link-local address"

_CNAME = 5
_IN = 1
_HEADER = 12
# A name has at most 127 labels, and an honest one at most one pointer before each.
_POINTERS_MAX = 127
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")

# What no VPN server, resolver or tunnel address can be (IANA special-purpose registries, RFC 6890).
# The embedded forms of IPv4 are there because they reach the addresses above them by another name.
# Private addresses are missing on purpose: a server may well stand in a home or office network.
_UNFIT = tuple(
    (ipaddress.ip_network(network), kind)
    for network, kind in (
        ("0.0.0.0/8", "an unspecified address"),
        ("127.0.0.0/8", "a loopback address"),
        ("169.254.0.0/16", LINK_LOCAL),
        ("224.0.0.0/4", "a multicast address"),
        ("255.255.255.255/32", "the broadcast address"),
        ("240.0.0.0/4", "a reserved address"),
        ("::/128", "an unspecified address"),
        ("::1/128", "a loopback address"),
        ("::/96", "an IPv4-compatible address"),
        ("::ffff:0:0/96", "an IPv4-mapped address"),
        ("fe80::/10", LINK_LOCAL),
        ("ff00::/8", "a multicast address"),
    )
)

Labels = tuple[bytes, ...]


class DNSError(ValueError):
    """A host name that cannot be asked for, or a message that is not the reply to our question."""


class Answer(NamedTuple):
    """What a reply says about the name that was asked."""

    rcode: int
    """0..15, RFC 1035 §4.1.1; an answer can be NOERROR and hold no address all the same."""
    addresses: tuple[str, ...]
    """Canonical text, in the server's order, none twice."""
    ttl: int
    """Seconds: the smallest of the records that led to the addresses; 0 without addresses."""
    truncated: bool
    """The server had more to say; nothing of its reply is used then (RFC 2181 §9)."""
    unfit: tuple[str, ...]
    """Addresses left out, each with the reason: `127.0.0.1 is a loopback address`."""


def unfit(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str | None:
    """Say why an address can be no endpoint (`a loopback address`), or None if it can."""
    return next((kind for network, kind in _UNFIT if address in network), None)


def labels(name: str) -> Labels:
    """Split a host name into its labels, case kept; raise DNSError if it is none.

    Letters, digits, hyphens inside, and the underscore that some providers use; at most 63 octets
    a label and 253 in all (RFC 1123 §2.1); one trailing dot may stand. A last label that is a
    number is refused: resolver libraries read such names (`127.1`, `0x7f000001`) as addresses.
    """
    bare = name.removesuffix(".")
    shown = ascii(bare[:64])
    if not bare:
        raise DNSError("an empty host name")
    if not bare.isascii():
        raise DNSError(f"host name {shown} is not ASCII, write its xn--… form")
    if len(bare) > 253:
        raise DNSError(f"host name {shown}… has {len(bare)} characters, more than 253")
    parts = bare.split(".")
    for part in parts:
        if not part:
            raise DNSError(f"host name {shown} has an empty label")
        if len(part) > 63:
            raise DNSError(f"host name {shown} has a label of more than 63 characters")
        if part.startswith("-") or part.endswith("-"):
            raise DNSError(f"host name {shown} has a label that begins or ends with a hyphen")
        if not part.replace("-", "").replace("_", "a").isalnum():
            raise DNSError(f"host name {shown} has characters other than a-z, 0-9, '-' and '_'")
    if _NUMBER.fullmatch(parts[-1]):
        raise DNSError(f"host name {shown} ends in a number, like an address that is none")
    return tuple(part.encode() for part in parts)


def query(name: str, qtype: int, ident: int) -> bytes:
    """Build the question for `name`: recursion desired, class IN, no EDNS0.

    The name goes out in the letters it is given in, so the caller may mix their case at random and
    have `answer` insist on them: a forger then has to guess these as well (the "0x20" bits).
    """
    if not 0 <= ident <= 0xFFFF or not 0 < qtype <= 0xFFFF:
        raise DNSError(f"ident {ident} or type {qtype} does not fit into 16 bits")
    question = b"".join(bytes((len(label),)) + label for label in labels(name)) + b"\0"
    return struct.pack("!6H", ident, 0x0100, 1, 0, 0, 0) + question + struct.pack("!2H", qtype, _IN)


def answer(message: bytes, ident: int, name: str, qtype: int) -> Answer:
    """Read the reply to `query(name, qtype, ident)`; DNSError if it is not exactly that.

    The question must come back: in any case if `name` is in small letters, letter for letter if it
    has a capital. Addresses count only at the end of the CNAME chain that starts at the name, and
    only those an endpoint can have; a TTL of 2^31 or more is 0 (RFC 2181 §8).
    """
    asked = labels(name)
    if len(message) > MESSAGE_MAX:
        raise DNSError(f"a message of {len(message)} octets, more than {MESSAGE_MAX}")
    got, flags, questions, *counts = struct.unpack("!6H", _take(message, 0, _HEADER, "header"))
    if got != ident:
        raise DNSError(f"ident {got:#06x} where {ident:#06x} was asked")
    if not flags & 0x8000:
        raise DNSError("a query, not a response")
    if flags & 0x7800:
        raise DNSError(f"opcode {flags >> 11 & 15}, not a standard query")
    if questions != 1:
        raise DNSError(f"{questions} questions where 1 was asked")

    echoed, at = _name(message, _HEADER)
    if (echoed if name != name.lower() else _folded(echoed)) != asked:
        raise DNSError(f"the question is not for {name}")
    asked_type, asked_class = struct.unpack("!2H", _take(message, at, 4, "question"))
    if (asked_type, asked_class) != (qtype, _IN):
        raise DNSError(f"the question has type {asked_type}, class {asked_class}")
    rcode = flags & 15
    if flags & 0x0200:
        # Servers may cut anywhere, so the counts may promise more than there is.
        return Answer(rcode, (), 0, True, ())

    addresses, aliases = _records(message, at + 4, counts, qtype)
    ttl = 1 << 31
    end = _folded(asked)
    passed = {end}
    while end in aliases:
        end, lifetime = aliases[end]
        ttl = min(ttl, lifetime)
        if end in passed:
            raise DNSError(f"a loop of CNAMEs at {name}")
        passed.add(end)

    fit: dict[str, None] = {}
    rejected: dict[str, None] = {}
    for owner, lifetime, data in addresses if rcode == NOERROR else ():
        if owner != end:
            continue
        address = ipaddress.ip_address(data)
        if kind := unfit(address):
            rejected[f"{address} is {kind}"] = None
        else:
            fit[str(address)] = None
            ttl = min(ttl, lifetime)
    return Answer(rcode, tuple(fit), ttl if fit else 0, False, tuple(rejected))


_Addresses = list[tuple[Labels, int, bytes]]
_Aliases = dict[Labels, tuple[Labels, int]]


def _records(message: bytes, at: int, counts: list[int], qtype: int) -> tuple[_Addresses, _Aliases]:
    """Walk all three sections to the message's last octet; keep addresses and CNAMEs answered."""
    addresses: _Addresses = []
    aliases: _Aliases = {}
    for index in range(sum(counts)):
        owner, at = _name(message, at)
        fixed = _take(message, at, 10, "record")
        rtype, rclass, ttl, length = struct.unpack("!2HIH", fixed)
        at += 10
        data = _take(message, at, length, "record's data")
        start, at = at, at + length
        if index >= counts[0]:
            continue
        if rclass != _IN:
            raise DNSError(f"an answer of class {rclass}, not IN")
        if ttl >= 1 << 31:
            ttl = 0
        if rtype == _CNAME:
            target, end = _name(message, start)
            if end != at:
                raise DNSError(f"a CNAME of {end - start} octets in a record of {length}")
            alias = (_folded(target), ttl)
            if aliases.setdefault(_folded(owner), alias)[0] != alias[0]:
                raise DNSError("two different CNAMEs at one name")
        elif rtype == qtype and qtype in (A, AAAA):
            if length != (4 if qtype == A else 16):
                raise DNSError(f"an address of {length} octets in a record of type {rtype}")
            addresses.append((_folded(owner), ttl, data))
    if at != len(message):
        raise DNSError(f"{len(message) - at} octets after the last record")
    return addresses, aliases


def _name(message: bytes, at: int) -> tuple[Labels, int]:
    """Read a name, compressed or not; return its labels as they stand and where it ends."""
    found: list[bytes] = []
    size = 1
    pointers = 0
    end = None
    floor = at
    while length := _take(message, at, 1, "name")[0]:
        if length >= 0xC0:
            high, low = _take(message, at, 2, "name")
            target = (high & 0x3F) << 8 | low
            # "A prior occurrence" (RFC 1035 §4.1.4). Each jump lands before the lowest octet
            # reached so far, which rules out loops without counting them.
            if not _HEADER <= target < floor:
                raise DNSError(f"a compression pointer at {at} that leads to {target}")
            pointers += 1
            if pointers > _POINTERS_MAX:
                raise DNSError(f"a name of more than {_POINTERS_MAX} compression pointers")
            end = end or at + 2
            floor = at = target
        elif length > 63:
            raise DNSError(f"a label of the unknown kind {length >> 6}")
        else:
            size += length + 1
            if size > 255:
                raise DNSError("a name of more than 255 octets")
            found.append(_take(message, at + 1, length, "name"))
            at += length + 1
    return tuple(found), end or at + 1


def _take(message: bytes, at: int, length: int, what: str) -> bytes:
    taken = message[at : at + length]
    if len(taken) != length:
        raise DNSError(f"cut short in a {what}: {len(message)} octets, {at + length} needed")
    return taken


def _folded(name: Labels) -> Labels:
    return tuple(label.lower() for label in name)
