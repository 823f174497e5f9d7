# SPDX-License-Identifier: GPL-2.0-or-later
"""What is asked of OpenWrt's own services over ubus: UCI, netifd, procd.

All of them may be dead or answer nonsense; that is a BusError and changes nothing here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from portcullis import networks, settings
from portcullis.bus import Bus, BusError
from portcullis.networks import Corrections, Surroundings
from portcullis.settings import CLOSED, CONFIG, SECTION, TYPE, Settings

CONFIGS = Path("/etc/config")
_ROOM = 32768

_left: dict[str, set[tuple[str, ...]]] = {}
"""Configurations in which changes of ours may be staged still: whole sections, or their options."""


class ForeignChangesError(Exception):
    """Somebody else's changes are staged in our configuration; a commit would take them along."""


def read_settings(bus: Bus) -> tuple[Settings, tuple[str, ...]]:
    """The owner's settings, and what is wrong with them. No configuration is the closed one.

    Raises BusError where nobody answers: then whatever was known last still holds.
    """
    try:
        sections = bus.call("uci", "get", {"config": CONFIG}).get("values")
    except BusError as error:
        if error.status in ("Not found", "No data", "Invalid argument", "Unknown error"):
            return CLOSED, (f"/etc/config/{CONFIG} is missing or unreadable: closed settings hold",)
        raise
    section = sections.get(SECTION) if isinstance(sections, dict) else None
    if not isinstance(section, dict) or section.get(".type") != TYPE:
        reason = f"/etc/config/{CONFIG} has no section `config {TYPE} '{SECTION}'`"
        return CLOSED, (f"{reason}: closed settings hold",)
    return settings.read(section)


def save_setting(bus: Bus, wanted: Settings, option: str) -> None:
    """Write one option and commit it. Raises as `save` does."""
    take_back(bus, CONFIG)
    where: dict[str, Any] = {"section": SECTION}
    value = settings.uci_value(wanted, option)
    if value != []:
        save(bus, CONFIG, [("set", {**where, "values": {option: value}})])
    elif option in bus.call("uci", "get", {"config": CONFIG, **where}).get("values", {}):
        save(bus, CONFIG, [("delete", {**where, "option": option})])


def save(bus: Bus, config: str, changes: list[tuple[str, dict[str, Any]]]) -> None:
    """Make changes, each a method of rpcd's `uci` and its arguments, commit them, and nothing
    of anybody else's.

    Raises ForeignChangesError, or BusError (a rollback window of LuCI is open, flash full): the
    wish has to be kept and saved later.
    """
    take_back(bus, config)
    if bus.call("uci", "changes", {"config": config}).get("changes"):
        raise ForeignChangesError(
            f"uncommitted changes of somebody else in {config}, to be applied or reverted first"
        )
    _look_for_room(config)
    try:
        for method, arguments in changes:
            bus.call("uci", method, {"config": config, **arguments})
        bus.call("uci", "commit", {"config": config})
    except BusError:
        _left[config] = {place for _, arguments in changes for place in _places(arguments)}
        with suppress(BusError):  # the first error tells more
            bus.call("uci", "revert", {"config": config})
            del _left[config]
        raise


def take_back(bus: Bus, config: str) -> None:
    """Revert what we could not while rpcd hung: it would look like what is in force, and like
    somebody else's to `save`. Where anybody has staged more since, it is his. Raises BusError."""
    if config not in _left:
        return
    staged = bus.call("uci", "changes", {"config": config}).get("changes") or ()
    if all({tuple(change[1:2]), tuple(change[1:3])} & _left[config] for change in staged):
        bus.call("uci", "revert", {"config": config})
    del _left[config]


def _places(arguments: dict[str, Any]) -> Iterable[tuple[str, ...]]:
    section = arguments.get("section")
    if section is None:  # a new one
        return [(arguments["name"],)]
    options = arguments.get("values") or arguments.get("options") or arguments.get("option")
    listed = [options] if isinstance(options, str) else options
    return [(section, option) for option in listed] if listed else [(section,)]


def _look_for_room(config: str) -> None:
    """Raises BusError where a configuration cannot be written. uci does not look: on a full flash
    what fits takes the place of the whole file, and rpcd calls that, too, a success."""
    try:
        size, flash = (CONFIGS / config).stat().st_size, os.statvfs(CONFIGS)
    except OSError:
        return  # uci and rpcd know what to say
    if flash.f_flag & os.ST_RDONLY:
        raise BusError(f"{CONFIGS} is read-only")
    if flash.f_bavail * flash.f_frsize < size + _ROOM:
        raise BusError(f"there is no room for {CONFIGS}/{config}: the flash is full")


def read_surroundings(bus: Bus, gateways: Iterable[str], corrections: Corrections) -> Surroundings:
    """Protected networks and upstream devices. Raises BusError."""
    interfaces = bus.call("network.interface", "dump", {}).get("interface")
    firewall = bus.call("uci", "get", {"config": "firewall"}).get("values")
    if not interfaces or not firewall:
        # Not evidence of anything: netifd is starting, or the file is gone or empty.
        raise BusError("fw4 has no configuration" if interfaces else "netifd has no interfaces")
    try:
        return networks.derive(interfaces, firewall, gateways, corrections)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BusError(f"netifd or fw4 say what makes no sense: {error!r}") from None


def drop_dns_cache(bus: Bus) -> None:
    """Have dnsmasq forget what it learnt (K12). Raises BusError."""
    try:
        bus.call("service", "signal", {"name": "dnsmasq", "signal": 1})
    except BusError as error:
        if error.status != "Not found":  # where it does not run, it knows nothing
            raise
