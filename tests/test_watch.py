# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel says of others' changes (K10), heard from the kernel itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest
from router.namespace import Namespace

from portcullis.loop import Loop
from portcullis.nft import Nftables
from portcullis.packetfilter import PacketFilter
from portcullis.policy import CLOSED
from portcullis.ruleset import INET
from portcullis.watch import Change, Watch

TABLE = "inet portcullis"
SCRATCH = "add table inet scratch; add chain inet scratch portcullis"
Hear = Callable[[], list[Change]]


@pytest.fixture
def hear(namespace: Namespace) -> Iterator[Hear]:
    """Our table stands, as any nft has it; calls give what was told since the last one."""
    nft = Nftables()
    nft.accepts = lambda _commands: False  # type: ignore[method-assign]  # owned by nobody
    PacketFilter(nft, INET).reconcile(CLOSED)
    heard: list[Change] = []
    loop = Loop(lambda error: pytest.fail(repr(error)))
    watch = Watch(loop, heard.append)

    def gather() -> list[Change]:
        loop.after(0, loop.stop)
        loop.run()
        found = heard.copy()
        heard.clear()
        return found

    yield gather
    watch.close()
    nft.close()


@pytest.mark.parametrize(
    ("deed", "differs"),
    [
        (f"delete table {TABLE}", "table missing"),
        (f"insert rule {TABLE} forward accept", "rules differ"),
        (f"flush chain {TABLE} output", "rules differ"),
        (f"add chain {TABLE} another", "rules differ"),
        (f"add element {TABLE} gate {{ ipv4 : accept }}", "elements of gate differ"),
        (f"flush set {TABLE} protected", "elements of protected differ"),
    ],
)
def test_what_differs_and_who_did_it(
    namespace: Namespace, hear: Hear, deed: str, differs: str
) -> None:
    namespace.nft("add element inet portcullis protected { lan }")
    hear()
    namespace.nft(deed)
    (change,) = hear()
    assert differs in change.block
    assert change.by.startswith("nft (pid ")
    assert not change.hook and not change.routing


def test_a_rules_own_set_is_a_rule(namespace: Namespace, hear: Hear) -> None:
    namespace.nft(f"insert rule {TABLE} forward tcp dport {{ 80, 443 }} accept")
    (change,) = hear()
    assert change.block == ("rules differ",)


def test_other_tables_differ_in_nothing_of_ours(namespace: Namespace, hear: Hear) -> None:
    namespace.nft(SCRATCH)
    (change,) = hear()
    assert change == Change(by=change.by)


def test_elements_of_others_sets_are_not_told(namespace: Namespace, hear: Hear) -> None:
    """To look takes as long as dnsmasq needs for a question."""
    namespace.nft("add table inet scratch; add set inet scratch s { type ipv4_addr; }")
    assert hear()
    namespace.nft("add element inet scratch s { 192.0.2.1 }")
    namespace.nft("delete element inet scratch s { 192.0.2.1 }")
    assert hear() == []
    namespace.nft("delete set inet scratch s")
    assert hear()


def test_the_egress_hooks_table_is_told_apart(namespace: Namespace, hear: Hear) -> None:
    namespace.nft("add table netdev portcullis; delete table netdev portcullis")
    (change,) = hear()
    assert (change.block, change.hook) == ((), ("table missing",))


def test_what_was_changed_in_a_table_goes_with_it(namespace: Namespace, hear: Hear) -> None:
    namespace.nft(f"insert rule {TABLE} forward accept")
    namespace.nft(f"delete table {TABLE}")
    namespace.nft(f"add table {TABLE}")
    (change,) = hear()
    assert change.block == ("table missing", "rules differ")


def test_several_transactions_are_told_at_once(namespace: Namespace, hear: Hear) -> None:
    namespace.nft(SCRATCH)
    namespace.nft(f"delete table {TABLE}")
    namespace.nft("delete table inet scratch")
    (change,) = hear()
    assert change.block == ("table missing",)


def test_more_sets_than_anybody_has_are_told_in_short(namespace: Namespace, hear: Hear) -> None:
    """Memory: the names are the attacker's."""
    more = "".join(
        f"add set {TABLE} x{n} {{ type ipv4_addr; }}; add element {TABLE} x{n} {{ 192.0.2.1 }};"
        for n in range(500)
    )
    namespace.nft(more)
    (change,) = hear()
    assert "rules differ" in change.block
    assert len(change.block) < 100


def test_our_own_transactions_are_told_to_nobody(namespace: Namespace, hear: Hear) -> None:
    nft = Nftables()
    nft.run(f"insert rule {TABLE} forward accept")
    assert hear() == []
    namespace.nft(SCRATCH)
    (change,) = hear()
    assert change.block == ()
    nft.close()


IN_A_CONTAINER = f"""
from portcullis.loop import Loop
from portcullis.nft import Nftables
from portcullis.watch import Watch
heard, loop, nft = [], Loop(print), Nftables()
Watch(loop, heard.append)
nft.run("{SCRATCH}")
loop.after(0, loop.stop)
loop.run()
print(heard)
"""


def test_our_own_transactions_are_known_in_a_container_as_well(namespace: Namespace) -> None:
    """The kernel tells the process id that the machine has for us, not the container."""
    command = ["unshare", "--pid", "--fork", sys.executable, "-c", IN_A_CONTAINER]
    assert namespace.run(command).stdout == "[]\n"


def test_what_we_have_put_right_since_is_told_as_nothing(namespace: Namespace, hear: Hear) -> None:
    """It was found by a look that came before the word did."""
    nft = Nftables()
    namespace.nft(f"insert rule {TABLE} forward accept")
    nft.run(f"flush chain {TABLE} forward")
    (change,) = hear()
    assert change == Change(by=change.by)
    namespace.nft(f"insert rule {TABLE} forward accept")
    nft.run(SCRATCH)
    namespace.nft(f"add element {TABLE} gate {{ ipv4 : accept }}")
    (change,) = hear()
    assert change.block == ("rules differ", "elements of gate differ")
    nft.close()


@pytest.mark.parametrize("command", ["rule add pref 9 table 9", "route add unreachable 192.0.2.1"])
def test_rules_and_routes_are_told(namespace: Namespace, hear: Hear, command: str) -> None:
    namespace.run(["ip", *command.split()])
    assert any(change.routing for change in hear())


def test_a_link_is_no_routing(namespace: Namespace, hear: Hear) -> None:
    namespace.run(["ip", "link", "add", "br0", "type", "bridge"])
    changes = hear()
    assert changes and not any(change.routing for change in changes)
