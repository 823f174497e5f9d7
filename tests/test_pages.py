# SPDX-License-Identifier: GPL-2.0-or-later
"""The page in a real browser, against a real router: what a person sees, and when."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from router import addresses as at
from router.appliance import UI, WEB_PORT, Appliance
from router.browser import DESKTOP, PHONE, browser, complaints, shoot, visit
from router.flood import Flood

from portcullis.settings import DEFAULT

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
expect.set_options(timeout=10_000)  # the machine may be busy
PASSWORD = "open sesame"
HOME = f"http://{at.ROUTER_LAN.v4}:{WEB_PORT}/"
SIZES = {"phone": PHONE, "desktop": DESKTOP}


@pytest.fixture(scope="module")
def running() -> Iterator[Appliance]:
    with Appliance(users={"root": PASSWORD}) as found:
        found.start()
        found.start_web()
        yield found


@pytest.fixture(scope="module")
def chromium(running: Appliance) -> Iterator[Any]:
    """A browser that has shown the page once: by then its host's addresses are settled."""
    with browser(running.world.lana) as found:
        context = found.new_context()
        page = context.new_page()
        visit(page, HOME)
        page.get_by_label("Password").wait_for(timeout=30_000)
        context.close()
        yield found


@contextmanager
def opened(
    chromium: Any, size: str = "desktop", scheme: str = "light", **more: Any
) -> Iterator[Any]:
    """A page in a browser that never was there; whatever its console complains of is an error."""
    width, height = SIZES[size]
    context = chromium.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, locale="en-GB", **more
    )
    errors: list[str] = []
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if "Refused" in said.text else None)
    try:
        yield page
        assert not errors
    finally:
        context.close()


def log_in(page: Any) -> None:
    visit(page, HOME)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("link", name="Status")).to_be_visible()


@pytest.fixture
def page(running: Appliance, chromium: Any) -> Iterator[Any]:
    """Logged in, on a router that is disconnected."""
    with opened(chromium) as found:
        log_in(found)
        yield found
    if not running.answers():
        running.start()
    running.disconnect()


def says(page: Any, word: str, timeout: float = 10_000) -> None:
    expect(page.locator("h1")).to_have_text(word, timeout=timeout)


# First visit, login, its end


def test_a_first_visitor_is_asked_to_log_in_and_told_whether_he_is_protected(chromium: Any) -> None:
    with opened(chromium) as page:
        visit(page, HOME)
        expect(page.get_by_label("Password")).to_be_focused()
        expect(page.get_by_text("Not protected since")).to_be_visible()


def test_a_page_of_which_a_part_did_not_come_is_loaded_again(chromium: Any) -> None:
    with opened(chromium) as page:
        page.route("**/graph.js", lambda route: route.abort(), times=2)
        visit(page, HOME)
        expect(page.get_by_label("Password")).to_be_focused()


def test_a_wrong_password_is_said_and_the_right_one_lets_in(chromium: Any) -> None:
    with opened(chromium) as page:
        visit(page, HOME)
        page.get_by_label("Password").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("Wrong user name or password.")
        page.get_by_label("Password").fill(PASSWORD)
        page.keyboard.press("Enter")
        says(page, "Not protected")


def test_a_session_that_ends_brings_the_login_back(page: Any, running: Appliance) -> None:
    says(page, "Not protected")
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
    running.bus.call("session", "destroy", {"ubus_rpc_session": cookie["value"]})
    expect(page.get_by_role("alert")).to_contain_text("session has ended", timeout=8000)


def test_a_session_that_runs_out_brings_the_login_back(page: Any, running: Appliance) -> None:
    """By itself, as after an hour; here it lasts for one second."""
    says(page, "Not protected")
    who = {"username": "root", "password": PASSWORD, "timeout": 1}
    (session,) = running.bus.call("session", "login", who)
    cookie = {"name": "portcullis", "value": session["ubus_rpc_session"], "url": HOME}
    page.context.add_cookies([cookie])
    page.reload()
    expect(page.get_by_label("Password")).to_be_visible()
    assert page.evaluate("fetch('/api/status').then((answer) => answer.status)") == 401
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    says(page, "Not protected")


def test_logging_out_leaves_nothing_behind(page: Any) -> None:
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Password")).to_be_visible()
    assert not page.context.cookies()
    page.reload()
    expect(page.get_by_label("Password")).to_be_visible()


