# SPDX-License-Identifier: GPL-2.0-or-later
"""The inventory: merged by MAC address, bounded, and unmoved by hostile names and addresses."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portcullis.devices import (
    CAPACITY,
    ONLINE_WITHIN,
    Device,
    Inventory,
    Sighting,
    clean,
    normal,
    valid_mac,
)

A, B = "02:00:5e:00:53:10", "02:00:5e:00:53:11"
NOW = 5000.0


def known(*sightings: Sighting, now: float = NOW) -> dict[str, Device]:
    inventory = Inventory()
    inventory.update(sightings, now)
    return inventory.devices


def fake(number: int) -> str:
    return valid_mac(f"02{number:010x}")


def test_sources_are_merged_by_mac_address() -> None:
    found = known(
        Sighting(A, "br-lan", "lan1", wireless=False, age=3.0),
        Sighting(A, "br-lan", address="192.168.1.10", age=None),
        Sighting(A, "br-lan", address="fe80::10", age=0.0),
        Sighting(A.upper(), address="192.168.1.10", name="laptop", rank=1),
    )
    assert found == {
        A: Device(
            A,
            "laptop",
            ("192.168.1.10", "fe80::10"),
            "br-lan",
            "lan1",
            wireless=False,
            first=NOW - 3,
            heard=NOW,
        )
    }


def test_the_highest_ranking_name_wins() -> None:
    found = known(
        Sighting(A, name="zz-from-the-device", rank=1),
        Sighting(A, name="from the owner", rank=3),
        Sighting(A, name="zz-static", rank=2),
    )
    assert found[A].hostname == "from the owner"


def test_a_lease_is_no_sign_of_life() -> None:
    found = known(Sighting(A, address="192.168.1.10", name="laptop"))[A]
    assert (found.heard, found.online(NOW)) == (0.0, False)


@pytest.mark.parametrize(("age", "online"), [(0.0, True), (ONLINE_WITHIN + 1, False)])
def test_a_device_is_online_if_it_was_heard_lately(age: float, online: bool) -> None:
    assert known(Sighting(A, age=age))[A].online(NOW) is online


def test_a_device_that_moved_is_where_it_was_heard_last() -> None:
    new = Sighting(A, "br-guest", "wlan1", wireless=True, age=1.0)
    old = Sighting(A, "br-lan", "lan1", wireless=False, age=200.0)
    for order in ((new, old), (old, new)):
        found = known(*order)[A]
        assert (found.network, found.port, found.wireless) == ("br-guest", "wlan1", True)


def test_a_silent_device_is_remembered_with_its_times() -> None:
    inventory = Inventory()
    inventory.update([Sighting(A, "br-lan", "lan1", age=0.0)], NOW)
    inventory.update([], NOW + 4000)
    found = inventory.devices[A]
    assert (found.first, found.heard, found.online(NOW + 4000)) == (NOW, NOW, False)


def test_the_newest_addresses_are_kept_and_only_so_many() -> None:
    inventory = Inventory()
    for number in range(1, 60):
        inventory.update(
            [Sighting(A, address=f"192.168.1.{number}"), Sighting(A, address=f"fd00::{number:x}")],
            NOW,
        )
    found = inventory.devices[A].addresses
    assert found[:2] == ("192.168.1.59", "fd00::3b")
    assert len(found) < 12


@pytest.mark.parametrize(
    "address",
    [
        'fe80::1%"; flush ruleset; #',
        "fe80::1%eth0",
        "1.2.3.4 }",
        "",
        "x" * 9000,
        "255.255.255.256",
        "224.0.0.251",
        "ff02::1",
        "0.0.0.0",
        "::1",
    ],
)
def test_what_is_no_devices_address_is_left_out(address: str) -> None:
    assert known(Sighting(A, address=address))[A].addresses == ()


def test_a_flood_of_invented_devices_does_not_fill_the_memory() -> None:
    inventory = Inventory()
    for batch in range(20):
        flood = [Sighting(fake(batch << 16 | n), "br-lan", "lan1", age=0.0) for n in range(1000)]
        inventory.update(flood, NOW + batch)
    assert len(inventory.devices) == CAPACITY


def test_the_longest_silent_go_first() -> None:
    inventory = Inventory()
    seen = [Sighting(fake(n), "br-lan", "lan1", age=1000.0 + n) for n in range(CAPACITY)]
    inventory.update([*seen, Sighting(A, age=0.0)], NOW)
    assert A in inventory.devices
    assert fake(CAPACITY - 1) not in inventory.devices
    assert fake(0) in inventory.devices


def test_a_device_with_an_exception_outlasts_a_flood() -> None:
    inventory = Inventory()
    inventory.update([Sighting(B, age=4000.0)], NOW)
    flood = [Sighting(fake(n), "br-lan", "lan1", age=0.0) for n in range(3 * CAPACITY)]
    inventory.update(flood, NOW, kept=(B,))
    assert B in inventory.devices


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("laptop", "laptop"),
        ("*", ""),
        ("  spaced  out ", "spaced  out"),
        ("bell\x07\x1b[31mred\r\n", "bell[31mred"),
        ("right\u202eleft\u200b", "rightleft"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("x" * 500, "x" * 63),
        ("\u00e9" * 40, "\u00e9" * 31),
        ("\ud800", ""),
        ("\x00", ""),
    ],
)
def test_a_name_is_data_bounded_and_without_what_cannot_be_printed(name: str, shown: str) -> None:
    assert clean(name) == shown


@given(st.text())
def test_any_name_can_be_sent_and_shown(name: str) -> None:
    found = clean(name)
    assert len(found.encode()) <= 63
    assert found.isprintable()


@pytest.mark.parametrize("text", [A, A.upper(), A.replace(":", "-"), A.replace(":", ""), f" {A} "])
def test_a_mac_address_has_one_notation(text: str) -> None:
    assert valid_mac(text) == A


@pytest.mark.parametrize(
    "text",
    [
        "",
        "02:00:5e:00:53",
        "02:00:5e:00:53:10:11",
        "02:00:5e:00:53:1g",
        "2:0:5e:0:53:10",
        "02005e00531011",
        "02:00:5e:00:53:10 }",
        "01:00:5e:00:00:fb",
        "33:33:00:00:00:01",
        "ff:ff:ff:ff:ff:ff",
        "00:00:00:00:00:00",
        "٠٢:00:5e:00:53:10",
        "::::::::::",
    ],
)
def test_what_is_no_devices_mac_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^is "):
        valid_mac(text)
    assert normal(text) == ""


@given(st.text(max_size=40))
def test_any_text_is_a_mac_address_or_refused(text: str) -> None:
    found = normal(text)
    assert found == "" or valid_mac(found) == found


def test_a_full_inventory_at_its_worst_fits_into_one_message() -> None:
    """ubus carries 1 MiB; half of it is left for what surrounds the values."""
    inventory = Inventory()
    sightings = []
    for number in range(CAPACITY):
        mac = fake(number)
        sightings.append(Sighting(mac, "br-lan", "lan1", name="\u00e9" * 80, rank=1, age=0.0))
        for n in range(20):
            address = f"fd00:1111:2222:3333:4444:5555:{number:x}:{n + 4096:x}"
            sightings.append(Sighting(mac, address=address))
            sightings.append(Sighting(mac, address=f"192.168.{100 + n}.{number % 250 + 1}"))
    inventory.update(sightings, NOW)
    assert len(inventory.devices) == CAPACITY
    assert len(json.dumps(list(inventory.devices.values()), ensure_ascii=False).encode()) < 1 << 19


# What outlives the process


def test_it_is_remembered_since_when_a_device_is_known() -> None:
    before, after = Inventory(), Inventory()
    before.update([Sighting(A, age=0.0)], 100.0)
    before.update([Sighting(A, age=0.0), Sighting(B, age=0.0)], 300.0)
    after.recall(before.times(), 400.0)
    assert after.devices == {}, "who does not appear again is not there"
    after.update([Sighting(A, age=1.0), Sighting(B, address="192.168.1.7")], 410.0)
    found = after.devices
    assert (found[A].first, found[A].heard) == (100.0, 409.0)
    assert (found[B].first, found[B].heard) == (300.0, 300.0), "a lease is no sign of life"


@pytest.mark.parametrize("times", [[500.0, 10.0], [10.0, 500.0], [-1, 3], ["1", 2], [1], None, []])
def test_times_that_cannot_be_are_not_recalled(times: object) -> None:
    """Of before a reboot, say: the clock began anew."""
    found = Inventory()
    found.recall(json.dumps({A: times, "nonsense": [1, 2]}), 400.0)
    found.update([Sighting(A, age=0.0)], 400.0)
    assert (found.devices[A].first, found.devices[A].heard) == (400.0, 400.0)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "3"])
def test_what_is_no_list_of_times_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Inventory().recall(text, 400.0)
