# SPDX-License-Identifier: GPL-2.0-or-later
# ruff: noqa: E501  (a line of nft is a line, as fw4 prints it)
"""What firewall4 would load on the router: the permissive base the kill switch has to live with.

The text follows `fw4 print` (zones lan, guest, wan, vpn; forwardings lan and guest to wan and vpn);
only the ct helper objects are left out, which need kernel modules and decide nothing here."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

from .addresses import GUEST_BRIDGE, LAN_BRIDGE, TUNNEL_DEVICE, WAN_DEVICE
from .namespace import Namespace

_V6_INPUT = (
    'meta nfproto ipv6 icmpv6 type { 128, 129, 1, 3, 133, 134 } limit rate 1000/second counter accept comment "!fw4: Allow-ICMPv6-Input"',
    'meta nfproto ipv6 icmpv6 type . icmpv6 code { 2 . 0, 4 . 0, 4 . 1, 135 . 0, 136 . 0 } limit rate 1000/second counter accept comment "!fw4: Allow-ICMPv6-Input"',
)
_WAN_INPUT = (
    'meta nfproto ipv4 udp dport 68 counter accept comment "!fw4: Allow-DHCP-Renew"',
    'meta nfproto ipv4 icmp type 8 counter accept comment "!fw4: Allow-Ping"',
    'meta nfproto ipv4 meta l4proto igmp counter accept comment "!fw4: Allow-IGMP"',
    'meta nfproto ipv6 udp dport 546 counter accept comment "!fw4: Allow-DHCPv6"',
    'ip6 saddr fe80::/10 icmpv6 type . icmpv6 code { 130 . 0, 131 . 0, 132 . 0, 143 . 0 } counter accept comment "!fw4: Allow-MLD"',
    *_V6_INPUT,
)
_WAN_FORWARD = (
    'meta nfproto ipv6 icmpv6 type { 128, 129, 1, 3 } limit rate 1000/second counter accept comment "!fw4: Allow-ICMPv6-Forward"',
    'meta nfproto ipv6 icmpv6 type . icmpv6 code { 2 . 0, 4 . 0, 4 . 1 } limit rate 1000/second counter accept comment "!fw4: Allow-ICMPv6-Forward"',
    'meta l4proto esp counter jump accept_to_lan comment "!fw4: Allow-IPSec-ESP"',
    'udp dport 500 counter jump accept_to_lan comment "!fw4: Allow-ISAKMP"',
)
_GUEST_INPUT = (
    'meta l4proto { tcp, udp } th dport 53 counter accept comment "!fw4: Allow-DNS-guest"',
    'meta nfproto ipv4 udp dport 67 counter accept comment "!fw4: Allow-DHCP-guest"',
    *_V6_INPUT,
)


@dataclass(frozen=True)
class Zone:
    """A zone of /etc/config/firewall; input, forward and output are ACCEPT, REJECT or DROP."""

    name: str
    device: str
    input: str
    forward: str
    masq: bool = False
    masq6: bool = False
    mtu_fix: bool = False
    forward_to: tuple[str, ...] = ()
    input_rules: tuple[str, ...] = ()
    forward_rules: tuple[str, ...] = ()

    def verdict_chains(self) -> str:
        """The accept_/reject_/drop_ chains that the zone's policies use, as fw4 names them."""
        dev, fam = self.device, f"{self.name} IPv4/IPv6"
        text = ""
        accepts = "accept" in (self.input, self.forward)
        if accepts:
            text += _chain(
                f"accept_from_{self.name}",
                f'iifname "{dev}" counter accept comment "!fw4: accept {fam} traffic"',
            )
        invalid: tuple[str, ...] = ()
        if self.masq or self.masq6:
            family = (
                "" if self.masq and self.masq6 else f"meta nfproto ipv{6 if self.masq6 else 4} "
            )
            invalid = (
                f'{family}oifname "{dev}" ct state invalid counter drop comment "!fw4: Prevent NAT leakage"',
            )
        text += _chain(
            f"accept_to_{self.name}",
            *invalid,
            f'oifname "{dev}" counter accept comment "!fw4: accept {fam} traffic"',
        )
        if self.input != "accept":
            act = "jump handle_reject" if self.input == "reject" else "drop"
            text += _chain(
                f"{self.input}_from_{self.name}",
                f'iifname "{dev}" counter {act} comment "!fw4: {self.input} {fam} traffic"',
            )
        if self.forward != "accept":
            act = "jump handle_reject" if self.forward == "reject" else "drop"
            text += _chain(
                f"{self.forward}_to_{self.name}",
                f'oifname "{dev}" counter {act} comment "!fw4: {self.forward} {fam} traffic"',
            )
        return text

    def policy_chains(self) -> str:
        jumps = (
            f'jump accept_to_{to} comment "!fw4: Accept {self.name} to {to} forwarding"'
            for to in self.forward_to
        )
        return (
            _chain(f"input_{self.name}", *self.input_rules, f"jump {self.input}_from_{self.name}")
            + _chain(f"output_{self.name}", f"jump accept_to_{self.name}")
            + _chain(
                f"forward_{self.name}",
                *self.forward_rules,
                *jumps,
                f"jump {self.forward}_to_{self.name}",
            )
        )


