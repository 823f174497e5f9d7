# SPDX-License-Identifier: GPL-2.0-or-later
"""The second door: the ubus object `portcullis.web`, for the web process.

That process has no rights of its own (contract, K17). Whatever it asks for carries a visitor's
rpcd session, and the core itself asks rpcd whether that session may. Without a session it learns
what any device in the house may know, and where and with which certificate to listen.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from portcullis.bus import BusError, Methods
from portcullis.commands import Refusal
from portcullis.core import Core
from portcullis.rights import READ, WRITE
from portcullis.states import State, row

CERTIFICATE, KEY = Path("/etc/uhttpd.crt"), Path("/etc/uhttpd.key")
_RPCD_OBJECT = "luci.portcullis"
_SESSION = re.compile(r"[0-9a-f]{32}")
_NOBODY = "0" * 32  # rpcd's session of those who have not logged in
_BELIEVED = 2.0  # seconds; for looking only, a change is asked for each time
_TOKEN_LIVES = 30.0
_TOKENS_MAX = 32
_KEY_MAX = 65536

Reply = dict[str, Any]
Handler = Callable[[Any, dict[str, Any]], None]
Wrap = Callable[[Callable[[dict[str, Any]], Reply], dict[str, int]], dict[str, Any]]


class Door:
    """Sessions, checked with rpcd, and the tokens that hand one over from LuCI."""

    def __init__(
        self,
        core: Core,
        certificate: Path = CERTIFICATE,
        key: Path = KEY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._core, self._clock = core, clock
        self._certificate, self._key = certificate, key
        self._believed: dict[tuple[str, str], float] = {}
        self._tokens: dict[str, tuple[str, float]] = {}

    def methods(self, root: Methods, wrap: Wrap, text: int) -> Methods:
        """The object `portcullis.web`: root's methods behind a session, and what needs none."""
        found: Methods = {
            "why": wrap(lambda _: self.why(), {}),
            "listen": wrap(lambda _: self.listen(), {}),
            "certificate": wrap(lambda _: certificate(self._certificate, self._key), {}),
            "redeem": wrap(lambda a: self.redeem(a["token"]), {"token": text}),
        }
        for name in (*READ, *WRITE):
            if name in root:
                found[name] = {
                    "method": self._guarded(name, root[name]["method"]),
                    "signature": {"session": text, **root[name]["signature"]},
                }
        return found

    def check(self, session: str, name: str) -> None:
        """Whether a session may. Raises Refusal: `denied` where there is no such session,
        `forbidden` where it has not this right, `unavailable` where rpcd does not answer."""
        if not _SESSION.fullmatch(session) or session == _NOBODY:
            raise Refusal("denied", "Log in first.")
        function, now = READ.get(name, name), self._clock()
        if name in READ and self._believed.get((session, function), 0.0) > now:
            return
        asked = {"ubus_rpc_session": session, "scope": "ubus", "object": _RPCD_OBJECT}
        try:
            answer = self._core.bus.call("session", "access", {**asked, "function": function})
        except BusError as error:
            if error.status in ("Not found", "Permission denied"):
                raise Refusal("denied", "Your session has ended: log in again.") from None
            raise Refusal("unavailable", f"The login cannot be checked: {error}") from None
        if answer.get("access") is not True:
            may = "not look at this" if name in READ else "look at this, but not change it"
            raise Refusal("forbidden", f"Your login may {may}.")
        if name in READ:
            self._believed = {k: until for k, until in self._believed.items() if until > now}
            self._believed[session, function] = now + _BELIEVED

    def token(self, session: str) -> Reply:
        """A token that hands `session` over to the web page, once and within 30 s (LuCI)."""
        self.check(session, "status")
        now = self._clock()
        self._tokens = {t: kept for t, kept in self._tokens.items() if kept[1] > now}
        while len(self._tokens) >= _TOKENS_MAX:
            del self._tokens[next(iter(self._tokens))]
        token = os.urandom(32).hex()  # as `secrets` does, which brings OpenSSL along (3 MB)
        self._tokens[token] = (session, now + _TOKEN_LIVES)
        tls = self._key.is_file()
        return {"ok": True, "token": token, "port": self._core.settings.port, "tls": tls}

    def redeem(self, token: str) -> Reply:
        session, until = self._tokens.pop(token, ("", 0.0))
        if until <= self._clock():
            raise Refusal("denied", "This link has been used or is older than 30 seconds.")
        self.check(session, "status")
        return {"ok": True, "session": session}

    def why(self) -> Reply:
        """What any device in the house may know: whether and why the internet is cut."""
        core = self._core
        explained = row(core.state, core.settings.mode)
        return {
            "ok": True,
            "state": core.state.value,
            "since": int(core.since.shown),
            "blocked": explained.active and core.state is not State.CONNECTED,
            "sentence": f"{explained.meaning[0].upper()}{explained.meaning[1:]}.",
        }

    def listen(self) -> Reply:
        """Devices of the networks from which the router may be managed, and what changes when
        the certificate does. Raises Refusal: a core that was started a moment ago, and does not
        know them yet, must not cost the house the page."""
        devices = list(self._core.managing_devices())
        if not devices and not self._core.told:
            raise Refusal("unavailable", "Nobody has said yet which networks there are.")
        stamp = "/".join(map(_stamp, (self._certificate, self._key)))
        port = self._core.settings.port
        return {"ok": True, "devices": devices, "port": port, "certificate": stamp}

    def _guarded(self, name: str, inner: Handler) -> Handler:
        def handle(handler: Any, arguments: dict[str, Any]) -> None:
            asked = dict(arguments)
            try:
                self.check(asked.pop("session"), name)
            except Refusal as refusal:
                handler.reply({"ok": False, "code": refusal.code, "reason": str(refusal)})
                return
            inner(handler, asked)

        return handle


def certificate(certificate: Path, key: Path) -> Reply:
    """The router's certificate and key as they lie there, PEM or DER in hexadecimal.

    The web process cannot read the key's file; whoever ends a TLS connection has to hold it.
    """
    try:
        found = [path.read_bytes()[:_KEY_MAX].hex() for path in (certificate, key)]
    except OSError as error:
        code = "no_certificate" if isinstance(error, FileNotFoundError) else "unavailable"
        return {"ok": False, "code": code, "reason": f"{error.filename}: {error.strerror}"}
    return {"ok": True, "certificate": found[0], "key": found[1]}


def _stamp(path: Path) -> str:
    try:
        return str(path.stat().st_mtime_ns)
    except OSError:
        return ""
