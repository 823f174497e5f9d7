# SPDX-License-Identifier: GPL-2.0-or-later
"""The WireGuard driver: device `pc0`, by the kernel's module or else by wireguard-go.

Both are set through their own interface, generic netlink and the configuration socket, each
with a whole configuration in one go. Setting the peers anew forgets the old session, so every
`start` begins a handshake at once instead of waiting for WireGuard's five seconds.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import struct
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST

from portcullis.driver import DriverError, Reading
from portcullis.netlink import (
    IFF_UP,
    IPRoute,
    NetlinkError,
    WireGuardSocket,
    link_named,
    wgmsg,
    without_ipv6,
)
from portcullis.policy import MARK, TUNNEL, Socket
from portcullis.profile import Peer, Profile

MTU = 1420
"""Room for WireGuard's 80 octets in 1500 (wg-quick's default)."""

_OVERHEAD = 80
_SOCKET = Path("/var/run/wireguard") / f"{TUNNEL}.sock"
# The far side configures nothing here: no addresses of its choice, no routes (K6).
_IPV6_OPTIONS = (("addr_gen_mode", "1"), ("accept_ra", "0"), ("accept_redirects", "0"))
_SET_DEVICE, _REPLACE_PEERS, _REPLACE_ALLOWED = 1, 1, 2
_ALLOWED_PER_MESSAGE = 1000
_SIOCGIFFLAGS, _SIOCGIFADDR = 0x8913, 0x8915
_EOPNOTSUPP, _EEXIST, _EACCES = 95, 17, 13
_LINK_SCOPE = "20"
_APPEARS_WITHIN, _GOES_WITHIN = 1.0, 0.3
_KINDS = ("wireguard", "tun")


class _Backend(Protocol):
    def configure(self, profile: Profile, endpoints: tuple[Socket | None, ...]) -> None: ...

    def reading(self) -> Reading | None: ...

    def close(self) -> None: ...


class WireGuard:
    """`watch` and `unwatch` are given the descriptor that tells of wireguard-go's end."""

    def __init__(self, watch: Callable[[int], None], unwatch: Callable[[int], None]) -> None:
        self._watch, self._unwatch = watch, unwatch
        self._backend: _Backend | None = None
        self._profile: Profile | None = None
        self._processes: dict[int, int] = {}  # every wireguard-go not collected yet: pid, pidfd
        self._index = 0

    @property
    def implementation(self) -> str:
        """Who does the work: `kernel`, `wireguard-go`, or nothing yet."""
        return "" if self._backend is None else _NAMES[type(self._backend)]

    def start(self, profile: Profile, endpoints: tuple[Socket | None, ...]) -> None:
        try:
            with IPRoute() as ip:
                if self._backend is None or profile != self._profile or not self._standing():
                    self._remove(ip)
                    self._backend = self._create(ip)
                    self._index = _index()
                self._backend.configure(profile, endpoints)
                self._profile = profile
                # Every time: somebody may have taken its addresses or set it down.
                _address(ip, profile, endpoints)
        except (NetlinkError, OSError) as error:
            self._abandon()
            raise DriverError(f"WireGuard device {TUNNEL}: {error}") from None
        except DriverError:
            self._abandon()
            raise

    def reading(self) -> Reading | None:
        """None too where the device was set down, lacks its addresses or another stands in its
        place: `start` puts that right, and WireGuard alone never would."""
        if self._backend is None or self._profile is None or not self._standing() or not _up():
            return None
        if not _wanted_families(self._profile) <= _families():
            return None
        try:
            return self._backend.reading()
        except (NetlinkError, OSError, ValueError):
            self._backend.close()
            return None

    def stop(self) -> None:
        try:
            with IPRoute() as ip:
                self._remove(ip)
        except (NetlinkError, OSError) as error:
            raise DriverError(f"WireGuard device {TUNNEL} cannot be removed: {error}") from None

    def reap(self) -> None:
        """Collect what has ended of wireguard-go; to be called when a descriptor is ready."""
        for pid, descriptor in list(self._processes.items()):
            try:
                ended, _ = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:  # the bus library reaps every child
                ended = pid
            if ended:
                self._unwatch(descriptor)
                os.close(descriptor)
                del self._processes[pid]

    def _standing(self) -> bool:
        """Whether the device is still the one that was made here."""
        return self._index == _index() != 0

    def _create(self, ip: IPRoute) -> _Backend:
        try:
            ip.link("add", ifname=TUNNEL, kind="wireguard")
            return _Kernel()
        except NetlinkError as error:
            if error.code != _EOPNOTSUPP:
                raise
        program = shutil.which("wireguard-go")
        if program is None:
            raise DriverError(
                "this kernel has no WireGuard (package kmod-wireguard) and there is no"
                " wireguard-go",
                curable=False,
            )
        _SOCKET.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _SOCKET.unlink(missing_ok=True)
        null = (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)
        pid = os.posix_spawn(
            program,
            [program, "-f", TUNNEL],
            {**os.environ, "LOG_LEVEL": "silent", "WG_PROCESS_FOREGROUND": "1"},
            file_actions=[null, (os.POSIX_SPAWN_DUP2, 2, 1)],
            setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGPIPE],
        )
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:  # whom nobody would watch, nobody would end either
            os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):  # the bus library reaps every child
                os.waitpid(pid, 0)
            raise
        self._processes[pid] = descriptor
        self._watch(descriptor)
        deadline = time.monotonic() + _APPEARS_WITHIN
        while not (_SOCKET.exists() and link_named(ip, TUNNEL)):
            self.reap()
            if time.monotonic() > deadline or pid not in self._processes:
                raise DriverError("wireguard-go did not bring its device up")
            time.sleep(0.002)
        return _Userspace()

    def _remove(self, ip: IPRoute) -> None:
        """Whoever made the device. A wireguard-go ends when its device goes, and the device
        goes when it ends; asked first, it does not complain of the loss."""
        if self._backend is not None:
            self._backend.close()
        self._backend = self._profile = None
        self.reap()
        self._signal(signal.SIGTERM)
        if self._processes:
            self._await_absence(ip, _GOES_WITHIN)
            self._signal(signal.SIGKILL)  # its device is gone, or it is stopped or hung
        if link := link_named(ip, TUNNEL):
            kind = (link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")) or ""
            if kind not in _KINDS:
                raise DriverError(
                    f"{TUNNEL} is a device of kind {kind or 'physical'}, which is not a tunnel:"
                    " somebody gave it our name"
                )
            ip.link("del", index=link["index"])
            if not self._await_absence(ip, _GOES_WITHIN):
                raise DriverError(f"{TUNNEL} does not go away")

    def _signal(self, number: int) -> None:
        for descriptor in self._processes.values():  # a number might be somebody else's by now
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)

    @staticmethod
    def _await_absence(ip: IPRoute, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while link_named(ip, TUNNEL):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        return True

    def _abandon(self) -> None:
        try:
            self.stop()
        except DriverError:
            self._backend = self._profile = None


class _Kernel:
    """The kernel's module, by generic netlink.

    The messages are pyroute2's, the flags are set here: 0.7.9's own `set` cannot add a peer.
    One socket, for requests only: to open one costs more than twice a reading.
    """

    def __init__(self) -> None:
        self._socket: Any = None

    def configure(self, profile: Profile, endpoints: tuple[Socket | None, ...]) -> None:
        first: list[Any] = [
            ["WGDEVICE_A_IFNAME", TUNNEL],
            ["WGDEVICE_A_PRIVATE_KEY", b64encode(profile.private_key)],
            ["WGDEVICE_A_LISTEN_PORT", profile.listen_port or 0],
            ["WGDEVICE_A_FWMARK", MARK],
            ["WGDEVICE_A_FLAGS", _REPLACE_PEERS],
        ]
        wireguard = self._open()
        _request(wireguard, first)
        for peer, endpoint in zip(profile.peers, endpoints, strict=True):
            for attributes in _peer_messages(peer, endpoint):
                device = [["WGDEVICE_A_IFNAME", TUNNEL]]
                _request(wireguard, [*device, ["WGDEVICE_A_PEERS", [{"attrs": attributes}]]])

    def reading(self) -> Reading | None:
        handshake, received, sent = 0.0, 0, 0
        for message in list(self._open().info(TUNNEL)):
            for peer in message.get_attr("WGDEVICE_A_PEERS") or ():
                newest = peer.get_attr("WGPEER_A_LAST_HANDSHAKE_TIME")
                if newest is None:  # only more AllowedIPs of the peer before
                    continue
                handshake = max(handshake, newest["tv_sec"] + newest["tv_nsec"] / 1e9)
                received += peer.get_attr("WGPEER_A_RX_BYTES")
                sent += peer.get_attr("WGPEER_A_TX_BYTES")
        return Reading(handshake, received, sent)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self) -> Any:
        if self._socket is None:
            self._socket = WireGuardSocket()
        return self._socket


