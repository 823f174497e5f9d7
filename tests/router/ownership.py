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
from functools import cache

from .namespace import Namespace

_PIDFD_GETFD = 438
_SO_PROTOCOL, _NETLINK_NETFILTER = 38, 12
_BATCH_BEGIN, _BATCH_END, _DELTABLE = 0x10, 0x11, 10 << 8 | 2  # of nfnetlink, of nf_tables
_REQUEST, _NFTABLES, _TABLE_NAME = 1, 10, 1
_FAMILIES = {"inet": 1, "netdev": 5, "bridge": 7}
_libc = ctypes.CDLL(None, use_errno=True)


@cache
def has_owned_tables() -> bool:
    """Whether kernel and nft of this machine have tables that are owned and persist; a daemon that
    says otherwise is wrong."""
    command = ["unshare", "-n", "nft", "add table inet probe { flags owner, persist; }"]
    return not subprocess.run(command, capture_output=True, check=False).returncode


def delete_table(space: Namespace, owner: int, table: str) -> None:
    """Delete `table` (family and name) in a namespace, whose owner may be the process `owner`."""
    if not space.run(["nft", "delete", "table", *table.split()], check=False).returncode:
        return
    before = _handle(space, table)
    for stolen in _netfilter_sockets(owner):
        with stolen:
            stolen.send(_deletion(table))
    if _handle(space, table) == before:  # another one is the owner's repair
        raise RuntimeError(f"{table} is not the table of process {owner}")


def _handle(space: Namespace, table: str) -> str:
    """The table's number in its first line, empty where there is none."""
    done = space.run(["nft", "-a", "list", "table", *table.split()], check=False)
    return done.stdout.partition("\n")[0].partition("# handle ")[2]


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
    family, name = table.split()
    text = name.encode() + b"\0"
    attribute = struct.pack("HH", 4 + len(text), _TABLE_NAME) + text + b"\0" * (-len(text) % 4)
    return (
        _message(_BATCH_BEGIN, struct.pack("!BBH", 0, 0, _NFTABLES))
        + _message(_DELTABLE, struct.pack("!BBH", _FAMILIES[family], 0, 0) + attribute)
        + _message(_BATCH_END, struct.pack("!BBH", 0, 0, _NFTABLES))
    )


def _message(kind: int, body: bytes) -> bytes:
    return struct.pack("IHHII", 16 + len(body), kind, _REQUEST, 0, 0) + body
