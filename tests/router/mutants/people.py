# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutants of K14: nobody is locked out."""

from __future__ import annotations

from .mutant import Mutant

_RULES = "src/portcullis/ruleset.py"
_GUARD = "src/portcullis/guard.py"
_ATTACHMENT = "src/portcullis/attachment.py"
_FRAMES = "tests/test_egress_hook.py::test_"

PEOPLE = (
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
        "the kernel's own rule for the router is not put back",
        _GUARD,
        "        rules.add(_local(family))\n",
        "",
        ("tests/test_guard.py::test_the_kernels_own_local_rule_is_put_back",),
    ),
    Mutant(
        "K14",
        "the last resort takes the house's own devices down",
        "src/portcullis/lastresort.py",
        "alone = [device for device in upstream if device not in kept]",
        "alone = list(upstream)",
        ("tests/test_lastresort.py",),
    ),
    Mutant(
        "K14",
        "the egress hook goes on the house's own devices",
        _ATTACHMENT,
        "if name not in (*_NEVER, *beneath)}",
        "if name not in _NEVER}",
        (f"{_FRAMES}an_access_point_is_not_locked_out",),
    ),
)
