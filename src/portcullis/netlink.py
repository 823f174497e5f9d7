# SPDX-License-Identifier: GPL-2.0-or-later
"""pyroute2, loaded the light way.

`import pyroute2` pulls in everything it has (34 MB resident, 0.3 s). An empty parent package
in sys.modules lets its submodules be imported one by one (21 MB, 0.1 s); nothing of them is
changed. 0.7 imports unittest.mock where there is one, for tests alone, and with it asyncio and ssl;
here it does without. One source serves 0.7.9 and 0.9.x: results go through `list()`, attributes
through `get_attr`, and the family is always given.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable
from errno import ENOENT
from importlib.util import find_spec
from os import strerror
from pathlib import Path
from socket import AF_INET, AF_NETLINK, SOCK_CLOEXEC, SOCK_RAW, socket
from types import ModuleType
from typing import Any

if "pyroute2" not in sys.modules:
    _spec = find_spec("pyroute2")
    if _spec is None or _spec.submodule_search_locations is None:
        raise ImportError("pyroute2 is not installed (package python3-pyroute2)")
    _parent = ModuleType("pyroute2")
    _parent.__path__ = list(_spec.submodule_search_locations)
    _parent.__spec__ = _spec
    sys.modules["pyroute2"] = _parent
if "unittest" not in sys.modules and find_spec("pyroute2.lab"):
    sys.modules["unittest"] = None  # type: ignore[assignment]

from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic.wireguard import WireGuard as WireGuardSocket
from pyroute2.netlink.generic.wireguard import wgmsg
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket
from pyroute2.netlink.rtnl.rtmsg import rtmsg

if sys.modules.get("unittest", sys) is None:
    del sys.modules["unittest"]

__all__ = ["IPRoute", "NetlinkError", "WireGuardSocket", "wgmsg"]

MAIN = 254
IFF_UP = 1
_IFF_LOWER_UP = 1 << 16
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_GETROUTE, _DUMP, _ERROR, _DONE = 26, 0x301, 2, 3
_SOL_NETLINK, _STRICT = 270, 12  # NETLINK_GET_STRICT_CHK
_TABLE = 15  # RTA_TABLE
_FAMILY, _DST_LEN = 16, 17  # where a message has them


def conntrack_flush() -> None:
    """Forget every flow, both families (K3). Raises NetlinkError or OSError.

    Dumping and deleting one by one would block for seconds on a busy router (measured.md).
    """
    with NFCTSocket() as conntrack:
        conntrack.flush()


def drop_queued(devices: Iterable[str]) -> None:
    """Have devices forget what waits to be sent (K3): a shaped line (SQM) is behind by a tenth of
    a second and more. Raises NetlinkError or OSError.

    The kernel empties a device's queue where its length changes; all else of it stays.
    """
    with IPRoute() as ip:
        for device in devices:
            if link := link_named(ip, device):
                length = link.get_attr("IFLA_TXQLEN") or 0
                for other in (length + 1, length):
                    ip.link("set", index=link["index"], txqlen=other)


def link_named(ip: IPRoute, name: str) -> Any | None:
    """The link message of a device, or None where there is no such device."""
    try:
        found = list(ip.get_links(ifname=name))
    except NetlinkError as error:
        if error.code == 19:  # ENODEV
            return None
        raise
    return found[0] if found else None


def without_ipv6(device: str) -> bool:
    """Whether IPv6 is switched off on a device, or there is none at all."""
    try:
        return Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").read_text().strip() != "0"
    except OSError:
        return True


def carries(link: Any) -> bool:
    """Whether a link is up and has a carrier."""
    flags = link["flags"]
    return bool(flags & IFF_UP and flags & _IFF_LOWER_UP)


def routes(family: int, table: int, shorter: int = 129) -> list[Any]:
    """Routes of a table, to prefixes shorter than that. Raises OSError.

    The kernel is asked for this table alone, which pyroute2 cannot do, and only what counts is
    decoded: of thousands of routes that takes seconds.
    """
    asking = _HEADER.pack(36, _GETROUTE, _DUMP, 1, 0) + struct.pack("=B11x", family)
    found: list[Any] = []
    with socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0) as asked:
        asked.setsockopt(_SOL_NETLINK, _STRICT, 1)
        asked.send(asking + struct.pack("=HHI", 8, _TABLE, table))
        while True:
            data, at = asked.recv(1 << 16), 0
            while at < len(data):
                length, kind, *_ = _HEADER.unpack_from(data, at)
                if kind in (_ERROR, _DONE):
                    (code,) = struct.unpack_from("=i", data, at + _HEADER.size)
                    if code not in (0, -ENOENT):
                        raise OSError(-code, strerror(-code))
                    return found  # without any, where nobody has ever put a route into the table
                # A kernel without IPv6 sends what it has.
                if data[at + _FAMILY] == family and data[at + _DST_LEN] < shorter:
                    route = rtmsg(data[at : at + length])
                    route.decode()
                    found.append(route)
                at += length + 3 & ~3


def default_routes(family: int) -> set[int]:
    """Interface indexes that default routes of the main table leave by."""
    found = set()
    widest = 8 if family == AF_INET else 16  # 0/1 and 128/1 are a default route as well
    for route in routes(family, MAIN, widest):
        if route["type"] != 1:
            continue
        if (index := route.get_attr("RTA_OIF")) is not None:
            found.add(index)
        for hop in route.get_attr("RTA_MULTIPATH") or ():
            found.add(hop["oif"])
    return found
