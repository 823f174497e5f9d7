# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads one HTTP/1.1 request, strictly (RFC 9112): what is odd is refused, not guessed at.

Head and body have a size and a time they must be there in; a client that sends one octet a
second is gone after ten of them.
"""

from __future__ import annotations

import io
import re
import socket
import sys
import time
from typing import Any, NamedTuple

HEAD_MAX, BODY_MAX = 16384, 262144
HEAD_SECONDS, BODY_SECONDS = 10.0, 20.0
_LINE = re.compile(r"([A-Z]{1,16}) (/[\x21-\x7e]{0,2047}) HTTP/1\.([01])")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}):[ \t]*([\x20-\x7e\x80-\xff\t]*)")
_ONCE = ("host", "content-length", "content-type", "cookie", "origin", "transfer-encoding")


class Refused(Exception):
    """A request that is not looked at any further; ends its connection."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


class Request(NamedTuple):
    method: str
    target: str
    minor: int
    headers: dict[str, str]
    body: bytes

    @property
    def keeps(self) -> bool:
        """Whether the client wants to send another one."""
        word = self.headers.get("connection", "").lower()
        return self.minor == 1 and "close" not in word

    def environ(self, address: str, scheme: str) -> dict[str, Any]:
        """As WSGI wants it (PEP 3333)."""
        path, _, query = self.target.partition("?")
        found: dict[str, Any] = {
            **{"REQUEST_METHOD": self.method, "PATH_INFO": path, "QUERY_STRING": query},
            **{"SCRIPT_NAME": "", "SERVER_PROTOCOL": f"HTTP/1.{self.minor}"},
            **{"SERVER_NAME": "portcullis", "SERVER_PORT": "0", "REMOTE_ADDR": address},
            **{"wsgi.version": (1, 0), "wsgi.url_scheme": scheme, "wsgi.multithread": True},
            **{"wsgi.multiprocess": False, "wsgi.run_once": False},
            **{"wsgi.input": io.BytesIO(self.body), "wsgi.errors": sys.stderr},
            "CONTENT_LENGTH": str(len(self.body)),
            "CONTENT_TYPE": self.headers.get("content-type", ""),
        }
        for name, value in self.headers.items():
            if name not in ("content-length", "content-type"):
                found["HTTP_" + name.upper().replace("-", "_")] = value
        return found


class Reader:
    """Requests from a connection, one after the other."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""

    def next(self) -> Request | None:
        """The next request, or None where the client has none. Raises Refused or OSError."""
        until = time.monotonic() + HEAD_SECONDS
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > HEAD_MAX:
                raise Refused("431 Request Header Fields Too Large")
            if not self._more(until):
                return None
        if end > HEAD_MAX:
            raise Refused("431 Request Header Fields Too Large")
        head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
        method, target, minor, headers = _parse(head.decode("latin-1"))
        length = _length(method, headers)
        until = time.monotonic() + BODY_SECONDS
        while len(self._buffer) < length:
            if not self._more(until):
                return None
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Request(method, target, minor, headers, body)

    def _more(self, until: float) -> bool:
        left = until - time.monotonic()
        if left <= 0:
            return False
        self._connection.settimeout(left)
        try:
            received = self._connection.recv(65536)
        except TimeoutError:
            return False
        self._buffer += received
        return bool(received)


def _parse(head: str) -> tuple[str, str, int, dict[str, str]]:
    first, *lines = head.split("\r\n")
    line = _LINE.fullmatch(first)
    if not line:
        raise Refused("400 Bad Request")
    headers: dict[str, str] = {}
    for text in lines:
        header = _HEADER.fullmatch(text)
        if not header:
            raise Refused("400 Bad Request")
        name, value = header[1].lower(), header[2].strip(" \t")
        if "_" in name:  # would look like one with a hyphen in the environment
            continue
        if name in headers and name in _ONCE:
            raise Refused("400 Bad Request")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return line[1], line[2], int(line[3]), headers


def _length(method: str, headers: dict[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise Refused("501 Not Implemented")
    text = headers.get("content-length", "0")
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise Refused("400 Bad Request")
    if int(text) > BODY_MAX:
        raise Refused("413 Content Too Large")
    if method == "POST" and "content-length" not in headers:
        raise Refused("411 Length Required")
    return int(text)
