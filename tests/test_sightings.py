# SPDX-License-Identifier: GPL-2.0-or-later
"""What the sources of the inventory say, and that nothing they can say breaks the reader."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portcullis.devices import Inventory, Sighting
from portcullis.sightings import (
    LEASE,
    ROUTER,
    access_points,
    associations,
    dnsmasq_leases,
    forwarding,
    names_of_addresses,
    odhcpd_leases,
    static_names,
)
from portcullis.topology import Port, Segment, Topology

A, B = "02:00:5e:00:53:10", "02:00:5e:00:53:11"
PORTS = (Port("lan1"), Port("phy0-ap0", wireless=True))
HOUSE = Topology((Segment("lan", "br-lan", True, PORTS, "br-lan"),))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner),
    max_leaves=20,
)
KEYS = (
    "device",
    "leases",
    "mac",
    "address",
    "ipv6-addr",
    "clients",
    "interfaces",
    "config",
    "name",
)
NESTED = st.recursive(
    JSON,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=20,
)
ANSWER = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), NESTED)


def test_dnsmasqs_leases_name_devices() -> None:
    text = (
        f"1795000000 {A} 192.168.1.10 laptop 01:{A}\n"
        f"1795000000 {B} 192.168.1.11 * *\n"
        "duid 00:01:00:01:2a:2b:2c:2d\n"
        "1795000000 123456 fd00::10 laptop 00:01:00:01\n"
    )
    assert list(dnsmasq_leases(text)) == [
        Sighting(A, address="192.168.1.10", name="laptop", rank=LEASE),
        Sighting(B, address="192.168.1.11", name="*", rank=LEASE),
    ]


def test_odhcpds_leases_name_devices() -> None:
    lease = {"mac": A.replace(":", ""), "hostname": "laptop", "address": "192.168.1.10"}
    answer = {"device": {"br-lan": {"leases": [lease]}}}
    assert list(odhcpd_leases(answer)) == [
        Sighting(A, address="192.168.1.10", name="laptop", rank=LEASE)
    ]


def test_ipv6_names_come_from_odhcpds_file_and_its_leases() -> None:
    hosts = "# br-lan 000100012a 1 laptop 1795000000 10 128 fd00::10/128\nfd00::10\tlaptop\n"
    lease = {"duid": "00", "hostname": "phone", "ipv6-addr": [{"address": "fd00::11"}]}
    answer = {"device": {"br-lan": {"leases": [lease]}}}
    assert names_of_addresses(hosts, answer) == {"fd00::10": "laptop", "fd00::11": "phone"}


@pytest.mark.parametrize("macs", [f"{A} {B}", [A, B]])
def test_the_owners_static_names_rank_higher(macs: Any) -> None:
    dhcp = {"cfg01": {".type": "host", "mac": macs, "name": "tv"}, "lan": {".type": "dhcp"}}
    assert list(static_names(dhcp)) == [Sighting(m, name="tv", rank=ROUTER) for m in (A, B)]


def test_access_points_and_their_client_isolation_are_read() -> None:
    status = {
        "radio0": {
            "interfaces": [
                {"section": "a", "ifname": "phy0-ap0", "config": {"isolate": True}},
                {"section": "b", "ifname": "phy0-ap1", "config": {"isolate": "1"}},
                {"section": "c", "ifname": "phy0-ap2", "config": {}},
                {"section": "d", "config": {}},
            ]
        }
    }
    found = access_points(status)
    assert found == {"phy0-ap0": True, "phy0-ap1": True, "phy0-ap2": False}


def test_an_associated_device_is_online_and_wireless() -> None:
    found = list(associations(HOUSE, "phy0-ap0", {"clients": {A.upper(): {"auth": True}}}))
    assert found == [Sighting(A, "br-lan", "phy0-ap0", wireless=True, age=0.0)]


def test_an_access_point_outside_the_protected_networks_says_nothing() -> None:
    assert not list(associations(HOUSE, "phy9-ap0", {"clients": {A: {}}}))


def bridge(sys: Path, entries: list[tuple[str, int, bool, int]]) -> None:
    """A bridge in sysfs: its ports, and its forwarding entries (address, port, local, age)."""
    for number, port in enumerate(PORTS, start=1):
        (sys / port.name / "brport").mkdir(parents=True)
        (sys / port.name / "brport/port_no").write_text(f"0x{number:x}\n")
    (sys / "br-lan").mkdir()
    data = b"".join(
        struct.pack("=6sBBIBBH", bytes.fromhex(mac.replace(":", "")), port, local, age, 0, 0, 0)
        for mac, port, local, age in entries
    )
    (sys / "br-lan/brforward").write_bytes(data)


def test_the_bridge_tells_port_and_age(tmp_path: Path) -> None:
    bridge(tmp_path, [(A, 1, False, 250), (B, 2, False, 0), ("02:00:5e:00:53:03", 1, True, 0)])
    assert list(forwarding(HOUSE, tmp_path)) == [
        Sighting(A, "br-lan", "lan1", wireless=False, age=2.5),
        Sighting(B, "br-lan", "phy0-ap0", wireless=True, age=0.0),
    ]


def test_a_flooded_bridge_is_read_up_to_a_bound(tmp_path: Path) -> None:
    bridge(
        tmp_path,
        [
            (f"02:00:00:{n >> 16:02x}:{n >> 8 & 255:02x}:{n & 255:02x}", 1, False, 0)
            for n in range(100_000)
        ],
    )
    assert len(list(forwarding(HOUSE, tmp_path))) <= 4000


def test_a_bridge_that_has_gone_says_nothing(tmp_path: Path) -> None:
    assert not list(forwarding(HOUSE, tmp_path))


HOSTILE = [
    f"1795000000 {A} 192.168.1.10 \x1b[2J\u202e<img/src=x>{'A' * 5000} *\n",
    f'1795000000 {A} fe80::1%";flush\x00ruleset evil *\n',
    f"{'9' * 4000} {A} {'1' * 4000} {'x' * 100000} {'y' * 4000}\n",
    "\n" * 100_000,
    " " * 100_000,
    f"1795000000 {A}\n1 {A} 192.168.1.1\n",
    "".join(f"1 02:00:00:00:{n >> 8:02x}:{n & 255:02x} 10.0.0.1 n{n} *\n" for n in range(60_000)),
    "\ufffd\x00\x01\x02" * 1000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_lease_file_is_data_and_bounded(text: str) -> None:
    inventory = Inventory()
    inventory.update(dnsmasq_leases(text), 1.0)
    assert len(inventory.devices) <= 1000
    for device in inventory.devices.values():
        assert device.hostname.isprintable()
        assert len(device.hostname.encode()) <= 63
        assert not [a for a in device.addresses if "%" in a or len(a) > 45]


@given(st.text())
def test_any_lease_file_can_be_read(text: str) -> None:
    Inventory().update(dnsmasq_leases(text), 1.0)
    names_of_addresses(text, {})


@given(ANSWER)
def test_any_answer_can_be_read(answer: dict[str, Any]) -> None:
    Inventory().update(
        [
            *odhcpd_leases(answer),
            *static_names(answer),
            *associations(HOUSE, "phy0-ap0", answer),
        ],
        1.0,
    )
    access_points(answer)
    names_of_addresses("", answer)
