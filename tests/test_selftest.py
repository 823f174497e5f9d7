# SPDX-License-Identifier: GPL-2.0-or-later
"""K18: the self-test passes where the block holds, sees where nothing blocks, and fails where it
is broken; it leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from router import addresses as at
from router.appliance import Appliance
from router.capture import Capture
from router.judge import judge
from router.leaktest import ALLOWED
from router.sabotage import start_plain

from portcullis.selftest import BLOCKING, DEVICES, PROPERTIES, STATION_MAC

Result = dict[str, Any]


def wait(appliance: Appliance) -> Result:
    """The result of the self-test that runs."""
    found: Result = {}

    def finished() -> bool:
        nonlocal found
        found = appliance.call("selftest_result")
        return not found["running"]

    appliance.until(finished, "the self-test ends", 30)
    return found


def results(found: Result) -> dict[str, str]:
    return {entry["property"]: entry["result"] for entry in found["properties"]}


def explained(found: Result) -> str:
    return "\n".join(f"{e['property']} {e['result']}: {e['detail']}" for e in found["properties"])


def made_devices(appliance: Appliance) -> list[str]:
    links = appliance.world.router.run(["ip", "-o", "link"]).stdout.splitlines()
    return [line for line in links if f": {DEVICES}" in line]


def rules(appliance: Appliance) -> list[str]:
    """The words of the ruleset and of the guard, without what counts; sets are in any order."""
    router = appliance.world.router
    listed = router.run(["nft", "-s", "list", "table", "inet", "portcullis"]).stdout
    kept = re.sub(r"(?s)set blocked_by_device \{.*?\n\t\}", "", listed)
    guard = [router.run(["ip", family, "rule"]).stdout for family in ("-4", "-6")]
    return sorted(" ".join([kept, *guard]).replace(",", " ").split())


def test_it_passes_on_a_connected_router_and_leaves_nothing(appliance: Appliance) -> None:
    appliance.connect()
    before, world = rules(appliance), appliance.world
    with Capture(world.isp, world.access) as wan:
        done = appliance.ctl("selftest", check=False)
    assert done.returncode == 0, done.stdout
    verdict = judge(wan.frames, ALLOWED)
    # Frames written to the device itself are what K9 has to tell of, where no hook stops them.
    raw = ("UDP 192.0.2.2:", "UDP [fe80::5043:7465]:")
    leaks = [leak for leak in verdict.leaks if not any(source in leak.what for source in raw)]
    assert leaks == [], str(verdict)
    found = appliance.call("selftest_result")
    outcome = results(found)
    assert list(outcome) == list(PROPERTIES)
    # K9 is left out: where the kernel has no egress hook it tells of raw frames.
    assert all(outcome[name] == "pass" for name in outcome if name != "K9"), explained(found)
    tried = {e["property"]: e["sent"] for e in found["properties"]}
    assert tried["K1"] >= 20
    assert tried["K2"] >= 40
    assert not any(e["seen"] for e in found["properties"] if e["property"] not in ("K9", "K14"))
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("Passed in state connected")
    assert lines[0] == f"pass          K1   {PROPERTIES['K1']}"
    # Nothing is left, nothing was taken for tampering, and nobody new is in the house.
    assert made_devices(appliance) == []
    assert rules(appliance) == before
    assert STATION_MAC not in world.router.run(["ip", "neigh"]).stdout
    status = appliance.status()
    assert (status["state"], status["restored"], status["faults"]) == ("connected", 0, [])
    assert STATION_MAC not in str(appliance.call("devices"))


def test_without_a_block_it_sees_everything_leave_and_says_why(appliance: Appliance) -> None:
    """The positive control of every packet it sends."""
    done = appliance.ctl("selftest", "--json", check=False)
    found = json.loads(done.stdout)
    assert (done.returncode, found["verdict"]) == (1, "not_testable")
    outcome = results(found)
    assert {outcome[name] for name in BLOCKING} == {"not_testable"}, explained(found)
    assert outcome["K5"] == outcome["K14"] == "pass", explained(found)
    by_name = {entry["property"]: entry for entry in found["properties"]}
    for name in ("K1", "K2", "K4", "K12"):
        entry = by_name[name]
        assert entry["seen"] == entry["sent"] > 0, explained(found)
        assert "the kill switch is inactive" in entry["detail"]


def _connecting(appliance: Appliance) -> str:
    appliance.world.vpn1.blackhole()
    appliance.call("connect", profile="vpn1")
    return "connecting"


def _failed(appliance: Appliance) -> str:
    appliance.add_profile("broken", "[Interface]\n")
    appliance.connect()
    (appliance.home / "profiles/vpn1.conf").write_text("[Interface]\n")
    appliance.call("connect", profile="vpn2")
    appliance.until_state("connected")
    (appliance.home / "profiles/vpn2.conf").write_text("[Interface]\n")
    appliance.world.vpn2.remove_client_key()
    appliance.call("set", name="dns", value=at.TUNNEL2.v4)
    appliance.until_state("connection_failed")
    return "connection_failed"


def _off_at_all_times(appliance: Appliance) -> str:
    appliance.call("set", name="mode", value="at_all_times")
    return "not_connected"


def _apart(appliance: Appliance) -> str:
    appliance.call("set", name="lan_access", value="denied")
    appliance.connect()
    return "connected"


@pytest.mark.parametrize("enter", [_connecting, _failed, _off_at_all_times, _apart])
def test_it_passes_in_every_state_that_blocks(
    appliance: Appliance, enter: Callable[[Appliance], str]
) -> None:
    state = enter(appliance)
    answer = appliance.call("selftest")
    assert (answer["running"], answer["state"]) == (True, state)
    found = wait(appliance)
    untested = {"K9"} | ({"K11"} if state != "connected" and state != "connecting" else set())
    outcome = results(found)
    assert found["verdict"] == "pass", explained(found)
    assert {n for n, result in outcome.items() if result != "pass"} <= untested, explained(found)


# What it is for: each of these has to be found.

_GUARD = (("-4", 800), ("-4", 830), ("-6", 800), ("-6", 810), ("-6", 830), ("-6", 831))


def _without_filter(appliance: Appliance) -> None:
    appliance.world.router.nft("delete table inet portcullis\n")


def _without_guard(appliance: Appliance) -> None:
    for family, priority in _GUARD:
        appliance.world.router.run(["ip", family, "rule", "del", "pref", str(priority)])


def _without_both(appliance: Appliance) -> None:
    _without_filter(appliance)
    _without_guard(appliance)


def _without_hook(_appliance: Appliance) -> None:
    """It is taken away for each of these, as it would hide what is broken behind it (`_told`);
    here the question says that there is one."""


def _hole_for_devices(appliance: Appliance) -> None:
    appliance.world.router.nft('insert rule inet portcullis forward iifname "br-lan" accept\n')
    appliance.world.router.run(
        ["ip", "rule", "add", "iif", "br-lan", "pref", "700", "table", "main"]
    )


def _hole_for_new_devices(appliance: Appliance) -> None:
    appliance.world.router.nft(f'insert rule inet portcullis output oifname "{DEVICES}*" accept\n')


def _hole_for_dns(appliance: Appliance) -> None:
    appliance.world.router.nft(
        "insert rule inet portcullis output udp dport 53 accept\n"
        "insert rule inet portcullis dns_router accept\n"
    )
    for protocol in ("udp", "tcp"):
        rule = ["ip", "rule", "add", "ipproto", protocol, "dport", "53", "pref", "700"]
        appliance.world.router.run([*rule, "table", "main"])


def _hole_for_the_endpoint(appliance: Appliance) -> None:
    """TunnelCrack's ServerIP: a route to the server that everybody may take."""
    router = appliance.world.router
    router.nft(f"insert rule inet portcullis forward ip daddr {at.VPN1.v4} accept\n")
    router.run(["ip", "rule", "add", "to", at.VPN1.v4, "pref", "700", "table", "main"])


