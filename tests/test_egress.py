# SPDX-License-Identifier: GPL-2.0-or-later
"""The egress hook's text, and the devices it goes on."""

from __future__ import annotations

import re
import socket
import subprocess
from unittest.mock import Mock

import pytest
from router.leaktest import has_egress_hook
from router.namespace import Namespace

from portcullis import egress, egresshook
from portcullis.attachment import Attachment, Netdev, Outside, attach
from portcullis.egress import Outward, elements
from portcullis.egresshook import EgressHook
from portcullis.nft import Nftables, NftError
from portcullis.packetfilter import FilterError, template_chains
from portcullis.policy import CLOSED, Policy, Socket

TABLE = egress.table(("eth1", "wwan0"))
RULES = [
    (name, line.strip())
    for name, body in re.findall(r"\tchain (\w+) \{\n(.*?)\n\t\}", TABLE.structure, re.DOTALL)
    for line in body.splitlines()
    if not line.strip().startswith("type filter")
]
SERVERS = (Socket("198.51.100.10", "udp", 51820), Socket("2001:db8:51::10", "tcp", 443))
ATTACHED = Attachment((("eth1", 3), ("wwan0", 4)), pppoe=("eth1",), trunks=("wwan0",))


@pytest.mark.parametrize(("chain", "rule"), RULES)
def test_every_rule_has_a_comment(chain: str, rule: str) -> None:
    assert re.search(r' comment "[^"]{6,}"$', rule), chain


def test_the_chain_ends_in_a_drop_without_a_condition() -> None:
    for chain in ("egress", "marked"):
        last = [rule for name, rule in RULES if name == chain][-1]
        assert last.startswith("counter name blocked_frames drop comment ")


def test_the_first_statement_is_one_look_up_that_the_mark_follows() -> None:
    first, second = [rule for name, rule in RULES if name == "egress"][:2]
    assert first.startswith("oifname vmap @gate ")
    assert second.startswith("meta mark & 0x7fff0000 == 0x50430000 goto marked ")


def test_nothing_but_the_gate_opens_without_looking_at_the_packet() -> None:
    opening = [rule for _, rule in RULES if re.match(r"(oifname|meta oifname|accept)", rule)]
    assert len(opening) == 1


def test_the_server_is_pinned_by_mark_address_protocol_and_port() -> None:
    found = [(name, rule) for name, rule in RULES if "@endpoints" in rule or "@bootstrap" in rule]
    assert len(found) == 4
    for chain, rule in found:
        assert chain == "marked"
        assert re.match(r"ip6? daddr \. meta l4proto \. th dport @\w+ accept ", rule)


def test_no_rule_asks_for_the_type_of_a_device_that_came_in() -> None:
    """`ether type` does, and matches nothing on the way out."""
    assert "ether type" not in TABLE.structure


def test_no_set_is_an_interval_set() -> None:
    assert "interval" not in TABLE.structure


def test_devices_are_the_structures_only_parameter() -> None:
    hook = ("filter", "egress", "-10", "drop")
    one, two = (template_chains(egress.table(names)) for names in (("eth1",), ("eth1", "usb0")))
    assert one == two
    assert one["egress"].hook == (*hook[:2], int(hook[2]), hook[3])
    assert 'devices = { "eth1", "wwan0" }' in TABLE.structure


def test_closed_is_empty_but_for_what_lies_on_the_devices() -> None:
    found = elements(Outward(CLOSED, ATTACHED))
    assert {name for name, values in found.items() if values} == {"pppoe", "trunks"}
    assert found["pppoe"] == {'"eth1"'}
    assert found["trunks"] == {'"wwan0"'}


def test_released_is_an_element_for_each_device() -> None:
    found = elements(Outward(Policy(released=True), ATTACHED))
    assert found["gate"] == {'"eth1" : accept', '"wwan0" : accept'}


def test_connected_pins_the_servers_and_their_fragments() -> None:
    found = elements(Outward(Policy(endpoints=SERVERS), ATTACHED))
    assert found["endpoints4"] == {"198.51.100.10 . udp . 51820"}
    assert found["endpoints6"] == {"2001:db8:51::10 . tcp . 443"}
    assert found["fragments4"] == {"198.51.100.10 . udp"}
    assert found["fragments6"] == {"2001:db8:51::10 . tcp"}


def test_nft_takes_it_and_the_probe_leaves_nothing() -> None:
    if not has_egress_hook():
        pytest.skip("this kernel has no egress hook")
    rendered = TABLE.render(elements(Outward(Policy(endpoints=SERVERS), ATTACHED)))
    script = "ip link add eth1 type veth peer name wwan0; nft -f -; nft list tables"
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", script],
        input=rendered + egress.PROBE,
        text=True,
        capture_output=True,
        check=True,
    )
    assert (done.stderr, done.stdout) == ("", "table netdev portcullis\n")


