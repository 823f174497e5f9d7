# SPDX-License-Identifier: GPL-2.0-or-later
"""The instrument itself: with no Portcullis anywhere, everything leaks and every leak is seen."""

from __future__ import annotations

import os
import re
import select
import socket
import struct
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
from router.frame import ETH_ARP, ETH_EAPOL, ETH_PPPOE_DISCOVERY, ETH_PPPOE_SESSION, Frame, mac
from router.judge import Allowed, Endpoint, Verdict, judge
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


# -- the judge ------------------------------------------------------------------------------------

WG = at.WIREGUARD_PORT
WAN, WAN_LL = at.ROUTER_WAN, "fe80::5eff:fe00:5302"
INITIATION = b"\1\0\0\0" + b"x" * 144
DATA = b"\4\0\0\0" + b"x" * 28
DHCP = b"\1\1\6\0" + b"\0" * 24 + mac(at.WAN_MAC) + b"\0" * 202 + b"\x63\x82\x53\x63\x35\1\1\xff"
BOOTSTRAP = dns.query(1, "vpn1.example.net", dns.A)


def _udp(source: str, sport: int, target: str, dport: int, payload: bytes) -> bytes:
    return craft.ethernet(craft.udp(source, sport, target, dport, payload))


def _arp(sender: str, mac_address: str = at.WAN_MAC, operation: int = 1) -> bytes:
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + mac(mac_address)
    body += socket.inet_aton(sender) + b"\0" * 6 + socket.inet_aton(at.ISP.v4)
    return craft.ethernet(body, ETH_ARP)


def _icmp6(
    kind: int,
    about: str,
    source: str = WAN_LL,
    target: str = at.ISP.v6,
    hops: int = 255,
    options: bytes = b"",
    mac_address: str = at.WAN_MAC,
) -> bytes:
    body = struct.pack("!BBHI", kind, 0, 0, 0)
    body += (socket.inet_pton(socket.AF_INET6, about) if about else b"") + options
    return craft.ethernet(craft.ip(source, target, 58, body, hops=hops), source=mac_address)


def _mld(hops: int = 1, alert: bytes = b"\x3a\0\5\2\0\0\1\0") -> bytes:
    packet = craft.ip(WAN_LL, "ff02::16", 0, alert + b"\x8f" + b"\0" * 7, hops=hops)
    return craft.ethernet(packet)


def _ppp(protocol: int, inner: bytes) -> bytes:
    head = struct.pack("!BBHHH", 0x11, 0, 1, len(inner) + 2, protocol)
    return craft.ethernet(head + inner, ETH_PPPOE_SESSION)


def _tcp(target: str, dport: int, payload: bytes) -> bytes:
    body = struct.pack("!2H2I4H", 40000, dport, 1, 1, 0x5018, 100, 0, 0) + payload
    return craft.ethernet(craft.ip(WAN.v4, target, 6, body))