def _hole_for_the_mark(appliance: Appliance) -> None:
    appliance.world.router.nft("insert rule inet portcullis output_marked accept\n")


def _locked_out(appliance: Appliance) -> None:
    appliance.world.router.nft("flush set inet portcullis protected\n")


@pytest.fixture(scope="module")
def asked() -> Iterator[tuple[Appliance, Result]]:
    """A connected router, and what its core asks the self-test; it is asked directly here, while
    the core sleeps and repairs nothing. Its tables are plain ones, to be broken."""
    with Appliance() as found:
        start_plain(found)
        found.connect()
        question = {
            **{"active": True, "meaning": "", "differences": None, "egress": False},
            **{"networks": ["br-lan", "br-guest"], "managing": ["br-lan"], "served": []},
            **{"upstream": ["eth1"], "endpoints": [[at.VPN1.v4, "udp", 51820]], "resolving": True},
        }
        yield found, question


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        (_without_filter, {"K2", "K4", "K9", "K11", "K12"}),
        (_without_guard, {"K9"}),
        (_without_hook, {"K9"}),
        (_without_both, {"K1", "K2", "K4", "K9", "K11", "K12"}),
        (_hole_for_devices, {"K1", "K11", "K12", "K9"}),
        (_hole_for_new_devices, {"K4"}),
        (_hole_for_dns, {"K12"}),
        (_hole_for_the_endpoint, {"K11"}),
        (_hole_for_the_mark, {"K2", "K9", "K11"}),
        (_locked_out, {"K14"}),
    ],
)
def test_a_broken_block_is_found(
    asked: tuple[Appliance, Result], broken: Callable[[Appliance], None], found: set[str]
) -> None:
    told = _told(*asked, broken)
    failed = {name for name, entry in told.items() if entry["result"] == "fail"}
    assert failed == found, told


