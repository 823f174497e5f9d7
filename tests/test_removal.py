# SPDX-License-Identifier: GPL-2.0-or-later
"""Removal of the package, by shell alone: the internet as before. Nothing else is a removal."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pytest
from router import VirtualRouter
from router import addresses as at
from router.measurement import BatchResult, flows, measure
from router.namespace import Namespace
from router.rootfs import PACKAGE, SHELLS, RootFilesystem

GUARD = """
ip rule add pref 800 lookup 706
ip rule add pref 830 not from all fwmark 0x50430000/0x7fff0000 lookup 707
ip rule add pref 830 not from all fwmark 0x50430000/0x7fff0000 lookup 707
ip -6 rule add pref 800 lookup 706
ip -6 rule add pref 810 to fe80::/10 lookup main
ip -6 rule add pref 830 not from all fwmark 0x50430000/0x7fff0000 lookup 707
ip -6 rule add pref 831 not from all fwmark 0x50430000/0x7fff0000 unreachable
ip route add unreachable default table 707 metric 2147483647
ip -6 route add unreachable default table 707 metric 2147483647
ip link add pc0 type veth peer name pc0peer
ip link set pc0 up
ip route add 10.99.0.0/16 dev pc0 table 706
ip -6 route add fd99::/64 dev pc0 table 706
"""
STATE = ("intent", "endpoints", "networks", "boot.nft", ".intent.new")


class Installed(RootFilesystem):
    """A router on which Portcullis was at work, blocking, until its files were removed."""

    space: Namespace

    def __enter__(self) -> Installed:
        super().__enter__()
        self.program("tmp/postrm", (PACKAGE / "postrm").read_text())
        self.script("cd /etc/uci-defaults && (. ./50-portcullis)")
        home = self.path("etc/portcullis")
        (home / "profiles").mkdir(parents=True, exist_ok=True)
        for name in STATE:
            (home / name).write_text("connected\n")
        self.path("tmp/run/portcullis").mkdir()
        self.path("usr/lib/portcullis/portcullis").mkdir(parents=True)  # opkg leaves folders
        return self

    def work(self) -> None:
        """Bring the block up, with ip and nft as the daemon would leave them."""
        self.sh("/etc/init.d/portcullis-guard start")
        self.sh(GUARD.replace("ip ", "/usr/bin/ip "))
        self.sh("nft add table bridge portcullis; nft add table inet others")

    def sh(self, text: str) -> str:
        return self.script(text, space=self.space, check=False).stdout

    def remove(self, how: str = "/tmp/postrm remove") -> None:
        self.uninstall()
        self.sh(how)

    @property
    def blocks(self) -> bool:
        """Whether anything of the block is in the kernel; all of it or nothing."""
        tables = "portcullis" in self.sh("nft list tables")
        rules = self.sh("/usr/bin/ip rule; /usr/bin/ip -6 rule")
        guard = any(f"{priority}:" in rules for priority in (800, 810, 820, 830, 831))
        assert tables == guard, self.log()
        return tables


@pytest.fixture(params=SHELLS)
def router(request: pytest.FixtureRequest) -> Iterator[Installed]:
    with Installed(request.param) as found, found.network() as found.space:
        found.work()
        assert found.blocks
        yield found


def test_nothing_of_it_is_left_in_the_kernel(router: Installed) -> None:
    router.remove()
    assert not router.blocks
    assert router.sh("nft list tables").split() == ["table", "inet", "others"]
    assert "pc0" not in router.sh("/usr/bin/ip link")
    for family in ("-4", "-6"):
        for table in ("706", "707"):
            assert not router.sh(f"/usr/bin/ip {family} route show table {table} 2> /dev/null")
    assert "nothing is blocked any more" in router.log()


def test_nothing_of_it_is_left_in_uci_and_netifd_and_fw4_hear_of_it(router: Installed) -> None:
    router.remove()
    for name in ("network", "firewall"):
        assert "portcullis" not in router.config(name)
        assert f"gone from /etc/config/{name}" in router.log()
    assert "config interface 'lan'" in router.config("network")
    told = router.told("services").split("\n")
    assert {"network reload", "firewall reload", "rpcd reload"} <= set(told)


def test_with_a_full_tmp_no_configuration_is_lost(router: Installed) -> None:
    """uci does not look at what could be written."""
    former = {name: router.config(name) for name in ("network", "firewall")}
    shutil.copy(router.path("tmp/postrm"), router.path("postrm"))
    tmp = router.path("tmp")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", tmp], check=True)
    try:
        (tmp / "rest").write_bytes(bytes(4096))
        router.remove("/postrm remove")
        assert {name: router.config(name) for name in former} == former
        assert "delete the sections portcullis* there yourself" in router.log()
    finally:
        subprocess.run(["umount", tmp], check=True)


def test_what_others_have_staged_is_neither_committed_nor_in_force_nor_lost(
    router: Installed,
) -> None:
    """netifd, too, reads what is staged."""
    router.sh("uci set network.lan.ipaddr=10.9.9.1")
    read = "uci get network.lan.ipaddr >> /tmp/services"
    router.program("etc/init.d/network", f"#!/bin/sh\n{read}\n")
    router.remove()
    assert router.told("services").startswith("192.168.1.1/24\n")
    assert "10.9.9.1" not in router.config("network")
    assert router.sh("uci changes network") == "network.lan.ipaddr='10.9.9.1'\n"


def test_the_owners_profiles_stay_and_what_was_remembered_goes(router: Installed) -> None:
    profile = router.path("etc/portcullis/profiles/sweden.conf")
    profile.write_text("PrivateKey = secret\n")
    router.remove()
    assert profile.read_text()
    assert [file.name for file in profile.parent.parent.iterdir()] == ["profiles"]
    assert "profiles, with their keys, stay" in router.log()


def test_without_profiles_nothing_stays(router: Installed) -> None:
    router.remove()
    assert not router.path("etc/portcullis").exists()
    assert not router.path("tmp/run/portcullis").exists()


def test_what_the_last_resort_took_is_given_back(router: Installed) -> None:
    switches = ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"]
    quoted = ", ".join(f'"{switch}"' for switch in switches)
    record = router.path("tmp/run/portcullis/last-resort")
    record.write_text(f'{{"devices": ["eth1", "gone0"], "switches": [{quoted}]}}')
    router.sh("/usr/bin/ip link add eth1 type veth peer name isp")
    router.sh(f"for switch in {' '.join(switches)}; do echo 0 > $switch; done")
    router.remove()
    assert router.sh(f"cat {' '.join(switches)}").split() == ["1", "1"]
    assert ",UP" in router.sh("/usr/bin/ip link show eth1")


def test_ports_that_were_isolated_are_given_back_and_no_others(router: Installed) -> None:
    router.path("tmp/run/portcullis/isolated").write_text('["lan1", "gone0"]')
    router.sh(
        "/usr/bin/ip link add br-lan type bridge; for n in 1 2; do"
        " /usr/bin/ip link add lan$n type veth peer name host$n;"
        " /usr/bin/ip link set lan$n master br-lan; bridge link set dev lan$n isolated on; done"
    )
    router.remove()
    isolated = router.sh(
        "cat /sys/class/net/lan1/brport/isolated /sys/class/net/lan2/brport/isolated"
    )
    assert isolated.split() == ["0", "1"]


def test_processes_of_ours_end_and_no_others(router: Installed) -> None:
    """A daemon that does not listen to SIGTERM is ended all the same."""
    code = router.path("tmp/code/portcullis")
    code.mkdir(parents=True)
    (code / "__init__.py").touch()
    deaf = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(99)\n"
    (code / "__main__.py").write_text(deaf)
    (code / "web.py").write_text("import time\ntime.sleep(99)\n")
    router.path("tmp/code/pc0").write_text("sleep 99\n")
    router.path("stand-in/wireguard-go").symlink_to("/host/bin/dash")
    router.uninstall()
    names = ("portcullis", "portcullis.web", "portcullis_other", "http.server")
    router.program(
        "tmp/code/all",
        "#!/bin/sh\ncd /tmp/code\ncp pc0 wg7\n"
        + "".join(f"PYTHONPATH=/tmp/code python3 -m {name} > /dev/null 2>&1 &\n" for name in names)
        + "for device in pc0 wg7; do wireguard-go -f $device & done\n"
        "sleep 1\n/tmp/postrm remove > /dev/null\n"
        "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done\n",
    )
    left = router.sh("/tmp/code/all").splitlines()
    assert {"python3 -m http.server ", "wireguard-go -f wg7 "} <= set(left)
    ours = ("python3 -m portcullis ", "python3 -m portcullis.web ", "wireguard-go -f pc0 ")
    assert not set(ours) & set(left)


@pytest.mark.parametrize("dead", ["netifd, fw4 and rpcd", "uci", "nothing of OpenWrt left"])
def test_it_needs_nobodys_help(router: Installed, dead: str) -> None:
    for name in ("network", "firewall", "rpcd"):
        router.program(f"etc/init.d/{name}", "#!/bin/sh\nexit 1\n")
    if dead != "netifd, fw4 and rpcd":
        router.path("sbin/uci").unlink()
    if dead == "nothing of OpenWrt left":
        for name in ("network", "firewall", "rpcd"):
            router.path("etc/init.d", name).unlink()
        router.path("stand-in/ubus").unlink()
    router.remove()
    assert not router.blocks
    if dead != "netifd, fw4 and rpcd":
        assert "uci cannot edit /etc/config/network: delete the sections" in router.log()


# No removals.

OPKG = "/tmp/opkg -c 'PKG_UPGRADE={} /tmp/postrm {}; :' {}"
NO_REMOVAL = {
    "opkg upgrade": OPKG.format(1, "upgrade 2.0", "upgrade portcullis"),
    "opkg upgrade, in its own words": "/tmp/postrm upgrade 2.0",
    "opkg install --force-reinstall": OPKG.format(0, "remove", "install --force-reinstall x.ipk"),
    "opkg --force_reinstall install": OPKG.format(0, "remove", "--force_reinstall install x.ipk"),
    "opkg install of what replaces it": OPKG.format(0, "remove", "install other.ipk"),
    "an image is built": "IPKG_INSTROOT=/image /tmp/postrm remove",
}


@pytest.mark.parametrize("way", NO_REMOVAL)
def test_what_is_no_removal_lifts_nothing(router: Installed, way: str) -> None:
    router.path("tmp/opkg").symlink_to("/host/bin/dash")
    router.remove(NO_REMOVAL[way])
    assert router.blocks
    assert "portcullis_tunnel" in router.config("network")
    assert router.path("etc/portcullis/intent").exists()


def test_files_that_are_still_there_mean_that_it_is_no_removal(router: Installed) -> None:
    router.sh("/tmp/postrm remove")
    assert router.blocks


def test_opkg_remove_is_one(router: Installed) -> None:
    router.path("tmp/opkg").symlink_to("/host/bin/dash")
    router.remove(OPKG.format(0, "remove", "--autoremove remove portcullis"))
    assert not router.blocks


@pytest.mark.parametrize("shell", SHELLS)
def test_the_internet_is_as_before(shell: str) -> None:
    with VirtualRouter() as house, Installed(shell) as router:
        router.space = house.router

        def probed() -> BatchResult:
            return measure(house, [*flows(house.lana), *flows(house.router, at.PUBLIC_DNS)])

        assert not probed().unseen(), "no positive control"
        router.work()
        assert not probed().on_wan
        router.remove()
        after = probed()
        assert not after.unanswered() and not after.unseen(), str(after)
