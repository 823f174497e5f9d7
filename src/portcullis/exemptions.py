# SPDX-License-Identifier: GPL-2.0-or-later
"""The owner's exceptions from LAN device access, in UCI: `config device` sections.

config device 'device_02005e005310'
    option mac '02:00:5e:00:53:10'
    option access 'denied'
    option port 'lan2'      (ours: where the exception holds)
    option name 'TV'        (the owner's)
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from portcullis import openwrt
from portcullis.bus import Bus, BusError
from portcullis.devices import clean, valid_mac
from portcullis.lanaccess import Access, Exemption, Exemptions
from portcullis.networks import is_device
from portcullis.settings import CONFIG

_TYPE = "device"
_MOST = 1000


def parse(sections: dict[str, dict[str, Any]]) -> tuple[Exemptions, tuple[str, ...]]:
    """The exceptions, and one sentence for each section that makes no sense.

    A section without a usable address is ignored; an unknown access is the closed one, denied;
    of two sections for one device a denial wins.
    """
    found: Exemptions = {}
    problems = []
    devices = [(n, s) for n, s in sections.items() if s.get(".type") == _TYPE]
    if len(devices) > _MOST:
        problems.append(f"only {_MOST} of {len(devices)} device sections are looked at")
    for name, section in devices[:_MOST]:
        place = f"{CONFIG}.{name[:60]!a}"
        try:
            mac = valid_mac(str(section.get("mac", "")))
        except ValueError as error:
            problems.append(f"{place}.mac {error}: the section is ignored")
            continue
        try:
            access = Access(str(section.get("access", Access.DEFAULT)).strip().lower())
        except ValueError:
            access = Access.DENIED
            problems.append(f"{place}.access must be default, allowed or denied: denied holds")
        port = str(section.get("port", ""))
        exemption = Exemption(
            mac, access, port if is_device(port) else "", clean(str(section.get("name", "")))
        )
        if mac in found:
            problems.append(f"{place} is a second section for {mac}")
            if Access.DENIED in (found[mac].access, access):
                exemption = exemption._replace(access=Access.DENIED)
        found[mac] = exemption
    return found, tuple(problems)


def read(bus: Bus) -> tuple[Exemptions, tuple[str, ...]]:
    """Raises BusError where nobody answers, or what there is cannot be read: then whatever was
    known last still holds, or a denial would end with the first error of rpcd's."""
    try:
        sections = bus.call("uci", "get", {"config": CONFIG}).get("values")
    except BusError as error:
        if error.status == "Not found":
            return {}, ()
        raise
    return parse(sections) if isinstance(sections, dict) else ({}, ())


def save(bus: Bus, exemption: Exemption) -> None:
    """Write one exception and commit it, and nothing of anybody else's.

    Raises openwrt.ForeignChangesError or BusError: the wish has to be kept and saved later.
    """
    openwrt.take_back(bus, CONFIG)
    values = bus.call("uci", "get", {"config": CONFIG}).get("values") or {}
    changes: list[tuple[str, dict[str, Any]]] = [
        ("delete", {"section": name})
        for name, section in values.items()
        if section.get(".type") == _TYPE and _is(section, exemption.mac)
    ]
    if options := _options(exemption):
        name = f"{_TYPE}_{exemption.mac.replace(':', '')}"
        changes.append(("add", {"type": _TYPE, "name": name, "values": options}))
    if changes:
        openwrt.save(bus, CONFIG, changes)


def _options(exemption: Exemption) -> dict[str, str]:
    """What UCI holds of it; nothing for a device that is as all others and has no name."""
    if exemption.access is Access.DEFAULT and not exemption.name:
        return {}
    options = {"mac": exemption.mac, "access": str(exemption.access)}
    if exemption.port:
        options["port"] = exemption.port
    if exemption.name:
        options["name"] = exemption.name
    return options


def _is(section: dict[str, Any], mac: str) -> bool:
    with suppress(ValueError):
        return valid_mac(str(section.get("mac", ""))) == mac
    return False
