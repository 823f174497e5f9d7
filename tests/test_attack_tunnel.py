# SPDX-License-Identifier: GPL-2.0-or-later
"""K6 and K11: attacks on what is in the tunnel, from beside it (CVE-2019-14899) and out of it."""

from __future__ import annotations

import pytest
from router import addresses as at
from router import craft
from router.appliance import Appliance
from router.hostile import Conversation, onto

TUNNEL_ADDRESS = {4: at.CLIENT1.v4, 6: at.CLIENT1.v6}
WAN_ADDRESS = {4: at.ROUTER_WAN.v4}
SERVER = {4: at.FRIENDLY.v4, 6: at.FRIENDLY.v6}


# CVE-2019-14899: into a connection that is in the tunnel, from beside it -------------------------


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("where", ["isp", "lanb", "guest"])
def test_a_forged_reset_from_beside_the_tunnel_ends_no_connection_in_it(
    appliance: Appliance, where: str, version: int
) -> None:
    world = appliance.world
    if version == 4:
        with Conversation(world) as outside:
            onto(world, "isp", outside.forged(at.ROUTER_WAN.v4, craft.RST | craft.ACK))
            assert not outside.goes_on(), "no positive control"
    appliance.connect()
    with Conversation(world, SERVER[version]) as inside:
        onto(world, where, inside.forged(TUNNEL_ADDRESS[version], craft.RST | craft.ACK))
        assert inside.goes_on()


@pytest.mark.parametrize("where", ["isp", "lanb", "guest"])
def test_forged_data_from_beside_the_tunnel_comes_to_nobody(
    appliance: Appliance, where: str
) -> None:
    world = appliance.world
    appliance.connect()
    with Conversation(world) as inside:
        forged = inside.forged(at.CLIENT1.v4, craft.PSH | craft.ACK, b"forged\n")
        onto(world, where, forged)
        assert inside.goes_on()
        assert not inside.heard(b"forged")