def test_luci_hands_its_login_over(page: Any, running: Appliance, chromium: Any) -> None:
    session = page.context.cookies()[0]["value"]
    token = running.call("token", session=session)["token"]
    with opened(chromium) as newcomer:
        visit(newcomer, f"{HOME}#token={token}")
        says(newcomer, "Not protected")
        assert token not in newcomer.url


# The way of a connection


def test_connecting_choosing_and_disconnecting(page: Any, running: Appliance) -> None:
    page.get_by_role("button", name="Choose a location").click()
    page.get_by_label("Search profiles").fill("vpn 198.51.100.101")
    expect(page.get_by_text("1 of 2 profiles")).to_be_visible()
    page.keyboard.press("Enter")
    says(page, "Protected")
    expect(page.get_by_text("All traffic goes through vpn1.")).to_be_visible()
    assert running.state == "connected"
    page.get_by_role("button", name="Disconnect").click()
    page.get_by_role("dialog").get_by_role("button", name="Disconnect").click()
    says(page, "Not protected")
    assert running.state == "not_connected"


def test_a_change_of_state_is_on_the_page_within_half_a_second(
    page: Any, running: Appliance
) -> None:
    took = []
    for _ in range(3):  # the machine may be busy
        says(page, "Not protected")
        running.world.vpn1.blackhole()
        running.call("connect", profile="vpn1")
        began = time.monotonic()
        says(page, "Blocked")
        took.append(time.monotonic() - began)
        running.world.vpn1.unblackhole()
        running.disconnect()
    assert min(took) < 0.5


def test_a_dead_server_turns_the_page_to_blocked_and_its_return_back(
    page: Any, running: Appliance
) -> None:
    running.connect()
    says(page, "Protected")
    with Flood(running.world.lana, list(at.FRIENDLY.addresses), rate=200):
        running.world.vpn1.blackhole()
        says(page, "Blocked", timeout=30000)
    expect(page.get_by_text("The VPN dropped at")).to_be_visible()
    expect(page.get_by_text("Your devices cannot reach the internet")).to_be_visible()
    shoot(page, "blocked")
    running.world.vpn1.unblackhole()
    says(page, "Protected", timeout=30000)


def test_the_kill_switch_is_on_and_locked_and_says_why(page: Any) -> None:
    lever = page.get_by_role("switch", name="On, and locked")
    expect(lever).to_have_attribute("aria-checked", "true")
    expect(lever).to_have_attribute("aria-disabled", "true")
    lever.click(force=True)
    expect(page.get_by_text("cannot be turned off on a router").first).to_be_visible()
    expect(lever).to_have_attribute("aria-checked", "true")


def test_the_row_of_the_state_table_at_work_is_marked(page: Any) -> None:
    page.get_by_text("When it blocks").click()
    expect(page.locator("tr[aria-current]")).to_contain_text("Not connected")
    expect(page.locator("tr[aria-current]")).to_contain_text("Does not block (now)")


# Out of touch


def test_a_page_never_shows_stale_green(page: Any, running: Appliance) -> None:
    running.connect()
    says(page, "Protected")
    running.kill()
    says(page, "Out of touch", timeout=8000)
    expect(page.get_by_role("button", name="Disconnect")).to_be_disabled()
    running.start()
    says(page, "Protected", timeout=15000)


def test_it_comes_back_after_a_restart_of_the_web_process(page: Any, running: Appliance) -> None:
    says(page, "Not protected")
    running.stop_web()
    says(page, "Out of touch", timeout=8000)
    running.start_web()
    says(page, "Not protected", timeout=15000)


def test_it_says_so_when_ubusd_is_gone_and_lets_in_again(page: Any, running: Appliance) -> None:
    says(page, "Not protected")
    running.bus.stop_others()
    running.bus.stop_broker()
    says(page, "Out of touch", timeout=15000)
    running.bus.start_broker()
    running.bus.start_others()
    # rpcd forgets its sessions when it ends.
    expect(page.get_by_role("alert")).to_contain_text("session has ended", timeout=20000)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    says(page, "Not protected", timeout=15000)


# Settings and profiles


def test_the_mode_is_explained_and_changed(page: Any, running: Appliance) -> None:
    page.get_by_role("link", name="Settings").click()
    lever = page.get_by_role("switch", name="Enable at all times")
    expect(lever).to_have_attribute("aria-checked", "false")
    lever.press("Space")
    expect(lever).to_have_attribute("aria-checked", "true")
    expect(page.get_by_role("banner")).to_contain_text("Blocked")
    assert running.call("get")["mode"] == "at_all_times"
    lever.click()
    expect(lever).to_have_attribute("aria-checked", "false")