def test_where_not_even_the_controls_are_seen_nothing_is_passed(
    asked: tuple[Appliance, Result],
) -> None:
    told = _told(*asked, _stuck)
    passed = {name for name, entry in told.items() if entry["result"] == "pass"}
    assert passed == {"K4", "K14"}, told  # those have controls and devices of their own
    assert "not even packets that may leave" in told["K1"]["detail"]


def _stuck(appliance: Appliance) -> None:
    appliance.world.router.nft('insert rule inet portcullis output oifname "eth1" drop\n')


# The devices that it pretends to be have the same addresses every time, of the few hundred that
# there are: flows that an earlier self-test began must not hide a hole.
_SELFTEST = """
import itertools, sys, types
from portcullis.selftest import station
few = itertools.cycle((76, 77, 78))  # where one is known still, the next one
station.secrets = types.SimpleNamespace(randbelow=lambda many: next(few))
from portcullis.selftest.__main__ import main
sys.exit(main())
"""


def _told(
    appliance: Appliance, question: Result, broken: Callable[[Appliance], None]
) -> dict[str, Result]:
    """What the self-test finds of a block that is `broken` while the core sleeps."""
    assert appliance.daemon
    whole = rules(appliance)
    os.kill(appliance.daemon.pid, signal.SIGSTOP)
    try:
        hook = ["nft", "delete", "table", "netdev", "portcullis"]
        appliance.world.router.run(hook, check=False)  # not every kernel has it
        broken(appliance)
        done = appliance.world.router.run(
            [sys.executable, "-c", _SELFTEST],
            stdin=json.dumps({**question, "egress": broken is _without_hook}),
            env=appliance.environment(),
            timeout=40,
        )
    finally:
        for family in ("-4", "-6"):
            rule = ["ip", family, "rule", "del", "pref", "700"]
            while not appliance.world.router.run(rule, check=False).returncode:
                pass
        os.kill(appliance.daemon.pid, signal.SIGCONT)
        appliance.until(lambda: _healed(appliance, whole), "everything is put back")
    return {entry["property"]: entry for entry in map(json.loads, done.stdout.splitlines())}


def _healed(appliance: Appliance, whole: list[str]) -> bool:
    try:
        return rules(appliance) == whole
    except RuntimeError:  # there is no table yet
        return False


def _child(appliance: Appliance) -> int:
    assert appliance.daemon
    tasks = f"/proc/{appliance.daemon.pid}/task/{appliance.daemon.pid}/children"
    with open(tasks) as file:
        for pid in file.read().split():
            with open(f"/proc/{pid}/cmdline") as line:
                if "portcullis.selftest" in line.read():
                    return int(pid)
    return 0


def test_two_at_once_are_one_and_a_killed_one_leaves_nothing(appliance: Appliance) -> None:
    appliance.connect()
    first = appliance.call("selftest")
    pid = _child(appliance)
    appliance.until(lambda: made_devices(appliance), "its device is there")
    second = appliance.call("selftest")
    assert second["started"] == first["started"]
    assert (second["running"], _child(appliance)) == (True, pid)
    os.kill(pid, signal.SIGKILL)
    found = wait(appliance)
    assert made_devices(appliance) == []
    assert "ended early" in explained(found)
    assert found["finished"]
    assert appliance.status()["faults"] == []
    assert appliance.call("selftest")["running"], "and it can be begun again"


def test_it_ends_with_the_daemon(appliance: Appliance) -> None:
    appliance.connect()
    appliance.call("selftest")
    pid = _child(appliance)
    appliance.until(lambda: made_devices(appliance), "its device is there")
    appliance.kill()
    appliance.until(lambda: not os.path.exists(f"/proc/{pid}"), "it ends", 10)
    assert made_devices(appliance) == []


def test_a_disconnect_meanwhile_ends_it(appliance: Appliance) -> None:
    appliance.connect()
    appliance.call("selftest")
    appliance.until(lambda: made_devices(appliance), "its device is there")
    appliance.disconnect()
    found = appliance.call("selftest_result")
    assert not found["running"]
    assert "fail" not in results(found).values()
    assert "test again" in explained(found)


def test_progress_is_told_by_events(appliance: Appliance) -> None:
    with appliance.events("portcullis.selftest") as seen:
        appliance.call("selftest")
        appliance.until(lambda: len(seen()) == len(PROPERTIES) + 2, "every event", 30)
        told = seen()
    assert [e["running"] for e in told] == [True] * (len(PROPERTIES) + 1) + [False]
    waiting = [sum(e["result"] == "waiting" for e in t["properties"]) for t in told]
    assert waiting == sorted(waiting, reverse=True)
