# SPDX-License-Identifier: GPL-2.0-or-later
"""Probing the router from everywhere at once: which probes were answered, which went through the
tunnel, which left by the WAN."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from . import addresses as at
from . import frame as wire
from .capture import Capture
from .frame import Frame, Ip
from .judge import Allowed, Verdict, judge
from .namespace import Namespace
from .probe import TOKEN, Probe, Result, run
from .probes import DnsTcp, DnsUdp, Icmp, Multicast, PacketSocket, Raw, Tcp, Udp
from .topology import VirtualRouter

FRAGMENTED = 3000


def flows(netns: Namespace, host: at.Host = at.FRIENDLY, *, device: str = "") -> list[Probe]:
    """Every kind of unicast probe to a host, v4 and v6, on new and on held flows.

    Devices behind one NAT need hosts of their own: with a protocol that has no ports only one of
    them can talk to an address."""
    found: list[Probe] = []
    for target in (host.v4, host.v6):
        for held in (False, True):
            for kind in (Udp, Tcp, Icmp, Raw):
                found.append(kind(netns, target, held=held, device=device))
            found.append(Udp(netns, target, held=held, size=FRAGMENTED, device=device))
    return found


def questions(netns: Namespace, *resolvers: str) -> list[Probe]:
    return [kind(netns, target) for target in resolvers for kind in (DnsUdp, DnsTcp)]


def lan_probes(r: VirtualRouter) -> list[Probe]:
    """What the devices of the house can try. Multicast is in `multicast_probes`, as it needs
    MulticastRouting to be forwarded at all."""
    elsewhere = (*at.PUBLIC_DNS.addresses, *at.ISP.addresses)
    return [
        *flows(r.lana),
        *questions(r.lana, *at.ROUTER_LAN.addresses[:2], *elsewhere),
        *flows(r.guest, at.HOSTILE),
        *questions(r.guest, at.ROUTER_GUEST.v4, *elsewhere),
        Udp(r.lana, at.VPN1.v4),
        Udp(r.lana, at.VPN1.v6),
        Udp(r.lana, at.ISP.v4),
        Udp(r.lana, at.ISP.v6),
    ]


def router_probes(r: VirtualRouter) -> list[Probe]:
    """What the router itself can try: ordinary and device-bound sockets, multicast, and frames
    written to the WAN device directly."""
    device = at.WAN_DEVICE
    return [
        *flows(r.router, at.PUBLIC_DNS),
        *flows(r.router, at.PUBLIC_DNS, device=device),
        *questions(r.router, *at.PUBLIC_DNS.addresses, *at.ISP.addresses),
        Multicast(r.router, at.GROUP4, device=device),
        Multicast(r.router, at.GROUP6, device=device),
        *raw_frames(r),
    ]


def raw_frames(r: VirtualRouter) -> list[Probe]:
    """Written to the WAN device directly: nothing but the egress hook sees them."""
    return [
        PacketSocket(r.router, target, source, bypass=bypass)
        for target, source in zip(at.FRIENDLY.addresses, at.ROUTER_WAN.addresses, strict=True)
        for bypass in (False, True)
    ]


def multicast_probes(r: VirtualRouter) -> list[Probe]:
    return [Multicast(r.lana, at.GROUP4), Multicast(r.lana, at.GROUP6)]


@dataclass(frozen=True)
class BatchResult:
    """`tunnelled` are the tokens seen beyond a VPN server (or by the resolver in its tunnel),
    `on_wan` those that crossed the WAN in the clear; `verdict` judges all frames on the WAN, with
    token or without."""

    results: tuple[Result, ...]
    tunnelled: frozenset[bytes]
    on_wan: frozenset[bytes]
    verdict: Verdict

    @property
    def sent(self) -> int:
        return sum(r.sent for r in self.results)

    @property
    def answered(self) -> int:
        return sum(r.answered for r in self.results)

    @property
    def refused(self) -> int:
        return sum(r.refused for r in self.results)

    @property
    def leaks(self) -> int:
        return len(self.verdict.leaks)

    def unanswered(self) -> list[Result]:
        """Probes of which an attempt that could be answered was not."""
        return [r for r in self.results if r.answerable and r.answered < r.sent]

    def unseen(self) -> list[Result]:
        """Probes of which no attempt was seen on the WAN: where the kill switch is inactive, these
        have no positive control."""
        return [r for r in self.results if not r.tokens & self.on_wan]

    def untunnelled(self) -> list[Result]:
        """Probes of which an attempt was not seen beyond the tunnel."""
        return [r for r in self.results if not r.tokens <= self.tunnelled]

    def __str__(self) -> str:
        return (
            f"{self.sent} sent, {self.answered} answered, {self.refused} refused,"
            f" {len(self.tunnelled)} through the tunnel, {len(self.on_wan)} in the clear on the"
            f" WAN, {self.leaks} leaking frames\n{self.verdict}"
        )


def measure(
    r: VirtualRouter,
    probes: Sequence[Probe],
    allowed: Allowed | None = None,
    *,
    count: int = 3,
    timeout: float = 1.0,
) -> BatchResult:
    """Run the probes between a capture on the WAN and one in the internet."""
    with Capture(r.isp, r.access) as wan, Capture(r.inet, "eth0") as beyond:
        results = run(probes, count, timeout)
    mine = {token for result in results for token in result.tokens}
    verdict = judge(wan.frames, allowed or Allowed())
    tunnelled = tokens(frame for frame in beyond.frames if _from_vpn(frame))
    inside = {host.name for host in (at.TUNNEL1, at.TUNNEL2)}
    tunnelled |= {
        query.name.partition(".")[0].encode()
        for query in r.servers.queries()
        if query.resolver in inside
    }
    on_wan = tokens(wan.frames) & mine
    return BatchResult(tuple(results), frozenset(tunnelled & mine), frozenset(on_wan), verdict)


def tokens(frames: Iterable[Frame]) -> set[bytes]:
    """All probes' tokens in the frames."""
    return {found for frame in frames for found in TOKEN.findall(frame.raw)}


def _from_vpn(frame: Frame) -> bool:
    packet = wire.parse(frame.raw).inner
    sources = {address for host in at.VPN_SERVERS for address in host.addresses}
    return isinstance(packet, Ip) and packet.source in sources