def test_several_files_are_imported_and_the_broken_one_says_where(
    page: Any, running: Appliance, tmp_path: Path
) -> None:
    good = running.world.vpn1.profile()
    (tmp_path / "Good One.conf").write_text(good)
    (tmp_path / "bad.conf").write_text(good.replace("Address", "Adress"))
    page.get_by_role("link", name="Settings").click()
    files = [str(tmp_path / name) for name in ("Good One.conf", "bad.conf")]
    page.locator("#files").set_input_files(files)
    expect(page.get_by_text("One profile imported")).to_be_visible()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("bad was not imported")
    expect(alert).to_contain_text(re.compile(r"line \d"))
    shoot(page, "import")
    page.get_by_role("button", name="Rename Good-One").click()
    page.get_by_label("Rename Good-One").locator("input").fill("better")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Delete better").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("better")).to_have_count(0)


def test_a_hostile_profile_is_shown_as_the_text_it_is(page: Any) -> None:
    page.get_by_role("link", name="Settings").click()
    page.get_by_text("Paste one instead").click()
    page.get_by_label("Name", exact=True).fill("<img src=x onerror=alert(1)>")
    page.get_by_label("Contents").fill("[Interface]\n<script>alert(1)</script> = <b>x</b>\n")
    page.get_by_role("button", name="Import", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("was not imported")
    expect(page.locator("main img, main script, main b")).to_have_count(0)


def test_what_a_hostile_file_on_the_router_says_is_shown_as_text(
    page: Any, running: Appliance
) -> None:
    """Its problem is quoted to the owner, in every place that lists profiles."""
    evil = "<img src=x onerror=alert(1)>"
    path = running.add_profile("evil", f"{running.world.vpn1.profile()}[{evil}]\n")
    try:
        page.get_by_role("link", name="Settings").click()
        row = page.get_by_role("listitem").filter(has_text="evil")
        expect(row).to_contain_text("<img src=x")
        running.call("set", name="profiles", value="evil")
        page.reload()
        expect(page.get_by_text("1. evil")).to_be_visible()
        page.get_by_role("button", name="Add a location").click()
        expect(page.get_by_role("dialog").get_by_text("cannot be used")).to_be_visible()
        assert page.locator("body img:not([src='/icon.svg'])").count() == 0
    finally:
        path.unlink()
        running.call("set", name="profiles", value="")


def test_fallbacks_are_put_in_order_with_the_keyboard(page: Any, running: Appliance) -> None:
    page.get_by_role("link", name="Settings").click()
    for name in ("vpn1", "vpn2"):
        page.get_by_role("button", name="Add a location").press("Enter")
        page.get_by_role("dialog").get_by_label("Search profiles").press_sequentially(name)
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name=f"Remove {name}")).to_be_visible()
    page.get_by_role("button", name="Move vpn2 up").press("Enter")
    expect(page.get_by_text("1. vpn2")).to_be_visible()
    assert running.call("get")["profiles"] == ["vpn2", "vpn1"]
    running.call("set", name="profiles", value="")


def test_a_wrong_resolver_is_refused_with_the_reason(page: Any) -> None:
    page.get_by_role("link", name="Settings").click()
    page.get_by_label("DNS servers", exact=True).fill("1.2.3")
    page.get_by_role("button", name="Save: DNS servers").click()
    expect(page.get_by_role("alert")).to_contain_text("1.2.3 is not an IP address")


def test_who_is_asked_for_the_vpn_server_is_changed_and_put_back(
    page: Any, running: Appliance
) -> None:
    page.get_by_role("link", name="Settings").click()
    field = page.get_by_label("Who finds the VPN server", exact=True)
    expect(field).to_have_value(re.compile("9.9.9.9"))
    for typed, kept in ((at.FRIENDLY.v4, [at.FRIENDLY.v4]), ("", list(DEFAULT.bootstrap_dns))):
        field.fill(typed)
        page.get_by_role("button", name="Save: Who finds").click()
        expect(field).to_have_value(" ".join(kept))
        running.until(lambda k=kept: running.call("get")["bootstrap_dns"] == k, "it is saved")


