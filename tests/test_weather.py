# SPDX-License-Identifier: GPL-2.0-or-later
"""A bad line: packets that are late and lost are no lost tunnel, and no way out.

For kernels with netem, as the virtual machine's (`make test-vm`).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from router import addresses as at
from router.appliance import Appliance
from router.capture import Capture
from router.flood import Flood
from router.judge import judge
from router.leaktest import ALLOWED

pytestmark = pytest.mark.vm
PATIENCE = 60.0
WATCHED = 40.0
TRANSITIONS = ["connecting", "connected"]
# On each side of the line: a round trip takes 300 ms, and one of five is lost.
NETEM = "netem delay 150ms 20ms loss 10%"


@pytest.fixture
def router() -> Iterator[Appliance]:
    with Appliance() as found:
        for space, device in ((found.world.router, at.WAN_DEVICE), (found.world.isp, "access")):
            space.run(["tc", "qdisc", "add", "dev", device, "root", *NETEM.split()])
        found.answers_within = int(PATIENCE)
        found.start(wait=False)
        found.until(found.answers, "the daemon answers", PATIENCE)
        yield found


def test_on_a_bad_line_it_connects_and_stays_connected(router: Appliance) -> None:
    world = router.world
    with Capture(world.isp, world.access) as wan:
        assert router.call("connect", profile="vpn1")["ok"]
        took = router.until_state("connected", patience=PATIENCE)
        with Flood(world.lana, list(at.FRIENDLY.addresses), rate=50, held=2, blind=True) as flood:
            router.until(lambda: flood.totals().seconds > WATCHED, "a while", 2 * WATCHED)
            totals = flood.finish()
        assert [e["state"] for e in reversed(router.call("events")["events"])] == TRANSITIONS
        verdict = judge(wan.flush(), ALLOWED)
    print(f"connected after {took:.1f} s; {totals}; {verdict}")
    assert verdict.clean, str(verdict)
    answered = totals.answered.total() / totals.sent.total()
    assert 0.5 < answered < 0.95, f"no bad line: {totals}"
    assert totals.sources.keys() == {at.VPN1.v4, at.VPN1.v6}
