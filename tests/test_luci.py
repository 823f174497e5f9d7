# SPDX-License-Identifier: GPL-2.0-or-later
"""LuCI's view in a real browser: what it shows in every state, and what it must never do."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from luci.page import INCLUDE, Page, Unreachable, browser
from luci.replies import HOSTILE, Router, device, status
from luci.template import PO, read
from router import addresses as at
from router.appliance import Appliance

from portcullis.states import Mode, State, active

GREEN, AMBER, RED = "success", "warning", "danger"
UNREACHABLE = {"ok": False, "code": "unreachable", "reason": "The daemon cannot be reached."}
EVERY = list(product(State, Mode))
IDS = [f"{state}-{mode}" for state, mode in EVERY]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


def expected(state: State, mode: Mode) -> str:
    if not active(state, mode):
        return RED
    return GREEN if state is State.CONNECTED else AMBER


@pytest.mark.parametrize(("state", "mode"), EVERY, ids=IDS)
def test_green_is_only_what_is_protected_and_each_state_explains_itself(
    chromium: Any, state: State, mode: Mode
) -> None:
    router = Router(state, mode)
    with Page(chromium, router) as page:
        page.screenshot(f"{state}-{mode}")
        assert page.colour == expected(state, mode)
        first = {GREEN: "Protected:", AMBER: "Blocked", RED: "Not protected"}[page.colour]
        assert page.headline.startswith(first)
        row = router.status["kill_switch"]
        assert row["meaning"][1:] in page.text
        assert row["advice"] in page.text


@pytest.mark.parametrize(("state", "mode"), EVERY, ids=IDS)
def test_the_status_overview_says_the_same(chromium: Any, state: State, mode: Mode) -> None:
    with Page(chromium, Router(state, mode), view=INCLUDE) as page:
        assert page.colour == expected(state, mode)
        page.screenshot(f"include-{state}-{mode}")


@pytest.mark.parametrize("state", list(State))
def test_a_block_that_is_not_verified_is_never_green(chromium: Any, state: State) -> None:
    router = Router()
    router.status = status(state, Mode.AT_ALL_TIMES, verified=False)
    router.status["faults"] = ["packet filter: the table is not as it was written"]
    with Page(chromium, router) as page:
        assert page.colour == RED
        assert page.headline == "Not verified: the block may have holes."
        assert "packet filter: the table is not as it was written" in page.text
        page.screenshot("not-verified")


def test_connected_without_a_protected_network_is_not_green(chromium: Any) -> None:
    router = Router()
    router.status["networks"] = []
    with Page(chromium, router) as page:
        assert page.colour == AMBER
        assert "no network of this router is protected" in page.headline


def test_a_state_of_a_newer_daemon_is_not_green(chromium: Any) -> None:
    router = Router()
    router.status["state"] = "hibernating"
    with Page(chromium, router) as page:
        assert page.colour == RED


def test_the_kill_switch_is_on_and_cannot_be_touched(chromium: Any) -> None:
    with Page(chromium, Router(State.NOT_CONNECTED)) as page:
        switch = page.tab.get_by_label("Kill switch", exact=True)
        assert switch.is_checked()
        assert switch.is_disabled()
        assert "On, and locked" in page.text


def test_every_control_has_a_name_for_screen_readers(chromium: Any) -> None:
    with Page(chromium, Router()) as page:
        for name in ("Profile", "Mode", "Access to devices on the local network"):
            assert page.tab.get_by_label(name, exact=True).count() == 1
        for control in page.tab.locator("#view select, #view input").all():
            named = control.evaluate("e => Boolean(e.labels.length || e.ariaLabel)")
            assert named, control.inner_html()


@pytest.mark.parametrize("view", ["overview", "include"])
def test_the_page_follows_the_daemon(chromium: Any, view: str) -> None:
    router = Router()
    options = {"view": INCLUDE} if view == "include" else {}
    with Page(chromium, router, **options) as page:
        router.become(State.RECONNECTING)
        page.pass_time(6)
        page.until("Blocked since")
        assert page.colour == AMBER
        router.become(State.CONNECTED)
        page.pass_time(6)
        page.until("Protected: all traffic goes through sweden-3.")
        assert page.colour == GREEN


@pytest.mark.parametrize("view", ["overview", "include"])
@pytest.mark.parametrize("how", ["daemon", "router"])
def test_nothing_stays_green_when_out_of_touch(chromium: Any, view: str, how: str) -> None:
    router = Router()
    options = {"view": INCLUDE} if view == "include" else {}
    with Page(chromium, router, **options) as page:
        assert page.colour == GREEN

        def fail(method: str, arguments: dict[str, str]) -> dict[str, Any]:
            if how == "router":
                raise Unreachable
            return UNREACHABLE

        page.answer = fail
        page.pass_time(6)
        page.until("Out of touch")
        assert page.colour == RED
        assert page.tab.locator(".success").count() == 0
        page.screenshot(f"out-of-touch-{view}")
        page.answer = router
        page.pass_time(6)
        page.until("Protected: all traffic goes through sweden-3.")


def test_nothing_stays_green_when_refreshing_is_paused(chromium: Any) -> None:
    with Page(chromium, Router()) as page:
        page.tab.evaluate("poll.stop()")
        page.pass_time(12)
        page.until("Refreshing is paused.")
        assert page.colour == RED
        assert "Out of touch" in page.headline


def test_an_unreachable_daemon_is_said_at_once(chromium: Any) -> None:
    router = Router()
    router.refusals = dict.fromkeys(("status", "profiles", "devices", "events"), UNREACHABLE)
    with Page(chromium, router) as page:
        assert page.colour == RED
        assert "The daemon cannot be reached." in page.text
        assert not page.tab.get_by_role("button", name="Connect", exact=True).is_visible()
        page.screenshot("unreachable")


def test_names_from_outside_stay_text(chromium: Any) -> None:
    router = Router()
    router.status["profile"] = router.status["reason"] = HOSTILE
    router.status["faults"] = [HOSTILE]
    router.status["state"] = "reconnecting"
    router.status["endpoints"] = router.status["resolvers"] = [HOSTILE]
    router.status["networks"] = [{"name": HOSTILE, "device": HOSTILE, "prefixes": [HOSTILE]}]
    router.status["blocked"] = {HOSTILE: 1}
    router.status["tunnel"]["notes"] = [HOSTILE]
    router.profiles = [{"name": HOSTILE, "usable": False, "problem": HOSTILE}]
    router.devices[0] |= {"hostname": HOSTILE, "ipv4": [HOSTILE], "network": HOSTILE}
    router.devices[0]["note"] = HOSTILE
    router.events[0] |= {"reason": HOSTILE, "state": HOSTILE}
    router.refusals["disconnect"] = {"ok": False, "code": "x", "reason": HOSTILE}
    for view in (None, INCLUDE):
        with Page(chromium, router, **({"view": view} if view else {})) as page:
            assert HOSTILE in page.headline
            if view is None:
                page.click("Disconnect")
                page.click("Disconnect")
                page.tab.locator(".notification").wait_for()
                assert page.text.count(HOSTILE) > 12
                page.screenshot("hostile")
            assert page.tab.locator("img, body script:not([src])").count() == 0


def test_connect_takes_the_chosen_profile(chromium: Any) -> None:
    router = Router(State.NOT_CONNECTED)
    with Page(chromium, router) as page:
        page.choose("#portcullis-profile", "norway-1")
        page.click("Connect")
        page.settle()
        assert page.called("connect") == [{"profile": "norway-1"}]


def test_an_unusable_profile_says_why_and_cannot_be_chosen(chromium: Any) -> None:
    with Page(chromium, Router(State.NOT_CONNECTED)) as page:
        option = page.tab.locator("#portcullis-profile option", has_text="old")
        assert option.is_disabled()
        assert "line 3: PrivateKey is no key" in option.inner_text()


def test_a_choice_survives_polling(chromium: Any) -> None:
    router = Router(State.NOT_CONNECTED)
    with Page(chromium, router) as page:
        page.choose("#portcullis-profile", "norway-1")
        router.profiles.append({"name": "finland-2", "usable": True, "server": "", "note": ""})
        page.pass_time(10)
        page.tab.locator("#portcullis-profile option", has_text="finland-2").wait_for(
            state="attached"
        )
        assert page.tab.input_value("#portcullis-profile") == "norway-1"


def test_disconnecting_asks_before_traffic_leaves_unprotected(chromium: Any) -> None:
    with Page(chromium, Router()) as page:
        page.click("Disconnect")
        page.until("Leave unprotected?")
        page.screenshot("disconnect-question")
        page.click("Cancel")
        page.settle()
        assert page.called("disconnect") == []
        page.click("Disconnect")
        page.click("Disconnect")
        page.settle()
        assert page.called("disconnect") == [{}]


def test_disconnecting_at_all_times_need_not_ask(chromium: Any) -> None:
    with Page(chromium, Router(mode=Mode.AT_ALL_TIMES)) as page:
        page.click("Disconnect")
        page.settle()
        assert page.called("disconnect") == [{}]


def test_standard_mode_asks_while_disconnected(chromium: Any) -> None:
    with Page(chromium, Router(State.NOT_CONNECTED, Mode.AT_ALL_TIMES)) as page:
        page.choose("#portcullis-mode", "standard")
        page.click("Cancel")
        page.settle()
        assert page.called("set") == []
        assert page.tab.input_value("#portcullis-mode") == "at_all_times"
        page.choose("#portcullis-mode", "standard")
        page.click("Set standard mode")
        page.settle()
        assert page.called("set") == [{"name": "mode", "value": "standard"}]


def test_what_is_shown_after_a_refused_change_is_what_holds(chromium: Any) -> None:
    router = Router()
    refused = {"ok": False, "code": "internal", "reason": "It cannot be changed now."}
    router.refusals = {"set": refused, "set_device": refused}
    with Page(chromium, router) as page:
        page.choose("#portcullis-mode", "at_all_times")
        page.until("It cannot be changed now.")
        page.settle()
        assert page.tab.input_value("#portcullis-mode") == "standard"
        page.choose("#portcullis-lan-access", "0")
        page.settle()
        assert page.tab.input_value("#portcullis-lan-access") == "1"
        page.choose("select[aria-label='Local access of laptop']", "denied")
        page.settle()
        assert page.tab.input_value("select[aria-label='Local access of laptop']") == "default"


def test_a_device_is_excepted_by_its_mac(chromium: Any) -> None:
    with Page(chromium, Router()) as page:
        page.choose("select[aria-label='Local access of laptop']", "denied")
        page.settle()
        assert page.called("set_device") == [{"mac": "02:00:00:00:00:01", "access": "denied"}]


def test_what_cannot_be_enforced_on_a_device_is_said(chromium: Any) -> None:
    router = Router()
    note = "Its access point forwards between its own devices."
    router.devices[0] |= {"enforced": False, "note": note}
    with Page(chromium, router) as page:
        assert note in page.text


def test_a_warning_is_shown(chromium: Any) -> None:
    router = Router()
    router.refusals["set"] = {"ok": True, "warning": "in force, but not saved yet"}
    with Page(chromium, router) as page:
        page.choose("#portcullis-lan-access", "0")
        page.until("in force, but not saved yet")


def test_a_login_that_may_only_look_finds_everything_locked(chromium: Any) -> None:
    with Page(chromium, Router(), read_only=True) as page:
        assert page.colour == GREEN
        for control in page.tab.locator("#view button, #view select, #view input").all():
            assert control.is_disabled()
        page.screenshot("read-only")


def test_an_overview_without_the_right_to_look_says_nothing(chromium: Any) -> None:
    with Page(chromium, Router(), view=INCLUDE) as page:
        page._rights.clear()
        page.tab.reload()
        page.tab.evaluate("ready")
        assert page.tab.locator(".alert-message").count() == 0


def test_an_older_daemon_leaves_the_rest_of_the_page_alone(chromium: Any) -> None:
    router = Router()
    mismatch = {"ok": False, "code": "mismatch", "reason": "The daemon is of another version."}
    router.refusals = {"devices": mismatch, "events": mismatch}
    with Page(chromium, router) as page:
        assert page.colour == GREEN
        assert page.text.count("The daemon is of another version.") == 2


def test_the_web_ui_opens_with_a_one_time_token(chromium: Any) -> None:
    with Page(chromium, Router()) as page:
        with page.context.expect_page() as opened:
            page.click("Open the web UI")
        opened.value.wait_for_url("https://router.test:8443/*", wait_until="commit")
        assert opened.value.url == f"https://router.test:8443/#token={'ab' * 32}"
        assert opened.value.evaluate("window.opener") is None


def test_without_a_token_the_button_goes(chromium: Any) -> None:
    router = Router()
    router.refusals["token"] = {"ok": False, "code": "mismatch", "reason": "There is no web UI."}
    with Page(chromium, router) as page:
        page.click("Open the web UI")
        page.until("There is no web UI.")
        page.settle()
        assert not page.tab.get_by_text("Open the web UI").is_visible()
        assert len(page.context.pages) == 1


def test_german(chromium: Any) -> None:
    translations = read(PO / "de/portcullis.po")
    with Page(chromium, Router(State.RECONNECTING), translations=translations) as page:
        assert page.headline.startswith("Blockiert seit")
        assert translations[status(State.RECONNECTING)["kill_switch"]["advice"]] in page.text
        page.screenshot("german")


def test_the_real_daemon_answers_as_the_page_needs(chromium: Any, appliance: Appliance) -> None:
    """Connect by a click, allow a device, disconnect at all times, lose the daemon."""
    world = appliance.world
    world.lana.run(["ping", "-c", "1", "-W", "5", at.ROUTER_LAN.v4])

    def answer(method: str, arguments: dict[str, str]) -> dict[str, Any]:
        return appliance.call(method, **arguments)

    assert status(State.CONNECTED).keys() <= appliance.status().keys()

    def lana() -> list[dict[str, Any]]:
        found = appliance.call("devices")["devices"]
        return [one for one in found if at.LAN_A.v4 in one["ipv4"]]

    appliance.until(lana, "the device is seen")
    with Page(chromium, answer) as page:
        assert page.colour == RED
        page.choose("#portcullis-profile", "vpn1")
        page.click("Connect")
        page.until("Protected: all traffic goes through vpn1.")
        assert page.colour == GREEN
        assert "198.51.100.101 udp 51820" in page.text
        page.choose("#portcullis-mode", "at_all_times")
        page.settle()
        assert appliance.status()["kill_switch"]["mode"] == "at_all_times"
        assert device("", "").keys() <= lana()[0].keys()
        assert at.LAN_A.v4 in page.text
        page.choose(f"select[aria-label='Local access of {at.LAN_A_MAC}']", "allowed")
        page.settle()
        assert lana()[0]["access"] == "allowed"
        page.click("Disconnect")
        page.until("Blocked: disconnected, and the kill switch is enabled at all times.")
        assert page.colour == AMBER
        page.pass_time(10)
        page.until("the owner disconnected")
        appliance.kill()
        page.answer = lambda method, arguments: UNREACHABLE
        page.until("Out of touch")
