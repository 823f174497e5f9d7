# SPDX-License-Identifier: GPL-2.0-or-later
"""What installation writes into UCI: all that is needed, once, and nothing of anybody else's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from router.rootfs import FIREWALL, NETWORK, SHELLS, RootFilesystem

from portcullis import sections

SCRIPT = "cd /etc/uci-defaults && (. ./50-portcullis)"  # as OpenWrt's /etc/init.d/boot does it
CONFIGS = ("portcullis", "network", "firewall")


@pytest.fixture(params=SHELLS)
def root(request: pytest.FixtureRequest) -> Iterator[RootFilesystem]:
    with RootFilesystem(request.param) as found:
        yield found


@pytest.fixture
def dash() -> Iterator[RootFilesystem]:
    with RootFilesystem() as found:
        yield found


def show(root: RootFilesystem, where: str) -> list[str]:
    """Lines of `uci show`, committed ones alone, without quotes."""
    config = where.partition(".")[0]
    lines = root.run("uci", "show", f"/etc/config/{config}").stdout.splitlines()
    return [line.replace("'", "") for line in lines if line.startswith((f"{where}.", f"{where}="))]


def test_every_section_is_there_as_the_daemon_wants_it(root: RootFilesystem) -> None:
    root.script(SCRIPT)
    for config in ("network", "firewall"):
        text = root.path("usr/share/portcullis", f"{config}.uci").read_text()
        for section in sections.parse(text):
            found = show(root, f"{config}.{section.name}")
            listed = {
                f"{config}.{section.name}.{key}={value if isinstance(value, str) else value[0]}"
                for key, value in section.options.items()
            }
            assert set(found) == {f"{config}.{section.name}={section.type}", *listed}
    assert show(root, "firewall.portcullis_lan")[1:] == [
        "firewall.portcullis_lan.src=lan",
        "firewall.portcullis_lan.dest=vpn",
    ]
    assert show(root, "portcullis.main.schema") == ["portcullis.main.schema=1"]
    assert root.config("network").startswith(NETWORK)


def test_a_zone_of_the_owners_with_our_name_has_ours_called_otherwise(
    root: RootFilesystem,
) -> None:
    """fw4 loads nothing at all where two zones have one name."""
    own = "\nconfig zone\n\toption name 'vpn'\n\tlist device 'tun0'\n"
    root.path("etc/config/firewall").write_text(FIREWALL + own)
    root.script(SCRIPT)
    assert "firewall.portcullis.name=portcullis" in show(root, "firewall.portcullis")
    assert "firewall.portcullis_lan.dest=portcullis" in show(root, "firewall.portcullis_lan")
    before = root.config("firewall")
    root.script(SCRIPT)
    assert root.config("firewall") == before


def test_a_second_run_writes_nothing(root: RootFilesystem) -> None:
    root.script(SCRIPT)
    files = [root.path("etc/config", name) for name in CONFIGS]
    before = [(file.read_bytes(), file.stat().st_ino) for file in files]
    log = root.log()
    root.script(SCRIPT)
    assert [(file.read_bytes(), file.stat().st_ino) for file in files] == before
    assert root.log() == log


def test_what_others_have_staged_is_neither_committed_nor_lost(root: RootFilesystem) -> None:
    root.script(
        "uci set network.lan.ipaddr=10.9.9.1; uci set firewall.@zone[1].input=ACCEPT;"
        " uci set network.portcullis=interface"
    )
    staged = {name: root.path("tmp/.uci", name).read_text() for name in ("network", "firewall")}
    root.script(SCRIPT)
    for name, text in staged.items():
        assert root.path("tmp/.uci", name).read_text() == text
    assert "10.9.9.1" not in root.config("network")
    assert show(root, "network.portcullis.proto") == ["network.portcullis.proto=none"]
    # And they can be committed later, beside ours.
    root.script("uci commit network")
    assert "10.9.9.1" in root.config("network") and "portcullis_tunnel6" in root.config("network")


def test_neither_openwrts_own_commit_nor_netifd_takes_any_of_it(root: RootFilesystem) -> None:
    """default_postinst: each uci-defaults script, `uci commit`, then the package's postinst."""
    read = "uci get network.lan.ipaddr >> /tmp/services"
    root.program("etc/init.d/network", f"#!/bin/sh\n{read}\n")
    root.script("uci set network.lan.ipaddr=10.9.9.1")
    root.program("tmp/postinst", (root.package / "postinst").read_text())
    default_postinst = f"pkgname=portcullis; {SCRIPT}; uci commit; (. /tmp/postinst)"
    with root.network() as space:
        root.script(default_postinst, space=space)
    assert root.told("services").startswith("192.168.1.1/24\n")
    assert "10.9.9.1" not in root.config("network")
    assert root.script("uci changes network").stdout == "network.lan.ipaddr='10.9.9.1'\n"
    assert not root.path("tmp/.uci-put-aside").exists()


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        ("uci delete network.portcullis_tunnel", "a rule is gone"),
        ("uci set network.portcullis_tunnel6.disabled=1", "a rule is switched off"),
        ("uci set network.portcullis_local.src=10.0.0.0/8", "a rule is narrowed"),
        ("uci set network.portcullis_block6.priority=32000", "a rule comes too late"),
        ("uci set network.portcullis_block=rule", "a route is a rule"),
        ("uci delete firewall.portcullis.device", "the zone has no device"),
        ("uci set firewall.portcullis.input=ACCEPT", "the zone lets in"),
        ("uci delete firewall.portcullis_lan", "the forwarding is gone"),
    ],
)
def test_damage_is_mended(dash: RootFilesystem, damage: str, what: str) -> None:
    dash.script(SCRIPT)
    whole = {name: sorted(show(dash, name)) for name in ("network", "firewall")}
    dash.script(f"{damage} && uci commit")
    assert {name: sorted(show(dash, name)) for name in whole} != whole, what
    dash.script(SCRIPT)
    assert {name: sorted(show(dash, name)) for name in whole} == whole, what


