# SPDX-License-Identifier: GPL-2.0-or-later
"""The services as procd is told of them: who runs, as whom, and what restarts it."""

from __future__ import annotations

import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from router.rootfs import FILES, PACKAGE, SHELLS, RootFilesystem
from router.standin.acl import AccessList, Peer

SERVICE = "/etc/init.d/portcullis"
CODE = [
    f"/usr/lib/portcullis/portcullis/{name}" for name in ("__init__.py", "core.pyc", "web/page.pyc")
]
USER = "portcullis:x:6443:6443:portcullis:/var/run/portcullis:/bin/false\n"


@pytest.fixture(params=SHELLS)
def root(request: pytest.FixtureRequest) -> Iterator[RootFilesystem]:
    with RootFilesystem(request.param) as found:
        for file in (*CODE, f"{CODE[0]}.orig", "/usr/lib/portcullis/README"):
            place = found.path(file)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        with found.path("etc/passwd").open("a") as passwd:
            passwd.write(USER)
        yield found


def instances(root: RootFilesystem) -> dict[str, dict[str, str]]:
    """What procd was told last of each instance, by parameter."""
    found: dict[str, dict[str, str]] = {}
    for line in root.told("procd").splitlines():
        word, _, rest = line.partition(" ")
        if word == "open_instance":
            current = found[rest] = {}
        elif word == "set_param":
            key, _, value = rest.partition(" ")
            current[key] = value
    return found


def test_core_and_web_are_kept_alive_for_ever(root: RootFilesystem) -> None:
    root.script(f"{SERVICE} start")
    for name, module in (("core", "portcullis"), ("web", "portcullis.web")):
        told = instances(root)[name]
        assert told["command"] == f"/usr/bin/python3 -m {module}"
        assert told["env"].split()[0] == "PYTHONPATH=/usr/lib/portcullis"
        assert told["respawn"] == "3600 5 0", "with a retry of 0 procd never gives up"
        assert (told["stdout"], told["stderr"]) == ("1", "1")


def test_web_has_a_user_of_its_own_and_gains_nothing(root: RootFilesystem) -> None:
    root.script(f"{SERVICE} start")
    web, core = instances(root)["web"], instances(root)["core"]
    assert (web["user"], web["group"], web["no_new_privs"]) == ("portcullis", "portcullis", "1")
    assert "user" not in core


def test_web_never_runs_as_root(root: RootFilesystem) -> None:
    """procd takes root where it does not know the user."""
    root.path("etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    root.script(f"{SERVICE} start")
    assert instances(root).keys() == {"core"}
    assert "no user portcullis" in root.log()


def test_new_code_restarts_an_instance_and_no_configuration_does(root: RootFilesystem) -> None:
    root.script(f"{SERVICE} start")
    for told in instances(root).values():
        assert told["file"].split() == CODE


def test_changes_of_the_configuration_reach_the_daemon_and_restart_nothing(
    root: RootFilesystem,
) -> None:
    root.script(f"{SERVICE} start")
    before = root.told("procd")
    assert "add_reload_trigger portcullis network firewall" in before
    root.script(f"{SERVICE} reload")
    assert root.told("procd") == before
    assert root.told("ubus") == "-t 10 call portcullis reload\n"


def test_a_reload_that_nobody_hears_says_so(root: RootFilesystem) -> None:
    root.path("tmp/ubus-dead").touch()
    assert root.script(f"{SERVICE} reload", check=False).returncode == 1
    assert "does not answer" in root.log()


# Who may what on the bus.


@pytest.fixture
def rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AccessList:
    shutil.copy(FILES / "usr/share/acl.d/portcullis.json", tmp_path)
    (tmp_path / "portcullis.json").chmod(0o644)
    known = {"portcullis": SimpleNamespace(pw_uid=6443)}
    monkeypatch.setattr(pwd, "getpwnam", known.__getitem__)
    return AccessList(tmp_path)


WEB = Peer(6443, 6443, "portcullis", "portcullis")


@pytest.mark.parametrize(
    ("name", "right", "method"),
    [
        ("portcullis.web", "access", "status"),
        ("portcullis.web", "access", "disconnect"),
        ("session", "access", "login"),
        ("session", "access", "destroy"),
        ("portcullis.state", "listen", ""),
    ],
)
def test_the_web_process_may(rights: AccessList, name: str, right: str, method: str) -> None:
    assert rights.allows(WEB, name.encode(), right, method)
    nobody = Peer(65534, 65534, "nobody", "nogroup")
    assert not rights.allows(nobody, name.encode(), right, method)


@pytest.mark.parametrize(
    ("name", "right", "method"),
    [
        ("portcullis", "access", "disconnect"),
        ("portcullis.web2", "access", "status"),
        ("luci.portcullis", "access", "disconnect"),
        ("session", "access", "access"),
        ("session", "access", "create"),
        ("session", "access", "grant"),
        ("session", "access", "list"),
        ("uci", "access", "set"),
        ("file", "access", "exec"),
        ("service", "access", "set"),
        ("network.interface", "listen", ""),
        ("", "listen", ""),
        ("portcullis.state", "send", ""),
        ("portcullis.web", "publish", ""),
    ],
)
def test_the_web_process_may_not(rights: AccessList, name: str, right: str, method: str) -> None:
    assert not rights.allows(WEB, name.encode(), right, method)


# Installation on a running router.


def test_installation_puts_the_block_in_place_before_the_guards_rules(root: RootFilesystem) -> None:
    """Released, the routing guard has its way out before netifd adds the rules."""
    root.program("stand-in/ubus", "#!/bin/sh\n:\n")
    state = "$(nft list table inet portcullis > /dev/null 2>&1 && ip -6 rule | grep -c 820:)"
    root.program("etc/init.d/network", f'#!/bin/sh\necho network $1 "{state}" >> /tmp/services\n')
    root.path("tmp/portcullis-changed-network").touch()
    root.path("tmp/portcullis-changed-firewall").touch()
    with root.network() as space:
        root.script((PACKAGE / "postinst").read_text(), space=space)
    assert root.told("services").splitlines() == [
        "network reload 1",
        "firewall reload",
        "rpcd reload",
    ]


def test_an_upgrade_that_changes_no_section_reloads_neither(root: RootFilesystem) -> None:
    with root.network() as space:
        root.script((PACKAGE / "postinst").read_text(), space=space)
    assert root.told("services") == "rpcd reload\n"


def test_building_an_image_touches_nothing(root: RootFilesystem) -> None:
    with root.network() as space:
        script = (PACKAGE / "postinst").read_text()
        root.script(script, space=space, env={"IPKG_INSTROOT": "/image"})
        tables = root.script("nft list tables", space=space).stdout
    assert not tables and not root.told("services") and not root.log()