def zones(*, masquerade: bool = True, line: str = "") -> tuple[Zone, ...]:
    """`line` is another device that the internet is behind, in a zone like wan."""
    out = ("wan", "vpn", "line") if line else ("wan", "vpn")
    wan = Zone(
        "wan",
        WAN_DEVICE,
        "reject",
        "drop",
        masq=masquerade,
        mtu_fix=True,
        input_rules=_WAN_INPUT,
        forward_rules=_WAN_FORWARD,
    )
    return (
        Zone("lan", LAN_BRIDGE, "accept", "accept", forward_to=out),
        wan,
        *((replace(wan, name="line", device=line),) if line else ()),
        Zone("guest", GUEST_BRIDGE, "reject", "reject", forward_to=out, input_rules=_GUEST_INPUT),
        Zone("vpn", TUNNEL_DEVICE, "reject", "reject", masq=True, masq6=True, mtu_fix=True),
    )


def render(zones: tuple[Zone, ...], *, offload: bool = False) -> str:
    """The ruleset as fw4 hands it to `nft -f`: one transaction that empties and refills."""
    accept = (
        'ct state vmap {{ established : accept, related : accept }} comment "!fw4: Handle {} flows"'
    )
    syn = 'tcp flags & (fin | syn | rst | ack) == syn jump syn_flood comment "!fw4: Rate limit TCP syn packets"'

    def jumps(match: str, hook: str, to: str) -> list[str]:
        return [
            f'{match} "{z.device}" jump {to}_{z.name} comment "!fw4: Handle {z.name} IPv4/IPv6 {hook} traffic"'
            for z in zones
        ]

    def clamp(match: str, way: str) -> list[str]:
        return [
            f'{match} "{z.device}" tcp flags syn / syn,fin,rst tcp option maxseg size set rt mtu comment "!fw4: Zone {z.name} IPv4/IPv6 {way} MTU fixing"'
            for z in zones
            if z.mtu_fix
        ]

    base = "type filter hook {0} priority {1}; policy {2};".format
    flow: list[str] = []
    text = "table inet fw4\nflush table inet fw4\n\ntable inet fw4 {\n"
    if offload:
        devices = ", ".join(f'"{z.device}"' for z in zones if z.name in ("lan", "wan"))
        text += f"\tflowtable ft {{\n\t\thook ingress priority 0;\n\t\tdevices = {{ {devices} }};\n\t\tcounter;\n\t}}\n\n"
        flow = ["meta l4proto { tcp, udp } flow offload @ft;"]
    text += _chain(
        "input",
        base("input", "filter", "drop"),
        'iif "lo" accept comment "!fw4: Accept traffic from loopback"',
        accept.format("inbound"),
        syn,
        *jumps("iifname", "input", "input"),
        "jump handle_reject",
    )
    text += _chain(
        "forward",
        base("forward", "filter", "drop"),
        *flow,
        accept.format("forwarded"),
        *jumps("iifname", "forward", "forward"),
        "jump handle_reject",
    )
    text += _chain(
        "output",
        base("output", "filter", "accept"),
        'oif "lo" accept comment "!fw4: Accept traffic towards loopback"',
        accept.format("outbound"),
        *jumps("oifname", "output", "output"),
    )
    text += _chain("prerouting", base("prerouting", "filter", "accept"))
    text += _chain(
        "handle_reject",
        'meta l4proto tcp reject with tcp reset comment "!fw4: Reject TCP traffic"',
        'reject with icmpx type port-unreachable comment "!fw4: Reject any other traffic"',
    )
    text += _chain(
        "syn_flood",
        'limit rate 25/second burst 50 packets return comment "!fw4: Accept SYN packets below rate-limit"',
        'drop comment "!fw4: Drop excess packets"',
    )
    text += "".join(z.policy_chains() + z.verdict_chains() for z in zones)
    text += _chain("dstnat", "type nat hook prerouting priority dstnat; policy accept;")
    natted = [z for z in zones if z.masq or z.masq6]
    text += _chain(
        "srcnat",
        "type nat hook postrouting priority srcnat; policy accept;",
        *(
            f'oifname "{z.device}" jump srcnat_{z.name} comment "!fw4: Handle {z.name} IPv4/IPv6 srcnat traffic"'
            for z in natted
        ),
    )
    for z in natted:
        text += _chain(
            f"srcnat_{z.name}",
            *(
                f'meta nfproto ipv{n} masquerade comment "!fw4: Masquerade IPv{n} {z.name} traffic"'
                for n, on in ((4, z.masq), (6, z.masq6))
                if on
            ),
        )
    text += _chain("raw_prerouting", base("prerouting", "raw", "accept"))
    text += _chain("raw_output", base("output", "raw", "accept"))
    text += _chain("mangle_prerouting", base("prerouting", "mangle", "accept"))
    text += _chain(
        "mangle_postrouting", base("postrouting", "mangle", "accept"), *clamp("oifname", "egress")
    )
    text += _chain("mangle_input", base("input", "mangle", "accept"))
    text += _chain("mangle_output", "type route hook output priority mangle; policy accept;")
    text += _chain(
        "mangle_forward", base("forward", "mangle", "accept"), *clamp("iifname", "ingress")
    )
    return text + "}\n"


