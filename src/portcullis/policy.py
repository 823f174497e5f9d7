# SPDX-License-Identifier: GPL-2.0-or-later
"""What may pass, as a value.

Pure. `decide` turns the state, the owner's settings and what is known of the world into a
`Policy`; the packet filter (ruleset.py) and the routing guard (guard.py) are rendered from it
and from nothing else. An empty policy is the closed one: it lets nothing out (contract, K4).
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from portcullis.dns import unfit
from portcullis.states import Mode, State, active

TUNNEL = "pc0"
"""Name of the tunnel device, whatever the driver."""

MARK, MASK = 0x50430000, 0x7FFF0000
"""Firewall mark of the tunnel's own packets; clear of pbr's and mwan3's (platform.md)."""

IPNetwork = IPv4Network | IPv6Network


class Network(NamedTuple):
    """A protected network: its layer-3 device, the on-link prefixes behind it, and static
    routes (prefix, gateway) to what lies behind a router on it."""

    name: str
    device: str
    prefixes: tuple[str, ...]
    routes: tuple[tuple[str, str], ...] = ()


class Socket(NamedTuple):
    """A remote address, transport (`udp`, `tcp`) and port the router itself may talk to."""

    address: str
    transport: str
    port: int


class Outer(NamedTuple):
    """The packets that carry a line, by the kind of the kernel's device (`lines`), and the remote
    end that they go to."""

    kind: str
    address: str


class Link(NamedTuple):
    """The tunnel as far as policy cares: our addresses in it, its resolvers, what it carries.

    `addresses` are bare addresses, `carries` are prefixes; both families mixed.
    """

    addresses: tuple[str, ...]
    resolvers: tuple[str, ...]
    carries: tuple[str, ...]


class Lan(NamedTuple):
    """Devices among themselves where not all of them may reach each other (K16); `lanaccess`
    makes it. Empty means that none reaches another. A port is a bridge's port, or the device of
    a network without a bridge.

    free       MAC address and port of devices that reach all others, and are reached by them
    apart      MAC addresses of devices that reach no other, wherever they are
    closed     ports that are kept apart with all that is behind them
    passing    ports whose other devices reach each other: access is allowed, or not ours to rule
    heard      ports with nothing but free devices: they hear broadcasts and multicast
    sought     address and port of free devices at other ports: the question for it reaches them
    open       networks' devices that packets for any receiver may be routed to
    addressed  address, network's device and whether excepted (or apart), where no bridge decides
    isolated   bridge ports that the bridge itself keeps from each other
    """

    free: tuple[tuple[str, str], ...] = ()
    apart: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    passing: tuple[str, ...] = ()
    heard: tuple[str, ...] = ()
    sought: tuple[tuple[str, str], ...] = ()
    open: tuple[str, ...] = ()
    addressed: tuple[tuple[str, str, bool], ...] = ()
    isolated: tuple[str, ...] = ()


class Policy(NamedTuple):
    """Everything the kernel has to be told, and nothing else.

    `served` are networks that are not protected but that the router answers all the same, with
    replies only (K14). While the link is not `flowing` the router alone may use it, to bring it
    up: devices are told no at once (K15). `lan` is None where access has no exceptions. `outer` is
    the same in every state: what a line carries is judged on the line. `chosen` are resolvers on
    protected networks: they answer the house, and ask the link's (K12).
    """

    released: bool = False
    lan_access: bool = False
    networks: tuple[Network, ...] = ()
    served: tuple[Network, ...] = ()
    link: Link | None = None
    flowing: bool = False
    endpoints: tuple[Socket, ...] = ()
    bootstrap: tuple[Socket, ...] = ()
    lan: Lan | None = None
    outer: tuple[Outer, ...] = ()
    chosen: tuple[str, ...] = ()

    @property
    def devices(self) -> tuple[str, ...]:
        """Devices of the protected networks, each once."""
        return tuple(dict.fromkeys(network.device for network in self.networks))

    @property
    def resolvers(self) -> tuple[str, ...]:
        """Resolvers in the tunnel that plain DNS is sent to while the block is active."""
        return self.link.resolvers if self.link and self.flowing and not self.released else ()

    def flow_key(self) -> tuple[object, ...]:
        """Flows begun under another key must not live on (K3, K12)."""
        return (self.released, self.link and (self.link.addresses, self.resolvers), self.chosen)


CLOSED = Policy()


def decide(
    state: State,
    mode: Mode,
    lan_access: bool,
    networks: tuple[Network, ...],
    link: Link | None,
    endpoints: tuple[Socket, ...],
    bootstrap: tuple[Socket, ...],
    served: tuple[Network, ...] = (),
    lan: Lan | None = None,
    outer: tuple[Outer, ...] = (),
    chosen: tuple[str, ...] = (),
) -> Policy:
    """The policy of a state. Total: every combination of arguments has one.

    A tunnel that is being taken down carries nothing any more, so its link is left out. While
    reconnecting it stays open to devices: a lost handshake must not break their connections.
    """
    going = state in (State.NOT_CONNECTED, State.DISCONNECTING)
    released = not active(state, mode)
    return Policy(
        released=released,
        lan_access=lan_access,
        networks=networks,
        served=served,
        link=None if going else link,
        flowing=link is not None and state in (State.CONNECTED, State.RECONNECTING),
        endpoints=() if going else endpoints,
        bootstrap=() if going else bootstrap,
        lan=lan,
        outer=outer,
        chosen=() if released else chosen,
    )


def endpoint_objection(
    address: str, networks: tuple[Network, ...], own: tuple[str, ...]
) -> str | None:
    """Why `address` cannot be a tunnel's endpoint, or a line's remote end, or None.

    `own` are the router's own addresses and the tunnel's prefixes. A hole in the block towards
    the house itself would be a way out for whoever answers there (K11, TunnelCrack's ServerIP).
    """
    endpoint = ip_address(address)
    if kind := unfit(endpoint):
        return f"{address} is {kind}"
    for network in networks:
        for prefix in _behind(network):
            if endpoint in ip_network(prefix, strict=False):
                return f"{address} lies in the protected network {network.name} ({prefix})"
    for prefix in own:
        if endpoint in ip_network(prefix, strict=False):
            return f"{address} lies in {prefix}, which is the router's or the tunnel's own"
    return None


def within(address: str, prefixes: tuple[str, ...]) -> bool:
    """Whether any of `prefixes` holds `address`; prefixes of the other family never do."""
    return any(ip_address(address) in ip_network(prefix, strict=False) for prefix in prefixes)


def at_home(addresses: tuple[str, ...], networks: tuple[Network, ...]) -> tuple[str, ...]:
    """Those of `addresses` that lie on a protected network."""
    prefixes = tuple(prefix for network in networks for prefix in _behind(network))
    return tuple(address for address in addresses if within(address, prefixes))


def _behind(network: Network) -> tuple[str, ...]:
    """Every prefix that a network leads to."""
    return (*network.prefixes, *(prefix for prefix, _ in network.routes))
