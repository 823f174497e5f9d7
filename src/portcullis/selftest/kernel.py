# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel says of devices and ways, read without any library."""

from __future__ import annotations

import fcntl
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

SYS = Path("/sys/class/net")
_GETROUTE, _DELNEIGH, _ERROR = 26, 29, 2
_DST, _SRC, _IIF, _OIF, _MARK = 1, 2, 3, 4, 16
_UNICAST, _LOCAL = 1, 2
_GATEWAY = 2  # RTF_GATEWAY
_TENTATIVE = 0x40
_SIOCGIFADDR, _SIOCGIFNETMASK = 0x8915, 0x891B


class Gateway(NamedTuple):
    """A default route of the main table; without an address on a line with two ends."""

    device: str
    address: str


def gateways() -> list[Gateway]:
    found = []
    for line in _lines("/proc/net/route")[1:]:
        device, target, gateway, flags, _, _, _, mask = line.split()[:8]
        if target == mask == "00000000" and int(flags, 16) & 1 and not int(flags, 16) & 0x200:
            address = socket.inet_ntoa(bytes.fromhex(gateway)[::-1])
            found.append(Gateway(device, address if int(flags, 16) & _GATEWAY else ""))
    for line in _lines("/proc/net/ipv6_route"):
        target, length, _, _, gateway, _, _, _, flags, device = line.split()
        if int(length, 16) == 0 and int(flags, 16) & _GATEWAY and device != "lo":
            found.append(Gateway(device, _address6(gateway)))
    return list(dict.fromkeys(found))


def carries(device: str) -> bool:
    """Whether a device is up and has a carrier."""
    with suppress(OSError):
        return (SYS / device / "carrier").read_text().strip() == "1"
    return False


def hardware(device: str) -> bytes:
    """A device's link-layer address, or zeroes where it has none of six octets."""
    with suppress(OSError, ValueError):
        found = bytes.fromhex((SYS / device / "address").read_text().strip().replace(":", ""))
        return found if len(found) == 6 else bytes(6)
    return bytes(6)


def address4(device: str) -> tuple[str, int]:
    """A device's IPv4 address and the length of its prefix. Raises OSError."""
    name = struct.pack("16s16x", device.encode())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        address = fcntl.ioctl(asked, _SIOCGIFADDR, name)[20:24]
        mask = fcntl.ioctl(asked, _SIOCGIFNETMASK, name)[20:24]
    return socket.inet_ntoa(address), int.from_bytes(mask, "big").bit_count()


def address6(device: str) -> str:
    """An IPv6 address of a device, with which one can be made in its network; or empty."""
    fields = [line.split() for line in _lines("/proc/net/if_inet6")]
    found = [f[0] for f in fields if f[5] == device and f[2] == "40" and f[3] == "00"]
    return _address6(min(found)) if found else ""  # global ones before ULAs


def link_local(device: str) -> str:
    """A device's link-local address, if it can be used already; or empty."""
    for line in _lines("/proc/net/if_inet6"):
        address, _, _, scope, flags, name = line.split()
        if name == device and scope == "20" and not int(flags, 16) & _TENTATIVE:
            return _address6(address)
    return ""


def inside(devices: tuple[str, ...]) -> frozenset[str]:
    """`devices` and all that is under them: a bridge's ports, a VLAN's parent."""
    found: set[str] = set()
    waiting = list(devices)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [path.name for path in (SYS / name / "brif").glob("*")]
            waiting += [path.name[6:] for path in (SYS / name).glob("lower_*")]
    return frozenset(found)


def way(target: str, *, mark: int = 0, source: str = "", by: str = "") -> str:
    """The device that a packet to `target` would leave by, empty where it would not; one of the
    router's own, or one of `source` that came in `by` a device. Nothing is sent."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    bits = 128 if family == socket.AF_INET6 else 32
    attributes = _attribute(_DST, socket.inet_pton(family, target))
    if mark:
        attributes += _attribute(_MARK, struct.pack("I", mark))
    if by:
        attributes += _attribute(_SRC, socket.inet_pton(family, source))
        attributes += _attribute(_IIF, struct.pack("I", socket.if_nametoindex(by)))
    body = struct.pack("8BI", family, bits, bits if by else 0, 0, 0, 0, 0, 0, 0) + attributes
    head = struct.pack("IHHII", 16 + len(body), _GETROUTE, 1, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asked:
        asked.settimeout(2)
        asked.sendto(head + body, (0, 0))
        answer = asked.recv(65536)
    (kind,) = struct.unpack_from("H", answer, 4)
    if kind == _ERROR or answer[16 + 7] not in (_UNICAST, _LOCAL):
        return ""
    at = 28
    while at + 4 <= len(answer):
        length, attribute = struct.unpack_from("HH", answer, at)
        if attribute == _OIF:
            with suppress(OSError):
                return socket.if_indextoname(struct.unpack_from("I", answer, at + 4)[0])
        at += max(4, (length + 3) & ~3)
    return ""


def forget_neighbour(device: str, address: str) -> None:
    """Take what the kernel has learnt of a neighbour out of its table."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    target = _attribute(_DST, socket.inet_pton(family, address))  # NDA_DST has the same number
    body = struct.pack("BxxxiHBB", family, socket.if_nametoindex(device), 0, 0, 0) + target
    head = struct.pack("IHHII", 16 + len(body), _DELNEIGH, 1, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asked:
        asked.sendto(head + body, (0, 0))


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("HH", 4 + len(value), kind) + value


def _address6(digits: str) -> str:
    return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:  # no such protocol in this kernel
        return []
