# SPDX-License-Identifier: GPL-2.0-or-later
"""What may happen to a router while it protects a house: each once, as a value, for the tests,
the matrix (`make test-leaks`) and the random sequences.

A disruption strikes, and `upkeep` is what the rest of the system does about it: procd starts what
has died, netifd brings a device back. Nothing else may be needed to be as before."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from portcullis.netlink import conntrack_flush

from . import addresses as at
from . import upkeep
from .appliance import Appliance
from .scene import Scene
from .upkeep import (
    AWAY,
    HALVES,
    NEW_GATEWAY,
    PHONE,
    PHONE_FAR,
    PHONE_ROUTER,
    RENAMED,
    RENUMBERED,
    SPARE,
    attempt,
    wireguard_go,
)

Act = Callable[[Scene], object]
FILTER, GUARD, HOOK = "filter", "guard", "hook"
WAN = at.WAN_DEVICE


class Disruption(NamedTuple):
    """`takes`: the layer of the block that it takes away until it is repaired. FILTER takes the
    egress HOOK along, whose table goes with all others.
    `severs`: the house is cut off from the router itself until it is over."""

    name: str
    strike: Act
    mend: Act = lambda scene: None
    takes: str = ""
    severs: bool = False
    pyroute2: bool = False

    def __repr__(self) -> str:
        return f"«{self.name}»"


def _by(*parts: Callable[[Appliance], object]) -> Act:
    """These parts of the system put it right."""

    def mend(scene: Scene) -> None:
        for part in parts:
            part(scene.appliance)

    return mend


# Processes


def _signal_core(number: int) -> Act:
    def strike(scene: Scene) -> None:
        daemon = scene.appliance.daemon
        assert daemon
        if daemon.poll() is None:
            os.kill(daemon.pid, number)
            if number == signal.SIGKILL:
                scene.appliance.kill()

    return strike


def _stop(scene: Scene) -> None:
    """As procd stops a service; where it is stopped itself, procd's patience ends in SIGKILL."""
    _signal_core(signal.SIGCONT)(scene)
    scene.appliance.stop()


def _restart(scene: Scene) -> None:
    _stop(scene)
    scene.appliance.start(wait=False)


def _killed_while_starting(scene: Scene) -> None:
    for _ in range(3):
        _signal_core(signal.SIGKILL)(scene)
        scene.appliance.start(wait=False)


def _second_core(scene: Scene) -> None:
    """Somebody starts the daemon by hand beside the one that procd runs."""
    appliance = scene.appliance
    first = appliance.daemon
    assert first
    if first.poll() is not None:
        return
    appliance.start(wait=False)
    second = appliance.daemon
    assert second
    # Whoever is first holds the lock; one that procd has only just started may not be.
    both = (first, second)
    appliance.until(lambda: any(one.poll() is not None for one in both), "one gives way")
    (left,) = [one for one in both if one.poll() is None]
    appliance.daemon = left
    assert {one.returncode for one in both} == {None, 1}


def _kill_web(scene: Scene) -> None:
    web = scene.appliance.web
    assert web
    web.kill()
    web.wait()


def _signal_wireguard(number: int) -> Act:
    def strike(scene: Scene) -> None:
        for pid in wireguard_go(scene.appliance):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    return strike


def _ubusd(number: int) -> Act:
    def strike(scene: Scene) -> None:
        if pid := scene.appliance.bus.broker_pid:
            os.kill(pid, number)

    return strike


def _kill_ubusd(scene: Scene) -> None:
    _ubusd(signal.SIGCONT)(scene)
    scene.appliance.bus.stop_others()
    scene.appliance.bus.stop_broker()


def _exhaust_descriptors(scene: Scene) -> None:
    """The core can open nothing more, and then its table is deleted."""
    daemon = scene.appliance.daemon
    assert daemon
    if daemon.poll() is None:
        hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (scene.descriptors(), hard))
    _delete_table(scene)


def _overrun_sockets(scene: Scene) -> None:
    """More events than the watch's sockets hold, all layers removed under their cover."""
    _signal_core(signal.SIGSTOP)(scene)
    router = scene.world.router
    some = "".join(
        f"route add 10.{n >> 8}.{n & 255}.0/24 via {at.LAN_B.v4} table 999\n" for n in range(2000)
    )
    attempt(router, some + "route flush table 999\n")
    attempt(router, "".join(f"rule del pref {n}\n" for n in (800, 830)))
    attempt(router, "".join(f"rule del pref {n}\n" for n in (800, 810, 830)), "-6")
    _signal_core(signal.SIGCONT)(scene)


