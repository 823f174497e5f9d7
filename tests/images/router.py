# SPDX-License-Identifier: GPL-2.0-or-later
"""A running OpenWrt: procd is its first process, and a LAN host and the internet hang on it."""

from __future__ import annotations

import io
import json
import tarfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from docker.client import DockerClient
from docker.models.containers import Container

INTERNET = "45.45.45.10"  # nobody's: it stands behind the router's WAN, in the container
GATEWAY = "192.168.1.1"

# The router's own ports, eth0 and eth1, lead into two namespaces.
_SURROUNDINGS = f"""
set -e
ip netns add house
ip netns add internet
ip link add eth0 type veth peer name port netns house
ip link add eth1 type veth peer name port netns internet
ip -n house addr add 192.168.1.50/24 dev port
ip -n internet addr add 203.0.113.1/24 dev port
ip -n internet addr add {INTERNET}/32 dev lo
for name in house internet; do
	ip -n $name link set lo up
	ip -n $name link set port up
done
ip -n house route add default via {GATEWAY}
ip link set eth0 up
ip link set eth1 up
"""


class Failed(Exception):
    """A command on the router that failed, with what it printed."""


class Router:
    """Boots at `with`, and is gone without a trace after it."""

    def __init__(self, client: DockerClient, image: str) -> None:
        self._client = client
        self._image = image
        self._container: Container

    def __enter__(self) -> Self:
        # Without a network of the engine's: nothing it does can reach a real one.
        self._container = self._client.containers.run(
            self._image, "/sbin/init", detach=True, privileged=True, network_mode="none"
        )
        try:
            self.until("ubus -t 1 wait_for service network.interface.lan network.interface.wan")
            self.run(_SURROUNDINGS)
            self.until(f"ping -c 1 -W 1 {INTERNET}")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._container.kill()
        self._container.remove(force=True)

    def ask(self, command: str) -> tuple[int, str]:
        """A shell command's exit code and all it printed."""
        code, output = self._container.exec_run(["/bin/sh", "-c", command])
        return code, output.decode(errors="replace")

    def run(self, command: str) -> str:
        code, output = self.ask(command)
        if code:
            raise Failed(f"{command}\nexit code {code}\n{output}")
        return output

    def until(self, command: str, seconds: float = 60) -> str:
        """What a command prints as soon as it succeeds: for what is told by no event."""
        end = time.monotonic() + seconds
        while True:
            code, output = self.ask(command)
            if not code:
                return output
            if time.monotonic() > end:
                log = self.ask("logread | grep -v kernel: | tail -n 40")[1]
                raise Failed(f"{command}\nnot within {seconds} s\n{output}\n{log}")
            time.sleep(0.2)

    def put(self, path: Path) -> str:
        """A file of ours on the router; its name there."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add(path, arcname=path.name)
        # Not /tmp: the engine does not see what init has mounted there.
        self._container.put_archive("/mnt", archive.getvalue())
        return f"/mnt/{path.name}"

    def call(self, target: str, method: str, **arguments: str) -> dict[str, Any]:
        """A ubus call's answer."""
        answer: dict[str, Any] = json.loads(
            self.run(f"ubus call {target} {method} '{json.dumps(arguments)}'")
        )
        return answer

    def reaches(self, address: str, *, of: str = "") -> bool:
        """Whether a ping is answered: of the router's, or of the LAN host's (`house`)."""
        inside = f"ip netns exec {of} " if of else ""
        return self.ask(f"{inside}ping -c 2 -W 1 {address}")[0] == 0
