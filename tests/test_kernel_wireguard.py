# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's own WireGuard as the tunnel; the server stays wireguard-go.

For kernels that have it, as the virtual machine's (`make test-vm`).
"""

from __future__ import annotations

import json
import os
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from typing import Any, NamedTuple

import pytest
from router import addresses as at
from router.appliance import Appliance
from router.isolation import OWN_CLOCK
from router.judge import Allowed, Endpoint
from router.measurement import measure
from router.probe import opened, run
from router.probes import DnsUdp, Icmp, Tcp, Udp
from router.wireguard import DEVICE

from portcullis.policy import MARK

pytestmark = pytest.mark.vm
PATIENCE = 60.0  # the virtual machine is slow
TO_VPN1 = Allowed.of(Endpoint(at.VPN1.v4))
NETWORKS = (
    *(f"100.{64 + n // 256}.{n % 256}.0/24" for n in range(2000)),
    *(f"fc00:{n:x}::/32" for n in range(1, 1001)),
)
PRESHARED = b64encode(bytes(range(1, 33))).decode()

# Outside the daemon, so that nothing else sets the peers: two starts, and after each the time
# until a handshake was made. {0}: folder, {1}: profile, {2}: endpoint, {3}: who is asked
_TWO_STARTS = """
import socket, sys, time
from pathlib import Path
from portcullis import profiles
from portcullis.policy import Socket
from portcullis.wireguard import WireGuard
folder, name, endpoint, port, inside = sys.argv[1:]
driver = WireGuard(lambda fd: None, lambda fd: None)
profile = profiles.load(Path(folder), name)
for _ in range(2):
    driver.start(profile, (Socket(endpoint, "udp", int(port)),))
    assert driver.reading() == (0.0, 0, 0), driver.reading()
    began = time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"pc0")
        sender.sendto(b"x", (inside, 9))
    while not driver.reading().handshake:
        time.sleep(0.01)
    print(time.monotonic() - began)
driver.stop()
"""
_READ = """
import sys, time
from portcullis.wireguard import _Kernel
_Kernel().reading()
began = time.process_time()
print(_Kernel().reading().received, time.process_time() - began)
"""


class Peer(NamedTuple):
    """A peer's line of `wg show dump`."""

    public_key: str
    preshared_key: str
    endpoint: str
    allowed_ips: str
    handshake: str
    received: str
    sent: str
    keepalive: str


@pytest.fixture(scope="module")
def router() -> Iterator[Appliance]:
    with Appliance() as found:
        start(found)
        yield found


@pytest.fixture
def connected(router: Appliance) -> Appliance:
    connect(router, "vpn1")
    return router


def start(router: Appliance) -> None:
    router.start(wait=False)
    router.until(router.answers, "the daemon answers", PATIENCE)


def connect(router: Appliance, profile: str) -> None:
    answer = ask(router, "connect", profile=profile)
    assert answer["ok"], answer
    await_connection(router)


def await_connection(router: Appliance) -> None:
    router.until(lambda: status(router)["state"] == "connected", "connected", PATIENCE)


def status(router: Appliance) -> dict[str, Any]:
    return ask(router, "status")


def ask(router: Appliance, method: str, **arguments: str) -> dict[str, Any]:
    """As Appliance.call, with the patience that a slow machine and a large profile need."""
    (answer,) = router.bus.call("portcullis", method, arguments, timeout=int(PATIENCE * 1000))
    return answer


def dump(router: Appliance) -> tuple[list[str], Peer]:
    """What the kernel says: the device's values, and its only peer."""
    text = router.world.router.run(["wg", "show", "pc0", "dump"]).stdout
    device, peer = (line.split("\t") for line in text.splitlines())
    return device, Peer(*peer)


def device(router: Appliance) -> Any:
    """The tunnel's device as `ip` shows it, or None."""
    shown = ["ip", "-json", "-details", "address", "show", "dev", "pc0"]
    text = router.world.router.run(shown, check=False).stdout
    return json.loads(text)[0] if text.strip() else None