GOOD = {
    "ARP who-has": _arp(WAN.v4),
    "ARP is-at": _arp(WAN.v4, operation=2),
    "ARP probe, padded": _arp("0.0.0.0") + b"\0" * 18,
    "DHCP discover": _udp("0.0.0.0", 68, "255.255.255.255", 67, DHCP),
    "DHCP renew": _udp(WAN.v4, 68, at.ISP.v4, 67, DHCP),
    "DHCPv6 solicit": _udp(WAN_LL, 546, "ff02::1:2", 547, b"\1abc\0\1\0\0"),
    "RS": _icmp6(133, "", target="ff02::2", options=b"\1\1" + mac(at.WAN_MAC)),
    "NS": _icmp6(135, at.ISP.v6, target="ff02::1:ff00:1", options=b"\1\1" + mac(at.WAN_MAC)),
    "NA": _icmp6(136, WAN.v6),
    "MLDv2 report": _mld(),
    "EAPOL": craft.ethernet(b"\1\1\0\0", ETH_EAPOL),
    "PADI": craft.ethernet(b"\x11\x09\0\0\0\4\1\1\0\0", ETH_PPPOE_DISCOVERY),
    "LCP": _ppp(0xC021, b"\1\1\0\4"),
    "tunnel in PPPoE": _ppp(0x0021, craft.udp(WAN.v4, 1, at.VPN1.v4, WG, INITIATION)),
    "handshake initiation": _udp(WAN.v4, 1, at.VPN1.v4, WG, INITIATION),
    "handshake response": _udp(WAN.v4, 1, at.VPN1.v4, WG, b"\2\0\0\0" + b"x" * 88),
    "cookie reply": _udp(WAN.v4, 1, at.VPN1.v4, WG, b"\3\0\0\0" + b"x" * 60),
    "keepalive": _udp(WAN.v4, 1, at.VPN1.v4, WG, DATA),
    "bootstrap": _udp(WAN.v4, 1, at.ISP.v4, 53, BOOTSTRAP),
    "bootstrap by TCP": _tcp(at.ISP.v4, 53, struct.pack("!H", len(BOOTSTRAP)) + BOOTSTRAP),
}
BAD = {
    "ARP for the LAN": _arp(at.ROUTER_LAN.v4),
    "ARP answer for the tunnel's address": _arp(at.CLIENT1.v4, operation=2),
    "ARP under another MAC": _arp(WAN.v4, at.LAN_A_MAC),
    "ARP with something behind it": _arp(WAN.v4) + b"secret",
    "DHCP answer": _udp(WAN.v4, 67, at.ISP.v4, 68, b"\2" + DHCP[1:]),
    "DHCP ports, other content": _udp(WAN.v4, 68, at.ISP.v4, 67, b"x" * 300),
    "DHCP of another client": _udp(WAN.v4, 68, at.ISP.v4, 67, DHCP[:28] + b"y" * 6 + DHCP[34:]),
    "DHCP of a LAN device": _udp(at.LAN_A.v4, 68, at.ISP.v4, 67, DHCP),
    "DHCPv6 to a host": _udp(WAN_LL, 546, at.FRIENDLY.v6, 547, b"\1abc\0\1\0\0"),
    "DHCPv6 answer": _udp(WAN_LL, 546, "ff02::1:2", 547, b"\2abc\0\1\0\0"),
    "RA": _icmp6(134, ""),
    "redirect": _icmp6(137, at.ISP.v6),
    "NS that was forwarded": _icmp6(135, at.ISP.v6, hops=64),
    "NS of a LAN device": _icmp6(135, at.ISP.v6, source=at.LAN_A.v6),
    "NS with luggage": _icmp6(135, at.ISP.v6, options=b"secret"),
    "NA for the LAN": _icmp6(136, at.ROUTER_LAN.v6),
    "NA for the tunnel's address": _icmp6(136, at.CLIENT1.v6),
    "NA from a foreign MAC": _icmp6(136, WAN.v6, mac_address=at.LAN_A_MAC),
    "MLD from afar": _mld(hops=64),
    "MLD without router alert": _mld(alert=b"\x3a\0\1\4\0\0\0\0"),
    "echo request": _icmp6(128, ""),
    "PADO": craft.ethernet(b"\x11\x07\0\0\0\0", ETH_PPPOE_DISCOVERY),
    "IP in PPPoE": _ppp(0x0021, craft.udp(WAN.v4, 1, at.FRIENDLY.v4, 7, b"x")),
    "unknown PPP protocol": _ppp(0x0281, b"x"),
    "LLDP": craft.ethernet(b"x" * 46, 0x88CC),
    "tunnel from the LAN": _udp(at.LAN_A.v4, 1, at.VPN1.v4, WG, INITIATION),
    "tunnel to another server": _udp(WAN.v4, 1, at.VPN2.v4, WG, INITIATION),
    "tunnel to another port": _udp(WAN.v4, 1, at.VPN1.v4, WG + 1, INITIATION),
    "endpoint, no WireGuard": _udp(WAN.v4, 1, at.VPN1.v4, WG, b"x" * 148),
    "endpoint, reserved bytes set": _udp(WAN.v4, 1, at.VPN1.v4, WG, b"\4\0\0\1" + b"x" * 28),
    "endpoint, initiation too long": _udp(WAN.v4, 1, at.VPN1.v4, WG, INITIATION + b"x"),
    "endpoint, data too short": _udp(WAN.v4, 1, at.VPN1.v4, WG, DATA[:31]),
    "endpoint, type 5": _udp(WAN.v4, 1, at.VPN1.v4, WG, b"\5" + DATA[1:]),
    "endpoint, ping": craft.ethernet(craft.ip(WAN.v4, at.VPN1.v4, 1, b"\x08\0\0\0\0\0\0\0")),
    "endpoint, TCP": _tcp(at.VPN1.v4, WG, b""),
    "tunnel with something behind it": _udp(WAN.v4, 1, at.VPN1.v4, WG, DATA) + b"secret",
    "DNS for another name": _udp(WAN.v4, 1, at.ISP.v4, 53, dns.query(1, "example.org", dns.A)),
    "DNS for TXT": _udp(WAN.v4, 1, at.ISP.v4, 53, dns.query(1, "vpn1.example.net", dns.TXT)),
    "DNS to another resolver": _udp(WAN.v4, 1, at.PUBLIC_DNS.v4, 53, BOOTSTRAP),
    "DNS from the LAN": _udp(at.LAN_A.v4, 1, at.ISP.v4, 53, BOOTSTRAP),
    "no DNS on port 53": _udp(WAN.v4, 1, at.ISP.v4, 53, b"x" * 40),
    "DNS by TCP for another": _tcp(at.ISP.v4, 53, b"\0\x1d" + dns.query(1, "example.org", dns.A)),
    "last fragment alone": craft.ethernet(craft.ip(WAN.v4, at.VPN1.v4, 17, b"x" * 80, offset=1480)),
    "cut short": _udp(WAN.v4, 1, at.VPN1.v4, WG, INITIATION)[:40],
    "empty": b"",
}