# The firewall


def _repeat(times: int, act: Callable[[Appliance], object]) -> Act:
    def strike(scene: Scene) -> None:
        for _ in range(times):
            act(scene.appliance)

    return strike


def _flush_ruleset(appliance: Appliance) -> None:
    appliance.world.router.nft("flush ruleset\n")


def _delete_table(scene: Scene) -> None:
    with suppress(RuntimeError):  # not back yet, or somebody's own who lives
        scene.world.router.nft("delete table inet portcullis\n")


def _delete_table_again_and_again(scene: Scene) -> None:
    for _ in range(10):
        _delete_table(scene)


def _insert_rules(scene: Scene) -> None:
    """Somebody opens our chains from within."""
    chains = ("forward", "output", "input")
    with suppress(RuntimeError):
        scene.world.router.nft(
            "".join(f"insert rule inet portcullis {chain} accept\n" for chain in chains)
        )


def _flush_conntrack(scene: Scene) -> None:
    with scene.world.router.inside():
        conntrack_flush()


# Routes, rules, devices


def _ip(*commands: str) -> Act:
    def strike(scene: Scene) -> None:
        for command in commands:
            family, _, rest = command.partition(" ")
            attempt(scene.world.router, f"{rest}\n", family)

    return strike


def _network_restart(scene: Scene) -> None:
    """netifd's start deletes every ip rule and every IPv6 route on lo, and brings back what it
    finds in UCI; devices go down and come up (platform.md)."""
    appliance, router = scene.appliance, scene.world.router
    attempt(router, "rule flush\n", "-4")
    attempt(router, "rule flush\nroute flush dev lo table all\n", "-6")
    attempt(router, f"link set {WAN} down\naddr flush dev {WAN}\n")
    upkeep.rules(appliance)
    for family, rules in _IN_UCI.items():
        attempt(router, rules, family)
    attempt(router, f"route replace unreachable default table 707 metric {2**31 - 1}\n")
    upkeep.wan(appliance)
    upkeep.lan(appliance)
    scene.announce("wan")


_MARKED = "fwmark 0x50430000/0x7fff0000"
_IN_UCI = {
    "-4": f"rule add pref 800 lookup 706\nrule add pref 830 not {_MARKED} lookup 707\n",
    "-6": "rule add pref 800 lookup 706\nrule add pref 810 to fe80::/10 lookup main\n"
    f"rule add pref 830 not {_MARKED} lookup 707\nrule add pref 831 not {_MARKED} unreachable\n",
}


def _lose_carrier(scene: Scene) -> None:
    attempt(scene.world.isp, f"link set {scene.world.access} down\n")


def _renew(scene: Scene) -> None:
    """A DHCP client's script: address and route once more, and fw4 reloads."""
    upkeep.wan(scene.appliance)
    scene.announce("wan")
    scene.world.firewall.reload()


def _renumber(scene: Scene) -> None:
    """Another address, another gateway, another prefix."""
    new, gate, old = RENUMBERED, NEW_GATEWAY, at.ROUTER_WAN
    attempt(
        scene.world.isp,
        f"addr add {gate.v4}/24 dev {scene.world.access}\n"
        f"addr add {gate.v6}/64 dev {scene.world.access} nodad\n"
        + "".join(f"route replace {net} via {new.v4}\n" for net in (at.LAN4, at.GUEST4)),
    )
    attempt(
        scene.world.router,
        f"addr del {old.v4}/24 dev {WAN}\naddr del {old.v6}/64 dev {WAN}\n"
        f"addr add {new.v4}/24 dev {WAN}\naddr add {new.v6}/64 dev {WAN} nodad\n"
        f"route replace default via {gate.v4}\nroute del ::/0 dev {WAN}\n"
        f"route replace ::/0 via {gate.v6}\n",
    )


def _plug_in_phone(scene: Scene) -> None:
    """A new way out, preferred to the line, and fw4 told to let the house use it."""
    attempt(scene.world.isp, f"link set {SPARE} netns {scene.world.router.name} name {PHONE}\n")
    attempt(
        scene.world.router,
        f"link set {PHONE} up\naddr add {PHONE_ROUTER.v4}/24 dev {PHONE}\n"
        f"addr add {PHONE_ROUTER.v6}/64 dev {PHONE} nodad\n"
        f"route prepend default via {PHONE_FAR.v4} dev {PHONE}\n"
        f"route add ::/0 via {PHONE_FAR.v6} dev {PHONE} metric 1\n",
    )
    bridges = f'{{ "{at.LAN_BRIDGE}", "{at.GUEST_BRIDGE}" }}'
    with suppress(RuntimeError):  # no fw4, no refusal
        scene.world.router.nft(
            f'insert rule inet fw4 forward iifname {bridges} oifname "{PHONE}" accept\n'
        )


