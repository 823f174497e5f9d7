# SPDX-License-Identifier: GPL-2.0-or-later
"""The world around the virtual router, with the virtual machine in the router's place."""

from __future__ import annotations

import fcntl
import json
import os
import selectors
import shlex
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from router import addresses as at
from router.appliance import DEFAULT_CONFIG, FILES, forwardings, installed, interfaces
from router.capture import Capture
from router.flood import Flood, Totals
from router.frame import Frame
from router.namespace import Namespace
from router.rootfs import FIREWALL, NETIFD4, NETIFD6, NETWORK, STANDIN, UCI
from router.topology import VirtualRouter

from portcullis import networks
from portcullis.policy import CLOSED, Network, Policy
from portcullis.ruleset import boot, render

from .image import HERE, STORE, TOP
from .machine import Machine, Nic

LAN_NIC = "02:00:5e:00:53:05"
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_WITHIN = 300.0
_TARGETS = at.FRIENDLY.addresses
_LAN = Network("lan", at.LAN_BRIDGE, (at.LAN4, at.LAN6))
_NETWORK = f"""
link add {at.LAN_BRIDGE} address {at.BR_LAN_MAC} type bridge stp_state 0 mcast_snooping 0
link set eth0 master {at.LAN_BRIDGE} up
link set {at.LAN_BRIDGE} up
addr add {at.ROUTER_LAN.v4}/24 dev {at.LAN_BRIDGE}
addr add {at.ROUTER_LAN.v6}/64 dev {at.LAN_BRIDGE} nodad
link set {at.WAN_DEVICE} up
addr add {at.ROUTER_WAN.v4}/24 dev {at.WAN_DEVICE}
addr add {at.ROUTER_WAN.v6}/64 dev {at.WAN_DEVICE} nodad
route add default via {at.ISP.v4}
route add ::/0 via {at.ISP.v6}
"""
_RULES = "rule add pref 32766 lookup main\n"


