# SPDX-License-Identifier: GPL-2.0-or-later
"""The self-test (K18): on this router, now, with real packets.

A process of its own (`__main__`), because the core has one thread and must go on repairing.
It sends packets of every source class towards an address that belongs to nobody, and sees by a
capture on all devices which of them leave. It changes no rule, and all it makes are two kinds of
devices that are gone with its last descriptor, however it ends.
"""

from __future__ import annotations

PROPERTIES = {
    "K1": "What your devices send leaves by the tunnel alone",
    "K2": "What the router itself sends leaves by the tunnel alone",
    "K4": "A new connection of the router counts as the internet",
    "K5": "The rules in the kernel are the right ones",
    "K9": "Each layer of the block works by itself",
    "K11": "The tunnel's own way out is open to nobody else",
    "K12": "DNS leaves by the tunnel alone",
    "K14": "The router answers your own networks",
}
"""Property of the contract → in plain words, in the order in which they are tested."""

BLOCKING = ("K1", "K2", "K4", "K9", "K11", "K12")
"""Those that hold while the kill switch is active, and are not asked for otherwise."""

WAITING, RUNNING, PASS, FAIL = "waiting", "running", "pass", "fail"
NOT_TESTABLE = "not_testable"

DEVICES = "pctest"
"""How the names of the self-test's own devices begin."""

STATION_MAC = "02:50:43:74:65:73"
"""Of the device that the self-test pretends to be in the house: not one of the owner's."""
