# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutants of K11 to K13: who would mislead the router."""

from __future__ import annotations

from .mutant import Mutant

_RULES = "src/portcullis/ruleset.py"
_GUARD = "src/portcullis/guard.py"
_CORE = "src/portcullis/core.py"
_LAYERS = "tests/test_layers.py::test_"
_DNS = "tests/test_plain_dns.py::test_"
_CHOSEN = "tests/test_chosen_resolver.py::test_"

DECEPTION = (
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
        "K11",
        "ICMP redirects are accepted",
        _RULES,
        'counter name blocked_inbound drop comment "the end: deny by default"',
        'icmp type redirect accept comment "x"\n'
        '\t\tcounter name blocked_inbound drop comment "the end: deny by default"',
        ("tests/test_attack_routes.py::test_redirects_lead_nothing_astray",),
    ),
    Mutant(
        "K11",
        "strangers at the line are answered out of the tunnel",
        _RULES,
        'ct direction reply drop comment "K11: what was begun outside',
        'ct direction reply accept comment "K11: what was begun outside',
        ("tests/test_attack_inbound.py::test_strangers_get_no_answer[connected]",),
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
        "K12",
        "the chosen resolver is passed over",
        _RULES,
        'meta nfproto vmap @redirected comment "K12',
        'continue comment "K12',
        (f"{_CHOSEN}the_chosen_resolver_alone_answers[lana-+notcp]",),
    ),
    Mutant(
        "K12",
        "the router itself passes the chosen resolver over",
        _RULES,
        "_first(chosen if policy.chosen else resolvers)",
        "_first(resolvers)",
        (f"{_CHOSEN}the_chosen_resolver_alone_answers[router-+notcp]",),
    ),
    Mutant(
        "K12",
        "a family without a chosen resolver is a way around the choice",
        _RULES,
        "        if policy.chosen:  #",
        "        if chosen:  #",
        (f"{_CHOSEN}a_family_in_which_none_was_chosen_is_refused_at_once",),
    ),
    Mutant(
        "K12",
        "what the chosen resolver asks comes back to it",
        _RULES,
        'ip saddr @chosen4 goto asks_tunnel comment "K12',
        'continue comment "K12',
        (f"{_CHOSEN}what_it_asks_in_its_turn_goes_to_the_tunnels_resolver[198.51.100.53-+notcp]",),
    ),
    Mutant(
        "K12",
        "what the chosen resolver asks the router comes back to it",
        _RULES,
        'th dport @asking goto asks_tunnel comment "K12',
        'continue comment "K12',
        (f"{_CHOSEN}what_it_asks_in_its_turn_goes_to_the_tunnels_resolver[192.168.1.1-+notcp]",),
    ),
    Mutant(
        "K12",
        "the chosen resolver is asked from the tunnel's address",
        _RULES,
        "ip daddr @chosen4 masquerade comment",
        "ip daddr @chosen4 accept comment",
        (f"{_CHOSEN}the_chosen_resolver_alone_answers[router-+notcp]",),
    ),
    Mutant(
        "K13",
        "no server answers: the clock is left behind the last handshake",
        "src/portcullis/clock.py",
        "        if now <= known:\n            self._step(known + 1)",
        "        if now <= known:\n            pass",
        ("tests/test_clock.py::test_what_sysfixtime_has_not_done_is_made_good",),
    ),
    Mutant(
        "K13",
        "the time between last handshake and power cut is not made up for",
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
)
