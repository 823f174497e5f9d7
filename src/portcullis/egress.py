# SPDX-License-Identifier: GPL-2.0-or-later
"""The egress hook's text: policy and attachment → the table `netdev portcullis` (K9).

Pure. The third layer sees every frame on its way into an upstream device, and with that what
the others cannot: frames that a program writes to the device itself (AF_PACKET), and flows that
a flow table forwards behind the backs of all other hooks (K3). It lets pass what
`inet portcullis` lets pass, from the same text and the same elements, and what is no IP: ARP,
EAPOL, and the frames of devices upon this one that have a hook of their own.

The chain is bound to devices by name, so the table's structure has the list of them for its
parameter; all else is data, as in the other tables. The boot guard does not load it: when that
runs there is no upstream device yet, and before Linux 6.13 a hook on one that is missing is
refused.
"""

from __future__ import annotations

from typing import NamedTuple

from portcullis import ruleset
from portcullis.attachment import Attachment
from portcullis.policy import MARK, MASK, Policy
from portcullis.ruleset import MARKED, OUTWARD, UPKEEP
from portcullis.table import Elements, Sets, Table, structure

_SETS: Sets = {
    "gate": ("map", "type ifname : verdict", "devices that are released; empty: blocked"),
    **{name: ruleset.SETS[name] for name in OUTWARD},
    "fragments4": ("set", "type ipv4_addr . inet_proto", "pinned VPN servers, without a port"),
    "fragments6": ("set", "type ipv6_addr . inet_proto", "pinned VPN servers, without a port"),
    "pppoe": ("set", "type ifname", "devices that a PPPoE line runs over"),
    "trunks": ("set", "type ifname", "devices with VLAN devices that have a hook of their own"),
}

COUNTERS = {"blocked_frames": "frames to upstream devices that got past the other layers"}

# Frames of devices upon this one; of what is inside they have the mark as well, or have it not.
_UPON = """\
		@ll,96,16 { 0x8863, 0x8864 } oifname @pppoe accept comment "K2: PPPoE, whose device has its own hook"
		@ll,96,16 { 0x8100, 0x88a8 } oifname @trunks accept comment "K2: VLANs, whose devices have their own hook"
"""

# `ether type` would ask for the type of the device that a frame came in by, and here there is
# none. The length bounds what an ARP frame can carry; an honest one is padded to 60 octets.
_CHAINS = f"""
	chain egress {{
		type filter hook egress devices = {{ DEVICES }} priority filter - 10; policy drop;
		oifname vmap @gate comment "released, or go on"
		meta mark & {MASK:#010x} == {MARK:#010x} goto marked comment "K2: what carries the mark"
		meta pkttype != host counter name blocked_frames drop comment "K1: a device's, that a bridge carries"
{UPKEEP}\
		@ll,96,16 0x0806 arp htype 1 meta length <= 64 accept comment "K2: ARP"
		@ll,96,16 0x888e accept comment "K2: EAPOL"
{_UPON}\
		counter name blocked_frames drop comment "the end: deny by default"
	}}

	chain marked {{
{MARKED}\
		ip frag-off & 0x1fff != 0 ip daddr . meta l4proto @fragments4 accept comment "K2: the rest of the tunnel's own packets"
		frag frag-off != 0 ip6 daddr . meta l4proto @fragments6 accept comment "K2: the rest of the tunnel's own packets"
{_UPON}\
		counter name blocked_frames drop comment "K2: the mark alone opens nothing"
	}}
"""


class Outward(NamedTuple):
    """What the hook has to be told."""

    policy: Policy
    attachment: Attachment


def table(devices: tuple[str, ...]) -> Table[Outward]:
    """The table for these devices, of which there must be one at least."""
    chains = _CHAINS.replace("DEVICES", ", ".join(f'"{device}"' for device in devices))
    text = structure(_SETS, {}, COUNTERS, chains)
    return Table("netdev", "portcullis", _SETS, {}, COUNTERS, text, elements)


def elements(outward: Outward) -> Elements:
    """What each set and map holds."""
    policy, attachment = outward
    known = ruleset.elements(policy)
    found = {
        "gate": {f'"{d}" : accept' for d in attachment.names if policy.released},
        **{name: known[name] for name in OUTWARD},
        "fragments4": _whole(known["endpoints4"]),
        "fragments6": _whole(known["endpoints6"]),
        "pppoe": {f'"{device}"' for device in attachment.pppoe},
        "trunks": {f'"{device}"' for device in attachment.trunks},
    }
    return {name: frozenset(values) for name, values in found.items()}


def _whole(sockets: frozenset[str]) -> set[str]:
    return {socket.rpartition(" . ")[0] for socket in sockets}


PROBE = """\
table netdev portcullis_probe {
	chain egress {
		type filter hook egress devices = { "lo" } priority filter; policy accept;
	}
}
delete table netdev portcullis_probe
"""
"""Undoes itself; refused where nft or the kernel knows no egress hook."""
