# SPDX-License-Identifier: GPL-2.0-or-later
"""The routing guard: the second layer, which stops everything without any packet filter.

    v4+v6    0   from all lookup local         the kernel's own: nobody reaches the router without
    v4+v6  800   from all lookup LT            on-link prefixes of protected networks, by device
    v6     810   to fe80::/10 lookup main
    v6     820   from all lookup main          only while released
    v4+v6  830   not fwmark M lookup T         what the tunnel carries; unreachable for the rest
    v6     831   not fwmark M unreachable

Whatever has no mark finds the tunnel or nothing, whatever routes an upstream network pushes
(TunnelVision, K11). v4 must not use an unreachable *rule*, or the kernel refuses the upstream's
own default route; `throw` in T releases it. A plain function of the policy, compared with the
kernel and healed; what netifd removes at its start comes back from UCI (platform.md).
"""

from __future__ import annotations

from ipaddress import ip_network
from socket import AF_INET, AF_INET6, if_indextoname, if_nametoindex
from typing import Any, NamedTuple

from portcullis.netlink import IFF_UP, MAIN, IPRoute, NetlinkError, routes, without_ipv6
from portcullis.policy import MARK, MASK, TUNNEL, Policy

LOCAL, LT, T = 255, 706, 707
LAST = 2147483647
"""The metric of what is only there when nothing else is."""

_OWN_PRIORITIES = range(800, 832)
_UNICAST, _UNREACHABLE, _THROW = 1, 7, 9
_TYPES = {_UNICAST: "unicast", _UNREACHABLE: "unreachable", _THROW: "throw"}
_TO_TABLE, _RULE_UNREACHABLE = 1, 7
_INVERT = 2
_UNIVERSE, _LINK_SCOPE, _ANY_SCOPE = 0, 253, 255
_IP6_DEFAULT_METRIC = 1024
_ENOENT, _EEXIST, _ENODEV, _ENETDOWN, _ESRCH = 2, 17, 19, 100, 3
_NO_WAY = (_ENODEV, _ENETDOWN, 13, 22, 101, 113)  # EACCES, EINVAL, ENETUNREACH, EHOSTUNREACH
_MOST = 1000
_NAMED = 5


class Rule(NamedTuple):
    family: int
    priority: int
    action: int
    table: int
    destination: str
    mark: int
    mask: int
    flags: int


class Route(NamedTuple):
    family: int
    table: int
    destination: str
    kind: int
    device: str
    metric: int
    gateway: str = ""
    tos: int = 0
    source: str = ""


class GuardError(Exception):
    """The routing guard is not what the policy says, and could not be made so."""


def wanted_rules(policy: Policy) -> frozenset[Rule]:
    rules = set()
    for family in (AF_INET, AF_INET6):
        rules.add(_local(family))
        rules.add(Rule(family, 800, _TO_TABLE, LT, "", 0, 0, 0))
        rules.add(Rule(family, 830, _TO_TABLE, T, "", MARK, MASK, _INVERT))
    rules.add(Rule(AF_INET6, 810, _TO_TABLE, MAIN, "fe80::/10", 0, 0, 0))
    rules.add(Rule(AF_INET6, 831, _RULE_UNREACHABLE, 0, "", MARK, MASK, _INVERT))
    if policy.released:
        rules.add(Rule(AF_INET6, 820, _TO_TABLE, MAIN, "", 0, 0, 0))
    return frozenset(rules)


def wanted_routes(policy: Policy) -> frozenset[Route]:
    routes = {
        Route(AF_INET, T, "0.0.0.0/0", _UNREACHABLE, "", LAST),
        Route(AF_INET6, T, "::/0", _UNREACHABLE, "", LAST),
    }
    if policy.released:
        routes.add(Route(AF_INET, T, "0.0.0.0/0", _THROW, "", 0))
    elif policy.link:
        routes |= {_by_device(T, prefix, TUNNEL) for prefix in policy.link.carries}
    for network in policy.networks:
        routes |= {_by_device(LT, prefix, network.device) for prefix in network.prefixes}
        routes |= {_by_device(LT, prefix, network.device, via) for prefix, via in network.routes}
    for network in policy.served:
        routes |= {_by_device(LT, prefix, network.device) for prefix in network.prefixes}
    return frozenset(routes)


def _local(family: int) -> Rule:
    return Rule(family, 0, _TO_TABLE, LOCAL, "", 0, 0, 0)


def _by_device(table: int, prefix: str, device: str, gateway: str = "") -> Route:
    network = ip_network(prefix, strict=False)
    family, metric = (AF_INET, 0) if network.version == 4 else (AF_INET6, _IP6_DEFAULT_METRIC)
    return Route(family, table, str(network), _UNICAST, device, metric, gateway)