def answered(router: Appliance, host: at.Host = at.FRIENDLY) -> bool:
    """Whether a LAN device reaches `host` through the tunnel, in both families."""
    results = run([Udp(router.world.lana, host.v4), Udp(router.world.lana, host.v6)], 1, 2.0)
    through = {at.VPN1.v4, at.VPN1.v6}
    return all(r.answered == 1 and set(r.sources) <= through for r in results)


def test_the_kernel_carries_the_tunnel(connected: Appliance) -> None:
    assert status(connected)["tunnel"]["implementation"] == "kernel"
    assert device(connected)["linkinfo"] == {"info_kind": "wireguard"}


def test_both_families_go_through_the_tunnel_and_nothing_past_it(connected: Appliance) -> None:
    world = connected.world
    targets = at.FRIENDLY.v4, at.FRIENDLY.v6
    probes = [kind(world.lana, to) for to in targets for kind in (Udp, Tcp, Icmp)]
    probes += [Udp(world.lana, to, size=3000) for to in targets]
    probes += [DnsUdp(world.lana, at.ROUTER_LAN.v4), Udp(world.router, at.HOSTILE.v4)]
    with opened(probes, timeout=15.0):
        batch = measure(world, probes, TO_VPN1, count=2, timeout=10.0)
    assert [str(result) for result in batch.unanswered()] == []
    assert [str(result) for result in batch.untunnelled()] == []
    assert batch.verdict.clean, str(batch.verdict)


def test_the_tunnels_own_packets_are_marked(connected: Appliance) -> None:
    (_, _, _, mark), _ = dump(connected)
    assert int(mark, 0) == MARK


def test_addresses_are_hosts_and_the_mtu_leaves_room(connected: Appliance) -> None:
    found = device(connected)
    addresses = {f"{a['local']}/{a['prefixlen']}" for a in found["addr_info"]}
    assert addresses == {f"{at.CLIENT1.v4}/32", f"{at.CLIENT1.v6}/128"}
    assert (found["mtu"], "UP" in found["flags"]) == (1420, True)


def test_the_mtu_follows_a_narrower_line(router: Appliance) -> None:
    router.world.router.ip("link set eth1 mtu 1492\n")
    try:
        connect(router, "vpn2")
        assert device(router)["mtu"] == 1412
    finally:
        router.world.router.ip("link set eth1 mtu 1500\n")


def test_a_peer_arrives_whole(router: Appliance) -> None:
    world, server = router.world, router.world.vpn1
    key = server.client_keys.public
    preshared = ["wg", "set", DEVICE, "peer", key, "preshared-key"]
    extra = f"PresharedKey = {PRESHARED}\nPersistentKeepalive = 25\n"
    text = server.profile(extra=extra)
    text = text.replace("AllowedIPs = ", f"AllowedIPs = {', '.join(NETWORKS)}, ")
    router.add_profile("many", text)
    server.netns.run([*preshared, "/dev/stdin"], stdin=f"{PRESHARED}\n")
    try:
        connect(router, "many")
        (private, _, _, mark), peer = dump(router)
        assert (private, int(mark, 0)) == (server.client_keys.private, MARK)
        assert peer.public_key == server.keys.public
        assert (peer.preshared_key, peer.keepalive) == (PRESHARED, "25")
        assert peer.endpoint == f"{at.VPN1.v4}:{server.port}"
        wanted = {ip_network(n) for n in (*NETWORKS, "0.0.0.0/0", "::/0")}
        assert set(map(ip_network, peer.allowed_ips.split(","))) == wanted
        assert answered(router)
        tunnel = status(router)["tunnel"]
        assert tunnel["handshake_age"] >= 0
        assert tunnel["received"] > 0
        received, seconds = world.router.run(
            [sys.executable, "-c", _READ], env=router.environment(), timeout=60
        ).stdout.split()
        print(f"reading a peer of {len(wanted)} networks: {float(seconds) * 1000:.0f} ms")
        assert int(received) >= tunnel["received"]
    finally:
        server.netns.run([*preshared, "/dev/null"])


