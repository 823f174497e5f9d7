# SPDX-License-Identifier: GPL-2.0-or-later
# ruff: noqa: E501  (a line of ip is a line)
"""The virtual router and the world around it, as network namespaces (architecture.md, Testing).

lana ─┐                                        ┌─ inet  (friendly, hostile, public resolver)
lanb ─┴ br-lan ─ router ─ eth1 ─ access ─ isp ─┼─ vpn1
guest ─ br-guest ┘                             └─ vpn2
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from . import addresses as at
from .firewall import Firewall
from .namespace import NETNS_DIR, Namespace
from .servers import Dnsmasq, Servers, echo, resolver
from .wireguard import VpnServer, socket_dir

NAMES = ("lana", "lanb", "guest", "router", "isp", "inet", "vpn1", "vpn2")
ACCESS, CORE = "access", "core"  # the ISP's devices: the customer's line, and the internet's bridge
_serial = itertools.count()

_EVERYWHERE = {
    # no duplicate address detection: a second per link-local address, and these never clash
    "ipv6/conf/all/accept_dad": 0,
    "ipv6/conf/default/accept_dad": 0,
    "ipv6/conf/default/router_solicitations": 0,
}
_FORWARDING = {
    "ipv4/ip_forward": 1,
    "ipv6/conf/all/forwarding": 1,
    "ipv6/conf/default/forwarding": 1,
}
# OpenWrt's /etc/sysctl.d/10-default.conf, 11-br-netfilter.conf and 11-nf-conntrack.conf
_OPENWRT = {
    "ipv4/conf/all/arp_ignore": 1,
    "ipv4/conf/default/arp_ignore": 1,
    "ipv4/icmp_echo_ignore_broadcasts": 1,
    "ipv4/igmp_max_memberships": 100,
    "ipv4/tcp_fin_timeout": 30,
    "ipv4/tcp_syncookies": 1,
}
_OPENWRT_MODULES = {
    "bridge/bridge-nf-call-arptables": 0,
    "bridge/bridge-nf-call-iptables": 0,
    "bridge/bridge-nf-call-ip6tables": 0,
    "netfilter/nf_conntrack_acct": 1,
    "netfilter/nf_conntrack_checksum": 0,
    "netfilter/nf_conntrack_tcp_timeout_established": 7440,
    "netfilter/nf_conntrack_udp_timeout": 60,
    "netfilter/nf_conntrack_udp_timeout_stream": 180,
}


class VirtualRouter:
    """Everything up inside `with`, nothing left after it.

    masquerade   NAT for IPv4 on the WAN; without it probes cross the WAN under their own addresses
                 and are answered all the same, as the ISP has routes back
    firewall     load the fw4-like ruleset; dnsmasq: start it
    offload      fw4's software flow offloading (needs nf_flow_table)
    """

    def __init__(
        self,
        *,
        masquerade: bool = True,
        firewall: bool = True,
        dnsmasq: bool = True,
        offload: bool = False,
        prefix: str | None = None,
    ) -> None:
        self.prefix = prefix or f"vr{os.getpid():x}-{next(_serial)}"
        self._load_firewall, self._start_dnsmasq = firewall, dnsmasq
        self.state = Path()
        self.spaces = {name: Namespace(f"{self.prefix}-{name}") for name in NAMES}
        self.lana, self.lanb, self.guest, self.router, self.isp, self.inet = (
            self.spaces[name] for name in NAMES[:6]
        )
        self.firewall = Firewall(self.router, masquerade=masquerade, offload=offload)
        self.vpn1: VpnServer
        self.vpn2: VpnServer
        self.servers: Servers
        self.dnsmasq: Dnsmasq

    @property
    def access(self) -> str:
        """The ISP's end of the line (a device of `isp`): what arrives there, the router has sent."""
        return ACCESS

    @property
    def vpn_servers(self) -> tuple[VpnServer, VpnServer]:
        return self.vpn1, self.vpn2

    def __enter__(self) -> VirtualRouter:
        for space in self.spaces.values():
            if space.path.exists():
                raise RuntimeError(f"there is a network namespace {space.name} already")
        with ExitStack() as undo:
            self.state = Path(tempfile.mkdtemp(prefix=f"{self.prefix}-", dir=_short_place()))
            undo.callback(self._start_warden())
            self.servers = Servers(self.state)
            undo.callback(self.servers.close)
            self._make_namespaces()
            self._bind_files()
            self._make_links()
            undo.callback(self._stop_daemons)
            self._start_servers()
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._undo.close()

    def _start_warden(self) -> _Warden:
        names = [space.name for space in self.spaces.values()]
        return _Warden(self.state, names)

    def _make_namespaces(self) -> None:
        NETNS_DIR.mkdir(exist_ok=True)
        batch = "".join(f"netns add {space.name}\n" for space in self.spaces.values())
        _ip(batch)
        for name, space in self.spaces.items():
            space.sysctl(_EVERYWHERE)
            if name in ("router", "isp", "vpn1", "vpn2"):
                space.sysctl(_FORWARDING)
            space.sysctl(
                {k: v for k, v in _OPENWRT_MODULES.items() if k.startswith("bridge")}, optional=True
            )
        self.router.sysctl(_OPENWRT)
        self.router.sysctl(_OPENWRT_MODULES, optional=True)

    def _make_links(self) -> None:
        s = {name: space.name for name, space in self.spaces.items()}
        router, isp = s["router"], s["isp"]
        _ip(
            f"link add name lan1 netns {router} type veth peer name eth0 netns {s['lana']} address {at.LAN_A_MAC}\n"
            f"link add name lan2 netns {router} type veth peer name eth0 netns {s['lanb']} address {at.LAN_B_MAC}\n"
            f"link add name guest1 netns {router} type veth peer name eth0 netns {s['guest']} address {at.GUEST_MAC}\n"
            f"link add name {at.WAN_DEVICE} netns {router} address {at.WAN_MAC} type veth"
            f" peer name {ACCESS} netns {isp} address {at.ISP_MAC}\n"
            + "".join(
                f"link add name core-{n} netns {isp} type veth peer name eth0 netns {s[n]}\n"
                for n in ("inet", "vpn1", "vpn2")
            )
        )
        self.router.ip(
            f"link set lo up\n"
            f"link add {at.LAN_BRIDGE} address {at.BR_LAN_MAC} type bridge stp_state 0 mcast_snooping 0\n"
            f"link add {at.GUEST_BRIDGE} address {at.BR_GUEST_MAC} type bridge stp_state 0 mcast_snooping 0\n"
            f"link set lan1 master {at.LAN_BRIDGE} up\nlink set lan2 master {at.LAN_BRIDGE} up\n"
            f"link set guest1 master {at.GUEST_BRIDGE} up\n"
            + _address(at.LAN_BRIDGE, at.ROUTER_LAN)
            + _address(at.GUEST_BRIDGE, at.ROUTER_GUEST)
            + _address(at.WAN_DEVICE, at.ROUTER_WAN)
            + _defaults(at.ISP.v4, at.ISP.v6)
        )
        for space, host, gate in (
            (self.lana, at.LAN_A, at.ROUTER_LAN),
            (self.lanb, at.LAN_B, at.ROUTER_LAN),
            (self.guest, at.GUEST, at.ROUTER_GUEST),
        ):
            space.ip("link set lo up\n" + _address("eth0", host) + _defaults(gate.v4, gate.v6))
        wan = at.ROUTER_WAN
        self.isp.ip(
            f"link set lo up\nlink add {CORE} type bridge stp_state 0 mcast_snooping 0\n"
            + "".join(f"link set core-{n} master {CORE} up\n" for n in ("inet", "vpn1", "vpn2"))
            + _address(ACCESS, at.ISP)
            + _address(CORE, at.Host(CORE, at.CORE4, at.CORE6))
            + "".join(f"route add {net} via {wan.v4}\n" for net in (at.LAN4, at.GUEST4))
            + "".join(f"route add {net} via {wan.v6}\n" for net in (at.LAN6, at.GUEST6, at.LAN_ULA))
        )
        self.inet.ip(
            "link set lo up\n"
            + "".join(_address("eth0", h) for h in at.INTERNET)
            + _defaults(at.CORE4, at.CORE6)
        )
        for name, host in (("vpn1", at.VPN1), ("vpn2", at.VPN2)):
            self.spaces[name].ip(
                "link set lo up\n" + _address("eth0", host) + _defaults(at.CORE4, at.CORE6)
            )

    def _bind_files(self) -> None:
        for name, space in self.spaces.items():
            if name in ("router", "vpn1", "vpn2"):
                space.binds.update(socket_dir(self.state / "wireguard", name))
            if name in ("lana", "lanb", "guest", "router"):
                server = (
                    "127.0.0.1"
                    if name == "router"
                    else (at.ROUTER_GUEST.v4 if name == "guest" else at.ROUTER_LAN.v4)
                )
                file = self.state / f"resolv.conf.{name}"
                file.write_text(f"search lan\nnameserver {server}\n")
                space.binds["/etc/resolv.conf"] = file

    def _start_servers(self) -> None:
        self.vpn1, self.vpn2 = (
            VpnServer(self.spaces[host.name], host, tunnel, client)
            for host, tunnel, client in (
                (at.VPN1, at.TUNNEL1, at.CLIENT1),
                (at.VPN2, at.TUNNEL2, at.CLIENT2),
            )
        )
        for server in self.vpn_servers:
            server.launch()
        services = [s for host in at.INTERNET for s in echo(self.inet, host)]
        services += resolver(self.inet, at.PUBLIC_DNS)
        services += echo(self.isp, at.ISP) + resolver(self.isp, at.ISP)
        for space, host in ((self.lana, at.LAN_A), (self.lanb, at.LAN_B), (self.guest, at.GUEST)):
            services += echo(space, host)
        for server in self.vpn_servers:
            services += echo(server.netns, server.host) + echo(server.netns, server.tunnel)
            services += resolver(server.netns, server.tunnel)
        self.servers.order(services)
        self.dnsmasq = Dnsmasq(self.router, self.state)
        if self._load_firewall:
            self.firewall.start()
        for server in self.vpn_servers:
            server.netns.nft(_provider_nat(server))
        if self._start_dnsmasq:
            self.dnsmasq.start()
        for server in self.vpn_servers:
            server.await_ready()
        self.servers.await_ready()

    def _stop_daemons(self) -> None:
        # what the warden would kill too; but these are this process's children to reap
        for server in self.vpn_servers if hasattr(self, "vpn2") else ():
            server.stop()


