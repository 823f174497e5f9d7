# SPDX-License-Identifier: GPL-2.0-or-later
"""A browser's side of HTTP, octet by octet, from any host around the router."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import addresses as at
from .appliance import WEB_PORT
from .namespace import Namespace


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Visitor:
    """Who visits from a host; keeps cookies and the page's token as the page does."""

    host: Namespace
    address: str = at.ROUTER_LAN.v4
    port: int = WEB_PORT
    tls: bool = False
    source: str = ""
    cookies: dict[str, str] = field(default_factory=dict)
    token: str = ""

    @property
    def authority(self) -> str:
        name = f"[{self.address}]" if ":" in self.address else self.address
        return f"{name}:{self.port}"

    def connect(self, timeout: float = 15) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        found = self.host.socket(family, socket.SOCK_STREAM)
        found.settimeout(timeout)
        if self.source:
            found.bind((self.source, 0))
        found.connect((self.address, self.port))
        if not self.tls:
            return found
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(found)

    def send(self, octets: bytes, timeout: float = 15) -> Answer:
        """Send what is given, and read one answer to its end."""
        with self.connect(timeout) as connection:
            connection.sendall(octets)
            return read_answer(connection)

    def head(
        self, method: str, path: str, headers: Mapping[str, str | None], length: int | None
    ) -> bytes:
        """A request's head as this page's own would be, with `headers` in place of its."""
        scheme = "https" if self.tls else "http"
        found: dict[str, str | None] = {"Host": self.authority, "Connection": "close"}
        if self.cookies:
            found["Cookie"] = "; ".join(f"{n}={v}" for n, v in self.cookies.items())
        if method == "POST":
            found["Origin"] = f"{scheme}://{self.authority}"
            found["Content-Type"] = "application/json"
            found["X-Portcullis-Token"] = self.token
        if length is not None:
            found["Content-Length"] = str(length)
        found.update(headers)
        lines = [f"{method} {path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in found.items() if value is not None]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def get(self, path: str, **headers: str | None) -> Answer:
        return self._keep(self.send(self.head("GET", path, _named(headers), None)))

    def post(self, path: str, body: Any = None, **headers: str | None) -> Answer:
        octets = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        head = self.head("POST", path, _named(headers), len(octets))
        return self._keep(self.send(head + octets))

    def login(self, password: str = "", username: str = "root") -> Answer:
        found = self.post("/api/login", {"username": username, "password": password})
        if found.status == 200:
            self.token = found.json["csrf"]
        return found

    def events(self, timeout: float = 10) -> Iterator[tuple[str, Any]]:
        """The page's live events, until the stream ends."""
        with self.connect(timeout) as connection:
            connection.sendall(self.head("GET", "/api/live", {}, None))
            with connection.makefile("rb") as stream:
                while stream.readline().strip():
                    pass
                name = ""
                for line in stream:
                    kind, _, value = line.decode().strip().partition(": ")
                    if kind == "event":
                        name = value
                    elif kind == "data":
                        yield name, json.loads(value)

    def _keep(self, answer: Answer) -> Answer:
        if cookie := answer.headers.get("set-cookie"):
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies.pop(name, None)
            if value:
                self.cookies[name] = value
        return answer


def read_answer(connection: socket.socket) -> Answer:
    """One answer; status 0 where the connection ends without any."""
    with connection.makefile("rb") as stream:
        first = stream.readline().split(maxsplit=2)
        if not first:
            return Answer(0, {}, b"")
        headers = {}
        while line := stream.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        body = stream.read(int(headers["content-length"])) if "content-length" in headers else b""
        return Answer(int(first[1]), headers, body)


def _named(headers: Mapping[str, str | None]) -> dict[str, str | None]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