def test_a_misjudged_network_is_put_right(page: Any, running: Appliance) -> None:
    page.get_by_role("link", name="Settings").click()
    networks = page.locator("section").filter(has=page.get_by_role("heading", name="Networks"))
    guest = networks.get_by_role("listitem").filter(has_text="guest")
    expect(guest.get_by_text("protected", exact=True)).to_be_visible()
    upstream = networks.get_by_role("listitem").filter(has_text="wan6")
    expect(upstream.get_by_text("the internet", exact=True)).to_be_visible()
    choice = page.get_by_label("How guest is treated")
    choice.select_option("internet")
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(choice).to_have_value("found")
    choice.select_option("internet")
    page.get_by_role("dialog").get_by_role("button", name="Treat as the internet").click()
    expect(guest.get_by_text("the internet", exact=True)).to_be_visible()
    assert [network["name"] for network in running.status()["networks"]] == ["lan"]
    expect(choice).to_be_enabled()
    choice.select_option("protect")
    expect(guest.get_by_text("protected", exact=True)).to_be_visible()
    expect(choice).to_be_enabled()
    found = running.call("get")
    assert (found["protected_networks"], found["internet_networks"]) == (["guest"], [])
    choice.select_option("found")
    expect(choice).to_be_enabled()
    assert running.call("get")["protected_networks"] == []


def test_the_log_is_shown_and_its_warnings_alone(page: Any, running: Appliance) -> None:
    running.call("connect", profile="vpn1")
    page.get_by_role("link", name="Settings").click()
    page.get_by_text("Log", exact=True).click()
    lines = page.get_by_label("Log lines")
    expect(lines).to_contain_text("not_connected -> connecting")
    page.get_by_label("Warnings and errors only").check()
    expect(lines.get_by_text("not_connected -> connecting")).to_have_count(0)


# The self-test


PARTS = [f"K{n}" for n in (1, 2, 6, 12)]


def _self_test(page: Any, results: list[str], verdict: str = "") -> None:
    """Have the page see these results, and a test that runs as long as one of them waits."""
    running = "waiting" in results or "running" in results
    properties = [
        {"property": name, "title": f"<b>Nothing</b> leaves by {name}", "result": result}
        | {"detail": "A neighbour did not answer." * (result == "not_testable")}
        | {"sent": 12, "seen": 12 if result == "fail" else 0}
        for name, result in zip(PARTS, results, strict=True)
    ]
    told = {"ok": True, "running": running, "started": 1, "finished": 0 if running else time.time()}
    told |= {"state": "connected", "verdict": verdict, "properties": properties}
    page.unroute("**/api/selftest_result")
    page.route("**/api/selftest_result", lambda route: route.fulfill(json=told))


def test_the_self_test_passes_on_a_router_that_is_connected(page: Any, running: Appliance) -> None:
    """The real one, in this page; disconnected there is nothing to prove."""
    page.get_by_role("link", name="Settings").click()
    page.get_by_role("button", name="Run the self-test").click()
    expect(page.get_by_role("button", name="The self-test runs")).to_be_disabled()
    expect(page.get_by_text("so nothing is blocked that could be proven")).to_be_visible(
        timeout=60_000
    )
    running.connect()
    page.get_by_role("button", name="Run it again").click()
    verdict = page.get_by_text("The block holds in all that could be tested.")
    expect(verdict).to_be_visible(timeout=60_000)
    rows = page.get_by_label("What is tested").get_by_role("listitem")
    expect(rows).to_have_count(8)
    expect(rows.filter(has_text="K1").first).to_contain_text("passed")
    shoot(page, "selftest-passed")


def test_the_self_test_is_followed_to_its_verdict(page: Any) -> None:
    page.route("**/api/selftest", lambda route: route.fulfill(json={"ok": True}))
    _self_test(page, ["pass", "running", "waiting", "waiting"])
    page.get_by_role("link", name="Settings").click()
    expect(page.get_by_text("Test 2 of 4: <b>Nothing</b> leaves by K2")).to_be_visible()
    expect(page.get_by_role("progressbar")).to_have_js_property("value", 1)
    expect(page.get_by_role("button", name="The self-test runs")).to_be_disabled()
    _self_test(page, ["pass", "pass", "not_testable", "fail"], "fail")
    expect(page.get_by_text("Something got through that should not have")).to_be_visible()
    rows = page.get_by_label("What is tested").get_by_role("listitem")
    expect(rows.nth(3)).to_contain_text("FAILED")
    expect(rows.nth(3)).to_contain_text("12 of 12 packets were seen")
    expect(rows.nth(2)).to_contain_text("A neighbour did not answer.")
    _self_test(page, ["pass"] * 4, "pass")
    page.get_by_role("button", name="Run it again").click()
    expect(page.get_by_text("The block holds in all that could be tested.")).to_be_visible()