class _Warden:
    """Calling it clears everything away, as does this process's death."""

    def __init__(self, state: Path, names: list[str]) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                str(Path(__file__).with_name("warden.py")),
                str(os.getpid()),
                str(state),
                *names,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def __call__(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
            raise
        finally:
            self._process.stdout.close()


def _short_place() -> str:
    # a UNIX socket's path has 107 bytes; /run is a private tmpfs under isolate()
    return "/run" if os.access("/run", os.W_OK) else tempfile.gettempdir()


def _ip(batch: str) -> None:
    done = subprocess.run(
        ["ip", "-batch", "-"], input=batch, text=True, capture_output=True, timeout=30, check=False
    )
    if done.returncode:
        raise RuntimeError(f"ip: {done.stderr}")


def _address(device: str, host: at.Host) -> str:
    text = f"addr add {host.v4}/24 dev {device}\n"
    text += "".join(f"addr add {a}/64 dev {device} nodad\n" for a in (host.v6, host.ula) if a)
    return text + f"link set {device} up\n"


def _defaults(v4: str, v6: str) -> str:
    return f"route add default via {v4}\nroute add ::/0 via {v6}\n"


def _provider_nat(server: VpnServer) -> str:
    return (
        "table inet nat {\n\tchain srcnat {\n\t\ttype nat hook postrouting priority srcnat;\n"
        f'\t\toifname "eth0" ip saddr {server.tunnel.v4}/24 masquerade\n'
        f'\t\toifname "eth0" ip6 saddr {server.tunnel.v6}/64 masquerade\n\t}}\n}}\n'
    )
