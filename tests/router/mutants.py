# SPDX-License-Identifier: GPL-2.0-or-later
"""Each mechanism of K1 to K14, taken out once, and the tests that must notice.

`make test-mutations` (mutations.py) does it. The tests named are those that look from outside, at
packets and answers; that others, which look at texts, fail as well says less.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """`old`, which stands in `file` exactly once, becomes `new`; one of `tests` must fail."""

    property: str
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


_RULES = "src/portcullis/ruleset.py"
_GUARD = "src/portcullis/guard.py"
_BLOCK = "src/portcullis/block.py"
_CORE = "src/portcullis/core.py"
_BOOT = "files/etc/init.d/portcullis-guard"
_LAYERS = "tests/test_layers.py::test_"
_STATES = "tests/test_state_table.py::test_"
_DNS = "tests/test_plain_dns.py::test_"
_GUARD_BOOTS = "tests/test_boot_guard.py::test_"
_TROUBLE = "tests/test_disruptions.py::test_nothing_leaves_and_all_is_in_order_again"

MUTANTS = (
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
        "K3",
        "flows are not cut at a flip",
        _BLOCK,
        "            conntrack_flush()\n",
        "            pass\n",
        ("tests/test_established_flows.py::test_a_flow_begins_anew_at_both_flips",),
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
        (
            f"{_TROUBLE}[a phone is plugged in]",
            f"{_LAYERS}an_interface_that_appears_is_the_internet",
        ),
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
        "tunnel_lost          NC    CG+   RG+",
        "tunnel_lost          NC    CG+   NC ",
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
        "K10",
        "changes of the ruleset are not heard",
        "src/portcullis/watch.py",
        "self._open(_NETFILTER, (_NFTABLES_GROUP,), _Transactions)",
        "self._open(_NETFILTER, (), _Transactions)",
        (f"{_TROUBLE}[rules inserted into our chains]", f"{_TROUBLE}[nft flush ruleset x5]"),
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
        "K11",
        "the house is found by the main table",
        _GUARD,
        'rules.add(Rule(family, 800, _TO_TABLE, LT, "", 0, 0, 0))',
        'rules.add(Rule(family, 800, _TO_TABLE, MAIN, "", 0, 0, 0))',
        ("tests/test_guard.py::test_routes_pushed_by_the_upstream_network_mislead_nobody",),
    ),
    Mutant(
        "K11",
        "an endpoint may lie in the house",
        "src/portcullis/policy.py",
        "            if endpoint in ip_network(prefix, strict=False):\n"
        '                return f"{address} lies in the protected',
        '            if False:\n                return f"{address} lies in the protected',
        (f"{_DNS}an_endpoint_name_that_leads_into_the_house_is_refused",),
    ),
    Mutant(
        "K11",
        "the tunnel's address answers beside the tunnel",
        _RULES,
        'accept comment "by the way it should come"\n\t\tcounter name blocked_inbound drop',
        "accept\n\t\taccept",
        (f"{_LAYERS}the_tunnels_address_answers_nobody_outside",),
    ),
    Mutant(
        "K12",
        "devices' plain DNS goes where they send it",
        _RULES,
        'iifname != @protected accept comment "not a device\'s"',
        'accept comment "not a device\'s"',
        (f"{_DNS}only_the_tunnels_resolver_answers",),
    ),
    Mutant(
        "K12",
        "the router's plain DNS goes where it sends it",
        _RULES,
        "th dport @asking goto asks_tunnel comment",
        'accept comment "x"\n\t\tth dport @asking goto asks_tunnel comment',
        (f"{_DNS}only_the_tunnels_resolver_answers",),
    ),
    Mutant(
        "K12",
        "plain DNS is dropped, not rejected",
        _RULES,
        'counter name blocked_dns goto refuse comment "K12: no resolver of this family"',
        'counter name blocked_dns drop comment "K12: no resolver of this family"',
        (f"{_DNS}dns_is_rejected_at_once_while_there_is_no_tunnel",),
    ),
    Mutant(
        "K12",
        "dnsmasq keeps what it has learnt outside",
        _CORE,
        "            openwrt.drop_dns_cache(self.bus)\n",
        "            pass\n",
        (f"{_DNS}caches_are_dropped_at_both_flips",),
    ),
    Mutant(
        "K13",
        "no server answers, and the clock is left behind the last handshake",
        "src/portcullis/clock.py",
        "        if now <= known:\n            self._step(known + 1)",
        "        if now <= known:\n            pass",
        ("tests/test_clock.py::test_what_sysfixtime_has_not_done_is_made_good",),
    ),
    Mutant(
        "K13",
        "the time of the last handshakes before a power cut is not made up for",
        "src/portcullis/clock.py",
        "            self._step(min(now + STEP, latest))",
        "            pass",
        ("tests/test_clock.py::test_after_a_power_cut_at_any_moment_it_connects_again",),
    ),
    Mutant(
        "K13",
        "the clock is driven ahead by a dead server",
        "src/portcullis/clock.py",
        "elif not self._newest and now < (latest := known + EVERY + STEP):",
        "elif now < (latest := now + EVERY + STEP):",
        ("tests/test_clock.py::test_a_server_that_is_dead_does_not_drive_the_clock_away",),
    ),
    Mutant(
        "K14",
        "the router does not answer its networks",
        _RULES,
        'iifname @protected accept comment "K14: the router answers its networks"',
        'iifname @protected drop comment "K14: the router answers its networks"',
        ("tests/test_established_flows.py::test_router_services_answer_the_lan_across_the_flip",),
    ),
    Mutant(
        "K14",
        "the router does not answer a house nobody knows",
        _RULES,
        'iifname @served accept comment "K14: the router answers the house"',
        'iifname @served drop comment "K14: the router answers the house"',
        ("tests/test_adversity.py::test_the_router_answers_the_house_whatever_is_known_of_it",),
    ),
    Mutant(
        "K14",
        "the routing guard knows no way to the house",
        _GUARD,
        "for prefix in network.prefixes}\n        routes |= {_by_device(LT, prefix,",
        "for prefix in ()}\n        routes |= {_by_device(LT, prefix,",
        ("tests/test_established_flows.py::test_router_services_answer_the_lan_across_the_flip",),
    ),
    Mutant(
        "K14",
        "the last resort takes the house's own devices down",
        "src/portcullis/lastresort.py",
        "alone = [device for device in upstream if device not in kept]",
        "alone = list(upstream)",
        ("tests/test_lastresort.py",),
    ),
)
