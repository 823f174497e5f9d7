# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables that nobody but their owner may change, and taking one away: by the owner's own netlink
socket.

An attacker with these means is root with a debugger; to tests it shows what the other layers do
without the table, also where the kernel would not let anybody else delete it."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import subprocess
import sys
from functools import cache

from .namespace import Namespace

_PIDFD_GETFD = 438
_SO_PROTOCOL, _NETLINK_NETFILTER = 38, 12
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11  # of nfnetlink, the others of nf_tables
_NEWTABLE, _GETTABLE, _DELTABLE = 10 << 8, 10 << 8 | 1, 10 << 8 | 2
_REQUEST, _NFTABLES, _TABLE_NAME, _TABLE_OWNER = 1, 10, 1, 7
_FAMILIES = {"inet": 1, "netdev": 5, "bridge": 7}
_libc = ctypes.CDLL(None, use_errno=True)


@cache
def has_owned_tables() -> bool:
    """Whether kernel and nft of this machine have tables that are owned and persist; a daemon that
    says otherwise is wrong."""
    command = ["unshare", "-n", "nft", "add table inet probe { flags owner, persist; }"]
    return not subprocess.run(command, capture_output=True, check=False).returncode


def delete_table(space: Namespace, owner: int, table: str) -> None:
    """Delete `table` (family and name) in a namespace, whose owner may be the process `owner`.

    Through the one socket that may: a refusal is queued as an answer to what the process itself
    asks there, and libnftables loses the thread for good."""
    port = _owner(space, table)
    if not port:
        space.nft(f"delete table {table}\n")
        return
    sockets = _netfilter_sockets(owner)
    try:
        found = [one for one in sockets if one.getsockname()[0] == port]
        if not found:
            raise RuntimeError(f"{table} is not the table of process {owner}")
        found[0].send(_deletion(table))
    finally:
        for one in sockets:
            one.close()


def _owner(space: Namespace, table: str) -> int:
    """The port of the netlink socket that owns a table, 0 where nobody does."""
    with space.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as asking:
        asking.settimeout(5)
        asking.send(_about(_GETTABLE, table))
        answer = asking.recv(65536)
    if int.from_bytes(answer[4:6], sys.byteorder) != _NEWTABLE:
        raise RuntimeError(f"there is no table {table}")
    attributes = answer[20:]
    while attributes:
        length, kind = struct.unpack_from("HH", attributes)
        if kind == _TABLE_OWNER:
            return int.from_bytes(attributes[4:8], "big")
        attributes = attributes[(length + 3) & ~3 :]
    return 0


def _netfilter_sockets(pid: int) -> list[socket.socket]:
    found = []
    process = os.pidfd_open(pid)
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                continue
            descriptor = _libc.syscall(_PIDFD_GETFD, process, int(name), 0)
            if descriptor < 0:
                number = ctypes.get_errno()
                raise OSError(number, f"pidfd_getfd: {os.strerror(number)}")
            one = socket.socket(fileno=descriptor)
            protocol = one.getsockopt(socket.SOL_SOCKET, _SO_PROTOCOL)
            if (one.family, protocol) == (socket.AF_NETLINK, _NETLINK_NETFILTER):
                found.append(one)
            else:
                one.close()
    finally:
        os.close(process)
    return found


def _deletion(table: str) -> bytes:
    return (
        _message(_BATCH_BEGIN, struct.pack("!BBH", 0, 0, _NFTABLES))
        + _about(_DELTABLE, table)
        + _message(_BATCH_END, struct.pack("!BBH", 0, 0, _NFTABLES))
    )


def _about(kind: int, table: str) -> bytes:
    family, name = table.split()
    text = name.encode() + b"\0"
    attribute = struct.pack("HH", 4 + len(text), _TABLE_NAME) + text + b"\0" * (-len(text) % 4)
    return _message(kind, struct.pack("!BBH", _FAMILIES[family], 0, 0) + attribute)


def _message(kind: int, body: bytes) -> bytes:
    return struct.pack("IHHII", 16 + len(body), kind, _REQUEST, 0, 0) + body