def test_every_zone_that_reaches_the_internet_reaches_the_tunnel(dash: RootFilesystem) -> None:
    dash.config(
        "firewall",
        FIREWALL
        + "\nconfig zone\n\toption name 'guest-2'\n\toption input 'REJECT'\n"
        + "\nconfig zone\n\toption name 'iot'\n\toption input 'REJECT'\n"
        + "\nconfig zone\n\toption name 'lte'\n\toption masq6 'yes'\n"
        + "\nconfig zone\n\toption name 'dmz'\n\toption masq '0'\n"
        + "\nconfig forwarding\n\toption src 'guest-2'\n\toption dest 'lte'\n"
        + "\nconfig forwarding\n\toption src 'guest-2'\n\toption dest 'wan'\n"
        + "\nconfig forwarding\n\toption src 'iot'\n\toption dest 'lan'\n"
        + "\nconfig forwarding\n\toption src 'lan'\n\toption dest 'dmz'\n"
        + "\nconfig forwarding\n\toption src 'wan'\n\toption dest 'lte'\n",
    )
    dash.script(SCRIPT)
    lines = show(dash, "firewall")
    assert [line for line in lines if "portcullis_" in line and "=forwarding" in line] == [
        "firewall.portcullis_lan=forwarding",
        "firewall.portcullis_guest_2=forwarding",
    ]
    assert "firewall.portcullis_guest_2.src=guest-2" in lines


def test_a_forwarding_of_the_owners_own_is_enough(dash: RootFilesystem) -> None:
    own = "\nconfig forwarding\n\toption src 'lan'\n\toption dest 'vpn'\n"
    dash.config("firewall", FIREWALL + own)
    dash.script(SCRIPT)
    assert "portcullis_lan" not in dash.config("firewall")


@pytest.mark.parametrize("name", ["network", "firewall"])
@pytest.mark.parametrize(
    "text", ["config interface 'lan\n\toption", "\1\2\3", "\0" * 512, "# nothing\n", None]
)
def test_what_cannot_be_read_is_left_as_it_is(
    dash: RootFilesystem, name: str, text: str | None
) -> None:
    file = dash.path("etc/config", name)
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    assert dash.script(SCRIPT).returncode == 0
    assert (file.read_text() if file.exists() else None) == text
    assert f"/etc/config/{name}" in dash.log()
    other = "firewall" if name == "network" else "network"
    assert "portcullis" in dash.config(other)


def test_a_full_flash_leaves_the_old_file_and_tries_again_next_time(dash: RootFilesystem) -> None:
    dash.program("stand-in/mv", "#!/bin/sh\nexit 1\n")
    assert dash.script(SCRIPT, check=False).returncode == 1, "kept, and run at the next boot"
    assert dash.config("network") == NETWORK
    assert "cannot be completed" in dash.log()
    assert sorted(file.name for file in dash.path("etc/config").iterdir()) == sorted(CONFIGS)
    dash.path("stand-in/mv").unlink()
    dash.script(SCRIPT)
    assert "portcullis" in dash.config("network")


def test_a_configuration_without_a_number_gets_one(dash: RootFilesystem) -> None:
    dash.config("portcullis", "\nconfig portcullis 'main'\n\toption mode 'at_all_times'\n")
    dash.script(SCRIPT)
    assert show(dash, "portcullis.main.schema") == ["portcullis.main.schema=1"]
    assert show(dash, "portcullis.main.mode") == ["portcullis.main.mode=at_all_times"]


def test_a_newer_configuration_is_not_touched(dash: RootFilesystem) -> None:
    text = "\nconfig portcullis 'main'\n\toption schema '99'\n\toption mode 'never_seen'\n"
    dash.config("portcullis", text)
    dash.script(SCRIPT)
    assert dash.config("portcullis") == text
    assert "newer" in dash.log()
