# SPDX-License-Identifier: GPL-2.0-or-later
"""K5's last resort on a router of two devices, one of them the house's (K14)."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from router.namespace import Namespace

from portcullis import lastresort
from portcullis.lastresort import LastResort
from portcullis.netlink import NetlinkError

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
    assert done == (("wan taken down",), ())
    assert (up("wan"), up("br-lan"), forwards()) == (False, True, True)


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


@pytest.fixture
def balking(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Devices that the kernel refuses to set up or down."""
    found: set[str] = set()
    named = lastresort.link_named

    def refuse(ip: Any, name: str) -> Any:
        if name in found:
            raise NetlinkError(100, "Network is down")
        return named(ip, name)

    monkeypatch.setattr(lastresort, "link_named", refuse)
    return found


def test_a_device_that_does_not_go_down_keeps_nothing_else_open(
    router: Namespace, tmp_path: Path, balking: set[str]
) -> None:
    router.ip("link add eth9 type bridge\nlink set eth9 up\n")
    balking.add("eth9")
    done, problems = LastResort(tmp_path / "record").take(("eth9", "wan"), ("br-lan",))
    assert (up("wan"), forwards(), len(done)) == (False, False, 3)
    assert [problem.partition(":")[0] for problem in problems] == ["eth9 cannot be taken down"]


def test_a_device_that_does_not_come_up_keeps_no_other_down(
    router: Namespace, tmp_path: Path, balking: set[str]
) -> None:
    """A VLAN's, where it was taken down before the device that it runs over."""
    router.ip("link add eth9 type bridge\nlink set eth9 up\n")
    last = LastResort(tmp_path / "record")
    last.take(("eth9", "wan"), ("br-lan",))
    assert not up("wan")
    balking.add("eth9")
    with pytest.raises(NetlinkError):
        last.undo()
    assert (up("wan"), up("eth9"), last.taken) == (True, False, True)
    balking.clear()
    last.undo()
    assert (up("eth9"), last.taken) == (True, False)


def test_what_lies_upon_another_device_is_given_back_after_it(
    router: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(lastresort, "link_named", lambda _ip, name: order.append(name))
    (tmp_path / "record").write_text('{"devices": ["wan.7", "wan"], "switches": []}')
    LastResort(tmp_path / "record").undo()
    assert order == ["wan", "wan.7"]


def test_what_cannot_be_read_is_not_forgotten(
    router: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No descriptor is left for the record: neither giving back nor more taking loses it."""
    record, read = tmp_path / "record", Path.read_text
    LastResort(record).take(("wan",), ("br-lan",))
    router.ip("link add eth9 type bridge\nlink set eth9 up\n")

    def refuse(path: Path, *arguments: Any) -> str:
        if path == record:
            raise OSError(24, "Too many open files")
        return read(path, *arguments)

    later = LastResort(record)
    with monkeypatch.context() as scarce:
        scarce.setattr(Path, "read_text", refuse)
        with pytest.raises(OSError, match="Too many"):
            later.undo()
        later.take(("wan", "eth9"), ("br-lan",))
    assert (up("wan"), up("eth9"), later.taken) == (False, False, True)
    later.undo()
    assert (up("wan"), up("eth9"), later.taken) == (True, True, False)


def test_what_cannot_be_written_down_is_taken_all_the_same_and_given_back(
    router: Namespace, tmp_path: Path
) -> None:
    record, obstacle = tmp_path / "record", tmp_path / ".record.new"
    obstacle.mkdir()  # /tmp is full: the temporary file cannot be made
    last = LastResort(record)
    last.take(("wan",), ("br-lan",))
    assert (up("wan"), last.taken, record.exists()) == (False, True, False)
    obstacle.rmdir()
    last.take(("wan",), ("br-lan",))
    assert record.exists(), "written down as soon as there is room"
    obstacle.mkdir()
    last.take(("wan", "br-lan"), ("br-lan",))
    assert not forwards()
    last.undo()
    assert (up("wan"), forwards(), last.taken) == (True, True, False)