class RoutingGuard:
    """The rules and the tables LT and T in the kernel. One netlink socket, for requests only.
    `preceded` names somebody else's rules that come before ours: they are the owner's to judge."""

    def __init__(self) -> None:
        self._ip: IPRoute | None = None
        self.preceded = ""

    def reconcile(self, policy: Policy) -> tuple[str, ...]:
        """Make the guard what `policy` says; what had to be changed, nothing if nothing.

        Raises GuardError where it could not be made so. A way that cannot be had, because its
        device is missing or down or its gateway is nowhere, is left out: it opens nothing, and
        its device's coming up calls us again.
        """
        try:
            found = self._differences(policy)
            if not found:
                return ()
            # What opens is removed before what closes is added, so no half-way point is
            # more open than both ends.
            for addition, item in sorted(found, key=lambda change: (change[0], str(change[1]))):
                self._apply(addition, item)
            left = [change for change in self._differences(policy) if not _harmless(*change)]
        except (NetlinkError, OSError) as error:
            self.close()
            raise GuardError(f"routing guard: {error}") from None
        if left:
            raise GuardError(f"routing guard, read back: {_describe(*left[0])}")
        return tuple(_describe(*c) for c in found if not (c[0] and self._absent_device(c[1])))

    def standing(self, policy: Policy) -> tuple[str, ...]:
        """What differs from `policy` at this moment; nothing is changed."""
        try:
            found = self._differences(policy)
        except (NetlinkError, OSError) as error:
            self.close()
            return (f"routing guard: {error}",)
        return tuple(_describe(*c) for c in found if not (c[0] and self._absent_device(c[1])))

    def close(self) -> None:
        """Give the socket back; the guard stays."""
        if self._ip is not None:
            self._ip.close()
            self._ip = None

    def _socket(self) -> IPRoute:
        if self._ip is None:
            self._ip = IPRoute()
        return self._ip

    def _differences(self, policy: Policy) -> list[tuple[bool, Rule | Route]]:
        present = self._rules() | self._routes()
        wanted: frozenset[Rule | Route] = wanted_rules(policy) | wanted_routes(policy)
        foreign = present - wanted
        # The kernel deletes by place, not by identity: what stands in the place of something
        # foreign may go with it and is added again.
        places = {_place(item) for item in foreign}
        missing = (wanted - present) | {item for item in wanted if _place(item) in places}
        return [(False, item) for item in foreign] + [(True, item) for item in missing]

    def _rules(self) -> frozenset[Rule | Route]:
        found, preceding = set(), []
        for family in (AF_INET, AF_INET6):
            for rule in list(self._socket().get_rules(family=family)):
                priority = rule.get_attr("FRA_PRIORITY") or 0
                read = _read_rule(family, priority, rule)
                if priority in _OWN_PRIORITIES or read == _local(family):
                    found.add(read)
                elif priority < _OWN_PRIORITIES.start:
                    preceding.append(f"IPv{4 if family == AF_INET else 6} {priority}")
        self.preceded = ", ".join(preceding[:_NAMED])
        return frozenset(found)

    def _routes(self) -> frozenset[Rule | Route]:
        found = set()
        for family in (AF_INET, AF_INET6):
            for table in (LT, T):
                for route in routes(family, table):
                    if route.get_attr("RTA_TABLE") == table:
                        found.add(self._read_route(family, table, route))
        return frozenset(found)

    def _read_route(self, family: int, table: int, route: Any) -> Route:
        any_address = "0.0.0.0" if family == AF_INET else "::"
        destination = f"{route.get_attr('RTA_DST') or any_address}/{route['dst_len']}"
        device = gateway = ""
        if route["type"] == _UNICAST:
            index = route.get_attr("RTA_OIF") or 0
            device = _name(index)
            # Several next hops, or one of the other family, are never ours.
            via = [route.get_attr(name) for name in ("RTA_MULTIPATH", "RTA_VIA")]
            gateway = str(next(filter(None, [route.get_attr("RTA_GATEWAY"), *via]), ""))
        metric = route.get_attr("RTA_PRIORITY") or 0
        source = f"{route.get_attr('RTA_SRC')}/{route['src_len']}" if route["src_len"] else ""
        return Route(
            family, table, destination, route["type"], device, metric, gateway, route["tos"], source
        )

    def _apply(self, addition: bool, item: Rule | Route) -> None:
        if not addition:
            self._remove(item)
            return
        if isinstance(item, Route) and item.kind == _UNICAST and not _index(item.device):
            return  # no such device (any more), so no such route
        try:
            if isinstance(item, Rule):
                self._socket().rule("add", **_rule_arguments(item))
            else:
                # Of link scope, a route of T would count as the way to the upstream's gateway:
                # `ip route add default via …` without a device would bind it to the tunnel.
                scope = _LINK_SCOPE if item.table == LT else _UNIVERSE
                self._socket().route("add", **_route_arguments(item, scope))
        except NetlinkError as error:
            if error.code not in (_EEXIST, *(_NO_WAY if _harmless(True, item) else ())):
                raise

    def _remove(self, item: Rule | Route) -> None:
        """A route once, of several with its key the first; rules of its priority all."""
        try:
            if isinstance(item, Route):
                self._socket().route("del", **_route_place(item))
                return
            for _ in range(_MOST):
                self._socket().rule("del", family=item.family, priority=item.priority)
        except NetlinkError as error:
            if error.code not in (_ENOENT, _ESRCH, _ENODEV):
                raise

    @staticmethod
    def _absent_device(item: Rule | Route) -> bool:
        """Whether a route cannot stand because its device is not there or not up."""
        if not isinstance(item, Route) or item.kind != _UNICAST:
            return False
        index = _index(item.device)
        if not index or (item.family == AF_INET6 and without_ipv6(item.device)):
            return True
        with IPRoute() as ip:
            return not any(link["flags"] & IFF_UP for link in list(ip.get_links(index)))


