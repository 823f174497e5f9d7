# SPDX-License-Identifier: GPL-2.0-or-later
"""The UCI sections that make Portcullis at home on OpenWrt: wanted, and compared.

Pure. What has to stand in /etc/config/network (netifd brings the routing guard back from there
at every start, platform.md) and in /etc/config/firewall (zone and forwardings) is one text for
the shell that installs it and for the core that heals it: lines as `uci show` prints them,
without quotes; `+=` adds to a list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

ZONES = ("vpn", "portcullis", "pc0")
"""What the tunnel's zone may be called: the first that is free."""

_SECTION, _FORWARDING = "portcullis", "portcullis_"

Value = str | list[str]


class Section(NamedTuple):
    name: str
    type: str
    options: dict[str, Value]


class Change(NamedTuple):
    """One call of rpcd's `uci` object: the method, and its arguments but for the config."""

    method: str
    arguments: dict[str, Any]


def parse(text: str) -> tuple[Section, ...]:
    """The sections of a text. Raises ValueError where it is none."""
    found: dict[str, Section] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        where, equals, value = line.partition("=")
        added = where.endswith("+")
        parts = where.rstrip("+").split(".")
        if not equals or len(parts) not in (2, 3) or (len(parts) == 3) != (parts[1] in found):
            raise ValueError(f"{line!a} is no line of `uci show`")
        if len(parts) == 2:
            found[parts[1]] = Section(parts[1], value, {})
            continue
        options = found[parts[1]].options
        if added:
            former = options.setdefault(parts[2], [])
            if not isinstance(former, list):
                raise ValueError(f"{line!a}: {parts[2]} is no list")
            former.append(value)
        else:
            options[parts[2]] = value
    return tuple(found.values())


def forwardings(zones: Iterable[str]) -> tuple[Section, ...]:
    """A forwarding into the tunnel from each zone of a protected network."""
    found = []
    for zone in dict.fromkeys(zones):
        name = _FORWARDING + re.sub("[^A-Za-z0-9_]", "_", zone)
        found.append(Section(name, "forwarding", {"src": zone, "dest": ZONES[0]}))
    return tuple(found)


def missing_in_network(wanted: Iterable[Section], present: Mapping[str, Any]) -> list[Change]:
    """Changes after which the sections of `wanted` are exactly that: an option too many
    (`disabled`, a selector) would make another rule of it."""
    changes = []
    for section in wanted:
        found = present.get(section.name)
        if found is not None and found.get(".type") != section.type:
            changes.append(Change("delete", {"section": section.name}))
            found = None
        changes += _completed(section, found)
        foreign = [o for o in found or () if not o.startswith(".") and o not in section.options]
        if foreign:
            changes.append(Change("delete", {"section": section.name, "options": foreign}))
    return changes


def missing_in_firewall(wanted: Iterable[Section], present: Mapping[str, Any]) -> list[Change]:
    """Changes after which zone and forwardings are there. Options that the owner added stay,
    and so does a forwarding of the owner's own that does the same."""
    zone = _zone_name(present)
    sections = {section.name: _in_zone(section, zone) for section in wanted}
    changes: list[Change] = []
    stale = [n for n in present if n.startswith(_FORWARDING) and n not in sections]
    changes += [Change("delete", {"section": name}) for name in stale]
    for section in sections.values():
        found = present.get(section.name)
        if found is not None and found.get(".type") != section.type:
            changes.append(Change("delete", {"section": section.name}))
            found = None
        if found is None and any(_does_the_same(section, other) for other in present.values()):
            continue
        changes += _completed(section, found)
    return changes


def _zone_name(present: Mapping[str, Any]) -> str:
    """A name that no zone of the owner's has: fw4 loads *nothing* where two have the same."""
    zones = [n for n, s in present.items() if s.get(".type") == "zone" and n != _SECTION]
    taken = {str(present[name].get("name")) for name in zones}  # a list is no name, for fw4 neither
    return next((name for name in ZONES if name not in taken), ZONES[0])


def _in_zone(section: Section, zone: str) -> Section:
    option = {"zone": "name", "forwarding": "dest"}.get(section.type)
    return section._replace(options={**section.options, option: zone}) if option else section


def _does_the_same(section: Section, other: Mapping[str, Any]) -> bool:
    """Whether an unnamed forwarding of the owner's makes ours superfluous."""
    if section.type != "forwarding" or other.get(".type") != section.type:
        return False
    options = {key: value for key, value in other.items() if not key.startswith(".")}
    return options in (section.options, {**section.options, "enabled": "1"})


def _completed(section: Section, found: Mapping[str, Any] | None) -> list[Change]:
    if found is None:
        values = {"type": section.type, "name": section.name, "values": section.options}
        return [Change("add", values)]
    differing = {k: v for k, v in section.options.items() if not _holds(found.get(k), v)}
    return [Change("set", {"section": section.name, "values": differing})] if differing else []


def _holds(found: Any, wanted: Value) -> bool:
    if isinstance(wanted, str):
        return bool(found == wanted)
    listed = found.split() if isinstance(found, str) else found or []
    return all(value in listed for value in wanted)
