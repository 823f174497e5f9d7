# SPDX-License-Identifier: GPL-2.0-or-later
"""libnftables through ctypes: one context, opened once and kept.

A transaction through a standing context takes a tenth of the time of a spawned `nft`, and a
table that this process *owns* lives and dies with the context's netlink socket.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import socket
from contextlib import suppress
from typing import Any

_JSON = 1 << 4
_NUMERIC_PROTOCOLS = 1 << 7
_LIBRARY = "libnftables.so.1"

_ports: set[int] = set()


def ours(port: int) -> bool:
    """Whether it is the netlink port of one of this process's contexts. What was changed through
    it stands in the kernel's events; the process id there is another in a container."""
    return port in _ports


class NftError(Exception):
    """A transaction was refused, or libnftables is not to be had; nothing was changed."""


class Nftables:
    """A libnftables context. Not safe for use from more than one thread."""

    def __init__(self) -> None:
        try:
            self._lib = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise NftError(f"cannot load {_LIBRARY} (package nftables-json): {error}") from None
        for name, result, *arguments in (
            ("nft_ctx_new", ctypes.c_void_p, ctypes.c_uint32),
            ("nft_ctx_free", None, ctypes.c_void_p),
            ("nft_ctx_buffer_output", ctypes.c_int, ctypes.c_void_p),
            ("nft_ctx_buffer_error", ctypes.c_int, ctypes.c_void_p),
            ("nft_ctx_get_output_buffer", ctypes.c_char_p, ctypes.c_void_p),
            ("nft_ctx_get_error_buffer", ctypes.c_char_p, ctypes.c_void_p),
            ("nft_ctx_output_set_flags", None, ctypes.c_void_p, ctypes.c_uint),
            ("nft_run_cmd_from_buffer", ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p),
        ):
            function = getattr(self._lib, name)
            function.restype, function.argtypes = result, arguments
        before = _descriptors()
        self._context = self._lib.nft_ctx_new(0)
        if not self._context:
            raise NftError("libnftables gave no context: out of memory")
        self._own: set[int] = set()
        try:
            opened = _descriptors() - before
        except OSError:  # the context has taken the last there was
            self.close()
            raise
        # A child that inherits the socket would keep an owned table locked after our death.
        for descriptor, _ in opened:
            fcntl.fcntl(descriptor, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        self._sockets = [descriptor for descriptor, what in opened if what.startswith("socket:")]
        self._lib.nft_ctx_buffer_output(self._context)
        self._lib.nft_ctx_buffer_error(self._context)

    def run(self, commands: str) -> None:
        """Run `commands` as one atomic transaction.

        Raises NftError, and nothing was changed, where nft or the kernel refuses any of it.
        """
        self._run(commands, 0)

    def list_table(self, family: str, name: str) -> list[dict[str, Any]] | None:
        """The objects of a table as nft's JSON schema has them; None where there is no table.

        Protocols as numbers: their names stand in a file, and what is compared must not depend
        on whether that can be opened.
        """
        flags = _JSON | _NUMERIC_PROTOCOLS
        try:
            answer = json.loads(self._run(f"list table {family} {name}", flags))
        except NftError as error:
            if "No such file or directory" in str(error):
                return None
            raise
        except ValueError as error:
            raise NftError(f"nft answered without JSON (package nftables-json): {error}") from None
        objects: list[dict[str, Any]] = answer["nftables"]
        return objects

    def list_flowtables(self) -> str:
        """Everybody's flow tables, as nft prints them: its JSON leaves their flags out."""
        return self._run("list flowtables", 0)

    def accepts(self, commands: str) -> bool:
        """Whether this library and kernel take `commands`; they must undo themselves."""
        try:
            self._run(commands, 0)
        except NftError:
            return False
        return True

    def close(self) -> None:
        """Give the socket back; tables owned by it go, unless they persist."""
        if self._context:
            self._lib.nft_ctx_free(self._context)
            self._context = None
            _ports.difference_update(self._own)

    def _run(self, commands: str, flags: int) -> str:
        self._lib.nft_ctx_output_set_flags(self._context, flags)
        code = self._lib.nft_run_cmd_from_buffer(self._context, commands.encode())
        if not self._own:  # the kernel gives the port with the first message
            self._own = {port for fd in self._sockets if (port := _port(fd))}
            _ports.update(self._own)
        # Both buffers are emptied by reading, so both are read every time.
        output = self._lib.nft_ctx_get_output_buffer(self._context) or b""
        error = self._lib.nft_ctx_get_error_buffer(self._context) or b""
        if code:
            lines = error.decode(errors="replace").strip().splitlines()
            raise NftError(lines[0] if lines else f"nft failed with code {code}")
        return bytes(output).decode(errors="replace")


def _port(descriptor: int) -> int:
    """0 where it has none yet, or there is no descriptor left to ask with."""
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as found:
        return int(found.getsockname()[0]) if found.family == socket.AF_NETLINK else 0
    return 0


def _descriptors() -> set[tuple[int, str]]:
    """Ours that are open, with what they are; not that by which this is asked."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
    return found
