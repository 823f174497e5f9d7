# SPDX-License-Identifier: GPL-2.0-or-later
"""The page's server: login, sessions, live events, TLS, and where it is to be had."""

from __future__ import annotations

import gzip
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from router import addresses as at
from router.appliance import FILES, Appliance
from router.visitor import Visitor

PASSWORD = "open sesame"
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
pytestmark = pytest.mark.pyroute2  # there with the oldest Bottle, too


@pytest.fixture(scope="module")
def running() -> Iterator[Appliance]:
    with Appliance(users={"root": PASSWORD}) as found:
        found.start()
        found.start_web()
        yield found


@pytest.fixture
def visitor(running: Appliance) -> Visitor:
    return Visitor(running.world.lana)


@pytest.fixture
def owner(visitor: Visitor) -> Visitor:
    assert visitor.login(PASSWORD).status == 200
    return visitor


def test_the_page_itself_needs_no_login_and_says_nothing(visitor: Visitor) -> None:
    found = visitor.get("/")
    assert (found.status, found.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"vpn1" not in found.body


def test_assets_come_compressed_and_are_not_sent_twice(visitor: Visitor) -> None:
    plain, packed = visitor.get("/"), visitor.get("/", Accept_Encoding="gzip")
    assert gzip.decompress(packed.body) == plain.body
    assert visitor.get("/", If_None_Match=plain.headers["etag"]).status == 304


@pytest.mark.parametrize(
    "path", ["/api/status", "/api/profiles", "/api/live", "/api/report", "/api/session"]
)
def test_nothing_is_told_without_a_login(visitor: Visitor, path: str) -> None:
    assert visitor.get(path).status == 401


def test_who_logs_in_sees_the_status(owner: Visitor) -> None:
    assert owner.get("/api/status").json["state"] == "not_connected"
    assert {p["name"] for p in owner.get("/api/profiles").json["profiles"]} == {"vpn1", "vpn2"}


def test_a_wrong_password_is_told_from_a_missing_right(running: Appliance) -> None:
    other = Visitor(running.world.lana, source=at.LAN_A.v4)
    assert other.login("wrong").json["code"] == "wrong"
    assert not other.cookies


def test_the_owner_connects_and_disconnects(owner: Visitor, running: Appliance) -> None:
    assert owner.post("/api/connect", {"profile": "vpn1"}).json["ok"]
    running.until_state("connected")
    assert owner.post("/api/disconnect").json["ok"]
    running.until_state("not_connected")


def test_a_refusal_comes_with_its_reason(owner: Visitor) -> None:
    found = owner.post("/api/set", {"name": "kill_switch", "value": "0"})
    assert (found.status, found.json["code"]) == (422, "kill_switch")


def test_a_profile_is_imported_and_deleted(owner: Visitor, running: Appliance) -> None:
    text = running.world.vpn1.profile()
    assert owner.post("/api/import_profile", {"name": "third", "text": text}).json["ok"]
    assert owner.post("/api/delete_profile", {"name": "third"}).json["ok"]
    broken = owner.post("/api/import_profile", {"name": "bad", "text": text.replace("DNS", "DSN")})
    assert broken.status == 422
    assert "line" in broken.json["reason"]


def test_logging_out_ends_the_session_itself(owner: Visitor, running: Appliance) -> None:
    session = next(iter(owner.cookies.values()))
    kept = dict(owner.cookies)
    assert owner.post("/api/logout").status == 200
    assert not owner.cookies
    owner.cookies = kept
    assert owner.post("/api/connect", {"profile": "vpn1"}).status == 401
    assert running.bus.call("portcullis.web", "connect", {"session": session, "profile": ""})[0][
        "code"
    ] == ("denied")


def test_luci_hands_its_session_over(running: Appliance, owner: Visitor) -> None:
    token = running.call("token", session=next(iter(owner.cookies.values())))["token"]
    newcomer = Visitor(running.world.lana)
    assert newcomer.post("/api/enter", {"token": token}).status == 200
    assert newcomer.get("/api/status").status == 200
    assert Visitor(running.world.lana).post("/api/enter", {"token": token}).status == 403


def test_the_report_has_everything_but_the_keys(owner: Visitor, running: Appliance) -> None:
    found = owner.get("/api/report")
    text = found.body.decode()
    assert found.headers["content-disposition"].startswith("attachment")
    assert '"state"' in text and "vpn1" in text
    for line in running.world.vpn1.profile().splitlines():
        name, _, value = line.partition(" = ")
        assert not name.endswith("Key") or value not in text


def test_the_block_page_says_why_without_a_login(visitor: Visitor, running: Appliance) -> None:
    running.call("set", name="mode", value="at_all_times")
    try:
        time.sleep(1.1)  # what is known to all is asked once a second
        found = visitor.get("/blocked").body.decode()
        assert "The internet is blocked" in found and "Since" in found
        assert "vpn1" not in found
    finally:
        running.call("set", name="mode", value="standard")


# Live


def test_a_change_of_state_is_told_at_once(owner: Visitor, running: Appliance) -> None:
    """By itself, before the next one; how quickly, `make bench` says."""
    events = owner.events()
    assert next(events)[1]["state"] == "not_connected"
    running.world.vpn1.blackhole()
    running.call("connect", profile="vpn1")
    told = next(
        data["state"]
        for name, data in events
        if name == "status"
        if data["state"] != "not_connected"
    )
    running.world.vpn1.unblackhole()
    running.disconnect()
    assert told == "connecting"


def test_a_page_whose_session_ends_is_told_so(owner: Visitor, running: Appliance) -> None:
    events = owner.events()
    assert next(events)[0] == "status"
    session = next(iter(owner.cookies.values()))
    running.bus.call("session", "destroy", {"ubus_rpc_session": session})
    assert "ended" in [name for name, _ in events]


def test_there_are_so_many_live_pages_and_no_more(owner: Visitor) -> None:
    streams = [owner.events() for _ in range(6)]
    assert all(next(stream)[0] == "status" for stream in streams)
    assert owner.get("/api/live").status == 503
    for stream in streams:
        stream.close()  # type: ignore[attr-defined]


# Where


def test_the_lan_reaches_it_by_every_address(running: Appliance) -> None:
    for address in at.ROUTER_LAN.addresses:
        assert Visitor(running.world.lana, address).get("/").status == 200, address


@pytest.mark.parametrize("to", [at.ROUTER_GUEST, at.ROUTER_LAN, at.ROUTER_WAN])
def test_guests_do_not_reach_it_even_without_a_firewall(running: Appliance, to: at.Host) -> None:
    running.world.router.nft("add table inet open\n")
    for address in (to.v4, to.v6):
        with pytest.raises(OSError):
            Visitor(running.world.guest, address).connect(timeout=0.5)


def test_the_internet_does_not_reach_it(running: Appliance) -> None:
    for host in (running.world.isp, running.world.inet):
        for address in at.ROUTER_WAN.addresses:
            with pytest.raises(OSError):
                Visitor(host, address).connect(timeout=0.5)


def test_it_is_bound_to_the_lan_device_alone(running: Appliance) -> None:
    listing = running.world.router.run(["ss", "-Hltn", "sport", "=", ":8443"]).stdout
    assert [line.split()[3] for line in listing.splitlines()] == ["*%br-lan:8443"]


def _listening(running: Appliance) -> list[str]:
    listing = running.world.router.run(["ss", "-Hltn", "sport", ">=", ":8443"]).stdout
    return sorted(line.split()[3] for line in listing.splitlines())


def test_it_moves_to_the_port_that_is_set_and_logins_go_along(
    owner: Visitor, running: Appliance
) -> None:
    assert owner.post("/api/set", {"name": "port", "value": "9443"}).json["port"] == 9443
    running.until(lambda: _listening(running) == ["*%br-lan:9443"], "the page has moved")
    moved = Visitor(running.world.lana, port=9443, cookies=owner.cookies)
    assert moved.get("/api/status").status == 200
    session = next(iter(owner.cookies.values()))
    assert running.call("token", session=session)["port"] == 9443
    running.call("set", name="port", value="8443")
    running.until(lambda: _listening(running) == ["*%br-lan:8443"], "the page is back")


def test_a_port_that_somebody_else_has_does_not_cost_the_page(running: Appliance) -> None:
    with running.world.router.socket(kind=socket.SOCK_STREAM) as other:
        other.bind(("0.0.0.0", 9555))
        other.listen()
        running.call("set", name="port", value="9555")
        wanted = "cannot listen on br-lan port 9555"
        running.until(lambda: wanted in running.web_log.read_text(), "it says so")
        assert Visitor(running.world.lana).get("/").status == 200
    running.until(lambda: _listening(running) == ["*%br-lan:9555"], "it moves once it can")
    running.call("set", name="port", value="8443")
    running.until(lambda: _listening(running) == ["*%br-lan:8443"], "the page is back")


# TLS, restarts


@pytest.fixture
def own() -> Iterator[Appliance]:
    """One that a test may stop and start."""
    with Appliance(users={"root": PASSWORD}) as found:
        yield found


def test_with_the_routers_certificate_it_speaks_tls_and_sends_plain_http_there(
    own: Appliance,
) -> None:
    own.make_certificate()
    own.start()
    own.start_web()
    secure, plain = Visitor(own.world.lana, tls=True), Visitor(own.world.lana)
    assert secure.login(PASSWORD).status == 200
    assert list(secure.cookies) == ["__Host-portcullis"]
    assert secure.get("/api/status").status == 200
    sent = plain.get("/")
    assert (sent.status, sent.headers["location"]) == (307, "https://192.168.1.1:8443/")
    assert plain.get("/", Host="evil.example/\\x").status == 0
    own.certificate.unlink()
    own.until(lambda: plain.get("/").status == 200, "without a certificate it is plain HTTP")


def test_a_broken_certificate_leaves_plain_http(own: Appliance) -> None:
    own.certificate.write_bytes(b"0\x82nonsense")
    own.key.write_text("nonsense")
    own.start()
    own.start_web()
    assert Visitor(own.world.lana).get("/").status == 200
    assert "cannot be used" in own.web_log.read_text()


def test_a_login_outlives_a_restart_of_web_core_and_bus(own: Appliance) -> None:
    own.start()
    own.start_web()
    owner = Visitor(own.world.lana)
    owner.login(PASSWORD)
    own.stop_web()
    own.start_web()
    assert owner.get("/api/status").status == 200
    own.kill()
    found = owner.get("/api/status")
    assert (found.status, found.json["code"]) == (503, "lost")
    own.start()
    own.until(lambda: owner.get("/api/status").status == 200, "the core is back in the page")
    own.bus.stop_others()
    own.bus.stop_broker()
    assert owner.get("/api/status").status == 503
    own.bus.start_broker()
    own.bus.start_others()
    # rpcd forgets its sessions when it ends: a log-in is asked for, and works.
    own.until(lambda: owner.get("/api/status").status == 401, "the page asks for a login")
    assert owner.login(PASSWORD).status == 200


def test_a_core_that_knows_no_networks_yet_does_not_cost_the_page(own: Appliance) -> None:
    own.start()
    own.start_web()
    own.kill()
    own.bus.stop_others()
    own.start(wait=False)
    waiting = "Nobody has said yet which networks there are"
    own.until(lambda: waiting in own.web_log.read_text(), "the web has looked")
    assert Visitor(own.world.lana).get("/").status == 200
    own.bus.start_others()
    own.until(lambda: not own.status()["faults"], "the core knows them")
    assert "no longer listening" not in own.web_log.read_text()


def test_a_live_page_is_told_when_the_core_is_gone_and_back(own: Appliance) -> None:
    own.start()
    own.start_web()
    owner = Visitor(own.world.lana)
    owner.login(PASSWORD)
    events = owner.events(timeout=30)
    assert next(events)[0] == "status"
    own.kill()
    assert next(name for name, _ in events if name != "status") in ("lost", "quiet")
    own.start()
    assert next(name for name, _ in events if name == "status")


def test_it_follows_a_device_that_was_made_anew(own: Appliance) -> None:
    own.start()
    own.start_web()
    own.world.router.ip(
        "link set lan1 nomaster\nlink set lan2 nomaster\nlink del br-lan\n"
        f"link add br-lan address {at.BR_LAN_MAC} type bridge stp_state 0 mcast_snooping 0\n"
        "link set lan1 master br-lan\nlink set lan2 master br-lan\n"
        "addr add 192.168.1.1/24 dev br-lan\nlink set br-lan up\n"
    )

    def back() -> bool:
        with own.world.lana.socket(kind=socket.SOCK_STREAM) as knock:
            knock.settimeout(0.5)
            return knock.connect_ex((at.ROUTER_LAN.v4, 8443)) == 0

    own.until(back, "the page is back")


# Without rights


@pytest.mark.skipif(
    os.geteuid() != 0 or Path("/proc/self/uid_map").read_text().split()[2] == "1",
    reason="needs users besides root",
)
@pytest.mark.skipif(
    subprocess.run([*NOBODY, "test", "-r", __file__], check=False).returncode != 0,
    reason="another user cannot read this checkout",
)
def test_it_serves_as_a_user_who_may_do_nothing_else(own: Appliance) -> None:
    rights = json.loads((FILES / "usr/share/acl.d/portcullis.json").read_text())
    (own.bus.acl_dir / "portcullis.json").write_text(json.dumps({**rights, "user": "nobody"}))
    own.world.state.chmod(0o755)
    own.bus.stop_others()
    own.bus.stop_broker()
    own.bus.start_broker()
    own.bus.start_others()
    own.make_certificate()
    own.start()
    own.start_web(prefix=NOBODY)
    owner = Visitor(own.world.lana, tls=True)
    assert owner.login(PASSWORD).status == 200
    assert next(owner.events())[0] == "status"
    assert owner.post("/api/connect", {"profile": "vpn1"}).json["ok"]
    own.until_state("connected")
    # What an attacker has who took it over: its user, and the bus.
    attack = (
        f"import ubus; ubus.connect({str(own.bus.socket)!r})\n"
        "for name in ('portcullis', 'uci', 'network.interface', 'service'):\n"
        "    try: ubus.call(name, 'disconnect', {}, 2000); print(name, 'answered')\n"
        "    except RuntimeError as error: print(name, error)\n"
        f"print(ubus.call('portcullis.web', 'disconnect', {{'session': '{'0' * 32}'}}, 2000))\n"
    )
    command = [*NOBODY, sys.executable, "-c", attack]
    said = own.world.router.run(command, env=own.environment()).stdout
    assert own.web and "NoNewPrivs:\t1" in Path(f"/proc/{own.web.pid}/status").read_text()
    assert "answered" not in said
    assert "'denied'" in said
    assert own.state == "connected"
