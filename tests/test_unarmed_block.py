# SPDX-License-Identifier: GPL-2.0-or-later
"""K5: no verified block, no way out; said loudly, tried again, and given back. Under load."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from router import addresses as at
from router.appliance import Appliance
from router.capture import Capture
from router.flood import Flood
from router.judge import judge
from router.leaktest import ALLOWED
from router.measurement import lan_probes, measure
from router.probe import run
from router.probes import Icmp
from router.sabotage import Sabotage

TABLE = "inet portcullis"


@pytest.fixture
def router() -> Iterator[Appliance]:
    """Its daemon does not run yet."""
    with Appliance() as found:
        yield found


def up(appliance: Appliance) -> bool:
    shown = appliance.world.router.run(["ip", "link", "show", at.WAN_DEVICE]).stdout
    return "state UP" in shown


def forwards(appliance: Appliance) -> bool:
    switch = ["cat", "/proc/sys/net/ipv4/ip_forward"]
    return appliance.world.router.run(switch).stdout.strip() == "1"


def lan_is_answered(appliance: Appliance) -> bool:
    return all(r.answered for r in run([Icmp(appliance.world.lana, at.ROUTER_LAN.v4)], 2, 0.5))


def renumber(appliance: Appliance) -> None:
    """What netifd does when a device comes up again."""
    appliance.world.router.ip(
        "addr replace 2001:db8:ffff::2/64 dev eth1 nodad\n"
        "route replace default via 203.0.113.1\nroute replace ::/0 via 2001:db8:ffff::1\n"
    )


def test_a_block_that_cannot_be_armed_takes_the_line_down_and_gives_it_back(
    router: Appliance,
) -> None:
    sabotage = Sabotage(router)
    world = router.world
    with Flood(world.lana, list(at.FRIENDLY.addresses), rate=300) as flood:
        router.connect()
        with Capture(world.isp, world.access) as wan:
            sabotage.refuse(TABLE)
            router.delete_table(TABLE)
            router.until(lambda: not up(router), "the line is down", 5)
            found = router.status()
            assert found["state"] == "connection_failed"
            assert "Operation not supported" in found["reason"]
            assert not found["kill_switch"]["verified"]
            assert found["kill_switch"]["active"]
            assert found["layers"]["packet_filter"] == "nft: Operation not supported"
            assert "NOT VERIFIED" in router.ctl("status", check=False).stdout
            assert lan_is_answered(router), "K14"
            before = flood.totals().sent.total()
            world.router.ip("link set eth1 up\n")  # netifd, or somebody, brings it up again
            router.until(lambda: not up(router), "it is down again", 5)
            router.until(lambda: flood.totals().sent.total() > before + 300, "more flood")
            sabotage.allow(TABLE)
            router.until(lambda: up(router), "the line is given back", 10)
            renumber(router)
            router.until_state("connected", patience=40)
        verdict = judge(wan.frames, ALLOWED)
        assert verdict.clean, str(verdict)
    assert router.status()["kill_switch"]["verified"]
    assert router.status()["faults"] == []


def test_where_the_line_is_shared_with_the_house_forwarding_is_switched_off_instead(
    router: Appliance,
) -> None:
    """The gateway on the LAN: that device stays up (K14), and nothing is forwarded."""
    world = router.world
    world.router.ip(f"link set eth1 down\nroute add default via {at.LAN_B.v4}\n")
    Sabotage(router, TABLE)
    router.call("connect", profile="vpn1")
    router.until(lambda: not forwards(router), "forwarding is off", 5)
    bridge = world.router.run(["ip", "link", "show", at.LAN_BRIDGE]).stdout
    assert "state UP" in bridge
    assert lan_is_answered(router)


def test_what_was_taken_is_given_back_by_a_later_process(router: Appliance) -> None:
    sabotage = Sabotage(router, TABLE)
    router.call("connect", profile="vpn1")
    router.until(lambda: not up(router), "the line is down", 5)
    record = Path(router.run_dir / "last-resort")
    assert record.exists()
    router.kill()
    sabotage.allow(TABLE)
    router.start()
    router.until(lambda: up(router), "the line is given back", 10)
    renumber(router)
    router.until_state("connected", patience=40)
    assert not record.exists()


def test_a_block_that_is_not_wanted_takes_nothing(router: Appliance) -> None:
    """Disconnected in standard mode, a broken packet filter is a fault and no more."""
    Sabotage(router, TABLE)
    assert any(fault.startswith("packet filter: ") for fault in router.status()["faults"])
    assert up(router)
    taken = router.log.read_text().count("eth1 taken down")  # until the settings had been read
    assert router.call("reload")["ok"]
    assert router.log.read_text().count("eth1 taken down") == taken
    renumber(router)
    assert measure(router.world, lan_probes(router.world)[:2]).answered
