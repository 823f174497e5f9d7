# SPDX-License-Identifier: GPL-2.0-or-later
"""K3 and K5: what hardware forwards cannot be verified, so nothing is said to be."""

from __future__ import annotations

import pytest
from router.appliance import Appliance

from portcullis.offload import ADVICE, hardware_used, hardware_wanted

SOFTWARE = """table inet fw4 {
	flowtable ft {
		hook ingress priority filter
		devices = { br-lan, eth1 }
		counter
	}
}
"""
HARDWARE = SOFTWARE.replace("\t\tcounter", "\t\tflags offload\n\t\tcounter")


@pytest.mark.parametrize(
    ("software", "hardware", "wanted"),
    [
        ("1", "1", True),
        ("1", "yes", True),
        ("1", "0", False),
        ("0", "1", False),
        (None, "1", False),
        ("1", None, False),
    ],
)
def test_hardware_is_wanted_where_both_options_say_so(
    software: str | None, hardware: str | None, wanted: bool
) -> None:
    options = {"flow_offloading": software, "flow_offloading_hw": hardware}
    section = {name: value for name, value in options.items() if value is not None}
    lan = {".type": "zone", "flow_offloading": "1", "flow_offloading_hw": "1"}
    assert hardware_wanted({"a": lan, "b": {".type": "defaults", **section}}) == wanted


@pytest.mark.parametrize(
    ("wanted", "listed", "used"),
    [
        (True, HARDWARE, True),
        (True, SOFTWARE, False),  # fw4 fell back
        (True, "table inet flowtable {\n}\n", True),  # fw4 has not loaded it yet
        (True, "", True),
        (False, HARDWARE, True),  # switched off, but not reloaded; or somebody else's
        (False, SOFTWARE, False),
        (False, "", False),
    ],
)
def test_the_kernel_has_the_last_word(wanted: bool, listed: str, used: bool) -> None:
    assert hardware_used(wanted, listed) == used


def set_offloading(appliance: Appliance, hardware: str) -> None:
    """As LuCI's save does it: UCI, then procd's reload."""
    file = appliance.bus.config_dir / "firewall"
    zones = file.read_text().partition("\nconfig zone")
    options = f"\toption flow_offloading '1'\n\toption flow_offloading_hw '{hardware}'\n"
    file.write_text(f"config defaults\n{options}{zones[1]}{zones[2]}")
    assert appliance.call("reload")["ok"]


def test_a_block_past_which_hardware_may_forward_is_not_verified(appliance: Appliance) -> None:
    told = f"flow offloading: {ADVICE}"
    set_offloading(appliance, "1")
    status = appliance.status()
    assert told in status["faults"], "before it matters"
    assert status["kill_switch"]["verified"], "nothing is promised while it is inactive"
    appliance.connect()
    status = appliance.status()
    assert (status["kill_switch"]["active"], status["kill_switch"]["verified"]) == (True, False)
    assert told in status["faults"]
    shown = appliance.ctl("status", check=False)
    assert "ACTIVE BUT NOT VERIFIED" in shown.stdout and shown.returncode == 1
    set_offloading(appliance, "0")
    status = appliance.status()
    assert status["kill_switch"]["verified"] and told not in status["faults"]
