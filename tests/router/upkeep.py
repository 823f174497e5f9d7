# SPDX-License-Identifier: GPL-2.0-or-later
"""What puts the rest of a router right again after a disruption: procd its processes, netifd its
devices, addresses and routes, fw4 its rules, the ISP and the provider their side. Each part may
be called at any time, and does nothing where all is well. Nothing here touches what is ours."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from . import addresses as at
from .appliance import Appliance
from .namespace import Namespace
from .wireguard import VpnServer

PHONE = "usb0"
PHONE_ROUTER, PHONE_FAR = (
    at.Host("phone", f"203.0.114.{n}", f"2001:db8:fffd::{n}") for n in (2, 1)
)
RENUMBERED = at.Host("renumbered", "203.0.113.77", "2001:db8:fffe::77")
NEW_GATEWAY = at.Host("new-gateway", "203.0.113.254", "2001:db8:fffe::1")
RENAMED, AWAY, SPARE = "wan9", "away", "spare"  # WAN's other name; devices that are unplugged
DESCRIPTORS = 1024


def attempt(space: Namespace, commands: str, *options: str) -> None:
    """Lines for `ip -batch`; what is there already, or not there any more, is no error."""
    with space.inside():
        subprocess.run(
            ["ip", *options, "-force", "-batch", "-"],
            input=commands,
            text=True,
            capture_output=True,
            timeout=30,
            check=False,
        )


def wireguard_go(appliance: Appliance) -> list[int]:
    """Processes on the router that are a tunnel's."""
    return [p for p in appliance.world.router.pids() if "wireguard-go" in _command(p)]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def processes(appliance: Appliance) -> None:
    """procd: what was stopped goes on, what has ended is started again."""
    for pid in wireguard_go(appliance):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    daemon = appliance.daemon
    assert daemon
    if daemon.poll() is None:
        os.kill(daemon.pid, signal.SIGCONT)
        hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (min(DESCRIPTORS, hard), hard))
    else:
        appliance.start(wait=False)
    if appliance.web and appliance.web.poll() is not None:
        appliance.start_web(wait=False)


def bus(appliance: Appliance) -> None:
    """ubusd, rpcd and netifd are there."""
    found = appliance.bus
    if found.broker_pid:
        with suppress(ProcessLookupError):
            os.kill(found.broker_pid, signal.SIGCONT)
        return
    found.stop_others()
    found.start_broker()
    found.start_others()


def firewall(appliance: Appliance) -> None:
    """As fw4 does it at every ifup."""
    appliance.world.firewall.start()


def wan(appliance: Appliance) -> None:
    """The line, its device, addresses and routes, on both ends; the phone is unplugged."""
    world, device, wan = appliance.world, at.WAN_DEVICE, at.ROUTER_WAN
    attempt(world.isp, f"link set {AWAY} netns {world.router.name} name {device}\n")
    attempt(world.router, f"link set {RENAMED} down\nlink set {RENAMED} name {device}\n")
    attempt(world.router, f"link set {PHONE} netns {world.isp.name} name {SPARE}\n")
    attempt(
        world.isp,
        f"link set {world.access} up\n"
        + _addresses(world.access, at.ISP)
        + "".join(f"route replace {net} via {wan.v4}\n" for net in (at.LAN4, at.GUEST4))
        + "".join(f"route replace {n} via {wan.v6}\n" for n in (at.LAN6, at.GUEST6, at.LAN_ULA))
        + "".join(f"addr del {a} dev {world.access}\n" for a in _prefixes(NEW_GATEWAY)),
    )
    attempt(
        world.router,
        f"link set {device} mtu 1500 up\n"
        # The old one first: with it the kernel deletes whatever is second in its subnet.
        + "".join(f"addr del {a} dev {device}\n" for a in _prefixes(RENUMBERED))
        + _addresses(device, wan)
        + "".join(f"route del {half} dev {device}\n" for half in HALVES)
        + f"route replace default via {at.ISP.v4}\nroute replace ::/0 via {at.ISP.v6}\n",
    )


HALVES = ("0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1", f"{at.FRIENDLY.v4}/32")


def lan(appliance: Appliance) -> None:
    router = appliance.world.router
    for device, host, ports in (
        (at.LAN_BRIDGE, at.ROUTER_LAN, ("lan1", "lan2")),
        (at.GUEST_BRIDGE, at.ROUTER_GUEST, ("guest1",)),
    ):
        up = "".join(f"link set {name} up\n" for name in (device, *ports))
        attempt(router, up + _addresses(device, host))


def rules(appliance: Appliance) -> None:
    """The kernel's own rules, which `ip rule flush` takes along and netifd puts back."""
    router = appliance.world.router
    for family, names in (("-4", ("main", "default")), ("-6", ("main",))):
        for priority, name in enumerate(names, start=32766):
            if f"{priority}:" not in router.run(["ip", family, "rule"]).stdout:
                attempt(router, f"rule add from all lookup {name} pref {priority}\n", family)


def provider(appliance: Appliance) -> None:
    """The servers are up, reachable, and know their customer."""
    for server in appliance.world.vpn_servers:
        _serve(server)


def _serve(server: VpnServer) -> None:
    server.unblackhole()
    if not server.running:
        server.start()
    server.restore_client_key()


def _prefixes(host: at.Host) -> list[str]:
    return [f"{a}/{64 if ':' in a else 24}" for a in host.addresses]


def _addresses(device: str, host: at.Host) -> str:
    return "".join(
        f"addr replace {a} dev {device}{' nodad' if ':' in a else ''}\n" for a in _prefixes(host)
    )