def _rogue_routes(scene: Scene) -> None:
    """TunnelVision: routes more specific than any default."""
    via = {4: at.ISP.v4, 6: at.ISP.v6}
    attempt(
        scene.world.router,
        "".join(f"route add {h} via {via[6 if ':' in h else 4]} dev {WAN}\n" for h in HALVES),
    )


def _unplug_wan(scene: Scene) -> None:
    """The device goes, the far end of its cable stays where the capture watches it."""
    attempt(scene.world.router, f"link set {WAN} netns {scene.world.isp.name} name {AWAY}\n")


def _no_network_and_a_restart(scene: Scene) -> None:
    attempt(scene.world.router, f"route del default\nroute del ::/0\nlink set {WAN} down\n")
    _restart(scene)


# The provider


def _remove_key(scene: Scene) -> None:
    """An account ends. The running session would live on, after a restart it is unknown."""
    server = scene.world.vpn1
    if server.running:
        server.stop()
    server.start()
    server.remove_client_key()


# What is remembered and configured


def _unwritable_intent(scene: Scene) -> None:
    """A full flash: the intent cannot be saved, and then the daemon dies."""
    with suppress(OSError):
        (scene.appliance.home / ".intent.new").mkdir()
    _signal_core(signal.SIGKILL)(scene)
    scene.appliance.start(wait=False)


def _break_file(name: str, text: str) -> Act:
    def strike(scene: Scene) -> None:
        scene.spoil(scene.appliance.bus.directory / name, text)

    return strike


def _change(*words: str) -> Act:
    def strike(scene: Scene) -> None:
        for word in words:
            name, _, value = word.partition("=")
            scene.tell("set", name=name, value=value)

    return strike


def _switch_profiles(scene: Scene) -> None:
    """Where the owner is connected, or trying to be."""
    for profile in ("vpn2", "vpn1"):
        found = scene.status()
        if found and found["intent"] == "connected":
            scene.tell("connect", profile=profile)


_PROCD, _UBUS, _FW4 = _by(upkeep.processes), _by(upkeep.bus), _by(upkeep.firewall)
_RULES, _LINE, _LAN = _by(upkeep.rules), _by(upkeep.wan), _by(upkeep.lan)
_PROVIDER = _by(upkeep.provider)
# Nobody can arm while the table is deleted again and again: the last resort (K5) may have taken
# the line, and netifd sees to it when it is given back.
_FW4_AND_LINE = _by(upkeep.firewall, upkeep.wan)
_PROCD_AND_LINE = _by(upkeep.processes, upkeep.wan)