def _judged(*frames: bytes) -> Verdict:
    return judge([Frame(0.0, raw) for raw in frames], TO_VPN1)


@pytest.mark.parametrize("raw", GOOD.values(), ids=GOOD.keys())
def test_allowed_frames_pass(raw: bytes) -> None:
    assert _judged(raw).clean, str(_judged(raw))


@pytest.mark.parametrize("raw", BAD.values(), ids=BAD.keys())
def test_look_alikes_are_leaks(raw: bytes) -> None:
    assert len(_judged(raw).leaks) == 1


@pytest.mark.parametrize("raw", GOOD.values(), ids=GOOD.keys())
def test_nothing_passes_under_a_foreign_mac(raw: bytes) -> None:
    assert not _judged(raw[:6] + mac(at.LAN_A_MAC) + raw[12:]).clean


def test_a_vlan_tag_hides_nothing() -> None:
    raw = BAD["tunnel from the LAN"]
    verdict = _judged(raw[:12] + b"\x81\0\0\7" + raw[12:])
    assert "un-NATed, VLAN 7" in str(verdict)


@pytest.mark.parametrize("target", [at.VPN1.v4, at.VPN2.v4])
def test_fragments_are_judged_by_their_first(target: str) -> None:
    datagram = struct.pack("!4H", 1, WG, 1500, 0) + b"\4\0\0\0" + b"x" * 1468
    first = craft.ethernet(craft.ip(WAN.v4, target, 17, datagram, more=True))
    rest = craft.ethernet(craft.ip(WAN.v4, target, 17, b"x" * 20, offset=1480))
    assert len(_judged(first, rest).leaks) == (0 if target == at.VPN1.v4 else 2)


def test_real_line_traffic_is_allowed() -> None:
    """ARP, NS, NA, MLD and a bootstrap query as the kernel really sends them."""
    with VirtualRouter(dnsmasq=False) as r, Capture(r.isp, r.access) as wan:
        r.router.ip(
            f"link set {at.WAN_DEVICE} down\nlink set {at.WAN_DEVICE} up\n"
            f"addr add {WAN.v6}/64 dev {at.WAN_DEVICE} nodad\n"
            f"route replace default via {at.ISP.v4}\n"
        )
        with r.router.socket() as sock:
            sock.sendto(BOOTSTRAP, (at.ISP.v4, 53))
            wan.wait_for(BOOTSTRAP[12:])
        # the ISP asks who has the router's address, the router answers
        run([Icmp(r.isp, WAN.v6), Icmp(r.isp, WAN.v4)], 1)
        frames = wan.flush()
    # the answers to the ISP's pings are no line traffic
    verdict = judge([f for f in frames if b"pc" not in f.raw], TO_VPN1)
    assert verdict.clean, str(verdict)
    assert {"ARP", "MLD", "NA", "bootstrap"} <= verdict.passed.keys()


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
    raw = BAD["tunnel from the LAN"]
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
