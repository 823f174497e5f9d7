# SPDX-License-Identifier: GPL-2.0-or-later
"""`make bench`: what it costs. Ratios within one run; absolute figures are this machine's."""

from __future__ import annotations

import ctypes
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from . import bench_web, tampering
from .appliance import Appliance
from .capture import Capture
from .firewall import render, zones
from .flood import Flood
from .isolation import isolate
from .judge import judge
from .leaktest import ALLOWED, has_egress_hook
from .namespace import Namespace
from .sabotage import start_plain

_FRIENDLY = ["198.51.100.7", "2001:db8:64::7"]
_ROUNDS, _BURST, _BURSTS = 15, 64, 500
_IDLE_SECONDS = 20


def main() -> int:
    isolate()
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))
    print(f"{'figure':<52}{'measured':>16}   target")
    forwarding()
    transactions()
    imports()
    with Appliance() as appliance:
        appliance.start()
        connect_time(appliance)
        memory(appliance)
        idle(appliance)
        loss(appliance)
    with Appliance() as appliance:
        start_plain(appliance)
        appliance.connect()
        repair(appliance)
    with Appliance() as appliance:
        appliance.start()
        bench_web.measure(appliance, show)
    return 0


def show(figure: str, measured: str, target: str = "") -> None:
    print(f"{figure:<52}{measured:>16}   {target}", flush=True)


# Forwarding


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    _fields_ = (
        *(("name", ctypes.c_void_p), ("namelen", ctypes.c_uint32), ("iov", ctypes.c_void_p)),
        *(("iovlen", ctypes.c_size_t), ("control", ctypes.c_void_p)),
        *(("controllen", ctypes.c_size_t), ("flags", ctypes.c_int), ("sent", ctypes.c_uint)),
    )


def forwarding() -> None:
    """64-octet UDP of one established flow, LAN to tunnel device, veth on both sides so that the
    rules and not the encryption are measured; fw4's ruleset alone = 1.00."""
    from portcullis import egress
    from portcullis.attachment import Attachment
    from portcullis.egress import Outward
    from portcullis.lanruleset import BRIDGE
    from portcullis.lanruleset import elements as lan_elements
    from portcullis.policy import Lan, Link, Network, Policy, decide
    from portcullis.ruleset import render as render_block
    from portcullis.states import Mode, State

    link = Link(("10.64.0.2",), ("10.64.0.1",), ("0.0.0.0/0",))
    networks = (Network("lan", "br-lan", ()), Network("guest", "br-guest", ()))
    policy = decide(State.CONNECTED, Mode.STANDARD, True, networks, link, (), ())
    macs = [f"02:00:00:00:00:{n:02x}" for n in range(250)]
    lan = Lan(free=tuple((mac, "lan1") for mac in macs), isolated=("lan1",))
    apart = render_block(policy._replace(lan_access=False, lan=lan))
    apart += BRIDGE.render(lan_elements(lan))
    title = "forwarding with the block, fw4 alone = 1.00"
    _compare(title, ">= 0.97", render_block(policy), bridged=False)
    if has_egress_hook():
        hook = egress.table(("pc0",))
        outward = Outward(Policy(released=True), Attachment((("pc0", 1),)))
        title = "  with the egress hook alone"
        _compare(title, ">= 0.97", hook.render(hook.elements(outward)), bridged=False)
    title = "  LAN access denied, bridge with 250 exceptions"
    _compare(title, ">= 0.90", apart, bridged=True)


