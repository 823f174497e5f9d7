# SPDX-License-Identifier: GPL-2.0-or-later
"""Who was seen in the house: read from the kernel, the leases and OpenWrt's services.

No source has to be there: what cannot be read has nothing to say. Every one of them is bounded,
because the LAN can fill them all.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from socket import AF_INET, AF_INET6, if_nameindex
from typing import Any

from portcullis.bus import Bus, BusError
from portcullis.devices import Sighting, normal
from portcullis.netlink import IPRoute, NetlinkError
from portcullis.selftest import STATION_MAC
from portcullis.topology import SYS, Topology

LEASES = Path("/tmp/dhcp.leases")  # dnsmasq's
HOSTS = Path("/tmp/hosts/odhcpd")
_FILE, _LINES, _ENTRIES = 1 << 18, 4000, 4000
_ALIVE = 0x02 | 0x08 | 0x10  # NUD_REACHABLE, NUD_DELAY, NUD_PROBE
_FDB = struct.Struct("=6sBBIBBH")  # struct __fdb_entry of linux/if_bridge.h
_HERTZ = 100  # USER_HZ
LEASE, ROUTER, OWNER = 1, 2, 3  # ranks of names


def forwarding(topology: Topology, sys: Path = SYS) -> Iterator[Sighting]:
    """What the bridges have learnt: which address is behind which port, and when it was heard."""
    for segment in topology.segments:
        if not segment.bridged:
            continue
        numbers = {}
        for port in segment.ports:
            with suppress(OSError, ValueError):
                numbers[int((sys / port.name / "brport/port_no").read_text(), 16)] = port
        with suppress(OSError), (sys / segment.bridge / "brforward").open("rb") as table:
            data = table.read(_FDB.size * _ENTRIES)
            for mac, low, local, age, high, _, _ in _FDB.iter_unpack(
                data[: len(data) // _FDB.size * _FDB.size]
            ):
                if not local and (at := numbers.get(high << 8 | low)):
                    seconds, name = age / _HERTZ, normal(mac.hex())
                    yield Sighting(name, segment.device, at.name, wireless=at.wireless, age=seconds)


def neighbours(topology: Topology) -> Iterator[Sighting]:
    """What the router has asked for, or was asked by: addresses."""
    segments = {segment.device: segment for segment in topology.segments}
    with suppress(NetlinkError, OSError), IPRoute() as ip:
        names = dict(if_nameindex())
        for family in (AF_INET, AF_INET6):
            for entry in islice(list(ip.get_neighbours(family=family)), _ENTRIES):
                segment = segments.get(names.get(entry["ifindex"], ""))
                mac = normal(entry.get_attr("NDA_LLADDR") or "")
                if segment is None or not mac:
                    continue
                alive = 0.0 if entry["state"] & _ALIVE else None
                found = Sighting(
                    mac, segment.device, address=entry.get_attr("NDA_DST") or "", age=alive
                )
                if not segment.bridged and segment.ports:
                    only = segment.ports[0]
                    found = found._replace(port=only.name, wireless=only.wireless)
                yield found


def dnsmasq_leases(text: str) -> Iterator[Sighting]:
    """The lease file: `expiry MAC address name client-id`, DHCPv6's lines have no MAC address."""
    for line in text.splitlines()[:_LINES]:
        words = line.split(" ")
        if len(words) >= 4 and (mac := normal(words[1])):
            yield Sighting(mac, address=words[2], name=words[3], rank=LEASE)


def odhcpd_leases(answer: dict[str, Any]) -> Iterator[Sighting]:
    """`ubus call dhcp ipv4leases`."""
    for lease in islice(_leases(answer), _LINES):
        if mac := normal(str(lease.get("mac", ""))):
            address, name = str(lease.get("address", "")), str(lease.get("hostname", ""))
            yield Sighting(mac, address=address, name=name, rank=LEASE)


def names_of_addresses(hosts: str, answer: dict[str, Any]) -> dict[str, str]:
    """Names that odhcpd gave to IPv6 addresses: its hosts file, and `dhcp ipv6leases`."""
    found = {}
    for line in hosts.splitlines()[:_LINES]:
        words = line.split()
        if len(words) >= 2 and not line.startswith("#"):
            found[words[0]] = words[1]
    for lease in islice(_leases(answer), _LINES):
        for entry in _list(lease.get("ipv6-addr")):
            if isinstance(entry, dict) and lease.get("hostname"):
                found[str(entry.get("address", ""))] = str(lease["hostname"])
    return found


def static_names(dhcp: dict[str, Any]) -> Iterator[Sighting]:
    """The owner's own names: `config host` of /etc/config/dhcp."""
    for section in islice(dhcp.values(), _LINES):
        if isinstance(section, dict) and section.get(".type") == "host" and "name" in section:
            macs = section.get("mac", "")
            for word in macs.split() if isinstance(macs, str) else map(str, _list(macs)):
                if mac := normal(word):
                    yield Sighting(mac, name=str(section["name"]), rank=ROUTER)


def access_points(status: dict[str, Any]) -> dict[str, bool]:
    """`ubus call network.wireless status`: each access point's device, and whether it keeps its
    clients from each other."""
    found = {}
    for radio in status.values():
        for entry in _list(radio.get("interfaces")) if isinstance(radio, dict) else ():
            if isinstance(entry, dict) and (name := entry.get("ifname")):
                config = entry.get("config")
                isolate = config.get("isolate") if isinstance(config, dict) else None
                found[str(name)] = str(isolate).lower() in ("1", "true", "on", "yes")
    return dict(islice(found.items(), 64))


def associations(topology: Topology, name: str, answer: dict[str, Any]) -> Iterator[Sighting]:
    """`ubus call hostapd.NAME get_clients`."""
    clients = answer.get("clients")
    for segment in topology.segments:
        if name in {port.name for port in segment.ports} and isinstance(clients, dict):
            for client in islice(clients, _ENTRIES):
                if mac := normal(client):
                    yield Sighting(mac, segment.device, name, wireless=True, age=0.0)


def read(topology: Topology, bus: Bus) -> tuple[list[Sighting], dict[str, bool]]:
    """Everything that was seen, and the access points."""
    found = [*forwarding(topology), *neighbours(topology), *dnsmasq_leases(_text(LEASES))]
    ask = _asker(bus)
    found += odhcpd_leases(ask("dhcp", "ipv4leases", {}))
    names = names_of_addresses(_text(HOSTS), ask("dhcp", "ipv6leases", {}))
    found += [
        Sighting(s.mac, name=names[s.address], rank=LEASE) for s in found if s.address in names
    ]
    dhcp = ask("uci", "get", {"config": "dhcp"}).get("values")
    found += static_names(dhcp if isinstance(dhcp, dict) else {})
    points = access_points(ask("network.wireless", "status", {}))
    for name in points:
        found += associations(topology, name, ask(f"hostapd.{name}", "get_clients", {}))
    return [sighting for sighting in found if sighting.mac != STATION_MAC], points


def _asker(bus: Bus) -> Callable[[str, str, dict[str, Any]], dict[str, Any]]:
    def ask(name: str, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            return bus.call(name, method, arguments)
        except BusError:  # the service is not there, and need not be
            return {}

    return ask


def _leases(answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    devices = answer.get("device")
    for device in devices.values() if isinstance(devices, dict) else ():
        for lease in _list(device.get("leases")) if isinstance(device, dict) else ():
            if isinstance(lease, dict):
                yield lease


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_FILE).decode(errors="replace")
    except OSError:
        return ""
