# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines that are more than Ethernet: PPPoE, 6in4, DS-Lite. Each takes the place of the plain WAN
on a virtual router, as netifd would make it; the ISP's end comes with it.

The kernel has to have them (ppp, sit, ip6tnl): the virtual machine's does."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Any, ClassVar

from . import addresses as at
from .appliance import Appliance, interfaces
from .judge import Allowed, Carrier, Endpoint
from .namespace import Namespace
from .topology import VirtualRouter

MTU = 1280  # netifd's, for tunnels
ELSEWHERE = at.Host("elsewhere", "203.0.113.9", "2001:db8:ffff::9")  # the remote end, once moved


class Line:
    """`device` carries `family`; `to` is the address of vpn1 that is reached over it. Use `lay`
    before the daemon starts."""

    device: ClassVar[str]
    proto: ClassVar[str]
    family: ClassVar[int]
    to: ClassVar[str]
    mtu: ClassVar[int] = MTU
    interface: ClassVar[str]

    def __init__(self, appliance: Appliance) -> None:
        self.appliance = appliance
        self.remote = at.ISP

    @property
    def world(self) -> VirtualRouter:
        return self.appliance.world

    @property
    def allowed(self) -> Allowed:
        return Allowed.of(Endpoint(self.to))

    @property
    def end(self) -> str:
        """The remote end's address, of the family that carries the line."""
        return self.remote.v4 if self.family == 6 else self.remote.v6

    def lay(self) -> None:
        """In the place of the plain WAN, with the zone `wan` on it, and up."""
        self.world.firewall.line = self.device
        self.world.firewall.start()
        self.clear()
        self.up()

    def clear(self) -> None:
        """Take from the plain WAN what the line brings."""

    def up(self) -> None:
        """As netifd's protocol handler does; then netifd tells."""
        raise NotImplementedError

    def down(self) -> None:
        self.world.router.ip(f"link del {self.device}\n")
        self.tell(present=False)

    def move(self) -> None:
        """The remote end has another address, which the ISP has told netifd: it begins anew."""
        self.down()
        self.remote = ELSEWHERE
        self.up()

    def tell(self, *, present: bool = True) -> None:
        """What `network.interface dump` says."""
        dump = interfaces()
        found = next(i for i in dump["interface"] if i["interface"] == self.interface)
        found |= {"proto": self.proto, **self.described()}
        if not present:
            found |= {"up": False, "route": [], "ipv4-address": [], "ipv6-address": []}
            del found["l3_device"]
        self.appliance.bus.interfaces.write_text(json.dumps(dump))
        if self.appliance.daemon:
            self.appliance.call("reload")

    def described(self) -> Mapping[str, Any]:
        return {"l3_device": self.device, "device": self.device}


class SixInFour(Line):
    """IPv6 over an IPv4 line, by a tunnel broker."""

    device, proto, family, interface = "6in4-wan6", "6in4", 6, "wan6"
    to = at.VPN1.v6
    router, isp = "2001:db8:6::2", "2001:db8:6::1"

    @property
    def allowed(self) -> Allowed:
        ends = frozenset(Carrier(a.v4, 41) for a in (at.ISP, ELSEWHERE))
        return Allowed.of(Endpoint(self.to), carriers=ends).at(self.router)

    def clear(self) -> None:
        isp, router = self.world.isp, self.world.router
        router.ip(f"route del ::/0\naddr del {at.ROUTER_WAN.v6}/64 dev {at.WAN_DEVICE}\n")
        isp.ip(f"addr add {ELSEWHERE.v4}/24 dev {self.world.access}\n")
        for net in (at.LAN6, at.GUEST6, at.LAN_ULA):
            isp.ip(f"route del {net}\n")

    def up(self) -> None:
        local, remote = at.ROUTER_WAN.v4, self.remote.v4
        self.world.isp.ip(
            f"link add sixinfour type sit local {remote} remote {local} ttl 64\n"
            f"link set sixinfour mtu {MTU} up\naddr add {self.isp}/64 dev sixinfour\n"
            + "".join(f"route add {n} dev sixinfour\n" for n in (at.LAN6, at.GUEST6, at.LAN_ULA))
        )
        self.world.router.ip(
            f"link add {self.device} type sit local {local} remote {remote} ttl 64\n"
            f"link set {self.device} mtu {MTU} up\naddr add {self.router}/64 dev {self.device}\n"
            f"route add ::/0 dev {self.device}\n"
        )
        self.tell()

    def down(self) -> None:
        self.world.isp.ip("link del sixinfour\n")
        super().down()

    def described(self) -> Mapping[str, Any]:
        route = {"target": "::", "mask": 0, "nexthop": "::", "source": ""}
        address = {"address": self.router, "mask": 64}
        return {**super().described(), "route": [route], "ipv6-address": [address]}