def _compare(title: str, target: str, block: str, *, bridged: bool) -> None:
    """Show the rate under `block` relative to that under fw4's ruleset alone."""
    port = "lan1" if bridged else "br-lan"
    source, router, sink = (Namespace(f"bench-{name}") for name in ("source", "router", "sink"))
    _run("".join(f"netns add {space.name}\n" for space in (source, router, sink)))
    try:
        _run(
            f"link add {port} netns {router.name} type veth peer name eth0 netns {source.name}\n"
            f"link add pc0 netns {router.name} type veth peer name eth0 netns {sink.name}\n"
        )
        if bridged:
            router.ip("link add br-lan type bridge\nlink set lan1 master br-lan up\n")
        source.ip(
            "addr add 192.168.1.2/24 dev eth0\nlink set eth0 up\n"
            "route add default via 192.168.1.1\n"
        )
        router.ip(
            "addr add 192.168.1.1/24 dev br-lan\nlink set br-lan up\n"
            "addr add 10.64.0.2/24 dev pc0\nlink set pc0 up\n"
        )
        router.sysctl({"ipv4/ip_forward": 1})
        sink.ip("addr add 10.64.0.9/24 dev eth0\nlink set eth0 up\n")
        sink.nft(
            "table inet sink {\n chain in {\n  type filter hook prerouting priority -400;\n"
            "  udp dport 9 drop\n }\n}\n"
        )
        base = render(zones())
        router.nft(base)
        send = _sender(source, "10.64.0.9")
        _rate(send, sink)  # warm up
        ratios = []
        for _ in range(_ROUNDS):
            plain = _rate(send, sink)
            router.nft(block)
            ratios.append(_rate(send, sink) / plain)
            router.nft("flush ruleset\n" + base)
        show(title, f"{statistics.median(ratios):.3f}", target)
        plain = statistics.median(_rate(send, sink) for _ in range(3))
        show("  packets per second, fw4 alone", f"{plain:,.0f}")
    finally:
        _run("".join(f"netns del {space.name}\n" for space in (source, router, sink)))


def _sender(source: Namespace, target: str) -> Callable[[], None]:
    """Sends a burst in one system call: the whole way to the sink happens in it, by softirq."""
    out = source.socket()
    out.connect((target, 9))
    payload = ctypes.create_string_buffer(36)  # 64 octets with IP's and UDP's headers
    vector = _Vector(ctypes.addressof(payload), 36)
    headers = (_Header * _BURST)()
    for header in headers:
        header.iov, header.iovlen = ctypes.addressof(vector), 1
    sendmmsg = ctypes.CDLL(None).sendmmsg

    def send() -> None:
        for _ in range(_BURSTS):
            sendmmsg(out.fileno(), headers, _BURST, 0)
        assert vector
        assert payload

    return send


def _rate(send: Callable[[], None], sink: Namespace) -> float:
    before, began = sink.counters("eth0")[0], time.perf_counter()
    send()
    took = time.perf_counter() - began
    return (sink.counters("eth0")[0] - before) / took


# The core by itself


def transactions() -> None:
    """A change of state: both layers, read back and compared."""
    from portcullis.guard import RoutingGuard
    from portcullis.nft import Nftables
    from portcullis.packetfilter import PacketFilter
    from portcullis.policy import CLOSED, Policy
    from portcullis.ruleset import INET, refill
    from portcullis.ruleset import render as render_block

    nft = Nftables()
    table, guard, released = PacketFilter(nft, INET), RoutingGuard(), Policy(released=True)
    table.reconcile(CLOSED)
    guard.reconcile(CLOSED)
    atomic = _median(lambda: nft.run(refill(released)))
    command = ["nft", "-f", "-"]
    spawned = _median(
        lambda: subprocess.run(command, input=render_block(CLOSED), text=True, check=True), 20
    )
    show("atomic update of all sets, library", f"{atomic:.2f} ms")
    show("  by spawning nft = 1.00", f"{atomic / spawned:.3f}")
    table.reconcile(CLOSED)
    show(
        "packet filter, verified against the kernel",
        f"{_median(lambda: table.standing(CLOSED)):.2f} ms",
    )
    show(
        "routing guard, verified against the kernel",
        f"{_median(lambda: guard.standing(CLOSED)):.2f} ms",
    )
    table.reconcile(released)
    guard.close()
    nft.close()


def _median(action: Callable[[], object], times: int = 100) -> float:
    figures = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        figures.append((time.perf_counter() - began) * 1000)
    return statistics.median(figures)


def imports() -> None:
    """pyroute2 the light way, against the whole of it."""
    code = "import {}; print(open('/proc/self/statm').read().split()[1])"
    whole, light = (_import(code.format(name)) for name in ("pyroute2", "portcullis.netlink"))
    nothing = _import(code.format("sys"))
    show("pyroute2 loaded the light way, all of it = 1.00", f"{light[1] / whole[1]:.2f}")
    show("  memory, over Python's own", f"{light[0] - nothing[0]:.1f} MB")
    show("  memory of all of it, over Python's own", f"{whole[0] - nothing[0]:.1f} MB")


