# SPDX-License-Identifier: GPL-2.0-or-later
"""What answers around the router: echo hosts and resolvers of the internet, dnsmasq on the router.

Every answer says who gave it and from where it was asked, so that a test knows which way a probe
went: UDP, TCP (per line) and raw echoes append " NAME SOURCE PORT", resolvers answer TXT with
"NAME SOURCE" and unknown names with an address of their own (IDENTITIES)."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from . import dns
from .addresses import (
    DOMAIN,
    ECHO_PORTS,
    FRIENDLY,
    GUEST_BRIDGE,
    HOSTILE,
    ISP,
    LAN_A,
    LAN_B,
    LAN_BRIDGE,
    ODD_PROTOCOL,
    ROUTER_LAN,
    VPN1,
    VPN2,
    Host,
)
from .namespace import Namespace

# resolver's name: what it says of a name nobody knows (RFC 5737 and 3849 addresses)
IDENTITIES = {
    name: (f"192.0.2.{n}", f"2001:db8:53::{n}")
    for n, name in enumerate(("isp", "public-dns", "tunnel1", "tunnel2", "pihole"), start=11)
}
KNOWN = {f"{h.name}.{DOMAIN}": h for h in (FRIENDLY, HOSTILE, VPN1, VPN2)}


@dataclass(frozen=True)
class Service:
    kind: str  # echo, dns
    transport: str  # udp, tcp, raw
    netns: str
    address: str
    port: int  # of a raw service: the IP protocol
    name: str
    answers: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Query:
    """A question as a resolver saw it; `source` is who asked, `address` where it was asked."""

    time: float
    resolver: str
    address: str
    source: str
    transport: str
    name: str
    kind: int


def echo(netns: Namespace, host: Host) -> list[Service]:
    services = [
        Service("echo", transport, netns.name, address, port, host.name)
        for address in host.addresses
        for port in ECHO_PORTS
        for transport in ("udp", "tcp")
    ]
    return services + [
        Service("echo", "raw", netns.name, address, ODD_PROTOCOL, host.name)
        for address in host.addresses
    ]


def resolver(netns: Namespace, host: Host, name: str | None = None) -> list[Service]:
    """A resolver on port 53 of each address of the host, by default under the host's name."""
    name = name or host.name
    own4, own6 = IDENTITIES[name]
    answers = {n: {str(dns.A): h.v4, str(dns.AAAA): h.v6} for n, h in KNOWN.items()}
    answers["*"] = {str(dns.A): own4, str(dns.AAAA): own6}
    return [
        Service("dns", transport, netns.name, address, 53, name, answers)
        for address in host.addresses
        for transport in ("udp", "tcp")
    ]


class Servers:
    """The parent's end of the responder process."""

    def __init__(self, state: Path) -> None:
        self._log = state / "queries.jsonl"
        self._log.touch()
        package = Path(__file__).resolve().parent
        self._process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, "-m", f"{package.name}.responder", str(self._log)],
            cwd=package.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(package.parent)},
        )

    def serve(self, services: Iterable[Service]) -> None:
        """Start services; they are ready when this returns."""
        self.order(services)
        self.await_ready()

    def order(self, services: Iterable[Service]) -> None:
        pipe = _open(self._process.stdin)
        pipe.write(json.dumps([asdict(s) for s in services]) + "\n")
        pipe.flush()

    def await_ready(self) -> None:
        pipe = _open(self._process.stdout)
        readable, _, _ = select.select([pipe], [], [], 10)
        answer = pipe.readline().strip() if readable else "no answer in 10 s"
        if answer != "ok":
            raise RuntimeError(f"the test servers did not start: {answer or 'process ended'}")

    def queries(self, resolver: str | None = None) -> list[Query]:
        """Everything asked so far, of all resolvers or of one."""
        lines = self._log.read_text().splitlines()
        asked = [Query(**json.loads(line)) for line in lines]
        return [q for q in asked if resolver in (None, q.resolver)]

    def close(self) -> None:
        _open(self._process.stdin).close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        _open(self._process.stdout).close()


def _open(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


class Dnsmasq:
    """dnsmasq as OpenWrt's defaults set it up (/etc/config/dhcp), DHCP for LAN and guests included.

    `rebind_protection` is left out: it takes every documentation address for a private one."""

    def __init__(self, router: Namespace, state: Path) -> None:
        self._router = router
        self.pidfile = state / "dnsmasq.pid"
        self.resolv = state / "resolv.conf.auto"
        self.config = state / "dnsmasq.conf"
        self.leases = state / "dhcp.leases"
        hosts = state / "hosts"
        self.set_upstream(*ISP.addresses)
        named = [(ROUTER_LAN.addresses, "router"), (LAN_A.addresses, LAN_A.name)]
        named.append((LAN_B.addresses, LAN_B.name))
        hosts.write_text("".join(f"{a} {name}\n" for addrs, name in named for a in addrs))
        self.config.write_text(
            "conf-file=/dev/null\nuser=root\ndomain-needed\nbogus-priv\nlocalise-queries\n"
            "bind-dynamic\nlocal-service\nlocal=/lan/\ndomain=lan\nexpand-hosts\nno-hosts\n"
            "cache-size=1000\nedns-packet-max=1232\ndhcp-authoritative\nexcept-interface=eth1\n"
            f"addn-hosts={hosts}\nresolv-file={self.resolv}\npid-file={self.pidfile}\n"
            f"dhcp-leasefile={self.leases}\n"
            f"dhcp-range=interface:{LAN_BRIDGE},192.168.1.100,192.168.1.249,12h\n"
            f"dhcp-range=interface:{GUEST_BRIDGE},192.168.2.100,192.168.2.249,12h\n"
        )

    @property
    def pid(self) -> int:
        """0 while it does not run."""
        try:
            return int(self.pidfile.read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def set_upstream(self, *resolvers: str) -> None:
        """Rewrite the resolv file (dnsmasq notices by inotify), as netifd does at ifup."""
        self.resolv.parent.mkdir(exist_ok=True)
        fresh = self.resolv.with_suffix(".new")
        fresh.write_text("".join(f"nameserver {address}\n" for address in resolvers))
        fresh.rename(self.resolv)

    def start(self) -> None:
        """dnsmasq's foreground part ends when the sockets are open, so it is ready after this."""
        # no group: in a user namespace of one user setgroups() is refused
        self._router.run(["dnsmasq", "-C", str(self.config), "--group="])

    def reload(self) -> None:
        """SIGHUP: the cache is dropped, hosts and leases are read again."""
        os.kill(self.pid, signal.SIGHUP)

    def stop(self) -> None:
        pid = self.pid
        if not pid:
            return
        with suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(fd, signal.SIGTERM)
                waiting = select.poll()
                waiting.register(fd, select.POLLIN)
                if not waiting.poll(5000):
                    raise RuntimeError(f"dnsmasq ({pid}) does not end")
            finally:
                os.close(fd)
        self.pidfile.unlink(missing_ok=True)
