# SPDX-License-Identifier: GPL-2.0-or-later
"""Replies of the daemon as a page may get them, in any state, with names that bite."""

from __future__ import annotations

import time
from typing import Any

from portcullis.states import Mode, State, row

HOSTILE = "<img src=x onerror=alert(1)>\"><script>alert(2)</script>'&amp;%s"


def status(
    state: State, mode: Mode = Mode.STANDARD, *, profile: str = "sweden-3", verified: bool = True
) -> dict[str, Any]:
    """As portcullis.api.status words it (test_the_real_daemon_answers_as_the_page_needs)."""
    explained = row(state, mode)
    tunnel: dict[str, Any] = {
        "attempt": 0,
        "next_attempt_in": 0,
        "notes": [],
        "implementation": "kernel",
    }
    if state is State.CONNECTED:
        tunnel |= {"handshake_age": 41, "received": 734003200, "sent": 52428800}
    if state in (State.RECONNECTING, State.CONNECTION_FAILED):
        tunnel |= {"attempt": 3, "next_attempt_in": 8}
    return {
        "ok": True,
        "version": "0.1.0",
        "state": state.value,
        "since": int(time.time()) - 600,
        "reason": "the server does not answer" if tunnel["attempt"] else "",
        "intent": "disconnected" if state in _DISCONNECTED else "connected",
        "kill_switch": {
            "enabled": True,
            "active": explained.active,
            "mode": mode.value,
            "verified": verified,
            "meaning": explained.meaning,
            "advice": explained.advice,
        },
        "lan_access": True,
        "profile": profile,
        "tunnel": tunnel,
        "networks": [
            {"name": "lan", "device": "br-lan", "prefixes": ["192.168.1.0/24", "fd00:1::/64"]},
            {"name": "guest", "device": "br-guest", "prefixes": ["192.168.3.0/24"]},
        ],
        "served": ["br-lan", "br-guest"],
        "upstream": ["eth1"],
        "endpoints": ["198.51.100.101 udp 51820"],
        "resolvers": ["10.64.0.1"],
        "blocked": {"blocked_dns": 12, "blocked_ipv6": 0, "blocked_devices": 3471},
        "restored": 0,
        "faults": [],
    }


_DISCONNECTED = (State.NOT_CONNECTED, State.DISCONNECTING)


def device(
    hostname: str,
    mac: str,
    ipv4: list[str] | None = None,
    ipv6: list[str] | None = None,
    *,
    online: bool = True,
    access: str = "default",
) -> dict[str, Any]:
    return {
        "hostname": hostname,
        "mac": mac,
        "ipv4": ipv4 or [],
        "ipv6": ipv6 or [],
        "network": "lan",
        "online": online,
        "access": access,
        "enforced": True,
        "note": "",
    }


class Router:
    """What answers a page's calls: change its attributes while the page is open."""

    def __init__(self, state: State = State.CONNECTED, mode: Mode = Mode.STANDARD) -> None:
        self.status = status(state, mode)
        self.profiles: list[dict[str, Any]] = [
            {"name": "sweden-3", "usable": True, "server": "198.51.100.101 port 51820", "note": ""},
            {"name": "norway-1", "usable": True, "server": "198.51.100.102 port 51820", "note": ""},
            {"name": "old", "usable": False, "problem": "line 3: PrivateKey is no key"},
        ]
        self.devices: list[dict[str, Any]] = [
            device("laptop", "02:00:00:00:00:01", ["192.168.1.20"], ["fd00:1::20"]),
            device("", "02:00:00:00:00:02", online=False, access="denied"),
        ]
        self.events = [
            {
                "time": int(time.time()) - 600,
                "state": "connected",
                "old_state": "connecting",
                "reason": "",
                "kill_switch_active": True,
            }
        ]
        self.refusals: dict[str, dict[str, Any]] = {}

    def become(self, state: State, mode: Mode = Mode.STANDARD) -> None:
        self.status = status(state, mode, profile=self.status["profile"])

    def __call__(self, method: str, arguments: dict[str, str]) -> dict[str, Any]:
        if method in self.refusals:
            return self.refusals[method]
        shown = {"profiles": self.profiles, "devices": self.devices, "events": self.events}
        if method in shown:
            return {"ok": True, method: shown[method]}
        if method == "status":
            return self.status
        if method == "token":
            return {"ok": True, "token": "ab" * 32, "port": 8443, "tls": True}
        return {"ok": True, "warning": ""}
