# SPDX-License-Identifier: GPL-2.0-or-later
"""What the protected networks are made of: bridges, their ports, and who forwards between those.

Read from sysfs, which is quicker than a dump over netlink and knows all of it.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from portcullis.networks import is_device
from portcullis.policy import Network
from portcullis.selftest import DEVICES

SYS = Path("/sys/class/net")


class Port(NamedTuple):
    """`switch` names the chip that forwards between its own ports without asking the kernel
    (DSA), empty for a port that does not; `isolated` is the bridge's own flag."""

    name: str
    wireless: bool = False
    switch: str = ""
    isolated: bool = False


class Segment(NamedTuple):
    """A protected network's layer-3 device, and the bridge's ports under it; without a bridge
    it is its own single port."""

    network: str
    device: str
    bridged: bool
    ports: tuple[Port, ...]
    bridge: str = ""


class Topology(NamedTuple):
    """`foreign` are the ports of bridges that carry no protected network."""

    segments: tuple[Segment, ...] = ()
    foreign: tuple[str, ...] = ()

    @property
    def ports(self) -> dict[str, Port]:
        return {port.name: port for segment in self.segments for port in segment.ports}

    @property
    def bridged(self) -> dict[str, Port]:
        return {p.name: p for s in self.segments if s.bridged for p in s.ports}


def read(networks: tuple[Network, ...], sys: Path = SYS) -> Topology:
    """The topology at this moment; devices that are not there have no ports."""
    segments = []
    for network in {network.device: network for network in networks}.values():
        bridge = _bridge(sys, network.device)
        names = _ports(sys, bridge) if bridge else (network.device,)
        ports = tuple(port(name, sys) for name in names if (sys / name).exists())
        segments.append(Segment(network.name, network.device, bool(bridge), ports, bridge))
    ours = {segment.bridge for segment in segments}
    others = [path.parent.name for path in sys.glob("*/bridge") if path.parent.name not in ours]
    foreign = {port for bridge in others for port in _ports(sys, bridge)}
    return Topology(tuple(segments), tuple(sorted(foreign)))


def _bridge(sys: Path, device: str) -> str:
    """The bridge that a device is, or that it is a VLAN of (bridge VLAN filtering, DSA)."""
    if (sys / device / "bridge").exists():
        return device
    lower = [path.name.removeprefix("lower_") for path in (sys / device).glob("lower_*")]
    return next((name for name in lower if (sys / name / "bridge").exists()), "")


def _ports(sys: Path, bridge: str) -> tuple[str, ...]:
    found = [path.name for path in (sys / bridge / "brif").glob("*")]
    # The self-test's device is nobody's, and gone in a moment.
    return tuple(n for n in sorted(found) if is_device(n) and not n.startswith(DEVICES))


def port(name: str, sys: Path = SYS) -> Port:
    """A bridge's port as it is at this moment; one that is not there is not isolated."""
    at = sys / name
    wireless = (at / "phy80211").exists() or (at / "wireless").exists()
    return Port(name, wireless, _text(at / "phys_switch_id"), _text(at / "brport/isolated") == "1")


def _text(path: Path) -> str:
    with suppress(OSError):  # EOPNOTSUPP: the device has no such property
        return path.read_text().strip()
    return ""
