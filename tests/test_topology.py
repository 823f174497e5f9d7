# SPDX-License-Identifier: GPL-2.0-or-later
"""What the protected networks are made of, read from a sysfs of files and from the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from portcullis.policy import Network
from portcullis.topology import Port, Segment, Topology, read


class Sysfs:
    def __init__(self, root: Path) -> None:
        self.root = root

    def device(self, name: str, **files: str) -> Path:
        at = self.root / name
        at.mkdir()
        for file, text in files.items():
            (at / file).write_text(text)
        return at

    def bridge(self, name: str, *ports: str) -> None:
        (self.device(name) / "bridge").mkdir()
        for port in ports:
            (self.root / name / "brif" / port).mkdir(parents=True)


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    return Sysfs(tmp_path)


def test_a_bridge_has_its_ports(sysfs: Sysfs) -> None:
    sysfs.bridge("br-lan", "lan1", "phy0-ap0")
    (sysfs.device("lan1", phys_switch_id="0000\n") / "brport").mkdir()
    (sysfs.root / "lan1/brport/isolated").write_text("1\n")
    (sysfs.device("phy0-ap0") / "phy80211").mkdir()
    assert read((Network("lan", "br-lan", ()),), sysfs.root) == Topology(
        (
            Segment(
                "lan",
                "br-lan",
                True,
                (Port("lan1", False, "0000", True), Port("phy0-ap0", wireless=True)),
                "br-lan",
            ),
        )
    )


def test_a_network_without_a_bridge_is_its_own_port(sysfs: Sysfs) -> None:
    (sysfs.device("phy0-ap1") / "phy80211").mkdir()
    (segment,) = read((Network("guest", "phy0-ap1", ()),), sysfs.root).segments
    assert (segment.bridged, segment.ports) == (False, (Port("phy0-ap1", wireless=True),))


def test_a_vlan_of_a_bridge_has_the_bridges_ports(sysfs: Sysfs) -> None:
    """DSA with VLAN filtering: networks are br-lan.10 and br-lan.20."""
    sysfs.bridge("br-lan", "lan1")
    sysfs.device("lan1")
    (sysfs.device("br-lan.10") / "lower_br-lan").mkdir()
    (segment,) = read((Network("lan", "br-lan.10", ()),), sysfs.root).segments
    assert (segment.bridge, segment.ports) == ("br-lan", (Port("lan1"),))


def test_ports_of_other_bridges_are_foreign(sysfs: Sysfs) -> None:
    sysfs.bridge("br-lan", "lan1")
    sysfs.bridge("docker0", "veth1", "veth2")
    sysfs.device("lan1")
    assert read((Network("lan", "br-lan", ()),), sysfs.root).foreign == ("veth1", "veth2")


def test_a_network_whose_device_is_not_there_has_no_ports(sysfs: Sysfs) -> None:
    (segment,) = read((Network("lan", "br-lan", ()),), sysfs.root).segments
    assert segment.ports == ()


def test_a_port_whose_name_cannot_stand_in_nfts_text_is_left_out(sysfs: Sysfs) -> None:
    sysfs.bridge("br-lan", 'x"y', "lan1")
    sysfs.device("lan1")
    sysfs.device('x"y')
    (segment,) = read((Network("lan", "br-lan", ()),), sysfs.root).segments
    assert segment.ports == (Port("lan1"),)
