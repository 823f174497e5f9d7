# SPDX-License-Identifier: GPL-2.0-or-later
"""`make run`: the state table walked on the virtual router, with live leak counts."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import addresses as at
from . import doorway
from .appliance import DEFAULT_CONFIG, Appliance
from .flood import Flood
from .isolation import isolate
from .judge import Allowed, Endpoint
from .leaktest import every_probe
from .leave import divide
from .measurement import BatchResult, measure
from .probe import Probe, opened

_COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ
_ALLOWED = Allowed.of(*(Endpoint(a) for host in at.VPN_SERVERS for a in host.addresses))
_STAYS, _FOR_EVER = 900, 10**8  # seconds
_NAMES = "".join(
    f"\nconfig device\n\toption mac '{mac}'\n\toption name '{name}'\n"
    for mac, name in (
        (at.LAN_A_MAC, "Laptop"),
        (at.LAN_B_MAC, "Television"),
        (at.GUEST_MAC, "Phone of a guest"),
    )
)
_WIDTHS = (19, 14, 13, 8, 11, 11, 0)
PASSWORD = "portcullis"
_HEADINGS = ("state", "mode", "kill switch", "probes", "in tunnel", "outside", "")


@dataclass
class Tally:
    """What has been seen; the verdict at the end."""

    sent: int = 0
    leaked: int = 0
    controls: int = 0
    wrong: int = 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make run")
    parser.add_argument("--keep", action="store_true", help="leave the router up until Ctrl-C")
    options = parser.parse_args(argv)
    doorway.prepare(8443)
    isolate()
    began = time.monotonic()
    # A person ends it with Ctrl-C. A program waits for the verdict, and the page stays a while.
    watched = options.keep or sys.stdin.isatty()
    release = None if watched else divide()
    config, failed = DEFAULT_CONFIG.read_text() + _NAMES, True
    try:
        with Appliance(config=config, users={"root": PASSWORD}) as appliance:
            for number, city in enumerate(("Amsterdam", "Reykjavik", "Stockholm", "Zurich")):
                server = (appliance.world.vpn1, appliance.world.vpn2)[number % 2]
                appliance.add_profile(f"{city.lower()}-{number + 1}", server.profile())
            appliance.start()
            appliance.start_web()
            _say(f"Virtual router up in {time.monotonic() - began:.1f} s: two LAN hosts and a")
            _say("guest, a router with fw4's permissive rules, an ISP, the internet, two WireGuard")
            _say("servers. The router's web page, as a device on its LAN sees it:\n")
            address = doorway.open_up(appliance.world.lana)
            _say(f"  {address}    user root, password {PASSWORD}\n", "1")
            _say("Watch it there: the table below is walked now, so wait with commands of yours.")
            tally = walk(appliance)
            failed = bool(tally.leaked or tally.wrong or not tally.controls)
            appliance.connect("stockholm-3")
            _invite(appliance, address, release is None)
            if release:
                release(int(failed))
            time.sleep(_STAYS if release else _FOR_EVER)
    except KeyboardInterrupt:
        _say("")
    return int(failed)


def walk(appliance: Appliance) -> Tally:
    """Every row of the state table, in both modes."""
    world, tally = appliance.world, Tally()
    probes = every_probe(appliance)
    with opened(probes):
        _say(
            f"{len(probes)} kinds of probes (UDP, TCP, ICMP, DNS, fragments, odd protocols; v4 and"
        )
        _say("v6; new and established; from LAN, guest and router), 3 of each per row.\n")
        _line(*_HEADINGS, style="1")

        def show(state: str, mode: str, active: bool, remark: str = "") -> None:
            result = measure(world, probes, _ALLOWED)
            _row(appliance, tally, result, (state, mode, active), remark)

        for mode in ("standard", "at_all_times"):
            appliance.call("set", name="mode", value=mode)
            show("not_connected", mode, mode == "at_all_times")
            world.vpn1.blackhole()
            appliance.call("connect", profile="vpn1")
            show("connecting", mode, True, "server unreachable")
            world.vpn1.unblackhole()
            took = appliance.until_state("connected")
            show("connected", mode, True, f"{took:.1f} s after the server's return")
            with Flood(world.lana, list(at.FRIENDLY.addresses), rate=200):
                world.vpn1.remove_client_key()
                world.vpn1.blackhole()
                took = appliance.until_state("reconnecting", patience=60)
            show("reconnecting", mode, True, f"loss noticed after {took:.1f} s")
            took = appliance.until_state("connection_failed", patience=90)
            show("connection_failed", mode, True, "account removed, every try was in vain")
            world.vpn1.restore_client_key()
            world.vpn1.unblackhole()
            appliance.until_state("connected", patience=60)
            _disconnect(appliance, tally, probes, mode)
        appliance.call("set", name="mode", value="standard")
        show("not_connected", "standard", False)
    _verdict(tally)
    return tally


def _disconnect(appliance: Appliance, tally: Tally, probes: Sequence[Probe], mode: str) -> None:
    """`disconnecting` lasts milliseconds: probes run across it, and its event is awaited."""
    results: list[BatchResult] = []
    prober = threading.Thread(
        target=lambda: results.append(measure(appliance.world, probes, _ALLOWED))
    )
    with appliance.events() as events:
        prober.start()
        appliance.call("disconnect")
        appliance.until_state("not_connected")
        prober.join()
        seen = [event for event in events() if event["state"] == "disconnecting"]
    active = mode == "at_all_times"
    told = bool(seen) and seen[0]["kill_switch_active"] == active
    tally.wrong += not told
    remark = "passed through, as its event says" if told else "NO SUCH EVENT"
    _row(appliance, tally, results[0], ("disconnecting", mode, active), remark, momentary=True)


def _row(
    appliance: Appliance,
    tally: Tally,
    result: BatchResult,
    expected: tuple[str, str, bool],
    remark: str,
    momentary: bool = False,
) -> None:
    state, mode, active = expected
    status = appliance.status()
    is_active = bool(status["kill_switch"]["active"])
    right = momentary or (status["state"] == state and is_active == active)
    tally.wrong += not right
    tally.sent += result.sent
    if active:
        tally.leaked += result.leaks
        outside = f"{result.leaks} leaked"
        good = not result.leaks
    else:
        seen = len(result.on_wan)
        outside = f"{seen} seen"
        good = seen > 0
        if not momentary:
            tally.controls += 1
            tally.wrong += not good
        remark = remark or "positive control: the capture does see"
    if not right:
        remark = f"WRONG: {status['state']}, {'active' if is_active else 'inactive'}"
    _line(
        *(state, mode, "active" if active else "inactive", str(result.sent)),
        *(str(len(result.tunnelled)), outside, remark),
        style="32" if good and right else "31",
    )
    if active and result.leaks:
        _say(str(result.verdict))


def _verdict(tally: Tally) -> None:
    _say("")
    if tally.leaked or tally.wrong or not tally.controls:
        problems = f"{tally.leaked} packets leaked, {tally.wrong} rows were not as they should be"
        _say(f"FAILED: {problems}.", "1;31")
    else:
        _say(
            f"PASSED: {tally.sent} probes, 0 leaked where the kill switch was active; the same"
            f" probes were seen by the capture in {tally.controls} rows where it was not.",
            "1;32",
        )


def _invite(appliance: Appliance, address: str, watched: bool) -> None:
    """What a visitor may do now."""
    world, socket = appliance.world, appliance.bus.socket
    script = world.state / "portcullisctl"
    paths = appliance.environment()["PYTHONPATH"]
    arguments = f"-m portcullis.ctl --ubus {socket}"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={paths} exec {sys.executable} {arguments} "$@"\n')
    script.chmod(0o755)
    mapped = Path("/proc/self/uid_map").read_text().split()[2] == "1"
    enter = f"nsenter -t {os.getpid()} -m -n{' -U --preserve-credentials' if mapped else ''}"
    until = "you press Ctrl-C" if watched else f"{_STAYS // 60} minutes are over"
    _say(f"\nThe router stays up until {until}:", "1")
    _say(f"  {address}    user root, password {PASSWORD}")
    if not watched:
        _say(f"  kill {os.getpid()} ends it; in a terminal, or with KEEP=1, Ctrl-C does")
    _say("From another terminal:")
    _say(f"  {enter} {script} status")
    _say(f"  {enter} {script} connect vpn2      (also: disconnect, get, set, profiles, monitor)")
    _say(f"  {enter} ip netns exec {world.lana.name} ping 198.51.100.7      (a LAN host)")
    _say(f"  {enter} ip netns exec {world.router.name} nft list table inet portcullis")


def _line(*cells: str, style: str = "") -> None:
    _say("".join(f"{cell:<{w}}" for cell, w in zip(cells, _WIDTHS, strict=True)).rstrip(), style)


def _say(text: str, style: str = "") -> None:
    print(f"\033[{style}m{text}\033[0m" if style and _COLOUR else text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