@dataclass
class Boot:
    """From power-on to power-off: what the router sent on the WAN, when which phase began (seconds
    since 1970), what the guest said, what the flood from the LAN sent and had answered; `told` is
    what the callables gave that were called as their phases began."""

    frames: list[Frame] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    output: str = ""
    flood: Totals = field(default_factory=Totals)
    told: dict[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        times = ", ".join(f"{n} {t - self.phases['power-on']:.1f}" for n, t in self.phases.items())
        return f"{len(self.frames)} frames on the WAN of a flood: {self.flood} (seconds: {times})"

    def between(self, first: str, last: str) -> list[Frame]:
        """The frames from the begin of one phase to the begin of another."""
        assert {first, last} <= self.phases.keys(), f"it went no further:\n{self.output}"
        begin, end = self.phases[first], self.phases[last]
        return [frame for frame in self.frames if begin <= frame.time < end]


class Household:
    """VirtualRouter's LAN, ISP, internet and VPN servers around a machine. Use inside `with`."""

    def __init__(self) -> None:
        self.world = VirtualRouter(firewall=False, dnsmasq=False)

    def __enter__(self) -> Household:
        self.world.__enter__()
        self._make_a_patch_panel()
        return self

    def __exit__(self, *reason: object) -> None:
        self.world.__exit__(None, None, None)

    def _make_a_patch_panel(self) -> None:
        """Of the namespace that was the router: two bridges, without an address of its own."""
        panel = self.world.router
        panel.sysctl({"ipv4/ip_forward": 0, "ipv6/conf/all/disable_ipv6": 1})
        panel.ip(
            f"addr flush dev {at.LAN_BRIDGE}\naddr flush dev {at.WAN_DEVICE}\n"
            f"link set {at.LAN_BRIDGE} address 02:00:5e:00:53:f0\n"
            f"link set {at.WAN_DEVICE} address 02:00:5e:00:53:f1\n"
            "link add wan address 02:00:5e:00:53:f2 type bridge stp_state 0 mcast_snooping 0\n"
            f"link set {at.WAN_DEVICE} master wan\nlink set wan up\n"
        )
        # Its frames are on their way before the router is there to be asked for.
        self.world.lana.ip(
            "".join(
                f"neigh replace {a} lladdr {at.BR_LAN_MAC} dev eth0 nud permanent\n"
                for a in at.ROUTER_LAN.addresses[:2]
            )
        )

    def boot(
        self,
        intent: str,
        steps: Sequence[str] = (),
        *,
        guard: bool = True,
        harm: str = "",
        hold: float = 0.5,
        at_phase: Mapping[str, Callable[[], object]] | None = None,
    ) -> Boot:
        """Power on, let it run through tests/vm/router.sh, and see it off. The flood begins before
        and ends after, as does the capture."""
        world, found = self.world, Boot()
        with (
            self._stage(intent) as stage,
            _tap(world.router, "lan0", at.LAN_BRIDGE) as lan,
            _tap(world.router, "wan0", "wan") as wan,
            Capture(world.isp, world.access) as capture,
            Flood(world.lana, _TARGETS, rate=150, blind=True) as flood,
        ):
            environment = {
                **{"STAGE": str(stage), "GUARD": "yes" if guard else "", "HARM": harm},
                **{"HOLD": str(hold), "PYTHON": sys.executable, "STEPS": " ".join(steps)},
                "PYTHONPATH": f"{TOP}/src:{TOP}/tests",
            }
            script = "".join(f"export {k}={shlex.quote(v)}\n" for k, v in environment.items())
            script += (HERE / "router.sh").read_text()
            found.phases["power-on"] = time.time()
            with Machine(script, [Nic(lan, LAN_NIC), Nic(wan, at.WAN_MAC)]) as machine:
                for line in _lines(machine.output.fileno(), time.monotonic() + _WITHIN):
                    found.output += line + "\n"
                    if line.startswith("phase "):
                        name = line.removeprefix("phase ")
                        found.phases[name] = time.time()
                        if at_phase and name in at_phase:
                            found.told[name] = at_phase[name]()
                assert machine.result() == 0, found.output
            found.phases["off"] = time.time()
            found.flood = flood.finish()
            found.frames = capture.flush()
        return found

    @contextmanager
    def _stage(self, intent: str) -> Iterator[Path]:
        """The files of a router with the package installed, as the daemon had left them."""
        with tempfile.TemporaryDirectory(prefix="boot-", dir=STORE) as place:
            stage = Path(place)
            for folder in ("etc", "usr/share"):
                shutil.copytree(FILES / folder, stage / folder)
            known = [i for i in interfaces()["interface"] if i["interface"] != "guest"]
            texts = {
                "usr/share/portcullis/table.nft": render(CLOSED),
                "etc/rc.common": (STANDIN / "rc_common.sh").read_text(),
                "etc/boot/rules": _RULES + "rule add pref 32767 lookup default\n",
                "etc/boot/rules6": _RULES,
                "etc/boot/guard": NETIFD4,
                "etc/boot/guard6": NETIFD6,
                "etc/boot/network": _NETWORK,
                "etc/boot/fw4.nft": self.world.firewall.text,
                "etc/boot/bus/interfaces.json": json.dumps({"interface": known}),
                "etc/config/portcullis": DEFAULT_CONFIG.read_text(),
                "etc/config/network": NETWORK + installed("network"),
                "etc/config/firewall": FIREWALL + installed("firewall") + forwardings("lan"),
                "etc/portcullis/intent": intent,
                "etc/portcullis/networks": networks.dump((_LAN,)),
                "etc/portcullis/boot.nft": boot(Policy(lan_access=True, networks=(_LAN,))),
                "etc/portcullis/endpoints": "",
                "etc/portcullis/profiles/vpn1.conf": self.world.vpn1.profile(),
            }
            for name, text in texts.items():
                (stage / name).parent.mkdir(parents=True, exist_ok=True)
                (stage / name).write_text(text)
            (stage / "etc/portcullis").chmod(0o700)
            (stage / "stand-in").mkdir()
            (stage / "stand-in/python").symlink_to(STANDIN)
            for name, text in (
                ("usr/sbin/uci", UCI),
                ("stand-in/logger", '#!/bin/sh\necho "$@"\n'),
            ):
                (stage / name).parent.mkdir(exist_ok=True)
                (stage / name).write_text(text)
                (stage / name).chmod(0o755)
            yield stage


@contextmanager
def _tap(space: Namespace, name: str, bridge: str) -> Iterator[int]:
    """A tap device at a bridge, by its descriptor."""
    with space.inside():  # a device is made where this is opened
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        request = struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI)
        fcntl.ioctl(descriptor, _TUNSETIFF, request)
        space.ip(f"link set {name} master {bridge} up\n")
        yield descriptor
    finally:
        os.close(descriptor)


def _lines(descriptor: int, deadline: float) -> Iterator[str]:
    """Lines as they come, up to the end."""
    begun = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            data = os.read(descriptor, 65536)
            if not data:
                return
            *lines, begun = (begun + data).split(b"\n")
            yield from (line.decode(errors="replace").rstrip("\r") for line in lines)
    raise TimeoutError(f"the guest is not off after {_WITHIN:.0f} s")
