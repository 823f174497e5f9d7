# SPDX-License-Identifier: GPL-2.0-or-later
"""The instrument itself: with no Portcullis anywhere, everything leaks and every leak is seen."""

from __future__ import annotations

import gc
import os
import re
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from router import VirtualRouter, craft, dns, isolation
from router import addresses as at
from router.capture import Capture, FramesLost
from router.flood import Flood
from router.judge import Allowed, Endpoint
from router.measurement import flows, lan_probes, measure, multicast_probes, router_probes
from router.multicast import MulticastRouting
from router.namespace import NETNS_DIR
from router.probe import opened, run
from router.probes import DnsUdp, Icmp, Tcp, Udp
from router.wireguard import VpnServer, WireguardGo

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, or isolate()")
HERE = Path(__file__).resolve().parent
TO_VPN1 = Allowed.of(Endpoint(at.VPN1.v4), resolvers=[at.ISP.v4], names=["vpn1.example.net"])


@pytest.fixture(scope="module")
def r() -> Iterator[VirtualRouter]:
    with VirtualRouter() as router:
        yield router


class Tunnel:
    """What a person would do by hand with a provider's profile: `wg setconf` and some routes."""

    def __init__(self, r: VirtualRouter, server: VpnServer) -> None:
        self._router = r.router
        self._profile = server.profile()
        self._daemon = WireguardGo(r.router, at.TUNNEL_DEVICE)
        self._server = server

    def __enter__(self) -> Tunnel:
        device, client = at.TUNNEL_DEVICE, self._server.client
        self._daemon.start()
        self._daemon.state()  # answers when the device is there
        # what `wg-quick strip` does
        settings = re.sub(r"(?m)^(Address|DNS) = .*\n", "", self._profile)
        self._router.run(["wg", "setconf", device, "/dev/stdin"], stdin=settings)
        self._router.ip(
            f"addr add {client.v4}/32 dev {device}\naddr add {client.v6}/128 dev {device} nodad\n"
            f"link set {device} mtu 1420 up\n"
            f"route add {self._server.host.v4} via {at.ISP.v4}\n"
            + "".join(
                f"route add {half} dev {device}\n"
                for half in ("0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1")
            )
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._daemon.stop()
        self._router.ip(f"route del {self._server.host.v4}\n")


# -- positive controls ----------------------------------------------------------------------------


@pytest.mark.parametrize("masquerade", [True, False])
def test_every_probe_is_answered_and_seen_leaking(masquerade: bool) -> None:
    with VirtualRouter(masquerade=masquerade) as r, MulticastRouting(r.router):
        probes = [*lan_probes(r), *router_probes(r), *multicast_probes(r)]
        with opened(probes):
            batch = measure(r, probes)
    assert [str(result) for result in batch.unanswered()] == []
    assert [str(result) for result in batch.unseen()] == []
    harmless = [p for p in batch.results if not any(map(batch.verdict.having, p.tokens))]
    assert [str(result) for result in harmless] == []
    assert batch.tunnelled == frozenset()


@pytest.mark.parametrize(("masquerade", "seen"), [(True, at.ROUTER_WAN.v4), (False, at.LAN_A.v4)])
def test_answers_tell_from_where_they_were_asked(masquerade: bool, seen: str) -> None:
    with VirtualRouter(masquerade=masquerade, dnsmasq=False) as r:
        [result] = run([Udp(r.lana, at.FRIENDLY.v4)])
    assert (result.names, result.sources) == ({"friendly": 3}, {seen: 3})


def test_leaks_are_described_for_a_person() -> None:
    with VirtualRouter(masquerade=False, dnsmasq=False) as r:
        batch = measure(r, [Udp(r.lana, at.FRIENDLY.v4, held=True)], count=2)
    pattern = r"2 x UDP 192\.168\.1\.10:\d+ → 198\.51\.100\.7:7 \(un-NATed\)"
    assert re.search(pattern, str(batch.verdict))


def test_a_flood_is_answered_whole(r: VirtualRouter) -> None:
    targets = [at.FRIENDLY.v4, at.FRIENDLY.v6]
    with Capture(r.isp, r.access) as wan, Flood(r.lana, targets, rate=1000, held=2) as flood:
        wan.wait_for(flood.token + b"-500 ")
        totals = flood.finish()
    assert totals.answered == totals.sent
    assert set(totals.sources) == {at.ROUTER_WAN.v4, at.LAN_A.v6}
    assert sum(frame.raw.count(flood.token) for frame in wan.frames) >= totals.sent.total()


def test_resolvers_tell_who_they_are(r: VirtualRouter) -> None:
    probes = [
        DnsUdp(r.lana, resolver) for resolver in (at.ROUTER_LAN.v4, at.PUBLIC_DNS.v6, at.ISP.v4)
    ]
    names = [set(result.names) for result in run(probes, count=1)]
    assert names == [{"isp"}, {"public-dns"}, {"isp"}]
    token = next(iter(probes[1].attempts)).decode()
    [query] = [q for q in r.servers.queries("public-dns") if q.name.startswith(token)]
    assert (query.source, query.transport) == (at.LAN_A.v6, "udp")


def test_dnsmasq_knows_the_lan(r: VirtualRouter) -> None:
    found = {name: _ask(r, name) for name in ("router.lan", "lanb.lan", "vpn2.example.net")}
    assert found == {
        "router.lan": at.ROUTER_LAN.v4,
        "lanb.lan": at.LAN_B.v4,
        "vpn2.example.net": at.VPN2.v4,
    }


def _ask(r: VirtualRouter, name: str) -> str:
    with r.lana.socket() as sock:
        sock.settimeout(3)
        sock.connect((at.ROUTER_LAN.v4, 53))
        sock.send(dns.query(7, name, dns.A))
        return dns.parse(sock.recv(512)).answers[0]


# -- the tunnel -----------------------------------------------------------------------------------


def test_a_tunnel_by_hand_carries_everything_and_the_judge_agrees() -> None:
    with VirtualRouter() as r, Tunnel(r, r.vpn1):
        probes = [*flows(r.lana), *flows(r.guest, at.HOSTILE), DnsUdp(r.lana, at.TUNNEL1.v4)]
        with opened(probes):
            batch = measure(r, probes, TO_VPN1, count=2)
        decrypted = r.vpn1.decrypted
    assert [str(result) for result in batch.unanswered()] == []
    assert [str(result) for result in batch.untunnelled()] == []
    assert batch.verdict.clean, str(batch.verdict)
    assert batch.verdict.passed["tunnel"] > batch.sent
    assert decrypted >= batch.sent
    sources = {source for result in batch.results for source in result.sources if source}
    assert sources == {at.VPN1.v4, at.VPN1.v6, at.CLIENT1.v4}


def test_servers_misbehave_on_request_and_recover() -> None:
    with VirtualRouter(dnsmasq=False) as r:

        def answered() -> bool:
            return run([Icmp(r.router, at.TUNNEL1.v4)], 1, 0.5)[0].answered == 1

        with Tunnel(r, r.vpn1):
            assert answered()
            r.vpn1.blackhole()
            assert not answered()
            r.vpn1.unblackhole()
            assert answered()
            r.vpn1.remove_client_key()
            assert not answered()
        with Tunnel(r, r.vpn1):
            assert not answered()
        r.vpn1.restore_client_key()
        with Tunnel(r, r.vpn1):
            assert answered()
            r.vpn1.stop()
            assert not answered()
        r.vpn1.start()
        with Tunnel(r, r.vpn1):
            assert answered()


def test_a_stopped_server_is_told_by_icmp_unless_that_is_dropped(r: VirtualRouter) -> None:
    def error() -> str:
        return run([Udp(r.router, at.VPN2.v4, at.WIREGUARD_PORT)], 1, 0.3)[0].attempts[0].error

    r.vpn2.stop()
    assert error() == "ECONNREFUSED"
    r.vpn2.drop_icmp()
    assert error() == ""
    r.vpn2.allow_icmp()
    r.vpn2.start()


def test_a_black_hole_is_silent_in_both_families(r: VirtualRouter) -> None:
    r.vpn2.blackhole()
    [v4, v6] = run([Udp(r.router, at.VPN2.v4), Udp(r.router, at.VPN2.v6)], 1, 0.3)
    r.vpn2.unblackhole()
    assert (v4.answered, v4.refused, v6.answered, v6.refused) == (0, 0, 0, 0)


# -- fw4 ------------------------------------------------------------------------------------------


def test_the_firewall_does_as_fw4_does(r: VirtualRouter) -> None:
    def tables() -> list[str]:
        return r.router.run(["nft", "list", "tables"]).stdout.split("\n")[:-1]

    r.router.nft("table inet other {\n}\n")
    r.firewall.reload()
    assert tables() == ["table inet fw4", "table inet other"]
    r.firewall.stop()
    assert tables() == ["table inet other"]
    r.firewall.restart()
    assert tables() == ["table inet other", "table inet fw4"]
    r.firewall.flush()
    assert tables() == []
    r.firewall.start()


def test_guests_reach_neither_the_router_nor_the_lan(r: VirtualRouter) -> None:
    results = run([Tcp(r.guest, at.ROUTER_GUEST.v4, 22), Udp(r.guest, at.LAN_A.v4)], 1, 0.5)
    assert [result.answered for result in results] == [0, 0]
    assert [result.refused for result in results] == [1, 1]


# -- the capture ----------------------------------------------------------------------------------


def test_a_capture_that_missed_a_frame_says_so(r: VirtualRouter) -> None:
    capture = Capture(r.isp, r.access, megabytes=1)
    with capture:
        with capture._news, r.lana.socket() as sock:  # the reader is held up
            for _ in range(4000):
                sock.sendto(b"x" * 1400, (at.FRIENDLY.v4, 9))
        with pytest.raises(FramesLost):
            capture.flush()
        capture._lost = 0


def test_a_capture_restores_vlan_tags(r: VirtualRouter) -> None:
    raw = craft.ethernet(craft.udp(at.LAN_A.v4, 1, at.VPN1.v4, at.WIREGUARD_PORT, b"x" * 64))
    tagged = raw[:12] + b"\x81\0\0\7" + raw[12:]
    sock = r.router.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with Capture(r.isp, r.access) as wan, sock:
        sock.bind((at.WAN_DEVICE, 0))
        sock.send(tagged)
    assert tagged in [frame.raw for frame in wan.frames]


# -- coming and going -----------------------------------------------------------------------------


def _world(maker: int = os.getpid()) -> tuple[object, ...]:
    """Everything a router that `maker` made might leave behind. Other routers may come and go:
    tests run side by side."""
    gc.collect()  # what other tests left is not to be closed in between
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    routers = [p.name for p in Path("/run").glob(f"vr{maker:x}-*")]
    spaces = [p.name for p in NETNS_DIR.glob(f"vr{maker:x}-*")]
    return children, routers, spaces, threading.active_count(), len(os.listdir("/proc/self/fd"))


def test_nothing_is_left_behind() -> None:
    before = _world()
    with VirtualRouter() as r, Capture(r.isp, r.access):
        left_running = r.router.popen(["sleep", "1000"])
    assert left_running.wait(1) == -9
    assert _world() == before


@pytest.mark.parametrize("step", ["_make_links", "await_ready"])
def test_nothing_is_left_behind_after_a_failure(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("on purpose")

    before = _world()
    monkeypatch.setattr(VirtualRouter if step == "_make_links" else VpnServer, step, fail)
    with pytest.raises(RuntimeError, match="on purpose"), VirtualRouter():
        pass
    assert _world() == before


def test_a_killed_test_leaves_nothing_behind() -> None:
    code = (
        "import os, signal\nfrom router import VirtualRouter\n"
        "r = VirtualRouter().__enter__()\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # the warden and all that it ends hold the pipe; it is closed when they are gone
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout
        output = b""
        while select.select([process.stdout], [], [], 20)[0]:
            data = os.read(process.stdout.fileno(), 4096)
            if not data:
                break
            output += data
        else:
            pytest.fail(f"something still lives: {output!r}")
    routers, spaces = _world(process.pid)[1:3]
    assert (routers, spaces) == ([], [])


def test_two_routers_do_not_meet(r: VirtualRouter) -> None:
    with VirtualRouter() as other, Capture(r.isp, r.access) as wan:
        [result] = run([Udp(other.lana, at.FRIENDLY.v4)])
    assert result.answered == 3
    assert not any(wan.having(token) for token in result.tokens)


def _isolated(
    wrap: Callable[[list[str]], list[str]] = list, python: str = sys.executable
) -> list[str]:
    code = (
        "import os\nfrom router import VirtualRouter, isolation\nisolation.isolate()\n"
        "from router.measurement import measure\nfrom router.probes import Udp\n"
        "with VirtualRouter() as r:\n"
        "    batch = measure(r, [Udp(r.lana, '198.51.100.7')])\n"
        "print(batch.answered, len(batch.on_wan), sorted(os.listdir('/run/netns')))\n"
    )
    env = {k: v for k, v in os.environ.items() if k != isolation.MARK}
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    done = subprocess.run(
        wrap([python, "-c", code]),
        cwd=HERE,
        env=env,
        timeout=60,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")


def test_isolated_as_root() -> None:
    before = _world()
    assert _isolated()[0] == "3 3 []"
    assert _world() == before


def test_isolated_without_privileges() -> None:
    if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
        pytest.skip("is in a user namespace already: everything here shows it")
    # on many systems anybody may open /dev/net/tun; where not, a private one stands in
    mine = "/run/lock" if Path("/run/lock").is_dir() else "/mnt"
    script = (
        f"mount -t tmpfs tmpfs {mine} && mknod {mine}/tun c 10 200 && chmod 666 {mine}/tun"
        f" && mount --bind {mine}/tun /dev/net/tun && exec setpriv --reuid 65534 --regid 65534"
        ' --clear-groups "$@"'
    )

    def nobody_can(*argv: str) -> bool:
        drop = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *argv]
        return subprocess.run(drop, capture_output=True, check=False).returncode == 0

    pythons = [p for p in (sys.executable, "/usr/bin/python3") if nobody_can("test", "-x", p)]
    if not pythons:
        pytest.skip(f"{sys.executable} is not for others")
    if not nobody_can("unshare", "-Urnm", "true"):
        pytest.skip("this kernel gives no user namespaces to ordinary users")
    output = _isolated(lambda argv: ["unshare", "-m", "sh", "-ec", script, "sh", *argv], pythons[0])
    assert output[0] == "3 3 []"
