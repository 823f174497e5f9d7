# SPDX-License-Identifier: GPL-2.0-or-later
"""The judge of captures: what contract.md allows passes, its look-alikes are leaks."""

from __future__ import annotations

import socket
import struct

import pytest
from router import VirtualRouter, craft, dns
from router import addresses as at
from router.capture import Capture
from router.frame import ETH_ARP, ETH_EAPOL, ETH_PPPOE_DISCOVERY, ETH_PPPOE_SESSION, Frame, mac
from router.judge import Allowed, Carrier, Endpoint, Verdict, judge
from router.probe import run
from router.probes import Icmp

TO_VPN1 = Allowed.of(Endpoint(at.VPN1.v4), resolvers=[at.ISP.v4], names=["vpn1.example.net"])

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


def _carried(source: str, remote: str, protocol: int, inner: bytes) -> bytes:
    return craft.ethernet(craft.ip(source, remote, protocol, inner))


@pytest.mark.parametrize(
    ("end", "inner", "leaks"),
    [
        (at.ISP.v6, craft.udp(WAN.v4, 1, at.VPN1.v4, WG, INITIATION), 0),
        (at.ISP.v6, craft.udp(WAN.v4, 1, at.FRIENDLY.v4, WG, INITIATION), 1),
        (at.ISP.v6, craft.udp(at.LAN_A.v4, 1, at.VPN1.v4, WG, INITIATION), 1),
        (at.ISP.v6, craft.udp(WAN.v4, 1, at.VPN1.v4, WG, INITIATION) + b"hidden", 1),
        (at.ISP.v6, craft.udp(WAN.v4, 1, at.VPN1.v4, WG, INITIATION)[:30], 1),
        (at.ISP.v6, b"", 1),
        (at.FRIENDLY.v6, craft.udp(WAN.v4, 1, at.VPN1.v4, WG, INITIATION), 1),
    ],
    ids=["tunnel", "another host", "un-NATed", "hidden", "cut short", "empty", "another end"],
)
def test_what_a_line_carries_is_judged(end: str, inner: bytes, leaks: int) -> None:
    line = Allowed.of(Endpoint(at.VPN1.v4), carriers=[Carrier(at.ISP.v6, 4)])
    frame = Frame(0.0, _carried(WAN.v6, end, 4, inner))
    assert len(judge([frame], line).leaks) == leaks


def test_a_line_is_carried_by_one_protocol_from_the_wan() -> None:
    line = Allowed.of(Endpoint(at.VPN1.v4), carriers=[Carrier(at.ISP.v6, 4)])
    inner = craft.udp(WAN.v4, 1, at.VPN1.v4, WG, INITIATION)
    for source, protocol in ((WAN.v6, 41), (at.LAN_A.v6, 4)):
        frame = Frame(0.0, _carried(source, at.ISP.v6, protocol, inner))
        assert not judge([frame], line).clean


def test_real_line_traffic_is_allowed() -> None:
    """ARP, NS, NA, MLD and a bootstrap query as the kernel really sends them."""
    with VirtualRouter(dnsmasq=False) as r, Capture(r.isp, r.access) as wan:
        r.router.ip(
            f"link set {at.WAN_DEVICE} down\nlink set {at.WAN_DEVICE} up\n"
            f"addr add {WAN.v6}/64 dev {at.WAN_DEVICE} nodad\n"
            f"route replace default via {at.ISP.v4}\n"
        )
        with r.router.socket() as sock:
            sock.settimeout(5)
            sock.sendto(BOOTSTRAP, (at.ISP.v4, 53))
            wan.wait_for(BOOTSTRAP[12:])
            sock.recv(512)  # nobody is told that the answer's port is closed by now
        # the ISP asks who has the router's address, the router answers
        run([Icmp(r.isp, WAN.v6), Icmp(r.isp, WAN.v4)], 1)
        frames = wan.flush()
    # the answers to the ISP's pings are no line traffic
    verdict = judge([f for f in frames if b"pc" not in f.raw], TO_VPN1)
    assert verdict.clean, str(verdict)
    assert {"ARP", "MLD", "NA", "bootstrap"} <= verdict.passed.keys()