def test_the_report_is_downloaded_without_keys(page: Any, running: Appliance) -> None:
    page.get_by_role("link", name="Settings").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the report").click()
    text = Path(download.value.path()).read_text()
    key = re.search(r"PrivateKey = (\S+)", running.world.vpn1.profile())
    assert key and key[1] not in text
    assert '"state": "not_connected"' in text


# Many


def _many_devices(route: Any) -> None:
    now = int(time.time())
    devices = [
        {
            **{
                "mac": f"02:00:5e:00:54:{n:02x}",
                "hostname": f"<b>device</b>-{n}",
                "device": "br-lan",
            },
            **{"ipv4": [f"192.168.1.{n}"], "ipv6": [f"2001:db8:1::{n:x}"], "network": "lan"},
            **{"wireless": (True, False, None)[n % 3], "online": n % 4 > 0, "first_seen": now - n},
            **{"last_seen": now, "access": ("default", "allowed", "denied")[n % 3]},
            **{"blocked": {"packets": n % 7, "bytes": n}, "enforced": n % 50 > 0},
            "note": "" if n % 50 else "It hangs on a switch of its own.",
        }
        for n in range(1, 251)
    ]
    route.fulfill(json={"ok": True, "lan_access": True, "devices": devices})


def test_two_hundred_and_fifty_devices_are_listed_and_searched(page: Any) -> None:
    page.route("**/api/devices", _many_devices)
    page.get_by_role("link", name="Devices").click()
    expect(page.get_by_text("250 devices, 188 online")).to_be_visible()
    page.get_by_label("Search devices").fill("192.168.1.77")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_label("Search devices").fill("nothing like it")
    expect(page.get_by_text("No device matches your search.")).to_be_visible()


def test_five_thousand_profiles_are_searched_as_one_types(page: Any, running: Appliance) -> None:
    text = running.world.vpn1.profile()
    paths = [running.add_profile(f"city-{n}", text) for n in range(4998)]
    try:
        page.get_by_role("button", name="Choose a location").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_text("5000 profiles, the first 60 shown")).to_be_visible()
        expect(dialog.get_by_text("Still reading them")).to_be_visible()
        expect(dialog.get_by_text("Still reading them")).to_have_count(0)
        page.get_by_label("Search profiles").fill(at.VPN1.v4)
        expect(page.get_by_text("4999 profiles, the first 60 shown")).to_be_visible()
        page.get_by_label("Search profiles").fill("city 4321")
        page.keyboard.press("Enter")  # at once: what is chosen is what was typed
        expect(page.get_by_text("All traffic goes through city-4321.")).to_be_visible()
    finally:
        for path in paths:
            path.unlink()