class _Userspace:
    """wireguard-go, by its configuration socket (the cross-platform interface)."""

    def configure(self, profile: Profile, endpoints: tuple[Socket | None, ...]) -> None:
        lines = [
            "set=1",
            f"private_key={profile.private_key.hex()}",
            f"listen_port={profile.listen_port or 0}",
            f"fwmark={MARK}",
            "replace_peers=true",
        ]
        for peer, endpoint in zip(profile.peers, endpoints, strict=True):
            lines += [f"public_key={peer.public_key.hex()}", "replace_allowed_ips=true"]
            if peer.preshared_key:
                lines.append(f"preshared_key={peer.preshared_key.hex()}")
            if endpoint:
                host = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
                lines.append(f"endpoint={host}:{endpoint.port}")
            lines.append(f"persistent_keepalive_interval={peer.keepalive}")
            lines += [f"allowed_ip={network}" for network in peer.allowed_ips]
        answer = self._ask("\n".join(lines))
        if answer.get("errno", ["0"]) != ["0"]:
            raise OSError(f"wireguard-go refused the configuration (errno {answer['errno'][0]})")

    def reading(self) -> Reading | None:
        answer = self._ask("get=1")
        seconds = map(int, answer.get("last_handshake_time_sec", ["0"]))
        fractions = map(int, answer.get("last_handshake_time_nsec", ["0"]))
        newest = max(s + n / 1e9 for s, n in zip(seconds, fractions, strict=True))
        received, sent = (sum(map(int, answer.get(k, ()))) for k in ("rx_bytes", "tx_bytes"))
        return Reading(newest, received, sent)

    def close(self) -> None:
        """Nothing is kept open."""

    @staticmethod
    def _ask(request: str) -> dict[str, list[str]]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(1.0)
            connection.connect(str(_SOCKET))
            connection.sendall(f"{request}\n\n".encode())
            text = b""
            while not text.endswith(b"\n\n"):
                more = connection.recv(65536)
                if not more:
                    raise OSError("wireguard-go hung up")
                text += more
        found: dict[str, list[str]] = {}
        for line in text.decode().splitlines():
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
        return found