class DsLite(Line):
    """IPv4 over an IPv6 line; the ISP's AFTR has the public address."""

    device, proto, family, interface = "ds-wan", "dslite", 4, "wan"
    to = at.VPN1.v4
    router = "192.0.0.2"

    @property
    def allowed(self) -> Allowed:
        ends = frozenset(Carrier(a.v6, 4) for a in (at.ISP, ELSEWHERE))
        return Allowed.of(Endpoint(self.to), carriers=ends).at(self.router)

    def clear(self) -> None:
        isp, router = self.world.isp, self.world.router
        router.ip(f"route del default\naddr del {at.ROUTER_WAN.v4}/24 dev {at.WAN_DEVICE}\n")
        isp.ip(f"addr add {ELSEWHERE.v6}/64 dev {self.world.access} nodad\n")
        for net in (at.LAN4, at.GUEST4):
            isp.ip(f"route del {net}\n")

    def up(self) -> None:
        local, remote = at.ROUTER_WAN.v6, self.remote.v6
        self.world.isp.ip(
            f"link add aftr type ip6tnl mode ipip6 local {remote} remote {local} encaplimit none\n"
            f"link set aftr mtu {MTU} up\nroute add {self.router} dev aftr\n"
            + "".join(f"route add {net} dev aftr\n" for net in (at.LAN4, at.GUEST4))
        )
        self.world.router.ip(
            f"link add {self.device} type ip6tnl mode ipip6 local {local} remote {remote}"
            f" encaplimit none\nlink set {self.device} mtu {MTU} up\n"
            f"addr add {self.router} peer 192.0.0.1 dev {self.device}\n"
            f"route add default dev {self.device}\n"
        )
        self.tell()

    def down(self) -> None:
        self.world.isp.ip("link del aftr\n")
        super().down()

    def described(self) -> Mapping[str, Any]:
        route = {"target": "0.0.0.0", "mask": 0, "nexthop": "0.0.0.0", "source": ""}
        address = {"address": self.router, "mask": 32, "ptpaddress": "192.0.0.1"}
        return {**super().described(), "route": [route], "ipv4-address": [address]}


class Pppoe(Line):
    """PPP over Ethernet, by pppd on both sides; IPv4 alone."""

    device, proto, family, interface = "pppoe-wan", "pppoe", 4, "wan"
    to = at.VPN1.v4
    mtu = 1492
    _PLUGIN = "rp-pppoe.so"
    _client: subprocess.Popen[bytes] | None = None

    @property
    def end(self) -> str:
        return self.remote.v4

    def clear(self) -> None:
        world = self.world
        world.router.ip(
            f"route del default\nroute del ::/0\naddr flush dev {at.WAN_DEVICE} scope global\n"
        )
        world.isp.ip(f"addr flush dev {world.access} scope global\n")
        options = world.state / "pppoe-server.options"
        options.write_text(
            "noauth\nnodefaultroute\nnoipv6\nmtu 1492\nmru 1492\nlcp-echo-interval 5\n"
        )
        server = ["pppoe-server", "-F", "-I", world.access, "-O", str(options)]
        server += ["-L", at.ISP.v4, "-R", at.ROUTER_WAN.v4, "-N", "1"]
        self._spawn(world.isp, server)

    def up(self) -> None:
        self.appliance.until(self._dialled, "PPP is up", 60.0)
        self.world.router.ip(f"route add default dev {self.device}\n")
        isp = "".join(f"route replace {n} via {at.ROUTER_WAN.v4}\n" for n in (at.LAN4, at.GUEST4))
        self.appliance.until(lambda: self._try(self.world.isp, isp), "the ISP's end is up")
        self.tell()

    def _dial(self) -> subprocess.Popen[bytes]:
        options = ["noauth", "nodefaultroute", "noipdefault", "noipv6", "mtu", "1492"]
        options += ["mru", "1492", "lcp-echo-interval", "1", "lcp-echo-failure", "5"]
        command = ["pppd", "nodetach", "ifname", self.device, "plugin", self._PLUGIN]
        return self._spawn(self.world.router, [*command, f"nic-{at.WAN_DEVICE}", *options])

    def down(self) -> None:
        assert self._client
        self._client.terminate()
        self._client.wait(20)
        self.tell(present=False)

    def move(self) -> None:
        """The session ends and another one begins."""
        self.down()
        self.up()

    def described(self) -> Mapping[str, Any]:
        route = {"target": "0.0.0.0", "mask": 0, "nexthop": at.ISP.v4, "source": ""}
        address = {"address": at.ROUTER_WAN.v4, "mask": 32, "ptpaddress": at.ISP.v4}
        found = {**super().described(), "device": at.WAN_DEVICE}
        return {**found, "route": [route], "ipv4-address": [address]}

    def _dialled(self) -> bool:
        """As netifd does: dial again where that was in vain, as the ISP has one session for us."""
        if self._client is None or self._client.poll() is not None:
            self._client = self._dial()
        show = ["ip", "-4", "addr", "show", "up", "dev", self.device]
        return at.ROUTER_WAN.v4 in self.world.router.run(show, check=False).stdout

    @staticmethod
    def _try(netns: Namespace, batch: str) -> bool:
        try:
            netns.ip(batch)
        except RuntimeError:
            return False
        return True

    def _spawn(self, netns: Namespace, command: list[str]) -> subprocess.Popen[bytes]:
        log = (self.world.state / f"{command[0]}.log").open("ab")
        null = subprocess.DEVNULL
        with log:
            return netns.popen(command, stdin=null, stdout=log, stderr=subprocess.STDOUT)


LINES: tuple[type[Line], ...] = (SixInFour, DsLite, Pppoe)
