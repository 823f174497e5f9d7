# SPDX-License-Identifier: GPL-2.0-or-later
"""What browsers ask for. The page itself holds no secret and is given to anybody in the house;
everything in it comes from /api, for which the core itself checks the visitor's session.

The cookie is the rpcd session's id: this process remembers nobody, so restarting it logs nobody
out, and a log-out is the end of the session itself.
"""

from __future__ import annotations

import html
import json
import logging
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import parse_qs

import bottle

from portcullis.bus import BusError
from portcullis.rights import QUESTIONS, READ, WRITE
from portcullis.web import report
from portcullis.web.assets import Asset
from portcullis.web.backoff import Allowance, Backoff
from portcullis.web.bridge import Bridge
from portcullis.web.live import Live, TooManyStreams
from portcullis.web.origin import csrf_token, csrf_valid, known_host, same_origin

log = logging.getLogger("portcullis.web")

SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
        " require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_SESSION = re.compile(r"[0-9a-f]{32}")
_SESSION_SECONDS = 3600
_STATUS = {"denied": 401, "forbidden": 403, "unavailable": 503}
_WHY_LASTS = 1.0


class Problem(Exception):
    """An answer that is not what was asked for."""

    def __init__(
        self,
        status: int,
        code: str,
        reason: str,
        details: dict[str, Any] | None = None,
        retry_after: int = 0,
    ) -> None:
        super().__init__(reason)
        self.status, self.code, self.details = status, code, details or {}
        self.headers = {"Retry-After": str(retry_after)} if retry_after else {}