# For everybody


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible_and_fits(
    running: Appliance, chromium: Any, size: str, scheme: str
) -> None:
    found: dict[str, list[str]] = {}

    def look(page: Any, name: str) -> None:
        shoot(page, f"{name}-{size}-{scheme}")
        found[name] = complaints(page)
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            found[name].append("it is wider than the screen")

    # axe-core is put into the page, which the page's own policy forbids.
    with opened(chromium, size, scheme, bypass_csp=True) as page:
        visit(page, HOME)
        expect(page.get_by_text("Not protected since")).to_be_visible()
        look(page, "login")
        log_in(page)
        says(page, "Not protected")
        look(page, "disconnected")
        running.world.vpn1.blackhole()
        running.call("connect", profile="vpn1")
        says(page, "Blocked")
        look(page, "connecting")
        running.world.vpn1.unblackhole()
        says(page, "Protected")
        page.get_by_text("When it blocks").click()
        look(page, "connected")
        page.get_by_role("button", name="Choose a location").click()
        expect(page.get_by_text("2 of 2 profiles")).to_be_visible()
        look(page, "picker")
        page.get_by_role("button", name="Cancel").click()
        page.route("**/api/devices", _many_devices)
        page.get_by_role("link", name="Devices").click()
        expect(page.get_by_text("250 devices")).to_be_visible()
        look(page, "devices")
        page.unroute("**/api/devices")
        nobody = {"ok": True, "lan_access": False, "devices": []}
        page.route("**/api/devices", lambda route: route.fulfill(json=nobody))
        page.reload()
        expect(page.get_by_text("No device has been seen yet.")).to_be_visible()
        look(page, "devices-none")
        page.get_by_role("link", name="Settings").click()
        expect(page.get_by_text("2 of 2 profiles")).to_be_visible()
        page.get_by_text("Log", exact=True).click()
        expect(page.get_by_label("Log lines")).to_contain_text("connected")
        page.get_by_text("What happened").click()
        page.get_by_text("Paste one instead").click()
        page.get_by_label("Name", exact=True).fill("broken")
        page.get_by_label("Contents").fill("[Interface]\nPostUp = reboot\n")
        page.get_by_role("button", name="Import", exact=True).click()
        expect(page.get_by_text("broken was not imported")).to_be_visible()
        look(page, "settings")
        page.get_by_role("button", name="Delete vpn2").click()
        look(page, "dialog")
        page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        _self_test(page, ["pass", "not_testable", "running", "waiting"])
        page.reload()
        expect(page.get_by_text("Test 3 of 4")).to_be_visible()
        look(page, "selftest-running")
        _self_test(page, ["pass", "not_testable", "fail", "pass"], "fail")
        expect(page.get_by_text("Something got through")).to_be_visible()
        look(page, "selftest-failed")
        page.get_by_role("link", name="Status").click()
        running.kill()
        says(page, "Out of touch", timeout=8000)
        look(page, "out-of-touch")
        visit(page, f"{HOME}blocked")
        look(page, "block-page")
    running.start()
    running.disconnect()
    assert {name: problems for name, problems in found.items() if problems} == {}


def test_it_is_used_with_the_keyboard_alone(page: Any, running: Appliance) -> None:
    says(page, "Not protected")
    page.locator("body").press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    says(page, "Protected")


def test_the_first_visit_is_light_and_comes_from_the_router_alone(chromium: Any) -> None:
    with opened(chromium) as page:
        answers: list[Any] = []
        page.on("response", lambda answer: answers.append(answer))
        log_in(page)
        says(page, "Not protected")
        transferred = [
            int(answer.headers.get("content-length", 0)) + 900
            for answer in answers
            if answer.from_service_worker is False
        ]
    assert {answer.url.split("/")[2] for answer in answers} == {f"{at.ROUTER_LAN.v4}:{WEB_PORT}"}
    assert sum(transferred) <= 60_000
    assert len(list(UI.iterdir())) < 22


# Devices on the local network


def _reaches(running: Appliance, address: str) -> bool:
    ping = ["ping", "-c", "1", "-W", "1", address]
    return "1 received" in running.world.lana.run(ping, check=False).stdout


def test_denying_local_access_parts_two_devices_while_the_internet_goes_on(
    page: Any, running: Appliance
) -> None:
    running.connect()
    assert _reaches(running, at.LAN_B.v4)
    page.get_by_role("link", name="Devices").click()
    expect(page.get_by_text(at.LAN_B_MAC)).to_be_visible()
    lever = page.get_by_role("switch", name="Allow access to devices")
    expect(lever).to_have_attribute("aria-checked", "true")
    lever.click()
    expect(lever).to_have_attribute("aria-checked", "false")
    running.until(lambda: not _reaches(running, at.LAN_B.v4), "the other device is gone")
    assert _reaches(running, at.FRIENDLY.v4)
    assert _reaches(running, at.ROUTER_LAN.v4)
    shoot(page, "denied")
    lever.click()
    running.until(lambda: _reaches(running, at.LAN_B.v4), "the other device is back")


def test_a_single_device_is_excepted(page: Any, running: Appliance) -> None:
    _reaches(running, at.LAN_B.v4)
    page.get_by_role("link", name="Devices").click()
    row = page.get_by_role("row").filter(has_text=at.LAN_B_MAC)
    row.get_by_role("combobox").select_option("denied")
    running.until(lambda: not _reaches(running, at.LAN_B.v4), "the denied device is gone")
    expect(row.get_by_role("combobox")).to_be_enabled()
    row.get_by_role("combobox").select_option("default")
    running.until(lambda: _reaches(running, at.LAN_B.v4), "the device is back")