PROCESSES = (
    Disruption("kill -9 core", _signal_core(signal.SIGKILL), _PROCD),
    Disruption("kill -9 core, thrice at its start", _killed_while_starting, _PROCD),
    Disruption("service stop", _stop, _PROCD),
    Disruption("service restart", _restart),
    Disruption("a second core is started", _second_core),
    Disruption("core hangs", _signal_core(signal.SIGSTOP), _PROCD),
    Disruption("core is out of descriptors", _exhaust_descriptors, _PROCD_AND_LINE, FILTER),
    Disruption("netlink sockets overrun", _overrun_sockets, takes=GUARD),
    Disruption("kill -9 web", _kill_web, _PROCD),
    Disruption("kill -9 wireguard-go", _signal_wireguard(signal.SIGKILL)),
    Disruption("wireguard-go hangs", _signal_wireguard(signal.SIGSTOP), _PROCD),
    Disruption("ubusd dies", _kill_ubusd, _UBUS),
    Disruption("ubusd hangs", _ubusd(signal.SIGSTOP), _UBUS),
)
FIREWALL = (
    Disruption("fw4 reload x5", _repeat(5, lambda a: a.world.firewall.reload())),
    Disruption("fw4 restart x5", _repeat(5, lambda a: a.world.firewall.restart())),
    Disruption("fw4 stop", _repeat(1, lambda a: a.world.firewall.stop()), _FW4),
    Disruption(
        "fw4 flush x3", _repeat(3, lambda a: a.world.firewall.flush()), _FW4_AND_LINE, takes=FILTER
    ),
    Disruption("nft flush ruleset x5", _repeat(5, _flush_ruleset), _FW4_AND_LINE, takes=FILTER),
    Disruption("our table deleted x10", _delete_table_again_and_again, _LINE, takes=FILTER),
    Disruption("rules inserted into our chains", _insert_rules, takes=FILTER),
    Disruption("conntrack -F", _flush_conntrack),
)
ROUTING = (
    Disruption("ip rule 830 deleted", _ip("-4 rule del pref 830"), pyroute2=True, takes=GUARD),
    Disruption("ip -6 rule 831 deleted", _ip("-6 rule del pref 831"), pyroute2=True, takes=GUARD),
    Disruption("ip rule flush", _ip("-4 rule flush"), _RULES, pyroute2=True, takes=GUARD),
    Disruption("ip -6 rule flush", _ip("-6 rule flush"), _RULES, pyroute2=True, takes=GUARD),
    Disruption(
        "table 707 flushed",
        _ip("-4 route flush table 707", "-6 route flush table 707"),
        takes=GUARD,
    ),
    Disruption("table 706 flushed", _ip("-4 route flush table 706", "-6 route flush table 706")),
    Disruption("tunnel device deleted", _ip("-4 link del pc0")),
    Disruption("tunnel device set down", _ip("-4 link set pc0 down")),
    Disruption("tunnel device renamed", _ip("-4 link set pc0 down", "-4 link set pc0 name other")),
    Disruption("tunnel's addresses deleted", _ip("-4 addr flush dev pc0")),
    Disruption("network restart", _network_restart, takes=GUARD),
    Disruption("rogue routes on the WAN", _rogue_routes, _LINE),
)
LINES = (
    Disruption("WAN loses its carrier", _lose_carrier, _LINE),
    Disruption("WAN set down", _ip(f"-4 link set {WAN} down"), _LINE),
    Disruption("DHCP renews", _renew),
    Disruption("WAN renumbered", _renumber, _LINE),
    Disruption(
        "IPv6 of the WAN goes and comes",
        _ip(f"-6 route del ::/0 dev {WAN}", f"-6 addr flush dev {WAN} scope global"),
        _LINE,
    ),
    Disruption("WAN's MTU changes", _ip(f"-4 link set {WAN} mtu 1280"), _LINE),
    Disruption(
        "WAN renamed",
        _ip(
            f"-4 link set {WAN} down",
            f"-4 link set {WAN} name {RENAMED}",
            f"-4 link set {RENAMED} up",
        ),
        _LINE,
        takes=HOOK,  # Linux 6.16 and later bind it to names, and drop it with the name
    ),
    Disruption("WAN device removed", _unplug_wan, _LINE),
    Disruption("a phone is plugged in", _plug_in_phone, _LINE),
    Disruption("no network, and a restart", _no_network_and_a_restart, _LINE),
    Disruption("LAN bridge goes down", _ip(f"-4 link set {at.LAN_BRIDGE} down"), _LAN, severs=True),
)
PROVIDER = (
    Disruption("the server's key removed", _remove_key, _PROVIDER),
    Disruption("endpoint blackholed", lambda s: s.world.vpn1.blackhole(), _PROVIDER),
    Disruption("the server is gone", lambda s: s.world.vpn1.stop(), _PROVIDER),
)
MEMORY = (
    Disruption("intent cannot be saved, kill -9", _unwritable_intent, Scene.restore_files),
    Disruption(
        "settings are garbage", _break_file("config/portcullis", "\0garbage"), Scene.restore_files
    ),
    Disruption("no firewall configured", _break_file("config/firewall", ""), Scene.restore_files),
    Disruption(
        "netifd knows nothing",
        _break_file("interfaces.json", json.dumps({"interface": []})),
        Scene.restore_files,
    ),
)
OWNER = (
    Disruption("LAN access denied and allowed", _change("lan_access=0", "lan_access=1")),
    Disruption("another profile and back", _switch_profiles),
)
COMMANDS = (
    Disruption("connect", lambda s: s.tell("connect", profile="vpn1")),
    Disruption("connect in vain", lambda s: s.tell("connect", profile="home")),
    Disruption("disconnect", lambda s: s.tell("disconnect")),
)
"""Where the kill switch is active at all times, the owner's word changes nothing about that."""
DISRUPTIONS = (*PROCESSES, *FIREWALL, *ROUTING, *LINES, *PROVIDER, *MEMORY, *OWNER)
"""After each of these the block stands, the house is answered, and nothing is left behind."""
