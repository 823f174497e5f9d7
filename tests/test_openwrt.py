# SPDX-License-Identifier: GPL-2.0-or-later
"""The built packages on OpenWrt itself: procd, ubusd, rpcd, netifd, fw4 and the package manager of
each release, in a container. `make test-openwrt`; needs Docker, or what speaks its API, and the
release's server once."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import docker
import pytest
from docker.client import DockerClient
from docker.errors import APIError, BuildError, DockerException
from images.router import GATEWAY, INTERNET, Router

from portcullis import __version__

TOP = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.openwrt

PROFILE = """\
[Interface]
PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=
Address = 10.64.0.2/32
DNS = 10.64.0.1

[Peer]
PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = 45.45.45.10:51820
"""


class Manager(NamedTuple):
    """A release's package manager."""

    format: str
    install: str
    again: str
    remove: str


OPKG = Manager(
    "ipk",
    "opkg install {}",
    "opkg install --force-reinstall {}",
    "opkg remove luci-app-portcullis portcullis",
)
APK = Manager(
    "apk",
    "apk add --no-network --allow-untrusted {}",
    "apk fix --no-network --reinstall portcullis",
    "apk del --no-network luci-app-portcullis portcullis",
)


@pytest.fixture(scope="session")
def engine() -> Iterator[DockerClient]:
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        pytest.skip(f"no container engine that speaks Docker's API: {error}")
    yield client
    client.close()


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make ipk` can make here, as sources, which run on every release's Python. An .apk that
    it cannot make is looked for where `make package` leaves it."""
    output = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, TOP / "package/build.py", "--output", output, "--bytecode", "none"],
        check=True,
        capture_output=True,
    )
    return output


def _release(name: str) -> tuple[str, Manager]:
    """A release's image, which has the number of its SDK, and its package manager."""
    config = configparser.ConfigParser()
    config.read(TOP / "openwrt-sdk.cfg")
    number = config[f"{name} x86/64"]["path"].split("/")[1]
    manager = OPKG if config[name]["package_format"] == "ipk" else APK
    return f"openwrt/rootfs:x86-64-{number}", manager


def _built(folder: Path, manager: Manager) -> list[Path]:
    found = []
    for name in ("portcullis", "luci-app-portcullis"):
        made = [
            path
            for place in (folder, TOP / "dist")
            for path in place.glob(f"{name}[-_]{__version__}-r*.{manager.format}")
        ]
        if not made:
            pytest.skip(f"no {name} as .{manager.format}: `make package` with an SDK makes it")
        found.append(made[0])
    return found


def _needed() -> str:
    """What the packages depend on, of the recipes; and ip netns, for the tests."""
    names = set()
    for recipe in (TOP / "package").glob("*/Makefile"):
        names |= set(re.findall(r"^\t\+([a-z0-9-]+)", recipe.read_text(), re.MULTILINE))
    return " ".join(sorted(names - {"portcullis"} | {"ip-full"}))


class Installed(NamedTuple):
    router: Router
    manager: Manager
    files: list[str]  # the packages, on the router

    def command(self, template: str) -> str:
        return template.format(" ".join(self.files))


@pytest.fixture(scope="session", params=["24.10", "25.12"])
def image(request: pytest.FixtureRequest, engine: DockerClient) -> tuple[str, Manager]:
    base, manager = _release(request.param)
    base = os.environ.get(f"OPENWRT_ROOTFS_{request.param.replace('.', '_')}", base)
    tag = f"portcullis-test:{request.param}"
    try:
        engine.images.build(
            path=str(TOP / "tests/images"),
            tag=tag,
            buildargs={"BASE": base, "PACKAGES": _needed()},
            rm=True,
        )
    except (APIError, BuildError) as error:
        pytest.skip(f"no image of OpenWrt {request.param} from {base}: {error}")
    return tag, manager


@pytest.fixture
def installed(
    engine: DockerClient, image: tuple[str, Manager], packages: Path
) -> Iterator[Installed]:
    tag, manager = image
    built = _built(packages, manager)
    with Router(engine, tag) as router:
        assert router.reaches(INTERNET, of="house")
        found = Installed(router, manager, [router.put(path) for path in built])
        router.run(found.command(manager.install))
        router.until("ubus call portcullis status")
        yield found


@pytest.fixture
def closed(installed: Installed) -> Installed:
    """Blocking although nothing is connected, with the positive control done before."""
    assert installed.router.reaches(INTERNET, of="house")
    assert installed.router.reaches(INTERNET)
    answer = installed.router.call("portcullis", "set", name="mode", value="at_all_times")
    assert answer["ok"], answer
    _assert_closed(installed.router)
    return installed


def _assert_closed(router: Router) -> None:
    assert not router.reaches(INTERNET, of="house")
    assert not router.reaches(INTERNET)
    assert router.reaches(GATEWAY, of="house")


def _process(router: Router, module: str, other_than: str = "none") -> str:
    """The id of the process that runs a Python module; not of a jail around it, which is older."""
    pattern = f"[p]ython3 -m {module}$"
    return router.until(f"pgrep -n -f '{pattern}' | grep -vx {other_than}").strip()


def test_what_was_never_connected_changes_nothing_for_the_house(installed: Installed) -> None:
    status = installed.router.call("portcullis", "status")
    assert (status["state"], status["kill_switch"]["active"]) == ("not_connected", False)
    assert status["version"] == __version__
    assert installed.router.reaches(INTERNET, of="house")
    assert installed.router.reaches(INTERNET)


def test_the_feeds_own_checks_pass(installed: Installed) -> None:
    router = installed.router
    folder = TOP / "package/portcullis"
    modules = router.run(f"sh {router.put(folder / 'test.sh')} portcullis {__version__}").split()
    assert {"portcullis.core", "portcullis.web.app"} < set(modules)
    check = router.put(folder / "test-version.sh")
    assert __version__ in router.run(f"PKG_NAME=portcullis PKG_VERSION={__version__} sh {check}")


def test_the_guard_starts_before_any_network(installed: Installed) -> None:
    order = installed.router.run("ls /etc/rc.d").split()
    network = next(name for name in order if re.fullmatch(r"S\d+network", name))
    assert order.index("S14portcullis-guard") < order.index(network)


def test_procd_runs_core_as_root_and_web_as_nobody_much(installed: Installed) -> None:
    router = installed.router
    core = f"/proc/{_process(router, 'portcullis')}/status"
    router.until(f"grep '^Uid:[[:space:]]*0[[:space:]]' {core}")
    web = f"/proc/{_process(router, 'portcullis.web')}/status"
    for line in ("Uid:.*6443.*6443.*6443.*6443", "Gid:.*6443", "CapEff:[[:space:]]*0*$"):
        router.until(f"grep '^{line}' {web}")
    # Of its own accord too: procd leaves it to procd-ujail, which small images do not have.
    router.until(f"grep '^NoNewPrivs:[[:space:]]*1$' {web}")


def test_luci_finds_its_object_through_rpcd(installed: Installed) -> None:
    answer = installed.router.until("ubus call luci.portcullis status")
    assert '"state": "not_connected"' in answer


def test_fw4_knows_the_tunnels_zone(installed: Installed) -> None:
    rules = installed.router.run("fw4 print")
    assert re.search(r"chain input_vpn\b", rules)
    assert '"pc0"' in rules


def test_at_all_times_blocks_house_and_router_and_answers_the_house(closed: Installed) -> None:
    assert closed.router.call("portcullis", "status")["kill_switch"]["verified"]


def test_a_connect_that_cannot_succeed_blocks(installed: Installed) -> None:
    router = installed.router
    answer = router.call("portcullis", "import_profile", name="dead", text=PROFILE)
    assert answer["ok"], answer
    answer = router.call("portcullis", "connect", profile="dead")
    assert answer["ok"], answer
    _assert_closed(router)
    assert router.run("head -n 1 /etc/portcullis/intent").startswith("connected")


def test_a_killed_core_is_started_again_and_nothing_opens_meanwhile(closed: Installed) -> None:
    before = _process(closed.router, "portcullis")
    closed.router.run(f"kill -9 {before}")
    _assert_closed(closed.router)
    assert _process(closed.router, "portcullis", other_than=before) != before
    closed.router.until("ubus call portcullis status")
    _assert_closed(closed.router)


@pytest.mark.parametrize(
    "command",
    [
        "/etc/init.d/portcullis stop",
        "/etc/init.d/portcullis-guard stop",
        "/etc/init.d/portcullis restart",
        "fw4 restart",
        "/etc/init.d/firewall stop",
        "nft flush ruleset",
        "/etc/init.d/network restart",
        "killall -9 ubusd",
    ],
)
def test_no_service_that_stops_or_restarts_lifts_the_block(closed: Installed, command: str) -> None:
    closed.router.ask(command)
    closed.router.until("ip addr show br-lan | grep -q 192.168.1.1")
    closed.router.until(f"ip netns exec house ping -c 1 -W 1 {GATEWAY}")
    _assert_closed(closed.router)


def test_an_installation_on_top_keeps_block_and_settings(closed: Installed) -> None:
    closed.router.run(closed.command(closed.manager.again))
    _assert_closed(closed.router)
    status = closed.router.until("ubus call portcullis status")
    assert '"mode": "at_all_times"' in status
    _assert_closed(closed.router)


def test_removal_leaves_the_router_as_it_was(closed: Installed) -> None:
    router = closed.router
    router.run(closed.manager.remove)
    router.until(f"ip netns exec house ping -c 1 -W 1 {INTERNET}")
    assert router.reaches(INTERNET)
    assert "portcullis" not in router.run("nft list tables; uci show network; uci show firewall")
    assert "706" not in router.run("ip rule; ip -6 rule")
    assert router.run("pgrep -f '[p]ortcullis' || true").strip() == ""