def test_the_counters_are_the_kernels(connected: Appliance) -> None:
    before = status(connected)["tunnel"]
    assert answered(connected)
    _, peer = dump(connected)
    after = status(connected)["tunnel"]
    assert before["received"] < int(peer.received) <= after["received"]
    assert before["sent"] < int(peer.sent) <= after["sent"]
    assert 0 <= after["handshake_age"] < 180


def test_peers_set_anew_shake_hands_at_once(router: Appliance) -> None:
    assert ask(router, "disconnect")["ok"]
    router.until(lambda: device(router) is None, "no pc0", PATIENCE)
    world, server = router.world, router.world.vpn1
    router.stop()
    try:
        world.router.nft("flush ruleset\n")
        arguments = [str(router.home / "profiles"), "vpn1", at.VPN1.v4, str(server.port)]
        done = world.router.run(
            [sys.executable, "-c", _TWO_STARTS, *arguments, at.TUNNEL1.v4],
            env=router.environment(),
            timeout=60,
        )
    finally:
        start(router)
    waits = [float(line) for line in done.stdout.split()]
    assert len(waits) == 2
    assert max(waits) < 4  # WireGuard itself would wait 5 s


def test_a_deleted_device_is_noticed_and_made_again(connected: Appliance) -> None:
    before = device(connected)["ifindex"]
    connected.world.router.ip("link del pc0\n")
    connected.until(
        lambda: (found := device(connected)) and found["ifindex"] != before, "a new pc0", PATIENCE
    )
    await_connection(connected)
    assert status(connected)["tunnel"]["implementation"] == "kernel"
    connected.until(lambda: answered(connected), "traffic again", PATIENCE)


@pytest.mark.parametrize("harm", ["link set pc0 down\n", "addr flush dev pc0\n"])
def test_a_device_that_was_set_otherwise_is_put_right(connected: Appliance, harm: str) -> None:
    connected.until(lambda: answered(connected), "traffic", PATIENCE)
    connected.world.router.ip(harm)
    connected.until(lambda: answered(connected), "traffic again", PATIENCE)


def test_a_device_put_in_its_place_is_replaced(connected: Appliance) -> None:
    connected.world.router.ip("link del pc0\nlink add pc0 type wireguard\n")
    connected.until(lambda: answered(connected), "traffic again", PATIENCE)


def test_disconnecting_removes_the_device(connected: Appliance) -> None:
    assert ask(connected, "disconnect")["ok"]
    connected.until(lambda: status(connected)["state"] == "not_connected", "the end", PATIENCE)
    assert device(connected) is None


DAYS = 2 * 86400.0


@contextmanager
def set_back(seconds: float) -> Iterator[None]:
    """The guest's clock, and afterwards as if nothing had been. The server has the same clock,
    and remembers the handshakes of before."""
    wall, began = time.time(), time.monotonic()
    time.clock_settime(time.CLOCK_REALTIME, wall - seconds)
    try:
        yield
    finally:
        time.clock_settime(time.CLOCK_REALTIME, wall + time.monotonic() - began)


@pytest.mark.skipif(OWN_CLOCK not in os.environ, reason="this machine's clock is not ours to set")
def test_a_router_that_boots_in_the_past_connects_again(router: Appliance) -> None:
    connect(router, "vpn1")
    remembered, kept = router.home / "clock", router.home / "kept"
    newest = remembered.stat().st_mtime
    router.kill()
    (router.run_dir / "clock").unlink()  # as the power was cut
    remembered.rename(kept)
    with set_back(DAYS):
        start(router)
        # The control: with no time remembered the server refuses, and would for two days.
        router.until(
            lambda: status(router)["state"] == "connection_failed", "locked out", 2 * PATIENCE
        )
        assert "no answer from" in status(router)["reason"]
        router.kill()
        kept.rename(remembered)
        start(router)
        await_connection(router)
        assert time.time() > newest
        assert "the clock may be late" in router.log.read_text()
        assert answered(router)
    # Told by a clock that was wrong when it began, and is right by now.
    assert abs(status(router)["since"] - time.time()) < 2 * PATIENCE