def _harmless(addition: bool, item: Rule | Route) -> bool:
    """Whether a change that is still to be made closes nothing: a missing way is no hole."""
    return addition and isinstance(item, Route) and item.kind == _UNICAST


def _place(item: Rule | Route) -> tuple[object, ...]:
    if isinstance(item, Rule):
        return (item.family, item.priority)
    return (item.family, item.table, item.destination, item.metric, item.tos, item.source)


def _route_place(route: Route) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "family": route.family,
        "dst": route.destination,
        "table": route.table,
        "type": 0,
        "scope": _ANY_SCOPE,
        "tos": route.tos,
        "proto": 0,
    }
    if route.metric:
        arguments["priority"] = route.metric
    if route.source:
        arguments["src"] = route.source
    return arguments


def _read_rule(family: int, priority: int, rule: Any) -> Rule:
    destination = f"{rule.get_attr('FRA_DST')}/{rule['dst_len']}" if rule["dst_len"] else ""
    usual = {"FRA_PRIORITY", "FRA_TABLE", "FRA_DST", "FRA_FWMARK", "FRA_FWMASK", "FRA_PROTOCOL"}
    usual |= {"FRA_SUPPRESS_PREFIXLEN", "FRA_UNSPEC"}
    narrowed = sum(1 for name, _ in rule["attrs"] if name not in usual) + bool(rule["tos"])
    narrowed += rule.get_attr("FRA_SUPPRESS_PREFIXLEN") not in (None, 0xFFFFFFFF, -1)
    return Rule(
        family,
        priority,
        rule["action"],
        rule.get_attr("FRA_TABLE") or 0,
        destination,
        rule.get_attr("FRA_FWMARK") or 0,
        rule.get_attr("FRA_FWMASK") or 0,
        # A selector that is not ours makes it another rule: number it so that it differs.
        (rule["flags"] & _INVERT) | narrowed << 8,
    )


def _rule_arguments(rule: Rule) -> dict[str, Any]:
    arguments: dict[str, Any] = {"family": rule.family, "priority": rule.priority}
    if rule.table:
        arguments["table"] = rule.table
    if rule.action == _RULE_UNREACHABLE:
        arguments["action"] = "unreachable"
    if rule.destination:
        address, _, length = rule.destination.partition("/")
        arguments |= {"dst": address, "dst_len": int(length)}
    if rule.mark:
        arguments |= {"fwmark": rule.mark, "fwmask": rule.mask}
    if rule.flags & _INVERT:
        arguments["flags"] = _INVERT
    return arguments


def _route_arguments(route: Route, scope: int) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "family": route.family,
        "dst": route.destination,
        "table": route.table,
    }
    if route.metric:
        arguments["priority"] = route.metric
    if route.kind == _UNICAST:
        arguments["oif"] = _index(route.device)
        if route.gateway:
            arguments["gateway"] = route.gateway
        elif route.family == AF_INET:
            arguments["scope"] = scope
    else:
        arguments["type"] = _TYPES[route.kind]
    return arguments


def _name(index: int) -> str:
    """Not by our socket: each link that pyroute2 0.9 is asked for by one costs a page, for as long
    as the socket lives."""
    try:
        return if_indextoname(index)
    except OSError:
        return f"#{index}"


def _index(device: str) -> int:
    try:
        return if_nametoindex(device)
    except OSError:
        return 0


def _describe(addition: bool, item: Rule | Route) -> str:
    version = 4 if item.family == AF_INET else 6
    state = "missing" if addition else "foreign"
    if isinstance(item, Rule):
        return f"{state} IPv{version} rule {item.priority}"
    kind = _TYPES.get(item.kind, str(item.kind))
    where = f" dev {item.device}" if item.device else ""
    where += f" via {item.gateway}" if item.gateway else ""
    return f"{state} IPv{version} route {kind} {item.destination}{where} in table {item.table}"
