# SPDX-License-Identifier: GPL-2.0-or-later
"""Which networks are protected, on positive evidence (contract, "protected network").

Pure: a function of netifd's dump, fw4's configuration and the devices the kernel's default
routes leave by. What is not proven to be a network the router serves is the internet (K4).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

from portcullis import lines
from portcullis.lines import Line
from portcullis.offload import hardware_wanted
from portcullis.policy import TUNNEL, IPNetwork, Network

_VIRTUAL = ("lo", TUNNEL, "")
# What may lie behind a router on a protected network (RFC 1918, RFC 6598, RFC 4193): a route to
# anything else leads to the internet, whatever interface it is configured on.
_PRIVATE = tuple(
    map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
)
# Protocols whose far side may be the owner's own: a WireGuard server for phones on the road.
_SERVERS = ("wireguard",)
_WIDEST = {4: 8, 6: 16}  # a shorter prefix than this is as good as a default route


class Surroundings(NamedTuple):
    """Protected networks; networks whose zone accepts input and which are not protected all the
    same; devices that lead upstream; what the owner should know; fw4's zones that forward
    upstream; netifd's interfaces that are up, with their devices; devices of
    networks from which the router is managed: their zones accept input, and nothing upstream lies
    on them; lines that the kernel carries in IP packets; devices that PPPoE lines run over, up
    or not; whether fw4 is to offload flows to hardware."""

    networks: tuple[Network, ...] = ()
    served: tuple[Network, ...] = ()
    upstream: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    interfaces: tuple[tuple[str, str], ...] = ()
    managing: tuple[str, ...] = ()
    lines: tuple[Line, ...] = ()
    pppoe: tuple[str, ...] = ()
    hardware_offload: bool = False


class Corrections(NamedTuple):
    """The owner's word on interfaces that the evidence misjudges."""

    protected_networks: tuple[str, ...] = ()
    internet_networks: tuple[str, ...] = ()


NO_CORRECTIONS = Corrections()


class _Zone(NamedTuple):
    name: str
    members: frozenset[str]
    masqueraded: bool
    answers: bool


def derive(
    interfaces: list[dict[str, Any]],
    firewall: dict[str, dict[str, Any]],
    gateways: Iterable[str] = (),
    corrections: Corrections = NO_CORRECTIONS,
) -> Surroundings:
    """The surroundings of this router.

    `interfaces` is netifd's `network.interface dump`, `firewall` the sections of UCI's
    firewall as rpcd gives them, `gateways` the devices of the kernel's default routes. No
    correction makes a network of what the way to the internet is on.
    """
    used = [i for i in interfaces if i.get("l3_device", "") not in _VIRTUAL]
    leading = set(gateways)
    for i in used:
        own = _SERVERS if i["interface"] in corrections.protected_networks else ()
        if _leads_upstream(i, own):
            leading.add(i["l3_device"])
    zones = [_zone(section) for section in firewall.values() if section.get(".type") == "zone"]
    outward = {i["interface"] for i in used if i["l3_device"] in leading}
    upstream_zones = {z.name for z in zones if z.masqueraded or z.members & outward}
    served = {
        section.get("src")
        for section in firewall.values()
        if section.get(".type") == "forwarding" and section.get("dest") in upstream_zones
    }
    masqueraded = [z for z in zones if z.masqueraded]
    # Whatever its zone accepts: an answer to the internet would be a packet outside the tunnel.
    internet = {
        i["l3_device"]
        for i in used
        if any(i["interface"] in z.members for z in masqueraded)
        and i["l3_device"] in leading
        and _has_public_address(i)
    }
    networks, served_all_the_same, notes = [], [], _unknown(corrections, interfaces)
    for interface in used:
        name, device = str(interface["interface"]), interface["l3_device"]
        homes = [zone for zone in zones if name in zone.members]
        if name in corrections.internet_networks:
            continue
        if interface.get("up") and any(zone.answers for zone in homes):
            prefixes: tuple[str, ...] = ()
            with suppress(KeyError, TypeError, ValueError):
                prefixes = tuple(_prefixes(interface))
            if is_device(device) and device not in internet:
                served_all_the_same.append(Network(name, device, prefixes))
        corrected = name in corrections.protected_networks
        if device in leading and (corrected or any(not zone.masqueraded for zone in homes)):
            notes.append(
                f"{name} ({device}) has the way to the internet on it: nothing to protect here"
            )
        # Of several zones each has to vouch for it: one that leads upstream is enough to doubt.
        elif not corrected and (
            not homes or any(z.masqueraded or z.name not in served for z in homes)
        ):
            if _may_be_the_owners(interface, homes):
                notes.append(
                    f"{name} ({device}) forwards nowhere and counts as the internet. Is it yours?"
                    " Then add it to protected_networks, else to internet_networks"
                )
        elif interface.get("up") and (corrected or interface.get("proto") == "static"):
            try:
                prefixes, ways = tuple(_prefixes(interface)), tuple(_routes(interface))
                networks.append(Network(name, _device(device), prefixes, ways))
            except (KeyError, TypeError, ValueError) as error:
                notes.append(f"{name!a} makes no sense and is not protected: {error}")
    protected = {network.device for network in networks}
    others = tuple(n for n in served_all_the_same if n.device not in protected)
    upstream = {i["l3_device"] for i in used} | set(gateways)
    upstream -= protected | {network.device for network in others}
    # Of interfaces that are down too: a restart of netifd must not have fw4's zones rewritten.
    vouching = [z for z in zones if z.name in served and z.name not in upstream_zones]
    managing = {
        i["l3_device"]
        for i in used
        if i["l3_device"] not in leading
        and _manages([z for z in zones if i["interface"] in z.members])
    }
    return Surroundings(
        tuple(networks),
        others,
        tuple(sorted(upstream)),
        tuple(notes),
        tuple(zone.name for zone in vouching),
        tuple((str(i["interface"]), str(i["l3_device"])) for i in interfaces if i.get("l3_device")),
        tuple(sorted(managing)),
        lines.listed(used, upstream),
        tuple(sorted({str(i["device"]) for i in interfaces if _pppoe(i)})),
        hardware_wanted(firewall),
    )


