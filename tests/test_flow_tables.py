# SPDX-License-Identifier: GPL-2.0-or-later
"""K3 on real flow tables: what the kernel forwards past every chain ends when blocking begins.

For kernels that have them, as the virtual machine's (`make test-vm`).
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from router import addresses as at
from router.appliance import Appliance
from router.capture import Capture
from router.flood import Flood
from router.frame import Frame
from router.judge import judge
from router.leaktest import ALLOWED

pytestmark = pytest.mark.vm
PATIENCE = 60.0
PORT = 9999


@pytest.fixture(params=[True, False], ids=["NATed", "un-NATed"])
def router(request: pytest.FixtureRequest) -> Iterator[Appliance]:
    """A router whose fw4 offloads flows in software, not connected."""
    with Appliance(masquerade=request.param, offload=True) as found:
        found.answers_within = int(PATIENCE)
        found.start(wait=False)
        found.until(found.answers, "the daemon answers", PATIENCE)
        yield found


class Conversation:
    """A UDP flow of a LAN device to the internet, in which either side speaks when it likes."""

    def __init__(self, router: Appliance, target: str) -> None:
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        self._server = router.world.inet.socket(family)
        self._server.bind((target, PORT))
        self._client = router.world.lana.socket(family)
        self._client.connect((target, PORT))
        for one in (self._server, self._client):
            one.settimeout(5)
        for _ in range(4):  # both directions, and then as an established flow
            self._client.send(b"out")
            _, self._peer = self._server.recvfrom(100)
            self._server.sendto(b"in", self._peer)
            self._client.recv(100)

    def close(self) -> None:
        self._server.close()
        self._client.close()

    def say(self, token: bytes, count: int = 20) -> int:
        """Have both sides speak; how much reached the LAN device uninvited."""
        self._client.settimeout(0.5)
        for _ in range(count):
            for speak in (
                lambda: self._server.sendto(token, self._peer),
                lambda: self._client.send(token),
            ):
                try:
                    speak()
                except OSError:
                    continue  # told that it is blocked
        heard = 0
        while True:
            try:
                heard += self._client.recv(100) == token
            except TimeoutError:
                return heard
            except OSError:
                continue


def offloaded(router: Appliance) -> list[str]:
    """The flows of the connection table that a flow table carries."""
    table = router.world.router.run(["cat", "/proc/net/nf_conntrack"]).stdout
    return [line for line in table.splitlines() if "[OFFLOAD]" in line]


@contextmanager
def under_way(router: Appliance) -> Iterator[tuple[Flood, list[Conversation]]]:
    """A flood and conversations, all held flows of them offloaded."""
    with ExitStack() as undo:
        talks = [Conversation(router, address) for address in at.FRIENDLY.addresses]
        for talk in talks:
            undo.callback(talk.close)
        targets = list(at.FRIENDLY.addresses)
        flood = undo.enter_context(Flood(router.world.lana, targets, rate=100, held=4))

        def all_offloaded() -> bool:
            carried = "\n".join(offloaded(router))
            held = len(re.findall(r"dport=7 .*dport", carried))
            return held >= 8 and len(re.findall(f"dport={PORT} ", carried)) >= 2

        router.until(all_offloaded, "every held flow is offloaded", PATIENCE)
        yield flood, talks


def leaked(frames: list[Frame], since: float) -> str:
    verdict = judge([frame for frame in frames if frame.time > since], ALLOWED)
    return "" if verdict.clean else str(verdict)


def connect(router: Appliance) -> None:
    router.world.vpn1.blackhole()
    assert router.call("connect", profile="vpn1")["ok"]


def at_all_times(router: Appliance) -> None:
    assert router.call("set", name="mode", value="at_all_times")["ok"]


@pytest.mark.parametrize("arm", [connect, at_all_times], ids=["connect", "at all times"])
def test_offloaded_flows_end_when_blocking_begins(
    router: Appliance, arm: Callable[[Appliance], None]
) -> None:
    with under_way(router) as (flood, talks), Capture(router.world.isp, "access") as wan:
        assert [talk.say(b"control") for talk in talks] == [20, 20], "no positive control"
        assert wan.having(b"control")
        before = flood.totals()
        arm(router)
        armed = time.time()
        assert [talk.say(b"blocked") for talk in talks] == [0, 0]
        router.until(
            lambda: (flood.totals() - before).sent["udp"] > 200, "the flood goes on", PATIENCE
        )
        frames = wan.flush()
        assert not [frame for frame in frames if b"blocked" in frame.raw]
        assert not leaked(frames, armed)
    assert not offloaded(router)


def test_nothing_leaves_while_the_tunnel_is_lost_and_found(router: Appliance) -> None:
    """Flows into the tunnel are offloaded as well, where fw4 knows its device."""
    world = router.world
    assert router.call("connect", profile="vpn1")["ok"]
    router.until_state("connected", patience=PATIENCE)
    targets = list(at.FRIENDLY.addresses)
    with Flood(world.lana, targets, rate=100) as flood, Capture(world.isp, world.access) as wan:
        router.until(lambda: flood.totals().answered.total() > 200, "a flood", PATIENCE)
        world.vpn1.blackhole()
        assert router.call("connect", profile="vpn2")["ok"]
        router.until(lambda: router.status()["profile"] == "vpn2", "vpn2", PATIENCE)
        router.until_state("connected", patience=PATIENCE)
        router.until(lambda: flood.totals().sources[at.VPN2.v4] > 20, "traffic", PATIENCE)
        assert not leaked(wan.flush(), 0.0)
