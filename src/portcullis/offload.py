# SPDX-License-Identifier: GPL-2.0-or-later
"""Flow offloading (K3): connections that are forwarded past every chain of the packet filter.

Software offloading looks each packet's flow up in the connection table, and ends with its entry
there, which arming deletes; new flows are blocked before fw4 could offload them. What a switch
chip forwards no program here sees or counts, so that it has ended cannot be verified.
"""

from __future__ import annotations

from typing import Any

OFFLOAD = "flow offloading"
ADVICE = (
    "hardware flow offloading is on, so connections may pass the block unseen; switch it off:"
    " LuCI, Network, Firewall, Flow offloading type, software or none; or"
    " uci set firewall.@defaults[0].flow_offloading_hw=0, uci commit firewall,"
    " service firewall restart"
)
_NO = ("", "0", "off", "false", "no", "disabled")


def hardware_wanted(firewall: dict[str, dict[str, Any]]) -> bool:
    """Whether UCI's firewall, as rpcd gives it, tells fw4 to offload to hardware."""
    defaults = [s for s in firewall.values() if s.get(".type") == "defaults"]
    return any(_on(s, "flow_offloading") and _on(s, "flow_offloading_hw") for s in defaults)


def hardware_used(wanted: bool, flowtables: str) -> bool:
    """Whether hardware may be forwarding. nft's list of flow tables says which of them reach it:
    fw4 falls back to software where none can. Without a flow table, because fw4 has not loaded
    its own yet or nft does not answer, what is wanted counts."""
    return "flags offload" in flowtables or (wanted and "\tflowtable " not in flowtables)


def _on(section: dict[str, Any], option: str) -> bool:
    """fw4's notion of a boolean; anything it might take for true counts."""
    return str(section.get(option, "")).lower() not in _NO