def test_a_hook_that_comes_with_a_module_later_goes_on_the_devices(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_egress_hook():
        pytest.skip("this kernel has no egress hook")
    namespace.ip("link add eth1 type veth peer name far\n")
    attachment = Attachment((("eth1", socket.if_nametoindex("eth1")),))
    hook = EgressHook()
    with monkeypatch.context() as without:
        without.setattr(egress, "PROBE", "nonsense")
        assert hook.reconcile(CLOSED, attachment) == ()
    assert hook.standing.startswith("not available: ")
    assert hook.reconcile(CLOSED, attachment) == ()
    monkeypatch.setattr(egresshook, "_TRY_AGAIN", -1.0)
    assert hook.reconcile(CLOSED, attachment) == ("table missing",)
    hook.close()
    chain = namespace.run(["nft", "list", "chain", "netdev", "portcullis", "egress"])
    assert '"eth1"' in chain.stdout
    assert "lo" not in re.findall(r'"(\w+)"', chain.stdout.partition("priority")[0])
    assert hook.standing == "in force"


@pytest.mark.parametrize("fails", [False, True])
def test_a_device_that_leads_upstream_no_more_is_let_go_whoever_hooked_it(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """A former process, or one whose last try went wrong: the house may be on it by now (K14)."""
    if not has_egress_hook():
        pytest.skip("this kernel has no egress hook")
    namespace.ip("link add eth1 type veth peer name far\n")
    attachment = Attachment((("eth1", socket.if_nametoindex("eth1")),))
    hook = EgressHook()
    assert hook.reconcile(CLOSED, attachment) == ("table missing",)
    if fails:
        with monkeypatch.context() as broken:
            broken.setattr(Nftables, "list_table", Mock(side_effect=NftError("broken")))
            with pytest.raises(FilterError):
                hook.reconcile(CLOSED, attachment)
    else:
        hook.close()
        hook = EgressHook()
    hook.reconcile(CLOSED, Attachment())
    hook.close()
    assert "netdev" not in namespace.run(["nft", "list", "tables"]).stdout


# Where it goes

LO, WAN = Netdev("lo", 1), Netdev("eth1", 2)
LAN, PORT = Netdev("br-lan", 3, kind="bridge"), Netdev("lan1", 4, lower=9, master=3)
CONDUIT = Netdev("eth0", 9)


def on(*upstream: str, netdevs: tuple[Netdev, ...], pppoe: tuple[str, ...] = ()) -> Attachment:
    return attach(Outside(upstream, pppoe, netdevs), ("br-lan",))


def test_what_leads_upstream_has_a_hook() -> None:
    assert on("eth1", netdevs=(LO, WAN, LAN, PORT)).devices == (("eth1", 2),)


def test_a_device_that_is_not_there_has_none() -> None:
    assert on("eth1", "wwan0", netdevs=(WAN, LAN)).names == ("eth1",)


def test_the_tunnel_and_the_loopback_never_have_one() -> None:
    found = on("lo", "pc0", "eth1", netdevs=(LO, Netdev("pc0", 7), WAN))
    assert found.names == ("eth1",)


def test_a_device_that_is_renamed_keeps_its_hook_until_it_is_the_houses() -> None:
    """netifd knows no `wan9`; whoever sends frames into it needs nobody's knowledge."""
    renamed, port = Netdev("wan9", 2), Netdev("lan2", 2, master=3)
    outside, former = Outside(("eth1",)), [("eth1", 2)]
    found = attach(outside._replace(netdevs=(LO, renamed, LAN)), ("br-lan",), former)
    assert found.devices == (("wan9", 2),)
    for netdevs in ((LO, port, LAN), (LO, LAN)):
        found = attach(outside._replace(netdevs=netdevs), ("br-lan",), former)
        assert found == Attachment()


def test_an_access_points_only_device_has_none() -> None:
    """K14: the house is on it."""
    found = on("br-lan", netdevs=(LO, LAN, PORT))
    assert (found.devices, found.shared) == ((), ("br-lan",))


@pytest.mark.parametrize("device", ["lan1", "eth0"])
def test_what_a_network_of_the_house_runs_over_has_none(device: str) -> None:
    """A bridge's port, and the conduit of a switch below that."""
    found = on(device, netdevs=(LO, LAN, PORT, CONDUIT))
    assert (found.devices, found.shared) == ((), (device,))


def test_a_port_of_the_houses_bridge_that_a_default_route_leaves_by_keeps_its_hook() -> None:
    """Somebody has put the WAN's port into the bridge; as a port of the house it had no address."""
    outside = Outside(("eth1",), netdevs=(WAN._replace(master=3), LAN, PORT), gateways=("eth1",))
    found = attach(outside, ("br-lan",))
    assert (found.devices, found.shared) == ((("eth1", 2),), ())


def test_the_house_in_a_vlan_of_the_wan_device_keeps_that_open_but_not_its_other_vlan() -> None:
    netdevs = (
        *(WAN, Netdev("eth1.1", 5, lower=2, master=3, kind="vlan"), LAN),
        Netdev("eth1.7", 6, lower=2, kind="vlan"),
    )
    found = on("eth1", "eth1.7", netdevs=netdevs)
    assert (found.names, found.shared) == (("eth1.7",), ("eth1",))


def test_the_base_of_pppoe_has_a_hook_that_lets_its_frames_through() -> None:
    found = on("pppoe-wan", netdevs=(WAN, LAN, Netdev("pppoe-wan", 8)), pppoe=("eth1",))
    assert (found.names, found.pppoe) == (("eth1", "pppoe-wan"), ("eth1",))


def test_a_device_with_a_hooked_vlan_lets_tagged_frames_through() -> None:
    """An interface for the modem beside the line itself, which is in a VLAN."""
    netdevs = (WAN, LAN, Netdev("eth1.7", 6, lower=2, kind="vlan"))
    assert on("eth1", "eth1.7", netdevs=netdevs).trunks == ("eth1",)
    assert on("eth1", netdevs=netdevs).trunks == ()


def test_a_device_made_anew_under_its_name_is_another() -> None:
    before, after = (on("eth1", netdevs=(Netdev("eth1", i), LAN)) for i in (2, 11))
    assert before != after


def test_a_name_that_cannot_stand_in_nfts_text_is_left_out() -> None:
    assert on('e"; }', netdevs=(Netdev('e"; }', 2), LAN)).devices == ()
