# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutants of K7 to K10: what outlasts whom."""

from __future__ import annotations

from .mutant import Mutant

_GUARD = "src/portcullis/guard.py"
_BLOCK = "src/portcullis/block.py"
_CORE = "src/portcullis/core.py"
_EGRESS = "src/portcullis/egress.py"
_ATTACHMENT = "src/portcullis/attachment.py"
_HOOK = "src/portcullis/egresshook.py"
_BOOT = "files/etc/init.d/portcullis-guard"
_LAYERS = "tests/test_layers.py::test_"
_STATES = "tests/test_state_table.py::test_"
_FRAMES = "tests/test_egress_hook.py::test_"
_ELSE = f"{_FRAMES}nothing_else_passes_and_it_is_counted"
_GUARD_BOOTS = "tests/test_boot_guard.py::test_"
_TROUBLE = "tests/test_disruptions.py::test_nothing_leaves_and_all_is_in_order_again"

LASTING = (
    Mutant(
        "K7",
        "the intent is not saved",
        _CORE,
        "            intent.save(self._paths.intent, wanted)\n",
        "            pass\n",
        ("tests/test_survival.py::test_the_owners_choice_is_kept_before_it_is_acted_on",),
    ),
    Mutant(
        "K7",
        "to stop the service is to disconnect",
        _CORE,
        'self.happen(Event.SHUTDOWN, "")',
        'self.happen(Event.DISCONNECT, "")',
        (f"{_TROUBLE}[service stop]", f"{_TROUBLE}[service restart]"),
    ),
    Mutant(
        "K7",
        "a lost tunnel ends in not_connected",
        "src/portcullis/states.py",
        "tunnel_lost          NC-   CG+   RG+",
        "tunnel_lost          NC-   CG+   NC ",
        (f"{_STATES}reconnecting_blocks[device deleted-standard]",),
    ),
    Mutant(
        "K7",
        "the temporary file of an intent is not synchronised",
        "src/portcullis/storage.py",
        "            os.fsync(file.fileno())\n",
        "",
        (
            "tests/test_intent.py::"
            "test_the_text_is_on_the_medium_before_the_name_and_the_name_before_the_return",
        ),
    ),
    Mutant(
        "K8",
        "the boot guard opens where it was closed",
        _BOOT,
        "\telif _load _closed; then",
        "\telif _load _gate; then",
        (f"{_GUARD_BOOTS}the_owner_who_is_connected_is_blocked_from_the_start",),
    ),
    Mutant(
        "K8",
        "an intent that makes no sense opens",
        "files/usr/share/portcullis/released.sh",
        "tr '\\0' '?')\" = disconnected ]",
        "tr '\\0' '?')\" != connected ]",
        (f"{_GUARD_BOOTS}an_intent_that_makes_no_sense_closes",),
    ),
    Mutant(
        "K8",
        "to stop the boot guard lifts the block",
        _BOOT,
        "stop() {\n\treturn 0",
        "stop() {\n\tnft delete table inet portcullis",
        (f"{_GUARD_BOOTS}no_action_on_the_service_changes_anything",),
    ),
    Mutant(
        "K8",
        "where nothing can be loaded all is forwarded",
        _BOOT,
        "\telse\n\t\t_last_resort\n",
        "",
        (f"{_GUARD_BOOTS}where_nothing_can_be_loaded_nothing_is_forwarded",),
    ),
    Mutant(
        "K9",
        "the routing guard ends in no unreachable route",
        _GUARD,
        '        Route(AF_INET, T, "0.0.0.0/0", _UNREACHABLE, "", LAST),\n',
        "",
        (f"{_LAYERS}the_routing_guard_alone_stops_everything_ordinary[none]",),
    ),
    Mutant(
        "K9",
        "the routing guard ends in no unreachable rule for IPv6",
        _GUARD,
        '    rules.add(Rule(AF_INET6, 831, _RULE_UNREACHABLE, 0, "", MARK, MASK, _INVERT))\n',
        "",
        ("tests/test_guard.py::test_the_rules_are_those_of_the_platform_notes",),
    ),
    Mutant(
        "K9",
        "unmarked packets are not led to the tunnel or nowhere",
        _GUARD,
        '        rules.add(Rule(family, 830, _TO_TABLE, T, "", MARK, MASK, _INVERT))\n',
        "",
        (f"{_LAYERS}the_routing_guard_alone_stops_everything_ordinary",),
    ),
    Mutant(
        "K9",
        "there is no egress hook",
        _HOOK,
        "return self._filter.reconcile(wanted) if attachment.devices else ()",
        "return ()",
        ("tests/test_layer_matrix.py::test_what_one_layer_stops_by_itself[egress hook]",),
    ),
    Mutant(
        "K9",
        "the egress hook lets pass what nothing vouches for",
        _EGRESS,
        'counter name blocked_frames drop comment "the end',
        'counter name blocked_frames accept comment "the end',
        ("tests/test_layer_matrix.py::test_what_one_layer_stops_by_itself[egress hook]",),
    ),
    Mutant(
        "K9",
        "the egress hook opens to the mark alone",
        _EGRESS,
        'counter name blocked_frames drop comment "K2',
        'counter name blocked_frames accept comment "K2',
        (f"{_ELSE}[IPv4 with the mark]",),
    ),
    Mutant(
        "K9",
        "the egress hook lets fragments go to anybody",
        _EGRESS,
        "ip frag-off & 0x1fff != 0 ip daddr . meta l4proto @fragments4 accept",
        "ip frag-off & 0x1fff != 0 accept",
        (f"{_ELSE}[a later fragment to another host]",),
    ),
    Mutant(
        "K9",
        "the egress hook lets ARP carry anything",
        _EGRESS,
        " meta length <= 64",
        "",
        (f"{_ELSE}[ARP that carries something]",),
    ),
    Mutant(
        "K9",
        "the egress hook believes the sender what a frame is",
        _EGRESS,
        "@ll,96,16 0x0806 arp htype 1 meta length <= 64",
        "meta protocol arp",
        (f"{_FRAMES}what_the_sender_says_of_a_frame_opens_nothing",),
    ),
    Mutant(
        "K9",
        "frames of PPPoE pass where there is no PPPoE",
        _EGRESS,
        " oifname @pppoe",
        "",
        (f"{_ELSE}[PPPoE session where there is no PPPoE]",),
    ),
    Mutant(
        "K9",
        "frames of VLANs pass where nobody has that VLAN",
        _EGRESS,
        " oifname @trunks",
        "",
        (f"{_ELSE}[a VLAN that is nobody's]",),
    ),
    Mutant(
        "K9",
        "the other layers wait while the packet filter is refused",
        _BLOCK,
        "            others()\n",
        "            pass\n",
        ("tests/test_block.py::test_the_other_layers_do_not_wait_for_a_filter_that_is_refused",),
    ),
    Mutant(
        "K9",
        "an egress hook or routing guard that failed is not tried again",
        _BLOCK,
        "whole = reconcile_others() and filtered",
        "reconcile_others()\n        whole = filtered",
        (f"{_FRAMES}a_hook_that_fails_alone_is_a_fault_and_takes_no_line_down",),
    ),
    Mutant(
        "K9",
        "a device made anew under its old name has no egress hook",
        _ATTACHMENT,
        "{name: present[name].ifindex for",
        "{name: 0 for",
        ("tests/test_egress.py::test_a_device_made_anew_under_its_name_is_another",),
    ),
    Mutant(
        "K10",
        "changes of the ruleset are not heard",
        "src/portcullis/watch.py",
        "self._open(_NETFILTER, (_NFTABLES_GROUP,), _Transactions)",
        "self._open(_NETFILTER, (), _Transactions)",
        (f"{_TROUBLE}[nft flush ruleset x5]",),
    ),
    Mutant(
        "K10",
        "changes of rules and routes are not heard",
        "src/portcullis/watch.py",
        "_ROUTE_GROUPS = (1, 5, 7, 8, 9, 11, 19)",
        "_ROUTE_GROUPS = (1, 5, 9)",
        (f"{_TROUBLE}[ip rule 830 deleted]", f"{_TROUBLE}[table 706 flushed]"),
    ),
    Mutant(
        "K10",
        "what is put back is told to nobody",
        _BLOCK,
        "        if told and before == wanted:\n",
        "        if False:\n",
        ("tests/test_alarms.py::test_who_changes_our_rules_is_named",),
    ),
    Mutant(
        "K10",
        "an alarm does not say who it was",
        _CORE,
        "        self.alarms.suspect(change.by)\n",
        "",
        ("tests/test_alarms.py::test_who_changes_our_rules_is_named[the table is deleted]",),
    ),
)
