# SPDX-License-Identifier: GPL-2.0-or-later
"""The diagnostics report: what helps to find a fault, without what must not be passed on."""

from __future__ import annotations

import json
import time
from typing import Any

from portcullis.profile import secrets_removed

PARTS = ("status", "get", "profiles", "events", "traffic", "devices", "selftest_result", "log")
_ABOUT = (
    "Portcullis diagnostics. Keys were removed. It names your networks, devices, profiles and"
    " VPN servers: look through it before you pass it on."
)


def render(parts: dict[str, Any], now: float) -> str:
    """All parts as one text, in JSON."""
    made = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(now))
    text = json.dumps({"about": _ABOUT, "made": made, **parts}, indent=1, sort_keys=True)
    return secrets_removed(text) + "\n"