def _chain(name: str, *lines: str) -> str:
    return f"\tchain {name} {{\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}\n\n"


class Firewall:
    """fw4's commands, doing to the kernel what fw4 does (root/sbin/fw4 of firewall4)."""

    def __init__(
        self, router: Namespace, *, masquerade: bool = True, offload: bool = False
    ) -> None:
        self._router = router
        self.masquerade = masquerade
        self.offload = offload
        self.line = ""

    @property
    def text(self) -> str:
        found = zones(masquerade=self.masquerade, line=self.line)
        return render(found, offload=self.offload)

    def start(self) -> None:
        self._router.nft(self.text)

    def reload(self) -> None:
        """One atomic transaction, as at every ifup."""
        self._router.nft(self.text)

    def restart(self) -> None:
        """Stop, then start: for a moment forwarding is on and there is no rule of fw4's."""
        self.stop()
        self.start()

    def stop(self) -> None:
        with suppress(RuntimeError):  # fw4 does not mind that there is none
            self._router.nft("delete table inet fw4\n")

    def flush(self) -> None:
        """Delete every table of every family one by one, going on over errors."""
        loop = (
            "nft list tables | while read dummy family table;"
            ' do nft delete table "$family" "$table"; done'
        )
        self._router.run(["sh", "-c", loop], check=False)