_NAMES: dict[type, str] = {_Kernel: "kernel", _Userspace: "wireguard-go"}


def _request(wireguard: Any, attributes: list[Any]) -> None:
    message = wgmsg()
    message["cmd"], message["version"] = _SET_DEVICE, 1
    message["attrs"] = attributes
    flags = NLM_F_REQUEST | NLM_F_ACK
    list(wireguard.nlm_request(message, msg_type=wireguard.prid, msg_flags=flags))


def _peer_messages(peer: Peer, endpoint: Socket | None) -> list[list[Any]]:
    """A peer's attributes; its AllowedIPs split, because one message holds only 64 KiB."""
    key = ["WGPEER_A_PUBLIC_KEY", b64encode(peer.public_key)]
    attributes: list[Any] = [key, ["WGPEER_A_FLAGS", _REPLACE_ALLOWED]]
    if peer.preshared_key:
        attributes.append(["WGPEER_A_PRESHARED_KEY", b64encode(peer.preshared_key)])
    if endpoint:
        where = {"addr": endpoint.address, "port": endpoint.port}
        attributes.append(["WGPEER_A_ENDPOINT", where])
    attributes.append(["WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL", peer.keepalive])
    allowed = [
        {
            "attrs": [
                ["WGALLOWEDIP_A_FAMILY", socket.AF_INET if n.version == 4 else socket.AF_INET6],
                ["WGALLOWEDIP_A_IPADDR", n.network_address.packed],
                ["WGALLOWEDIP_A_CIDR_MASK", n.prefixlen],
            ]
        }
        for n in peer.allowed_ips
    ]
    messages = []
    for start in range(0, len(allowed), _ALLOWED_PER_MESSAGE):
        part = allowed[start : start + _ALLOWED_PER_MESSAGE]
        messages.append([*attributes, ["WGPEER_A_ALLOWEDIPS", part]])
        attributes = [key]
    return messages


