# SPDX-License-Identifier: GPL-2.0-or-later
"""portcullisctl, as a person or a script uses it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from router import addresses as at
from router.appliance import Appliance

from portcullis import __version__


def test_version_needs_no_daemon(appliance: Appliance) -> None:
    appliance.stop()
    assert appliance.ctl("--version").stdout == f"portcullisctl {__version__}\n"


def test_connect_status_disconnect(appliance: Appliance) -> None:
    connected = appliance.ctl("connect", "vpn1", "--wait", "10")
    assert connected.stdout == "Protected: all traffic goes through vpn1\n"
    lines = appliance.ctl("status").stdout.splitlines()
    assert lines[0] == "Protected: all traffic goes through vpn1"
    assert any("enabled, active and verified (standard mode)" in line for line in lines)
    assert "kill switch is inactive" in appliance.ctl("disconnect").stdout
    appliance.until_state("not_connected")
    assert appliance.ctl("status").stdout.startswith("Not connected")


def test_connect_without_a_name_takes_the_last_profile(appliance: Appliance) -> None:
    appliance.connect("vpn2")
    appliance.disconnect()
    appliance.ctl("connect", "--wait", "10")
    assert appliance.status()["profile"] == "vpn2"


def test_status_json_is_json(appliance: Appliance) -> None:
    found = json.loads(appliance.ctl("status", "--json").stdout)
    assert found["state"] == "not_connected"
    assert found["kill_switch"]["enabled"] is True
    assert "PrivateKey" not in str(found)


def test_the_seeds_own_words_are_understood(appliance: Appliance) -> None:
    refused = appliance.ctl("set", "networklock", "false", check=False)
    assert refused.returncode == 1
    assert "cannot be disabled on a router" in refused.stderr
    assert appliance.ctl("set", "networklock", "true").returncode == 0
    assert appliance.ctl("get", "networklock").stdout == "true\n"
    appliance.ctl("set", "allowlan", "false")
    assert appliance.ctl("get", "lan_access").stdout == "false\n"
    assert appliance.ctl("get", "allowlan").stdout == "false\n"


def test_a_setting_is_written_to_uci_and_read_again_after_a_restart(appliance: Appliance) -> None:
    appliance.ctl("set", "mode", "at_all_times")
    appliance.ctl("set", "profiles", "vpn2", "vpn1")
    config = (appliance.bus.config_dir / "portcullis").read_text()
    assert "option mode 'at_all_times'" in config
    assert "list profiles 'vpn2'" in config
    appliance.stop()
    appliance.start()
    assert appliance.ctl("get", "mode").stdout == "at_all_times\n"
    assert appliance.ctl("get", "profiles").stdout == "vpn2 vpn1\n"
    appliance.ctl("set", "profiles")
    assert appliance.ctl("get", "profiles").stdout == "\n"
    assert "list profiles" not in (appliance.bus.config_dir / "portcullis").read_text()


def test_wrong_values_say_what_is_right(appliance: Appliance) -> None:
    refused = appliance.ctl("set", "mode", "sometimes", check=False)
    assert refused.returncode == 1
    assert "standard or at_all_times" in refused.stderr
    unknown = appliance.ctl("set", "colour", "blue", check=False)
    assert "There is no setting 'colour'" in unknown.stderr
    assert appliance.ctl("get", "colour", check=False).returncode == 1
    assert appliance.ctl("frobnicate", check=False).returncode == 2


def test_profiles_are_listed_with_their_server(appliance: Appliance) -> None:
    appliance.add_profile("broken", "[Interface]\n")
    listed = appliance.ctl("profiles").stdout
    assert "vpn1                     198.51.100.101 port 51820" in listed
    assert "broken                   UNUSABLE: profile broken, " in listed


def test_without_a_daemon_it_says_so(appliance: Appliance) -> None:
    appliance.stop()
    done = appliance.ctl("status", check=False)
    assert done.returncode == 3
    assert "the daemon is not running" in done.stderr
    assert "Traceback" not in done.stderr
    appliance.bus.stop_others()
    appliance.bus.stop_broker()
    done = appliance.ctl("status", check=False)
    assert done.returncode == 3
    assert "ubusd cannot be reached" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_monitor_prints_every_transition(appliance: Appliance, number: signal.Signals) -> None:
    # `make test` in the background of a script has its children ignore SIGINT.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "portcullis.ctl"]
    command += ["--ubus", str(appliance.bus.socket), "monitor"]
    with appliance.world.router.popen(
        command, env=appliance.environment(), stdout=subprocess.PIPE, text=True
    ) as monitor:
        try:
            assert monitor.stdout
            first = monitor.stdout.readline()
            appliance.connect()
            appliance.disconnect()
            seen = [monitor.stdout.readline() for _ in range(4)]
            monitor.send_signal(number)
            assert monitor.wait(5) == 0
        finally:
            monitor.kill()
    assert "not_connected" in first
    states = ["connecting", "connected", "disconnecting", "not_connected"]
    assert [line.split()[2] for line in seen] == states
    assert [line.split()[5] for line in seen] == ["active", "active", "inactive", "inactive"]


def test_devices_are_listed_and_excepted(appliance: Appliance) -> None:
    assert appliance.ctl("device", at.LAN_A_MAC, "denied").returncode == 0
    lines = appliance.ctl("devices").stdout.splitlines()
    assert lines[0] == "LAN access: allowed"
    (line,) = [line for line in lines if line.startswith(at.LAN_A_MAC)]
    assert line.split()[1] == "denied"
    refused = appliance.ctl("device", "nonsense", "denied", check=False)
    assert (refused.returncode, "six pairs" in refused.stderr) == (1, True)
