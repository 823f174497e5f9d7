# SPDX-License-Identifier: GPL-2.0-or-later
"""The page as a door (K17): other pages, other names, guessed passwords, floods and nonsense."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from router import addresses as at
from router.appliance import Appliance
from router.visitor import Answer, Visitor, read_answer

from portcullis.rights import READ, WRITE
from portcullis.web.backoff import Backoff
from portcullis.web.origin import known_host

PASSWORD = "open sesame"
CHANGE = ("/api/connect", {"profile": "vpn1"})


@pytest.fixture(scope="module")
def running() -> Iterator[Appliance]:
    with Appliance(users={"root": PASSWORD, "guest": "guest"}) as found:
        config = found.bus.config_dir / "rpcd"
        more = "\nconfig login\n\toption username 'guest'\n\toption password '$p$guest'\n"
        config.write_text(config.read_text() + more + "\tlist read 'portcullis'\n")
        found.start()
        found.start_web()
        yield found


@pytest.fixture
def owner(running: Appliance) -> Visitor:
    found = Visitor(running.world.lana)
    assert found.login(PASSWORD).status == 200
    return found


@pytest.fixture(autouse=True)
def still_disconnected(running: Appliance) -> Iterator[None]:
    yield
    assert running.state == "not_connected"
    assert running.web and running.web.poll() is None
    assert "Traceback" not in running.web_log.read_text()


# Other pages in the owner's browser


@pytest.mark.parametrize(
    "origin",
    [
        *(None, "null", "http://evil.example", "https://192.168.1.1:8443", "http://192.168.1.1"),
        *("http://192.168.1.1:8443.evil.example", "http://192.168.1.1:84430", ""),
    ],
)
def test_a_change_from_another_page_is_refused(owner: Visitor, origin: str | None) -> None:
    assert owner.post(*CHANGE, Origin=origin).status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense"])
def test_a_browser_that_says_it_comes_from_elsewhere_is_believed(owner: Visitor, site: str) -> None:
    assert owner.post(*CHANGE, Sec_Fetch_Site=site).status == 403
    assert owner.get("/api/status", Sec_Fetch_Site=site).status == 403


@pytest.mark.parametrize("token", [None, "", "0" * 64])
def test_a_change_without_the_pages_token_is_refused(owner: Visitor, token: str | None) -> None:
    assert owner.post(*CHANGE, X_Portcullis_Token=token).status == 403
    assert owner.post("/api/logout", X_Portcullis_Token=token).status == 403


def test_the_token_of_another_session_is_worth_nothing(owner: Visitor, running: Appliance) -> None:
    other = Visitor(running.world.lana)
    other.login(PASSWORD)
    assert owner.post(*CHANGE, X_Portcullis_Token=other.token).status == 403


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_what_a_form_can_send_is_no_change(owner: Visitor, kind: str | None) -> None:
    assert owner.post(*CHANGE, Content_Type=kind).status == 415


@pytest.mark.parametrize("name", WRITE)
def test_no_change_is_made_by_looking(owner: Visitor, name: str) -> None:
    assert owner.get(f"/api/{name}").status in (404, 405)


@pytest.mark.parametrize(
    "host", ["evil.example", "192.168.1.1.evil.example", "", None, "a b", "[::1", "openwrt.lan.com"]
)
def test_a_name_that_is_not_the_routers_is_refused(owner: Visitor, host: str | None) -> None:
    for path in ("/", "/api/status", "/blocked"):
        assert owner.get(path, Host=host).status in (400, 421)


@pytest.mark.parametrize(
    ("host", "known"),
    [
        *(("192.168.1.1", True), ("192.168.1.1:8443", True), ("[fd00::1]:8443", True)),
        *(("localhost:1", True), ("[::1%eth0]", False), ("1.2.3", False), ("router.evil", False)),
        *(("box.lan", True), ("BOX.local:8443", True), ("box.com", False), ("lan", False)),
    ],
)
def test_an_address_or_the_routers_own_name_is_known(
    monkeypatch: pytest.MonkeyPatch, host: str, known: bool
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "box")
    assert known_host(host) is known


# Cookies and headers


def test_the_cookie_is_for_this_page_alone(running: Appliance) -> None:
    found = Visitor(running.world.lana).login(PASSWORD)
    flags = set(found.headers["set-cookie"].split("; ")[1:])
    assert flags == {"Path=/", "HttpOnly", "SameSite=Strict"}
    assert found.headers["set-cookie"].partition("=")[2][:32] not in found.body.decode()


@pytest.mark.parametrize("path", ["/", "/blocked", "/api/status", "/nonsense", "/api/login"])
def test_every_answer_carries_the_security_headers(owner: Visitor, path: str) -> None:
    headers = owner.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy
    assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    if path != "/":
        assert headers["cache-control"] == "no-store"


# Rights


def test_who_may_only_look_may_only_look(running: Appliance) -> None:
    guest = Visitor(running.world.lana)
    assert guest.login("guest", "guest").status == 200
    assert guest.get("/api/status").status == 200
    assert guest.post(*CHANGE).status == 403


def test_a_user_without_the_right_gets_no_session(running: Appliance) -> None:
    config = running.bus.config_dir / "rpcd"
    before = config.read_text()
    config.write_text(before.replace("list read 'portcullis'", "list read 'other'"))
    try:
        guest = Visitor(running.world.lana)
        assert guest.login("guest", "guest").json["code"] == "no_right"
        assert not guest.cookies
    finally:
        config.write_text(before)


# Guessing


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_who_guesses_waits_longer_each_time() -> None:
    clock = Clock()
    backoff = Backoff(clock)
    waits = []
    for _ in range(10):
        while wait := backoff.attempt("a"):
            waits.append(round(wait))
            clock.now += wait
    assert [w for w in waits if w] == [1, 2, 4, 8, 16, 32, 60]


def test_many_addresses_together_gain_little() -> None:
    clock = Clock()
    backoff = Backoff(clock)
    tried = 0
    for number in range(100_000):
        clock.now += 0.01
        tried += not backoff.attempt(f"fd00::{number:x}")
    assert tried < 15 + 1000 / 4 + 2


def test_who_knew_the_password_is_not_locked_out_by_those_who_guess() -> None:
    clock = Clock()
    backoff = Backoff(clock)
    backoff.attempt("owner")
    backoff.succeeded("owner")
    for number in range(100):
        backoff.attempt(f"fd00::{number:x}")
    assert backoff.attempt("new") > 0
    assert backoff.attempt("owner") == 0


def test_tries_at_the_same_time_gain_nothing() -> None:
    backoff = Backoff(Clock())
    assert [backoff.attempt("a") == 0 for _ in range(6)] == [True] * 3 + [False] * 3


def test_guessing_is_stopped_at_the_door(running: Appliance) -> None:
    """Each wrong one makes the wait longer; the test goes on where a busy machine lets it pass."""
    thief = Visitor(running.world.lanb)
    answers = [thief.login("guess") for _ in range(3)]
    assert [answer.status for answer in answers] == [403] * 3

    def waits() -> int:
        answers.append(thief.login("guess"))
        return int(answers[-1].headers.get("retry-after", 0))

    running.until(lambda: waits() >= 3, "a wait of some seconds")
    assert thief.login(PASSWORD).status == 429
    statuses = [answer.status for answer in answers]
    assert set(statuses) == {403, 429}
    told = running.web_log.read_text().count(f"a wrong password from {at.LAN_B.v4}")
    assert told == statuses.count(403)


def test_made_up_sessions_are_soon_not_asked_about(running: Appliance) -> None:
    stranger = Visitor(running.world.lanb, at.ROUTER_LAN.ula)
    answers = []
    with stranger.connect() as connection:
        # Three in a second are allowed again: on a busy machine it takes more of them.
        while answers.count(429) <= 15 and len(answers) < 300:
            stranger.cookies = {"portcullis": f"{len(answers):032x}"}
            connection.sendall(stranger.head("GET", "/api/status", {"Connection": None}, None))
            answers.append(read_answer(connection).status)
    assert answers[:30] == [401] * 30
    assert answers.count(429) > 15


# Floods


def test_two_hundred_idle_connections_from_everywhere_lock_nobody_out(
    owner: Visitor, running: Appliance
) -> None:
    with ExitStack() as idle:
        for number in range(200):
            host = (running.world.lana, running.world.lanb)[number % 2]
            address = (*at.ROUTER_LAN.addresses,)[number % 3]
            connection = idle.enter_context(Visitor(host, address).connect())
            connection.setblocking(False)
            connection.send(b"GET / HTTP/1.1\r\nHost: 192.168.1.1\r\nX-Slow: ")
        began = time.monotonic()
        assert owner.get("/api/status").status == 200
        assert time.monotonic() - began < 4.0  # fw4 may have it ask twice: 25 connections a second
    assert running.web
    with open(f"/proc/{running.web.pid}/status") as status:
        threads = next(int(line.split()[1]) for line in status if line.startswith("Threads"))
    assert threads <= 40


def test_one_octet_a_second_does_not_keep_a_connection(running: Appliance) -> None:
    with Visitor(running.world.lana).connect() as slow:
        began = time.monotonic()
        with pytest.raises(OSError):
            for octet in b"GET / HTTP/1.1\r\nHost: 192.168.1.1\r\n":
                slow.send(bytes([octet]))
                time.sleep(0.5)
        assert time.monotonic() - began < 12


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET / HTTP/1.1\r\nHost: 192.168.1.1\r\nX: " + "x" * 20000 + "\r\n\r\n", 431),
        ("POST /api/login HTTP/1.1\r\nHost: h\r\nContent-Length: 999999\r\n\r\n", 413),
        ("POST /api/login HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", 400),
        ("POST /api/login HTTP/1.1\r\nHost: h\r\n\r\n", 411),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: 192.168.1.1\r\n\r\n", 400),
        ("GET http://192.168.1.1/ HTTP/1.1\r\n\r\n", 400),
        ("GET /" + "a" * 3000 + " HTTP/1.1\r\nHost: 192.168.1.1\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\n\r\n", 400),
        ("get / HTTP/1.1\r\n\r\n", 400),
    ],
)
def test_what_is_no_proper_request_is_refused(running: Appliance, head: str, status: int) -> None:
    assert Visitor(running.world.lana).send(head.encode()).status == status


@pytest.mark.parametrize(
    "path", ["/../etc/passwd", "/..%2f..%2fetc%2fshadow", "/index.html", "/.env", "/style.css/.."]
)
def test_there_is_nothing_but_what_is_meant_to_be(owner: Visitor, path: str) -> None:
    assert owner.get(path).status == 404


def test_two_requests_on_one_connection_are_answered_in_order(owner: Visitor) -> None:
    first = owner.head("GET", "/api/why", {"Connection": None}, None)
    last = owner.head("GET", "/nonsense", {}, None)
    with owner.connect() as connection:
        connection.sendall(first + last)
        with connection.makefile("rb") as stream:
            text = stream.read().decode()
    assert text.index("HTTP/1.1 200 OK") < text.index("HTTP/1.1 404")


# Nonsense

quick = effort(
    max_examples=120,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
PATHS = [f"/api/{n}" for n in (*READ, *WRITE, "login", "enter", "logout", "why", "session")]
HEADER = st.tuples(
    st.sampled_from(["Cookie", "X-Portcullis-Token", "Content-Type", "Accept", "If-None-Match"]),
    st.binary(max_size=60).map(lambda b: b.translate(None, b"\r\n").decode("latin-1")),
)
VALUE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=40)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner)),
    max_leaves=6,
)


@given(
    method=st.sampled_from(["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "XYZZY"]),
    path=st.one_of(
        st.sampled_from(["/", "/blocked", *PATHS]),
        st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40).map("/".__add__),
    ),
    headers=st.lists(HEADER, max_size=3),
    body=st.one_of(st.binary(max_size=60), VALUE.map(lambda v: json.dumps(v).encode())),
)
@quick
def test_random_requests_meet_no_500(
    running: Appliance,
    method: str,
    path: str,
    headers: list[tuple[str, str]],
    body: bytes,
) -> None:
    visitor = Visitor(running.world.lana)
    head = visitor.head(method, path, dict(headers), len(body))
    _check(visitor.send(head + body))


@given(name=st.sampled_from(sorted(WRITE)), values=st.data())
@quick
def test_random_arguments_of_a_known_visitor_meet_no_500(
    running: Appliance, name: str, values: st.DataObject
) -> None:
    if name == "connect":
        return
    if not hasattr(running, "known"):
        running.known = Visitor(running.world.lana)  # type: ignore[attr-defined]
        running.known.login(PASSWORD)  # type: ignore[attr-defined]
    asked = {key: values.draw(st.one_of(st.text(max_size=60), VALUE)) for key in WRITE[name]}
    _check(running.known.post(f"/api/{name}", asked))  # type: ignore[attr-defined]


@given(octets=st.binary(max_size=200))
@quick
def test_random_octets_meet_an_answer_or_an_end(running: Appliance, octets: bytes) -> None:
    with Visitor(running.world.lana).connect() as connection:
        connection.sendall(octets)
        connection.shutdown(socket.SHUT_WR)
        assert read_answer(connection).status in (0, 400, 404, 421, 431)


def _check(answer: Answer) -> None:
    assert answer.status != 500
    assert answer.status == 503 or answer.status < 500 or answer.status == 501
    assert "Traceback" not in answer.body.decode(errors="replace")