def _unknown(corrections: Corrections, interfaces: list[dict[str, Any]]) -> list[str]:
    known = {i.get("interface") for i in interfaces}
    return [
        f"there is no interface {name}, which the setting {option} names"
        for option, names in corrections._asdict().items()
        for name in names
        if name not in known
    ]


def dump(networks: tuple[Network, ...]) -> str:
    """Networks as text, for the day netifd does not answer (K7, K14)."""
    return json.dumps([network._asdict() for network in networks], indent=1) + "\n"


def load(text: str, gateways: Iterable[str] = ()) -> tuple[Network, ...]:
    """What `dump` wrote, without networks that the internet lies behind by now.

    Raises ValueError where the text is nothing that `dump` writes.
    """
    try:
        networks = tuple(
            Network(
                str(entry["name"]),
                _device(entry["device"]),
                tuple(_prefix(prefix) for prefix in entry["prefixes"]),
                tuple((_prefix(to), str(ip_address(via))) for to, via in entry["routes"]),
            )
            for entry in json.loads(text)
        )
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a list of networks: {error!r}") from None
    return tuple(n for n in networks if n.device not in (*_VIRTUAL, *gateways))


def _may_be_the_owners(interface: dict[str, Any], homes: list[_Zone]) -> bool:
    """A network without internet (cameras, say) is one of the house that nothing vouches for."""
    doubt = not homes or any(zone.masqueraded or zone.answers for zone in homes)
    return not doubt and bool(interface.get("up")) and interface.get("proto") == "static"


def _leads_upstream(interface: dict[str, Any], own: tuple[str, ...] = ()) -> bool:
    """Whether netifd itself says that the internet lies behind an interface: a client's
    protocol, or a default route, active or not. `own` are protocols that need not be one."""
    if interface.get("proto") not in ("static", "none", *own):
        return True
    inactive = interface.get("inactive") or {}
    return any(
        route.get("mask", 0) < _WIDEST[6 if ":" in str(route.get("target")) else 4]
        for route in (*interface.get("route", ()), *inactive.get("route", ()))
    )


def _has_public_address(interface: dict[str, Any]) -> bool:
    """IPv4's: public ones of IPv6 the house has as well."""
    with suppress(KeyError, TypeError, ValueError):
        return not all(is_private(str(a["address"])) for a in interface.get("ipv4-address", ()))
    return False


def _pppoe(interface: dict[str, Any]) -> bool:
    return interface.get("proto") == "pppoe" and bool(interface.get("device"))


def _manages(homes: list[_Zone]) -> bool:
    return bool(homes) and all(zone.answers and not zone.masqueraded for zone in homes)


def _zone(section: dict[str, Any]) -> _Zone:
    members = section.get("network", [])
    listed = members.split() if isinstance(members, str) else members
    masqueraded = any(_on(section.get(option)) for option in ("masq", "masq6"))
    answers = str(section.get("input", "")).upper() == "ACCEPT"
    return _Zone(str(section.get("name", "")), frozenset(listed), masqueraded, answers)


def _on(value: object) -> bool:
    """fw4's notion of a boolean; anything it might take for true counts."""
    return str(value or "0").lower() not in ("0", "off", "false", "no", "disabled")


def _prefixes(interface: dict[str, Any]) -> Iterable[str]:
    found = [
        (entry["address"], entry["mask"])
        for kind in ("ipv4-address", "ipv6-address")
        for entry in interface.get(kind, ())
    ]
    for entry in interface.get("ipv6-prefix-assignment", ()):
        if local := entry.get("local-address"):
            found.append((local["address"], local["mask"]))
    return dict.fromkeys(_prefix(f"{address}/{mask}") for address, mask in found)


def _routes(interface: dict[str, Any]) -> Iterable[tuple[str, str]]:
    for route in interface.get("route", ()):
        gateway = route.get("nexthop", "")
        prefix = _prefix(f"{route['target']}/{route['mask']}")
        via = ip_address(gateway or "::")
        if via.is_unspecified or via.version != ip_network(prefix).version:
            continue
        if is_private(prefix):
            yield prefix, str(via)


def is_private(prefix: str) -> bool:
    """Whether a prefix, host bits or not, lies wholly in what is never the internet."""
    network = ip_network(prefix, strict=False)
    return any(_inside(network, private) for private in _PRIVATE)


def is_device(name: str) -> bool:
    """Whether a name can be a device's, and can stand in nft's text."""
    try:
        _device(name)
    except ValueError:
        return False
    return True


def _inside(network: IPNetwork, outer: IPNetwork) -> bool:
    return network.version == outer.version and network.subnet_of(outer)  # type: ignore[arg-type]


def _prefix(text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{text!r} is no prefix")
    network = ip_network(text, strict=False)
    if not network.prefixlen:
        raise ValueError("a default route is no protected network")
    return str(network)


def _device(name: object) -> str:
    """A device's name as the kernel allows it, and fit to stand in nft's text."""
    text = str(name)
    octets = len(text.encode(errors="replace"))
    if not 0 < octets < 16 or not text.isprintable() or any(c in ' /"*\\' for c in text):
        raise ValueError(f"{text!a} is no device's name")
    return text
