# SPDX-License-Identifier: GPL-2.0-or-later
"""`make bench`, the web page's part."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

from .appliance import UI, Appliance
from .visitor import Visitor, read_answer

Show = Callable[[str, str, str], None]
_CLIENTS, _EACH, _PROFILES, _DEVICES = 20, 25, 5000, 250


def measure(appliance: Appliance, show: Show) -> None:
    appliance.start_web()
    owner = Visitor(appliance.world.lana)
    owner.login()
    clients(appliance, owner, show)
    memory(appliance, "web process after that", show)
    streams = [owner.events() for _ in range(6)]
    for stream in streams:
        next(stream)
    memory(appliance, "  with 6 live pages", show)
    for stream in streams:
        stream.close()  # type: ignore[attr-defined]
    changes(appliance, owner, show)
    first_visit(owner, show)
    many_devices(appliance, owner, show)
    many_profiles(appliance, owner, show)


def clients(appliance: Appliance, owner: Visitor, show: Show) -> None:
    """Status asked by many at once, each on its connection, as browsers do (and fw4 lets but 25
    new ones a second in)."""
    figures: list[float] = []

    def ask(client: Visitor) -> None:
        with client.connect() as connection:
            for _ in range(_EACH):
                began = time.perf_counter()
                connection.sendall(client.head("GET", "/api/status", {"Connection": None}, None))
                assert read_answer(connection).status == 200
                figures.append((time.perf_counter() - began) * 1000)

    world = appliance.world
    addresses = [(world.lana, a) for a in ("192.168.1.1", "2001:db8:1::1", "fd27:70fa:5c1d::1")]
    addresses += [(world.lanb, address) for _, address in addresses]
    threads = []
    for number in range(_CLIENTS):
        host, address = addresses[number % len(addresses)]
        visitor = Visitor(host, address, cookies=dict(owner.cookies))
        threads.append(threading.Thread(target=ask, args=(visitor,)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cuts = statistics.quantiles(figures, n=20)
    show(f"status, {_CLIENTS} clients at once, p50", f"{statistics.median(figures):.1f} ms", "")
    show("  p95", f"{cuts[18]:.1f} ms", "")


def memory(appliance: Appliance, what: str, show: Show) -> None:
    assert appliance.web
    text = Path(f"/proc/{appliance.web.pid}/smaps_rollup").read_text()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
    show(f"{what}, RSS", f"{kilobytes['Rss'] / 1000:.1f} MB", "")
    show(f"{what}, PSS", f"{kilobytes['Pss'] / 1000:.1f} MB", "<= 24 MB")


def changes(appliance: Appliance, owner: Visitor, show: Show) -> None:
    """From the owner's command to the event in the page."""
    figures = []
    events = owner.events()
    next(events)
    for _ in range(5):
        for method, state in (("connect", "connecting"), ("disconnect", "not_connected")):
            began = time.perf_counter()
            appliance.call(method, **({"profile": "vpn1"} if method == "connect" else {}))
            for _, status in events:
                if status.get("state") in (state, "connected"):
                    break
            figures.append((time.perf_counter() - began) * 1000)
            appliance.until_state("connected" if method == "connect" else "not_connected")
    events.close()  # type: ignore[attr-defined]
    show("change of state to the page, p50", f"{statistics.median(figures):.0f} ms", "<= 500 ms")
    show("  slowest of ten", f"{max(figures):.0f} ms", "")


def first_visit(owner: Visitor, show: Show) -> None:
    names = ["", *(path.name for path in UI.iterdir() if path.name not in _LATER)]
    octets = 0
    for name in names:
        found = owner.get(f"/{name}", Accept_Encoding="gzip")
        octets += len(found.body) + sum(len(k) + len(v) + 4 for k, v in found.headers.items())
    show(f"first page, {len(names)} requests", f"{octets / 1000:.1f} kB", "<= 60 kB")


_LATER = ("index.html", "blocked.js")


def many_profiles(appliance: Appliance, owner: Visitor, show: Show) -> None:
    """First rows, and what others notice while the daemon reads the rest."""
    text = appliance.world.vpn1.profile()
    for number in range(_PROFILES):
        appliance.add_profile(f"city-{number}", text)
    began = time.perf_counter()
    found = owner.get("/api/find_profiles?search=").json
    rows = (time.perf_counter() - began) * 1000
    assert found["total"] > _PROFILES
    longest = 0.0
    while owner.get("/api/find_profiles?search=nothing").json["unread"]:
        asked = time.perf_counter()
        appliance.call("get")
        longest = max(longest, (time.perf_counter() - asked) * 1000)
    whole = time.perf_counter() - began
    show(f"{_PROFILES:,} profiles, first rows of the first time", f"{rows:.0f} ms", "<= 200 ms")
    show("  all of them read", f"{whole:.1f} s", "")
    show("  slowest answer of the daemon meanwhile", f"{longest:.0f} ms", "")
    search = [_milliseconds(owner, f"/api/find_profiles?search=city+{n}") for n in range(20)]
    show("  a search, p50", f"{statistics.median(search):.0f} ms", "<= 200 ms")


def many_devices(appliance: Appliance, owner: Visitor, show: Show) -> None:
    """On the LAN's bridge, each with two addresses."""
    appliance.world.router.ip(
        "".join(
            f"neigh replace {address} lladdr 02:00:5e:00:54:{n:02x} dev br-lan nud reachable\n"
            for n in range(1, _DEVICES + 1)
            for address in (f"192.168.1.{n}", f"2001:db8:1::{n:x}")
            if n not in (1, 10, 11)
        )
    )
    figures = []
    for _ in range(5):
        figures.append(_milliseconds(owner, "/api/devices"))
        time.sleep(1.1)  # it looks again after a second
    assert len(owner.get("/api/devices").json["devices"]) >= _DEVICES - 3
    show(f"{_DEVICES} devices listed, p50", f"{statistics.median(figures):.0f} ms", "<= 200 ms")
    show("  slowest of five", f"{max(figures):.0f} ms", "")


def _milliseconds(owner: Visitor, path: str) -> float:
    began = time.perf_counter()
    assert owner.get(path).status == 200
    return (time.perf_counter() - began) * 1000
