# SPDX-License-Identifier: GPL-2.0-or-later
"""WireGuard servers by wireguard-go, which misbehave on request, and profiles for their clients."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .addresses import DOMAIN, WIREGUARD_PORT, Host
from .namespace import Namespace

DEVICE = "wg0"
SOCKET_DIR = "/run/wireguard"


@dataclass(frozen=True)
class KeyPair:
    """Base64, as `wg` prints them."""

    private: str
    public: str

    @classmethod
    def generate(cls) -> KeyPair:
        private = _wg("genkey")
        return cls(private, _wg("pubkey", private))


def _wg(what: str, stdin: str = "") -> str:
    return subprocess.run(
        ["wg", what], input=stdin, capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()


def _hex(key: str) -> str:
    return base64.b64decode(key).hex()


class WireguardGo:
    """One wireguard-go process with its device. `sockets` is the directory that the namespace
    finds at /run/wireguard, so that equal device names in two namespaces do not meet there."""

    def __init__(self, netns: Namespace, device: str) -> None:
        self.netns = netns
        self.device = device
        self._socket = netns.binds[SOCKET_DIR] / f"{device}.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """0 while it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else 0

    def start(self) -> None:
        """Returns when the process runs; the first `configure` waits for the device."""
        if self.pid:
            raise RuntimeError(f"wireguard-go for {self.device} runs already")
        self._socket.unlink(missing_ok=True)
        # handing it a listening socket (its own way to become a daemon) saves waiting for one
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(self._socket))
            listener.listen(8)
            self._process = self.netns.popen(
                ["wireguard-go", "-f", self.device],
                env={
                    **os.environ,
                    "LOG_LEVEL": "error",
                    "WG_UAPI_FD": str(listener.fileno()),
                    "WG_PROCESS_FOREGROUND": "1",
                },
                pass_fds=(listener.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

    def stop(self) -> None:
        """Kill it; the device goes with it."""
        if self._process:
            self._process.kill()
            self._process.wait(10)
            self._process = None
        self._socket.unlink(missing_ok=True)

    def configure(self, settings: str) -> None:
        """Lines key=value of the cross-platform interface (wireguard.com/xplatform)."""
        self._ask("set=1\n" + settings + "\n")

    def state(self) -> dict[str, str]:
        """The device's values; of the last peer where there are several."""
        pairs = (line.partition("=") for line in self._ask("get=1\n\n").splitlines())
        return {key: value for key, _, value in pairs}

    def _ask(self, text: str) -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(10)
            client.connect(str(self._socket))
            client.sendall(text.encode())
            answer = b""
            while not answer.endswith(b"\n\n"):
                data = client.recv(65536)
                if not data:
                    break
                answer += data
        reply = answer.decode()
        if "errno=0\n" not in reply:
            raise RuntimeError(f"wireguard-go refused {text.splitlines()[:2]}: {reply!r}")
        return reply


class VpnServer:
    """A provider's server: host is its public face, tunnel its address inside, client its only
    customer's. It translates the customer to its own public addresses, v4 and v6."""

    def __init__(self, netns: Namespace, host: Host, tunnel: Host, client: Host) -> None:
        self.netns, self.host, self.tunnel, self.client = netns, host, tunnel, client
        self.keys, self.client_keys = KeyPair.generate(), KeyPair.generate()
        self.port = WIREGUARD_PORT
        self._daemon = WireguardGo(netns, DEVICE)

    @property
    def name(self) -> str:
        return self.host.name

    def start(self) -> None:
        self._daemon.start()
        self.await_ready()

    def launch(self) -> None:
        """The part of `start` that does not wait; follow it with `await_ready`."""
        self._daemon.start()

    def await_ready(self) -> None:
        self._daemon.configure(
            f"private_key={_hex(self.keys.private)}\nlisten_port={self.port}\n{self._peer()}"
        )
        self.netns.ip(
            f"addr add {self.tunnel.v4}/24 dev {DEVICE}\n"
            f"addr add {self.tunnel.v6}/64 dev {DEVICE} nodad\n"
            f"link set {DEVICE} mtu 1420 up\n"
        )

    def stop(self) -> None:
        """Nothing listens any more: datagrams to the endpoint are answered by ICMP errors (see
        `drop_icmp`)."""
        self._daemon.stop()

    @property
    def running(self) -> bool:
        return self._daemon.pid != 0

    def _peer(self) -> str:
        return (
            f"public_key={_hex(self.client_keys.public)}\nreplace_allowed_ips=true\n"
            f"allowed_ip={self.client.v4}/32\nallowed_ip={self.client.v6}/128\n"
        )

    def remove_client_key(self) -> None:
        """An account that expired: handshakes are silently ignored from now on."""
        self._daemon.configure(f"public_key={_hex(self.client_keys.public)}\nremove=true\n")

    def restore_client_key(self) -> None:
        self._daemon.configure(self._peer())

    def reach_behind(self, network: str) -> None:
        """A provider gone bad: it sends what it likes to the networks behind its customer."""
        key = _hex(self.client_keys.public)
        self._daemon.configure(f"public_key={key}\nupdate_only=true\nallowed_ip={network}\n")
        self.netns.ip(f"route add {network} dev {DEVICE}\n")

    def blackhole(self) -> None:
        """Every IP packet to and from the server's public face disappears, silently: neighbours
        still find it, or its ISP would tell the client by ICMP."""
        kept = "icmpv6 type != { nd-neighbor-solicit, nd-neighbor-advert }"
        self._table(
            "blackhole",
            f'iifname "eth0" meta nfproto ipv4 drop; iifname "eth0" {kept}',
            'oifname "eth0" meta nfproto ipv4',
            f'oifname "eth0" {kept}',
            'oifname "eth0" meta l4proto != ipv6-icmp',
        )

    def unblackhole(self) -> None:
        self._drop_table("blackhole")

    def drop_icmp(self) -> None:
        """No ICMP error tells the client anything; neighbour discovery goes on."""
        errors = "icmp type { destination-unreachable, time-exceeded, echo-reply }"
        errors6 = "icmpv6 type { destination-unreachable, time-exceeded, echo-reply }"
        self._table("noicmp", "", f'meta oifname "eth0" {errors}', f'meta oifname "eth0" {errors6}')

    def allow_icmp(self) -> None:
        self._drop_table("noicmp")

    def _table(self, name: str, into: str, *out: str) -> None:
        inbound = f"\t\t{into} drop\n" if into else ""
        outbound = "".join(f"\t\t{match} drop\n" for match in out)
        self.netns.nft(
            f"table inet {name}\nflush table inet {name}\ntable inet {name} {{\n"
            f"\tchain in {{\n\t\ttype filter hook prerouting priority -400;\n{inbound}\t}}\n"
            f"\tchain out {{\n\t\ttype filter hook postrouting priority 400;\n{outbound}\t}}\n}}\n"
        )

    def _drop_table(self, name: str) -> None:
        with suppress(RuntimeError):  # undoing what was not done is fine
            self.netns.nft(f"delete table inet {name}\n")

    @property
    def decrypted(self) -> int:
        """Packets that came out of the tunnel here since the device was made."""
        return self.netns.counters(DEVICE)[0]

    @property
    def last_handshake(self) -> int:
        """Seconds since 1970, 0 when there was none."""
        return int(self._daemon.state().get("last_handshake_time_sec", "0"))

    def profile(self, endpoint: str | None = None, *, extra: str = "") -> str:
        """A wg-quick client profile as a provider hands it out. `endpoint` is an address or a
        name, by default the v4 address; `extra` are more lines for [Peer]."""
        at = endpoint or self.host.v4
        at = f"[{at}]" if ":" in at else at
        return (
            f"[Interface]\nPrivateKey = {self.client_keys.private}\n"
            f"Address = {self.client.v4}/32, {self.client.v6}/128\n"
            f"DNS = {self.tunnel.v4}, {self.tunnel.v6}\n\n"
            f"[Peer]\nPublicKey = {self.keys.public}\nAllowedIPs = 0.0.0.0/0, ::/0\n"
            f"Endpoint = {at}:{self.port}\n{extra}"
        )

    @property
    def hostname(self) -> str:
        """The endpoint's name, which every resolver knows."""
        return f"{self.host.name}.{DOMAIN}"

    def client_settings(self, endpoint: str | None = None, *, fwmark: int = 0) -> str:
        """What a client's wireguard-go is told (WireguardGo.configure) for the same profile."""
        at = endpoint or self.host.v4
        at = f"[{at}]" if ":" in at else at
        return (
            f"private_key={_hex(self.client_keys.private)}\nfwmark={fwmark}\nreplace_peers=true\n"
            f"public_key={_hex(self.keys.public)}\nendpoint={at}:{self.port}\n"
            "allowed_ip=0.0.0.0/0\nallowed_ip=::/0\n"
        )


def socket_dir(state: Path, name: str) -> Mapping[str, Path]:
    """A bind that gives a namespace its own /run/wireguard."""
    place = state / name
    place.mkdir(parents=True)
    return {SOCKET_DIR: place}