def _index() -> int:
    """The tunnel device's number, 0 where there is none."""
    try:
        return socket.if_nametoindex(TUNNEL)
    except OSError:
        return 0


def _up() -> bool:
    request = struct.pack("16sh14x", TUNNEL.encode(), 0)  # struct ifreq
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            answer = fcntl.ioctl(asked, _SIOCGIFFLAGS, request)
    except OSError:
        return False
    return bool(struct.unpack_from("16xh", answer)[0] & IFF_UP)


def _wanted_families(profile: Profile) -> set[int]:
    """As `_families` has them when all is well."""
    counting: set[int] = {
        a.version for a in profile.addresses if a.version == 4 or not a.is_link_local
    }
    return counting - ({6} if without_ipv6(TUNNEL) else set())


def _families() -> frozenset[int]:
    """Of the tunnel device's addresses; those of IPv6 that are valid on the link only apart."""
    found = set()
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        fcntl.ioctl(asked, _SIOCGIFADDR, struct.pack("16s24x", TUNNEL.encode()))  # struct ifreq
        found.add(4)
    with suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            *_, scope, _flags, device = line.split()
            if device == TUNNEL and scope != _LINK_SCOPE:
                found.add(6)
    return frozenset(found)


def _address(ip: IPRoute, profile: Profile, endpoints: tuple[Socket | None, ...]) -> None:
    """Addresses as hosts, so that they bring no route of their own; MTU; up."""
    link = link_named(ip, TUNNEL)
    if link is None:
        raise DriverError(f"{TUNNEL} vanished while it was set up")
    index = link["index"]
    for address in profile.addresses:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        length = address.ip.max_prefixlen
        try:
            ip.addr("add", index=index, family=family, address=str(address.ip), prefixlen=length)
        except NetlinkError as error:
            # Where the owner switched IPv6 off, the tunnel goes without it, as all else does.
            if error.code != _EEXIST and not (address.version == 6 and error.code == _EACCES):
                raise
    for option, value in _IPV6_OPTIONS:
        path = Path(f"/proc/sys/net/ipv6/conf/{TUNNEL}/{option}")
        if path.exists():
            path.write_text(value)
    ip.link("set", index=index, mtu=profile.mtu or _path_mtu(ip, profile, endpoints))
    ip.link("set", index=index, state="up")


def _path_mtu(ip: IPRoute, profile: Profile, endpoints: tuple[Socket | None, ...]) -> int:
    """What the way to the endpoint leaves to the tunnel (PPPoE has 1492), at most `MTU`."""
    least = 1280 if any(address.version == 6 for address in profile.addresses) else 576
    room = MTU
    for endpoint in filter(None, endpoints):
        family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
        try:
            (route, *_) = list(ip.route("get", family=family, dst=endpoint.address, mark=MARK))
            (device, *_) = list(ip.get_links(route.get_attr("RTA_OIF")))
        except (NetlinkError, ValueError):
            continue
        room = min(room, device.get_attr("IFLA_MTU") - _OVERHEAD)
    return max(room, least)
