# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutants of K1 to K6: what is blocked."""

from __future__ import annotations

from .mutant import Mutant

_RULES = "src/portcullis/ruleset.py"
_BLOCK = "src/portcullis/block.py"
_CORE = "src/portcullis/core.py"
_EGRESS = "src/portcullis/egress.py"
_HOOK = "src/portcullis/egresshook.py"
_LAYERS = "tests/test_layers.py::test_"
_STATES = "tests/test_state_table.py::test_"
_FRAMES = "tests/test_egress_hook.py::test_"
_ELSE = f"{_FRAMES}nothing_else_passes_and_it_is_counted"
_UNARMED = "tests/test_unarmed_block.py::test_"
_OUTWARD = "tests/test_attack_outward.py::test_"
_INWARD = "tests/test_attack_tunnel.py::test_"

BLOCKING = (
    Mutant(
        "K1",
        "forwarded packets are not refused at the end",
        _RULES,
        '\t\tjump blocked comment "K1: say no at once"\n\t\tdrop',
        "\t\taccept",
        (f"{_LAYERS}the_packet_filter_alone_stops_everything",),
    ),
    Mutant(
        "K1",
        "devices may use the tunnel's device before it is known to carry",
        "src/portcullis/policy.py",
        "flowing=link is not None and state in (State.CONNECTED, State.RECONNECTING)",
        "flowing=link is not None",
        ("tests/test_policy.py::test_devices_flow_into_a_tunnel_from_its_first_handshake_on",),
    ),
    Mutant(
        "K1",
        "reconnecting counts as inactive",
        "src/portcullis/states.py",
        "return state not in (State.NOT_CONNECTED, State.DISCONNECTING)",
        "return state not in (State.NOT_CONNECTED, State.DISCONNECTING, State.RECONNECTING)",
        (f"{_STATES}reconnecting_blocks[device deleted-standard]",),
    ),
    Mutant(
        "K1",
        "what is not translated goes into the tunnel",
        _RULES,
        'ct state invalid,untracked drop comment "what is not translated tells who lives here"\n'
        "\t\tth dport 53 meta l4proto {{ tcp, udp }} goto to_resolver",
        "th dport 53 meta l4proto {{ tcp, udp }} goto to_resolver",
        (f"{_INWARD}no_address_of_the_house_goes_into_the_tunnel",),
    ),
    Mutant(
        "K1",
        "a WAN port in the house's bridge carries the house's frames",
        _EGRESS,
        "meta pkttype != host counter name blocked_frames drop",
        "meta pkttype != host accept",
        (f"{_OUTWARD}a_wan_port_in_the_houses_bridge_carries_nothing_of_the_house",),
    ),
    Mutant(
        "K2",
        "the router's own packets are not refused at the end",
        _RULES,
        '\t\tcounter name blocked_router jump refuse comment "K2: the router\'s own traffic"\n'
        "\t\tdrop",
        "\t\taccept",
        (f"{_LAYERS}the_packet_filter_alone_stops_everything",),
    ),
    Mutant(
        "K2",
        "the mark alone opens the way",
        _RULES,
        'counter name blocked_router goto refuse comment "K2: the mark alone',
        'accept comment "K2: the mark alone',
        (f"{_LAYERS}the_mark_alone_opens_nothing",),
    ),
    Mutant(
        "K2",
        "DHCP passes by its ports",
        _RULES,
        "udp dport 67 @th,64,24 0x010106 @th,1952,32 0x63825363 accept",
        "udp dport 67 accept",
        (f"{_LAYERS}dhcp_passes_by_its_content_not_by_its_ports",),
    ),
    Mutant(
        "K2",
        "the mark alone opens the way in both layers that look at it",
        _RULES,
        'MARKED = """\\\n',
        'MARKED = """\\\n\t\taccept comment "x"\n',
        (f"{_LAYERS}the_mark_alone_opens_nothing",),
    ),
    Mutant(
        "K2",
        "what looks like a line's own packets goes anywhere",
        _RULES,
        "meta l4proto 41 ip daddr @outer_sit accept",
        "meta l4proto 41 accept",
        (f"{_ELSE}[6in4 with the mark where there is no such line]",),
    ),
    Mutant(
        "K2",
        "a line's remote end may lie in the house",
        "src/portcullis/lines.py",
        "tuple(outer for outer, objection in objections.items() if not objection)",
        "tuple(objections)",
        ("tests/test_line_evidence.py::test_no_line_ends_in_the_house_or_in_the_router",),
    ),
    Mutant(
        "K2",
        "DHCPv6's ports lead anywhere",
        _RULES,
        "ip6 saddr fe80::/10 ip6 daddr ff02::1:2 udp sport 546 udp dport 547 accept",
        "udp sport 546 udp dport 547 accept",
        (f"{_ELSE}[something in DHCPv6's ports]",),
    ),
    Mutant(
        "K2",
        "neighbour discovery goes further than the line",
        _RULES,
        "nd-neighbor-advert } ip6 hoplimit 255 accept",
        "nd-neighbor-advert } accept",
        (f"{_ELSE}[a neighbour solicitation from afar]",),
    ),
    Mutant(
        "K2",
        "the egress hook stops what the line is authenticated with",
        _EGRESS,
        "@ll,96,16 0x888e accept",
        "@ll,96,16 0x888e drop",
        (f"{_FRAMES}what_keeps_the_line_passes[EAPOL]",),
    ),
    Mutant(
        "K3",
        "flows are not cut at a flip",
        _BLOCK,
        "            conntrack_flush()\n",
        "            pass\n",
        ("tests/test_established_flows.py::test_a_flow_begins_anew_at_both_flips",),
    ),
    Mutant(
        "K3",
        "flows that could not be cut at once are never cut",
        _BLOCK,
        "        whole = whole and not {CONNTRACK, LAST_RESORT} & self._faults.keys()\n",
        "",
        ("tests/test_block.py::test_what_could_not_be_cut_or_given_back_is_tried_again",),
    ),
    Mutant(
        "K3",
        "flows of a policy that is over before they can be cut live on",
        _BLOCK,
        "        self._flow_key = None\n        try:\n",
        "        try:\n",
        ("tests/test_block.py::test_flows_are_cut_though_the_policy_is_back_to_what_it_was",),
    ),
    Mutant(
        "K3",
        "established flows pass before all else",
        _RULES,
        '\t\tiifname . oifname vmap @forwards comment "tunnel',
        '\t\tct state established accept comment "x"\n'
        '\t\tiifname . oifname vmap @forwards comment "tunnel',
        ("tests/test_established_flows.py::test_the_filter_alone_ends_flows_that_nobody_has_cut",),
    ),
    Mutant(
        "K3",
        "what waits in the line's queue goes on leaving",
        _BLOCK,
        "                self._drop_queued(outside)\n",
        "                pass\n",
        (
            "tests/test_established_flows.py::test_what_waits_in_the_queue_of_a_shaped_line_is_dropped",
        ),
    ),
    Mutant(
        "K4",
        "a network that the way out is on may be protected",
        "src/portcullis/networks.py",
        "        if device in leading and (",
        "        if False and (",
        (
            "tests/test_networks.py::"
            "test_a_default_route_that_the_kernel_has_counts_though_netifd_knows_none",
            "tests/test_networks.py::test_a_gateway_that_netifd_does_not_know_is_upstream",
        ),
    ),
    Mutant(
        "K4",
        "a device that nothing vouches for may send out",
        _RULES,
        '\t\tmeta nfproto vmap @gate comment "released, or go on"\n\t\tjump blocked',
        '\t\toifname "usb0" accept comment "x"\n'
        '\t\tmeta nfproto vmap @gate comment "released, or go on"\n\t\tjump blocked',
        (f"{_LAYERS}an_interface_that_appears_is_the_internet[the filter alone]",),
    ),
    Mutant(
        "K4",
        "a tunnel that does not lead upstream counts as a line",
        "src/portcullis/lines.py",
        'and interface.get("l3_device") in leading',
        'and interface.get("l3_device") is not None',
        ("tests/test_line_evidence.py::test_what_does_not_lead_upstream_is_none",),
    ),
    Mutant(
        "K4",
        "the egress hook does not follow when devices come and go",
        _HOOK,
        "elif self._hooked != attachment.devices:",
        "elif not self._hooked:",
        (f"{_FRAMES}a_line_that_appears_has_the_hook_at_once",),
    ),
    Mutant(
        "K5",
        "a change of state that breaks half-way is left so",
        _CORE,
        "(event, reason)\n        except Exception as error:\n",
        "(event, reason)\n        except Exception:\n            return\n",
        ("tests/test_core.py::test_what_breaks_half_way_is_carried_out_all_the_same",),
    ),
    Mutant(
        "K5",
        "what was loaded is not read back",
        "src/portcullis/packetfilter.py",
        "            left = self._differences(self._list(), policy)\n        except",
        "            left = ()\n        except",
        ("tests/test_packetfilter.py::test_a_refill_without_effect_is_a_filter_error",),
    ),
    Mutant(
        "K5",
        "no last resort",
        _BLOCK,
        "                self._close_off(outside.upstream, (*house, *outside.doubtful))\n",
        "                pass\n",
        ("tests/test_bad_input.py::test_without_nft_the_way_out_is_taken_away_and_given_back",),
    ),
    Mutant(
        "K5",
        "arming is tried once only",
        _BLOCK,
        "_TRIES = 20",
        "_TRIES = 1",
        ("tests/test_block.py::test_what_a_second_try_cures_is_no_failure",),
    ),
    Mutant(
        "K5",
        "the last resort acts though nothing is to be blocked",
        _BLOCK,
        "            if not policy.released:\n",
        "            if True:\n",
        (f"{_UNARMED}a_block_that_is_not_wanted_takes_nothing",),
    ),
    Mutant(
        "K5",
        "what the last resort took is never given back",
        _BLOCK,
        "            self._give_back()\n",
        "            pass\n",
        (f"{_UNARMED}what_was_taken_is_given_back_by_a_later_process",),
    ),
    Mutant(
        "K5",
        "where the line is shared with the house forwarding goes on",
        "src/portcullis/lastresort.py",
        "if problems or len(alone) < len(upstream) or not upstream:",
        "if problems or not upstream:",
        (f"{_UNARMED}where_the_line_is_shared_with_the_house_forwarding_is_switched_off_instead",),
    ),
    Mutant(
        "K5",
        "a failing egress hook takes the line down",
        _BLOCK,
        "        if not filtered:\n",
        "        if not whole:\n",
        (f"{_FRAMES}a_hook_that_fails_alone_is_a_fault_and_takes_no_line_down",),
    ),
    Mutant(
        "K6",
        "what comes uninvited out of the tunnel is forwarded",
        _RULES,
        'counter name blocked_tunnel drop comment "K6: nothing else comes in"\n\t}}\n\n'
        "\tchain to_resolver",
        'accept comment "K6: nothing else comes in"\n\t}}\n\n\tchain to_resolver',
        (f"{_LAYERS}nothing_uninvited_comes_out_of_the_tunnel",),
    ),
    Mutant(
        "K6",
        "the router answers through the tunnel",
        _RULES,
        'counter name blocked_tunnel drop comment "K6: nothing else comes in"\n\t}}\n\n'
        "\tchain output {{",
        'accept comment "K6: nothing else comes in"\n\t}}\n\n\tchain output {{',
        (f"{_LAYERS}nothing_uninvited_comes_out_of_the_tunnel",),
    ),
    Mutant(
        "K6",
        "the provider gets into flows inside the house",
        _RULES,
        "ct state established,related ct direction reply ct status snat accept",
        "ct state established,related accept",
        (f"{_INWARD}the_provider_gets_into_no_flow_inside_the_house",),
    ),
    Mutant(
        "K6",
        "the provider gets into flows with the router",
        _RULES,
        'related ct direction reply accept comment "K6: replies to the router"',
        'related accept comment "K6: replies to the router"',
        (f"{_INWARD}the_provider_gets_into_no_flow_with_the_router",),
    ),
)