class Pages:
    def __init__(
        self, bridge: Bridge, live: Live, assets: dict[str, Asset], names: tuple[str, ...] = ()
    ) -> None:
        self._bridge, self._live, self._assets, self._names = bridge, live, assets, names
        self._backoff, self._allowance = Backoff(), Allowance()
        self._why: tuple[float, dict[str, Any]] = (0.0, {})
        self.app = bottle.Bottle(catchall=True)
        self.app.default_error_handler = _plain_error
        route = self.app.route
        route("/", "GET", partial(self._asset, "index.html"))
        route("/<name:re:[a-z][a-z0-9-]*[.](css|js|svg)>", "GET", self._asset)
        route("/blocked", "GET", self._checked(self._blocked))
        route("/api/why", "GET", self._checked(self._known_to_all))
        route("/api/login", "POST", self._checked(self._login))
        route("/api/enter", "POST", self._checked(self._enter))
        route("/api/logout", "POST", self._checked(self._logout))
        route("/api/session", "GET", self._checked(self._session))
        route("/api/live", "GET", self._checked(self._stream))
        route("/api/report", "GET", self._checked(self._report))
        for name in READ:
            route(f"/api/{name}", "GET", self._checked(partial(self._read, name)))
        for name in WRITE:
            route(f"/api/{name}", "POST", self._checked(partial(self._change, name)))

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        if not known_host(environ.get("HTTP_HOST", ""), self._names):
            text = b"Open this page by the router's address, such as http://192.168.1.1:8443/\n"
            start("421 Misdirected Request", [("Content-Length", str(len(text)))])
            return [text]
        return self.app(environ, start)

    # Without a login

    def _asset(self, name: str) -> Any:
        asset = self._assets.get(name)
        if asset is None:
            return _give(_json({"ok": False, "code": "not_found"}), 404)
        headers = {"ETag": asset.tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if _header("If-None-Match") == asset.tag:
            return _give(b"", 304, asset.kind, **headers)
        if "gzip" in _header("Accept-Encoding"):
            return _give(asset.compressed, 200, asset.kind, Content_Encoding="gzip", **headers)
        return _give(asset.plain, 200, asset.kind, **headers)

    def _known_to_all(self) -> Any:
        return _give(_json(self._ask_why()))

    def _ask_why(self) -> dict[str, Any]:
        asked, found = self._why
        if time.monotonic() - asked > _WHY_LASTS or not found:
            found = self._bridge.core("why")
            self._why = time.monotonic(), found
        return found

    def _blocked(self) -> Any:
        try:
            found = self._ask_why()
        except BusError:
            found = {}
        return _give(_block_page(found).encode(), 200, "text/html; charset=utf-8")

    # Login

    def _login(self) -> Any:
        asked = self._body(("username", "password"), None)
        address = bottle.request.environ["REMOTE_ADDR"]
        if wait := self._backoff.attempt(address):
            seconds = int(wait) + 1
            reason = f"Too many wrong passwords. Try again in {seconds} s."
            raise Problem(429, "wait", reason, retry_after=seconds)
        try:
            found = self._bridge.call("session", "login", {**asked, "timeout": _SESSION_SECONDS})
        except BusError as error:
            if error.status == "Permission denied":
                log.warning("a wrong password from %s", address)
                raise Problem(403, "wrong", "Wrong user name or password.") from None
            raise
        finally:
            asked.clear()
        session = str(found.get("ubus_rpc_session", ""))
        self._backoff.succeeded(address)
        log.info("a login from %s", address)
        if self._bridge.core("status", session=session).get("code") in ("denied", "forbidden"):
            self._bridge.call("session", "destroy", {"ubus_rpc_session": session})
            raise Problem(403, "no_right", "This user has no right to use Portcullis.")
        return self._welcome(session)

    def _enter(self) -> Any:
        """By LuCI's one-time token."""
        asked = self._body(("token",), None)
        if self._allowance.used_up(bottle.request.environ["REMOTE_ADDR"]):
            raise Problem(429, "wait", "Try again in a moment.", retry_after=1)
        found = self._bridge.core("redeem", token=asked["token"])
        if not found.get("ok"):
            self._allowance.spend(bottle.request.environ["REMOTE_ADDR"])
            raise Problem(403, "denied", str(found.get("reason", "")))
        return self._welcome(str(found["session"]))

    def _welcome(self, session: str) -> Any:
        token = csrf_token(session)
        return _give(_json({"ok": True, "csrf": token}), Set_Cookie=_cookie(session))

    def _session(self) -> Any:
        session = self._visitor()
        self._look(session, "status")
        return _give(_json({"ok": True, "csrf": csrf_token(session)}))

    def _logout(self) -> Any:
        session = self._visitor()
        self._body((), session)
        try:
            self._bridge.call("session", "destroy", {"ubus_rpc_session": session})
        except BusError as error:
            if error.status != "Not found":
                raise
        return _give(_json({"ok": True}), Set_Cookie=_cookie(""))

    # With one

    def _read(self, name: str) -> Any:
        session = self._visitor()
        asked = {word: _asked(word) for word in QUESTIONS.get(name, ())}
        return _give(_json(self._answer(session, name, asked)))

    def _change(self, name: str) -> Any:
        session = self._visitor()
        asked = self._body(WRITE[name], session)
        return _give(_json(self._answer(session, name, asked)))

    def _stream(self) -> Any:
        session = self._visitor()
        self._look(session, "status")
        try:
            events = self._live.stream(session)
        except TooManyStreams:
            raise Problem(503, "busy", "Too many open pages.", retry_after=5) from None
        headers = {**SECURITY, "Content-Type": "text/event-stream", **_fresh()}
        return bottle.HTTPResponse(events, 200, headers)

    def _report(self) -> Any:
        session, parts = self._visitor(), {}
        for name in report.PARTS:
            try:
                parts[name] = self._look(session, name)
            except (Problem, BusError) as error:
                if isinstance(error, Problem) and error.status == 401:
                    raise
                parts[name] = {"ok": False, "reason": str(error)}
        text = report.render(parts, time.time()).encode()
        name = f'attachment; filename="portcullis-{time.strftime("%Y%m%d-%H%M")}.txt"'
        return _give(text, 200, "text/plain; charset=utf-8", Content_Disposition=name)

    def _look(self, session: str, name: str) -> dict[str, Any]:
        return self._answer(session, name, {})

    def _answer(self, session: str, name: str, asked: dict[str, str]) -> dict[str, Any]:
        """The core's answer. Raises Problem where it is a refusal, BusError where none comes."""
        found = self._bridge.core(name, session=session, **asked)
        if found.get("ok"):
            return found
        code, reason = str(found.get("code", "")), str(found.get("reason", ""))
        if code == "denied":
            self._allowance.spend(bottle.request.environ["REMOTE_ADDR"])
        raise Problem(_STATUS.get(code, 422), code, reason, found)

    # Requests

    def _visitor(self) -> str:
        for part in _header("Cookie").split(";"):
            name, _, session = part.strip().partition("=")
            if name == _cookie_name() and _SESSION.fullmatch(session):
                if self._allowance.used_up(bottle.request.environ["REMOTE_ADDR"]):
                    raise Problem(429, "wait", "Log in, then try again.", retry_after=1)
                return session
        raise Problem(401, "denied", "Log in first.")

    def _checked(self, answer: Callable[[], Any]) -> Callable[[], Any]:
        def handle() -> Any:
            request = bottle.request
            try:
                if not same_origin(
                    _header("Origin"),
                    _header("Sec-Fetch-Site") if request.path != "/blocked" else "",
                    request.environ["wsgi.url_scheme"],
                    _header("Host"),
                    request.method not in ("GET", "HEAD"),
                ):
                    raise Problem(403, "foreign", "This came from another page than Portcullis'.")
                return answer()
            except Problem as problem:
                told = {"ok": False, "code": problem.code, "reason": str(problem)}
                found = {**problem.details, **told}
                return _give(_json(found), problem.status, **problem.headers)
            except BusError as error:
                reason = "Portcullis does not answer. What it blocked stays blocked."
                told = {"ok": False, "code": "lost", "reason": reason, "detail": str(error)}
                return _give(_json(told), 503)

        return handle

    def _body(self, names: tuple[str, ...], session: str | None) -> dict[str, Any]:
        """The JSON object a change comes with: these names, each with a text."""
        request = bottle.request
        kind = _header("Content-Type").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Problem(415, "no_json", "A change is sent as application/json.")
        token = _header("X-Portcullis-Token")
        if session is not None and not csrf_valid(session, token):
            raise Problem(403, "foreign", "The page's token is missing or wrong: reload the page.")
        try:
            found = json.loads(request.environ["wsgi.input"].read().decode())
        except (ValueError, RecursionError):
            raise Problem(400, "bad_json", "This is no JSON.") from None
        if not isinstance(found, dict) or set(found) != set(names):
            raise Problem(400, "bad_arguments", f"Wanted: {', '.join(names) or 'nothing'}.")
        for name, value in found.items():
            if not isinstance(value, str) or not _carriable(value):
                raise Problem(400, "bad_arguments", f"{name} is no text that can be passed on.")
        return found


def _header(name: str) -> str:
    """As it came; Bottle's own way fails at what is no UTF-8."""
    if name == "Content-Type":
        return str(bottle.request.environ["CONTENT_TYPE"])
    return str(bottle.request.environ.get("HTTP_" + name.upper().replace("-", "_"), ""))


def _asked(name: str) -> str:
    """A question's word in the address; "" where it is missing or nothing that can be passed on."""
    found = parse_qs(bottle.request.environ["QUERY_STRING"], errors="replace").get(name, [""])[0]
    return found if _carriable(found) else ""


def _carriable(text: str) -> bool:
    """Whether ubus can carry it: valid UTF-8 without NUL."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _give(
    body: bytes, status: int = 200, kind: str = "application/json", **headers: str
) -> bottle.HTTPResponse:
    found = {**SECURITY, "Content-Type": kind, "Content-Length": str(len(body))}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    found |= named if "Cache-Control" in named else {**_fresh(), **named}
    return bottle.HTTPResponse(body, status, found)


def _plain_error(error: Any) -> bytes:
    """Bottle's own answers: no such page, no such method, an exception."""
    for name, value in {**SECURITY, **_fresh(), "Content-Type": "application/json"}.items():
        error.set_header(name, value)
    return _json({"ok": False, "code": f"http_{error.status_code}", "reason": error.status_line})


def _json(found: dict[str, Any]) -> bytes:
    return json.dumps(found, separators=(",", ":")).encode()


def _fresh() -> dict[str, str]:
    return {"Cache-Control": "no-store"}


def _secure() -> bool:
    return bool(bottle.request.environ["wsgi.url_scheme"] == "https")


def _cookie_name() -> str:
    # Browsers take `__Host-` from TLS pages alone: a plain one cannot plant ours.
    return "__Host-portcullis" if _secure() else "portcullis"


def _cookie(session: str) -> str:
    flags = "; Path=/; HttpOnly; SameSite=Strict" + ("; Secure" if _secure() else "")
    return f"{_cookie_name()}={session}{flags}{'' if session else '; Max-Age=0'}"


def _block_page(why: dict[str, Any]) -> str:
    """For a device that wonders why there is no internet: complete without a script."""
    if not why:
        title, kind = "Portcullis does not answer", "lost"
        text = "The router's kill switch keeps the block as it was until it is back."
    elif why["blocked"]:
        title, kind = "The internet is blocked", "blocked"
        text = f"{why['sentence']} It is your router's VPN kill switch that does this, not a fault."
    else:
        title, kind = "The internet is not blocked", "open"
        text = why["sentence"]
    since = ""
    if why:
        moment = time.strftime("%H:%M on %d %B", time.localtime(int(why["since"])))
        since = f'<p class="since">Since {html.escape(moment)}.</p>'
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title} · Portcullis</title>"
        '<link rel="stylesheet" href="/style.css"><link rel="icon" href="/icon.svg">'
        '<script type="module" src="/blocked.js"></script></head>'
        f'<body class="bare"><main class="notice {kind}"><h1>{title}</h1>'
        f"<p>{html.escape(str(text))}</p>{since}"
        '<p class="quiet">This page renews itself. Whoever looks after the router can '
        '<a href="/">open Portcullis</a>.</p></main></body></html>'
    )
