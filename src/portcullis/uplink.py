# SPDX-License-Identifier: GPL-2.0-or-later
"""The way to the internet as the kernel has it: default routes and own addresses."""

from __future__ import annotations

from collections.abc import Iterable
from socket import AF_INET, AF_INET6, if_nameindex
from typing import Any, NamedTuple

from portcullis.attachment import Netdev
from portcullis.netlink import IPRoute, carries, default_routes
from portcullis.networks import is_device, is_private
from portcullis.policy import TUNNEL, Network


class Uplink(NamedTuple):
    """`families`: 4 and 6 where a default route leaves by a device with a carrier that is not
    in `protected`; `gateways`: devices of all default routes; `addresses`: the router's own;
    `house`: networks with private addresses that no default route leaves by, which are answered
    where nothing else is known of the house (K14); `private`: devices with private addresses, those
    of default routes too; `netdevs`: all devices."""

    families: frozenset[int] = frozenset()
    gateways: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    house: tuple[Network, ...] = ()
    private: tuple[str, ...] = ()
    netdevs: tuple[Netdev, ...] = ()


def read(protected: tuple[str, ...]) -> Uplink:
    """Raises NetlinkError or OSError."""
    with IPRoute() as ip:
        links = {link["index"]: link for link in list(ip.get_links())}
        names = {index: str(link.get_attr("IFLA_IFNAME")) for index, link in links.items()}
        families, gateways = set(), set()
        for version, family in ((4, AF_INET), (6, AF_INET6)):
            for index in default_routes(family) & links.keys():
                if names[index] == TUNNEL:
                    continue
                gateways.add(names[index])
                if names[index] not in protected and carries(links[index]):
                    families.add(version)
        found: dict[str, list[str]] = {}
        for family in (AF_INET, AF_INET6):
            for message in list(ip.get_addr(family=family)):
                address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
                name = names.get(message["index"], "")
                found.setdefault(name, []).append(f"{address}/{message['prefixlen']}")
    found.pop(TUNNEL, None)
    addresses = [text.partition("/")[0] for texts in found.values() for text in texts]
    found = {name: list(filter(is_private, texts)) for name, texts in found.items()}
    private = sorted(n for n, prefixes in found.items() if prefixes and is_device(n) and n != "lo")
    house = [Network(n, n, tuple(sorted(found[n]))) for n in private if n not in gateways]
    return Uplink(
        frozenset(families),
        tuple(sorted(gateways)),
        tuple(addresses),
        tuple(house),
        tuple(private),
        tuple(_netdev(link) for link in links.values()),
    )


def still_there(netdevs: Iterable[Netdev]) -> tuple[Netdev, ...]:
    """Those that have not gone since, by their present names: a hook on what is gone is refused,
    and its missing is nobody's tampering."""
    try:
        present = dict(if_nameindex())
    except OSError:  # nobody can tell at the moment
        return tuple(netdevs)
    there = (netdev for netdev in netdevs if netdev.ifindex in present)
    return tuple(netdev._replace(name=present[netdev.ifindex]) for netdev in there)


def _netdev(link: Any) -> Netdev:
    """What a link is and what it is connected to, as far as that is in this namespace."""
    elsewhere = link.get_attr("IFLA_LINK_NETNSID") is not None
    info = link.get_attr("IFLA_LINKINFO")
    return Netdev(
        str(link.get_attr("IFLA_IFNAME")),
        link["index"],
        0 if elsewhere else link.get_attr("IFLA_LINK") or 0,
        link.get_attr("IFLA_MASTER") or 0,
        str(info.get_attr("IFLA_INFO_KIND") or "") if info else "",
    )
