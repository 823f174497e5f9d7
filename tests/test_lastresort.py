# SPDX-License-Identifier: GPL-2.0-or-later
"""K5's last resort on a router of two devices, one of them the house's (K14)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from router.namespace import Namespace

from portcullis.lastresort import LastResort

pytestmark = pytest.mark.pyroute2
FORWARDING = [Path("/proc/sys/net/ipv4/ip_forward"), Path("/proc/sys/net/ipv6/conf/all/forwarding")]


@pytest.fixture
def router(namespace: Namespace) -> Namespace:
    """The test runs inside it."""
    namespace.ip(
        "link add wan type veth peer name isp\nlink add br-lan type bridge\n"
        "link set wan up\nlink set isp up\nlink set br-lan up\n"
    )
    namespace.sysctl({"ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1})
    return namespace


def up(device: str) -> bool:
    done = subprocess.run(["ip", "link", "show", device], capture_output=True, text=True)
    return ",UP" in done.stdout or "<UP" in done.stdout


def forwards() -> bool:
    found = {path.read_text().strip() for path in FORWARDING}
    assert len(found) == 1, "both families or none"
    return found == {"1"}


def test_upstream_devices_go_down_and_the_rest_stays(router: Namespace, tmp_path: Path) -> None:
    done = LastResort(tmp_path / "record").take(("wan", "not-there"), ("br-lan",))
    assert (done, up("wan"), up("br-lan"), forwards()) == (("wan taken down",), False, True, True)


def test_a_device_of_the_house_stays_up_and_nothing_is_forwarded(
    router: Namespace, tmp_path: Path
) -> None:
    LastResort(tmp_path / "record").take(("wan", "br-lan"), ("br-lan",))
    assert (up("wan"), up("br-lan"), forwards()) == (False, True, False)


def test_where_no_way_out_is_known_nothing_is_forwarded(router: Namespace, tmp_path: Path) -> None:
    LastResort(tmp_path / "record").take((), ("br-lan",))
    assert (up("wan"), forwards()) == (True, False)


def test_a_later_process_gives_back_what_was_taken(router: Namespace, tmp_path: Path) -> None:
    record = tmp_path / "record"
    for _ in range(2):  # taken again, it is still known what there was before
        LastResort(record).take(("wan", "br-lan"), ("br-lan",))
    assert LastResort(record).taken
    LastResort(record).undo()
    assert (up("wan"), forwards(), LastResort(record).taken) == (True, True, False)


def test_what_was_down_before_stays_down(router: Namespace, tmp_path: Path) -> None:
    router.ip("link set wan down\n")
    LastResort(tmp_path / "record").take(("wan",), ("br-lan",))
    LastResort(tmp_path / "record").undo()
    assert not up("wan")
