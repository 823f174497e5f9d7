# SPDX-License-Identifier: GPL-2.0-or-later
"""A bounded threading server: so many connections in all, so many for one address.

Where they are used up, the connection that has waited longest without a request gives way: who
holds connections idle locks nobody out (measured.md).
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from portcullis.web.request import HEAD_SECONDS, Reader, Refused, Request

CONNECTIONS_MAX, PER_ADDRESS = 32, 8
_WRITE_SECONDS = 10.0
_STACK = 512 * 1024
_TLS_HANDSHAKE = 0x16
log = logging.getLogger("portcullis.web")

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Connection:
    def __init__(self, socket_: socket.socket, address: str) -> None:
        self.socket: Any = socket_  # or ssl's
        self.address = address
        self.idle_since: float | None = time.monotonic()

    def close(self) -> None:
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # wakes its thread, which closes it


class Server:
    def __init__(self, app: App) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._connections: list[_Connection] = []
        self.tls: ssl.SSLContext | None = None
        threading.stack_size(_STACK)

    def accept(self, listener: socket.socket) -> None:
        """Take one connection; its thread does the rest."""
        try:
            accepted, peer = listener.accept()
        except OSError:
            return  # gone again
        connection = _Connection(accepted, str(peer[0]).removeprefix("::ffff:"))
        if not self._admit(connection):
            accepted.close()
            return
        thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no memory for another thread
            self._forget(connection)
            accepted.close()

    def _admit(self, connection: _Connection) -> bool:
        with self._lock:
            same = [c for c in self._connections if c.address == connection.address]
            crowd = same if len(same) >= PER_ADDRESS else self._connections
            limit = PER_ADDRESS if crowd is same else CONNECTIONS_MAX
            if len(crowd) >= limit:
                idle = [c for c in crowd if c.idle_since is not None]
                if not idle:
                    return False
                oldest = min(idle, key=lambda c: c.idle_since or 0.0)
                oldest.close()
                self._connections.remove(oldest)
            self._connections.append(connection)
        return True

    def _forget(self, connection: _Connection) -> None:
        with self._lock, suppress(ValueError):
            self._connections.remove(connection)

    def _serve(self, connection: _Connection) -> None:
        tls = self.tls
        try:
            connection.socket.settimeout(HEAD_SECONDS)
            if tls:
                first = connection.socket.recv(1, socket.MSG_PEEK)
                if first and first[0] != _TLS_HANDSHAKE:
                    self._to_tls(connection)
                    return
                connection.socket = tls.wrap_socket(
                    connection.socket, server_side=True, do_handshake_on_connect=False
                )
                connection.socket.do_handshake()
            reader = Reader(connection.socket)
            while self._answer(connection, reader, "https" if tls else "http"):
                connection.idle_since = time.monotonic()
        except (OSError, ValueError):
            pass  # it went away, or speaks no TLS that we do
        except Exception:
            log.exception("a connection failed")
        finally:
            self._forget(connection)
            connection.socket.close()

    def _answer(self, connection: _Connection, reader: Reader, scheme: str) -> bool:
        """Whether another request may follow."""
        try:
            request = reader.next()
        except Refused as refused:
            _send(connection.socket, refused.status, [("Content-Length", "0")], False)
            return False
        if request is None:
            return False
        connection.idle_since = None
        connection.socket.settimeout(_WRITE_SECONDS)
        environ = request.environ(connection.address, scheme)
        started: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], _info: Any = None) -> None:
            started[:] = [status, headers]

        body = self._app(environ, start)
        try:
            status, headers = started
            framed = status[:3] == "304" or any(n.lower() == "content-length" for n, _ in headers)
            keeps = request.keeps and framed
            _send(connection.socket, status, headers, keeps)
            for part in body:
                connection.socket.sendall(part)
        finally:
            if hasattr(body, "close"):
                body.close()
        return keeps

    def _to_tls(self, connection: _Connection) -> None:
        """Somebody speaks plain HTTP where TLS is spoken: show him the way."""
        try:
            request: Request | None = Reader(connection.socket).next()
        except Refused:
            return
        host = request.headers.get("host", "") if request else ""
        if host and not set(host) - set("0123456789abcdefghijklmnopqrstuvwxyz.:[]-"):
            headers = [("Location", f"https://{host}/"), ("Content-Length", "0")]
            _send(connection.socket, "307 Temporary Redirect", headers, False)


def _send(to: socket.socket, status: str, headers: list[tuple[str, str]], keeps: bool) -> None:
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers)]
    lines.append("Connection: keep-alive" if keeps else "Connection: close")
    to.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