def _import(code: str) -> tuple[float, float]:
    """Megabytes resident, and seconds."""
    figures = []
    for _ in range(5):
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        figures.append(
            (int(done.stdout) * os.sysconf("SC_PAGESIZE") / 1e6, time.perf_counter() - began)
        )
    return min(figures)[0], min(seconds for _, seconds in figures)


# The daemon on the router


def connect_time(appliance: Appliance) -> None:
    """From `portcullisctl connect` to the first packet of a LAN host through the tunnel."""
    appliance.call("set", name="mode", value="at_all_times")
    figures = []
    for _ in range(5):
        command = [sys.executable, "-m", "portcullis.ctl", "--ubus", str(appliance.bus.socket)]
        began = time.perf_counter()
        environment = appliance.environment()
        with appliance.world.router.popen(
            [*command, "connect", "vpn1"], env=environment, stdout=subprocess.DEVNULL
        ):
            while not _answered(appliance):
                pass
            figures.append(time.perf_counter() - began)
        appliance.disconnect()
    show(
        "portcullisctl connect to first packet in the tunnel",
        f"{statistics.median(figures):.2f} s",
        "<= 1 s",
    )


def _answered(appliance: Appliance) -> bool:
    with appliance.world.lana.socket() as asking:
        asking.settimeout(0.02)
        asking.connect((_FRIENDLY[0], 7))
        try:
            asking.send(b"bench")
            return bool(asking.recv(200))
        except OSError:
            time.sleep(0.002)
            return False


def memory(appliance: Appliance) -> None:
    appliance.connect()
    assert appliance.daemon
    text = Path(f"/proc/{appliance.daemon.pid}/smaps_rollup").read_text()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
    show("core, resident set (RSS)", f"{kilobytes['Rss'] / 1000:.1f} MB", "<= 40 MB")
    show("core, proportional set (PSS)", f"{kilobytes['Pss'] / 1000:.1f} MB")


def idle(appliance: Appliance) -> None:
    """Connected, nobody does anything."""
    assert appliance.daemon
    pid = appliance.daemon.pid
    time.sleep(3)  # what the connect set off has to end
    switches, ticks = _switches(pid), _ticks(pid)
    time.sleep(_IDLE_SECONDS)
    woken = (_switches(pid) - switches) / _IDLE_SECONDS
    busy = (_ticks(pid) - ticks) / os.sysconf("SC_CLK_TCK") / _IDLE_SECONDS
    show("core idle and connected, wake-ups per second", f"{woken:.2f}", "<= 1")
    show("core idle and connected, CPU", f"{busy:.2%}")


def _switches(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt"))


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def loss(appliance: Appliance) -> None:
    """The server falls silent under load and when idle; it returns; nothing leaks meanwhile."""
    world = appliance.world
    sent = leaked = 0
    with Capture(world.isp, world.access) as wan:
        with Flood(world.lana, _FRIENDLY, rate=500) as flood:
            world.vpn1.blackhole()
            noticed = appliance.until_state("reconnecting", patience=60)
            time.sleep(4)
            world.vpn1.unblackhole()
            returned = appliance.until_state("connected", patience=60)
            sent = sum(flood.totals().sent.values())
        show("dead server noticed, under load", f"{noticed:.1f} s", "<= 10 s")
        show("connected again after the path's return", f"{returned:.1f} s", "<= 3 s")
        time.sleep(2)
        world.vpn1.blackhole()
        noticed = appliance.until_state("reconnecting", patience=90)
        show("dead server noticed, idle", f"{noticed:.1f} s", "<= 30 s")
        world.vpn1.unblackhole()
        appliance.until_state("connected", patience=60)
    leaked = len(judge(wan.frames, ALLOWED).leaks)
    show(f"leaked of {sent:,} packets meanwhile", str(leaked), "0")


def repair(appliance: Appliance) -> None:
    """From tampering to repair, under load: tables deleted, sets and rules changed, ip rules and
    routes deleted. Tables that the daemon owns nobody could change."""
    found = tampering.repairs(appliance, rounds=10)
    lives_on, spawned = found.medians
    show("tampering undone, by a process that lives on", f"{lives_on:.1f} ms", "<= 5 ms")
    show("tampering undone, by a spawned nft or ip", f"{spawned:.1f} ms", "<= 40 ms")
    show(f"leaked of {found.sent:,} packets meanwhile", str(found.leaked), "0")


def _run(batch: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True, timeout=30)


if __name__ == "__main__":
    sys.exit(main())
