# SPDX-License-Identifier: GPL-2.0-or-later
"""The owner's settings: what they mean, what a wrong one means, and what there is none for."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from portcullis.policy import Socket
from portcullis.settings import (
    CLOSED,
    DEFAULT,
    MOST,
    REFUSAL,
    SettingError,
    Settings,
    canonical,
    change,
    is_kill_switch,
    read,
    uci_value,
)
from portcullis.states import Mode

quick = effort(max_examples=500, deadline=None, derandomize=True, database=None)
OFF = ("0", "off", "false", "no", "disable", "disabled", "inactive", "none", "", "-1", "OFF", " 0 ")
ON = ("1", "on", "true", "yes", "enable", "enabled", "ON", " on ")


def refused(name: str, value: str) -> str:
    """The code of the refusal."""
    with pytest.raises(SettingError) as caught:
        change(DEFAULT, name, value)
    return caught.value.code


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("mode", "standard", DEFAULT),
        ("mode", "at_all_times", DEFAULT._replace(mode=Mode.AT_ALL_TIMES)),
        ("mode", " At all times ", DEFAULT._replace(mode=Mode.AT_ALL_TIMES)),
        ("mode", "AT-ALL-TIMES", DEFAULT._replace(mode=Mode.AT_ALL_TIMES)),
        ("kill_switch_mode", "at_all_times", DEFAULT._replace(mode=Mode.AT_ALL_TIMES)),
        ("kill switch", "at all times", DEFAULT._replace(mode=Mode.AT_ALL_TIMES)),
        ("kill_switch", "always", DEFAULT._replace(mode=Mode.AT_ALL_TIMES)),
        ("at_all_times", "1", DEFAULT._replace(mode=Mode.AT_ALL_TIMES)),
        ("Enable at all times", "on", DEFAULT._replace(mode=Mode.AT_ALL_TIMES)),
        ("advanced kill switch", "yes", DEFAULT._replace(mode=Mode.AT_ALL_TIMES)),
        ("lan_access", "0", DEFAULT._replace(lan_access=False)),
        ("lan_access", "DENIED", DEFAULT._replace(lan_access=False)),
        ("lan_access", " yes ", DEFAULT),
        ("LAN access", "off", DEFAULT._replace(lan_access=False)),
        ("allow-lan", "0", DEFAULT._replace(lan_access=False)),
        (
            "Allow access to devices on local network",
            "no",
            DEFAULT._replace(lan_access=False),
        ),
        ("dns", "10.0.0.1", DEFAULT._replace(dns=("10.0.0.1",))),
        ("dns", "10.0.0.1, FD00::0:1 10.0.0.1", DEFAULT._replace(dns=("10.0.0.1", "fd00::1"))),
        ("dns", "", DEFAULT),
        ("resolvers", "10.0.0.1", DEFAULT._replace(dns=("10.0.0.1",))),
        ("bootstrap_dns", "10.0.0.1", DEFAULT._replace(bootstrap_dns=("10.0.0.1",))),
        ("bootstrap_dns", "", DEFAULT),
        ("profiles", "vpn1 vpn2,vpn1", DEFAULT._replace(profiles=("vpn1", "vpn2"))),
        ("profiles", "", DEFAULT),
        ("fallback", "vpn1", DEFAULT._replace(profiles=("vpn1",))),
        ("port", " 9443 ", DEFAULT._replace(port=9443)),
        ("web port", "1024", DEFAULT._replace(port=1024)),
    ],
)
def test_a_setting_is_understood(name: str, value: str, expected: Settings) -> None:
    assert change(DEFAULT, name, value)[0] == expected


@pytest.mark.parametrize("option", Settings._fields)
@pytest.mark.parametrize("spelling", ["upper", "title", "hyphens", "blanks"])
def test_an_options_own_name_is_understood_in_any_spelling(option: str, spelling: str) -> None:
    """As those of the aliases are; `DNS` is how people write it."""
    hyphens, blanks = option.replace("_", "-"), f" {option.replace('_', ' ')} "
    spelled = {"upper": option.upper(), "title": option.title(), "hyphens": hyphens}
    assert canonical(spelled.get(spelling, blanks)) == option


def test_a_change_names_the_option_it_made() -> None:
    assert change(DEFAULT, "Allow LAN", "0")[1] == "lan_access"


def test_a_change_leaves_the_other_settings_alone() -> None:
    before = Settings(Mode.AT_ALL_TIMES, False, ("10.0.0.1",), ("10.0.0.2",), ("vpn1",))
    assert change(before, "lan_access", "1")[0] == before._replace(lan_access=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mode", "off"),
        ("mode", "disabled"),
        ("mode", ""),
        ("mode", "never"),
        *(
            ("port", wrong)
            for wrong in ("", "80", "1023", "65536", "-1", "8443x", "0x20fb", "٨٤٤٣")
        ),
        ("lan_access", "maybe"),
        ("lan_access", ""),
        ("lan_access", "2"),
        ("at_all_times", "sometimes"),
        ("dns", "dns.example"),
        ("dns", "10.0.0.1.2"),
        ("dns", "10.0.0.0/8"),
        ("dns", "127.0.0.1"),
        ("dns", "::1"),
        ("dns", "0.0.0.0"),
        ("dns", "::"),
        ("dns", "224.0.0.1"),
        ("dns", "ff02::1"),
        ("dns", "169.254.1.1"),
        ("dns", "fe80::1"),
        ("dns", "fe80::1%eth0"),
        ("dns", "10.0.0.1 nonsense"),
        ("bootstrap_dns", "9.9.9.9:53"),
        ("profiles", "../etc/passwd"),
        ("profiles", "-rf"),
        ("profiles", "a;b"),
        ("profiles", "x" * 65),
        ("dns", " ".join(f"10.0.0.{n}" for n in range(1, MOST + 2))),
        ("protected_networks", " ".join(f"lan{n}" for n in range(MOST + 1))),
        ("profiles", " ".join(f"vpn{n}" for n in range(MOST + 1))),
    ],
)
def test_a_value_without_sense_is_refused(name: str, value: str) -> None:
    assert refused(name, value) == "invalid_value"


@pytest.mark.parametrize("option", ["dns", "bootstrap_dns"])
@pytest.mark.parametrize(
    "address",
    [
        "2001:db8::1%eth0",
        '2001:db8::1%x"}',
        "::ffff:9.9.9.9",
        "::ffff:127.0.0.1",
        "::9.9.9.9",
        "255.255.255.255",
    ],
)
def test_an_address_the_packet_filter_cannot_hold_as_written_is_refused(
    option: str, address: str
) -> None:
    """Zones are no part of nft's addresses and embedded IPv4 is written back another way: the
    block could not be verified any more, and the last resort would take the internet away."""
    assert refused(option, address) == "invalid_value"


def test_a_refusal_of_a_value_shows_it_cut_and_escaped() -> None:
    with pytest.raises(SettingError) as caught:
        change(DEFAULT, "mode", "\x1b[31m" + "x" * 1000)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", ["colour", "", "mod", "dns server", "\0", "__class__", "_replace"])
def test_a_setting_that_does_not_exist_is_refused_and_the_known_ones_are_named(name: str) -> None:
    with pytest.raises(SettingError, match="Known: mode, lan_access, dns") as caught:
        change(DEFAULT, name, "1")
    assert caught.value.code == "unknown_setting"


KILL_SWITCH = (
    *("kill_switch", "killswitch", "KillSwitch", "KILL_SWITCH", "kill-switch", "Kill Switch"),
    *("kill  switch", " kill switch ", "kill.switch", "kill/switch", "kill_switch_enabled"),
    *("enable_kill_switch", "Enable kill switch", "kill switch active", "vpn kill switch"),
    *("internet kill switch", "Internet Kill-Switch", "vpnKillSwitch", "killswitch=off"),
    *("killswitch.enabled", "portcullis.main.killswitch", "networklock", "network_lock"),
    *("Network Lock", "NETWORK-LOCK", "network lock enabled", "internetlock", "Internet Lock"),
    *("firewall_lock", "leak protection", "leak_protection", "ks", "KS", "k.s.", "lock"),
    *("block", "blocking", "enabled", "Enabled", "ENABLE", "enable", "active", "protection"),
    *("portcullis", "firewall", "guard", "routing guard", "routing_guard", "on", "kill\tswitch"),
    *("kill_switch\n", "'kill_switch'", "@kill_switch", "kill_switch[0]", "ĸ kill switch"),
)
OTHERS = (
    *("allow_leaks", "allow leaks", "unblock", "release", "bypass", "always_on", "lockdown"),
    *("block_without_vpn", "failsafe", "strict", "network.lock", "split_tunnel", "exclude"),
    *("allow_internet", "gate", "open", "released", "inactive", "state", "intent", ".type"),
)


@pytest.mark.parametrize("name", [*KILL_SWITCH, *OTHERS])
@pytest.mark.parametrize("value", OFF)
def test_no_name_switches_the_kill_switch_off(name: str, value: str) -> None:
    assert refused(name, value) in ("kill_switch", "unknown_setting")


@pytest.mark.parametrize("name", KILL_SWITCH)
def test_who_tries_to_is_told_why_not_and_what_to_do(name: str) -> None:
    with pytest.raises(SettingError) as caught:
        change(DEFAULT, name, "off")
    assert (caught.value.code, str(caught.value)) == ("kill_switch", REFUSAL)


def test_the_refusal_names_the_way_out() -> None:
    assert "portcullisctl disconnect" in REFUSAL


@pytest.mark.parametrize(
    "name",
    [
        *("disable_kill_switch", "Disable Kill Switch", "disabled", "disable", "off"),
        *("disable network lock", "kill_switch_disabled", "kill_switch_off", "killswitch off"),
        *("no_kill_switch", "nokillswitch", "turn off kill switch", "without kill switch"),
        *("network_lock_disabled", "stop_blocking", "kill_switch_bypass"),
    ],
)
@pytest.mark.parametrize("value", ["1", "on"])
def test_switching_on_its_absence_is_refused(name: str, value: str) -> None:
    assert refused(name, value) in ("kill_switch", "unknown_setting")


@pytest.mark.parametrize("name", ["kill_switch", "Kill Switch", "networklock", "enabled", "ks"])
@pytest.mark.parametrize("value", ON)
def test_switching_it_on_changes_nothing_and_is_no_error(name: str, value: str) -> None:
    assert change(CLOSED, name, value) == (CLOSED, "")


@pytest.mark.parametrize("name", ["kill_switch", "ks", "network_lock", "killswitch_v2"])
def test_a_word_people_use_for_it_is_known(name: str) -> None:
    assert is_kill_switch(name)


@pytest.mark.parametrize("name", ["dns", "colour", "lan_access", "mode"])
def test_other_words_are_not_taken_for_it(name: str) -> None:
    assert not is_kill_switch(name)


def sane(settings: Settings) -> bool:
    """Whether all of it can be meant, and nothing of it disables the kill switch."""
    addresses = (*settings.dns, *settings.bootstrap_dns)
    return (
        isinstance(settings.mode, Mode)
        and isinstance(settings.lan_access, bool)
        and bool(settings.bootstrap_dns)
        and all(str(ip_address(address)) == address for address in addresses)
        and all(name.isascii() and "/" not in name for name in settings.profiles)
    )


words = st.one_of(
    st.text(max_size=30),
    st.sampled_from([*KILL_SWITCH, *OTHERS, *OFF, *ON, *Settings._fields]),
    st.from_regex(r"(no|disable|enable|allow)?[ _-]?(kill|lan|dns)[ _-]?(switch|access)?"),
    st.ip_addresses().map(str),
)


@quick
@given(words, words)
def test_a_change_is_sane_or_a_setting_error(name: str, value: str) -> None:
    with suppress(SettingError):
        assert sane(change(DEFAULT, name, value)[0])


@quick
@given(words, words)
def test_a_change_that_is_refused_says_so_in_printable_words(name: str, value: str) -> None:
    try:
        change(DEFAULT, name, value)
    except SettingError as error:
        assert str(error).isprintable() or not (name + value).isprintable()


@quick
@given(st.dictionaries(words, st.one_of(words, st.lists(words, max_size=3)), max_size=6))
def test_whatever_uci_holds_is_read_as_sane_settings(values: dict[str, Any]) -> None:
    assert sane(read(values)[0])


def test_an_empty_section_is_the_default() -> None:
    assert read({}) == (DEFAULT, ())


def test_uci_options_of_every_kind_are_read() -> None:
    values: dict[str, Any] = {
        ".type": "portcullis",
        ".name": "main",
        "mode": "at_all_times",
        "lan_access": "0",
        "dns": ["10.0.0.1", "fd00::1"],
        "bootstrap_dns": "9.9.9.9",
        "profiles": ["vpn2", "vpn1"],
    }
    wanted = Settings(Mode.AT_ALL_TIMES, False, ("10.0.0.1", "fd00::1"), ("9.9.9.9",))
    assert read(values) == (wanted._replace(profiles=("vpn2", "vpn1")), ())


@pytest.mark.parametrize("option", Settings._fields)
def test_a_wrong_option_has_its_closed_meaning_and_is_named(option: str) -> None:
    found, problems = read({option: "?!"})
    assert getattr(found, option) == getattr(CLOSED, option)
    assert [f"portcullis.main.{option} " in problem for problem in problems] == [True]


def test_a_wrong_option_leaves_the_others_alone() -> None:
    assert read({"mode": "?", "dns": "10.0.0.1"})[0] == Settings(
        mode=Mode.AT_ALL_TIMES, dns=("10.0.0.1",)
    )


@pytest.mark.parametrize("option", ["kill_switch", "enabled", "disabled"])
def test_an_option_that_would_disable_the_kill_switch_is_ignored_and_answered(option: str) -> None:
    found, (problem,) = read({option: "0"})
    assert (found, REFUSAL in problem) == (DEFAULT, True)


def test_an_unknown_option_is_ignored_and_named() -> None:
    found, problems = read({"colour": "red"})
    assert (found, problems) == (
        DEFAULT,
        ("portcullis.main.'colour' is ignored: there is no such option",),
    )


@pytest.mark.parametrize(
    "settings", [DEFAULT, CLOSED, Settings(dns=("10.0.0.1",), profiles=("a",), port=9443)]
)
def test_what_is_stored_reads_back_the_same(settings: Settings) -> None:
    stored = {option: uci_value(settings, option) for option in Settings._fields}
    assert read(stored) == (settings, ())


def test_closed_is_no_more_open_than_the_default_in_anything() -> None:
    assert (CLOSED.mode, CLOSED.lan_access) == (Mode.AT_ALL_TIMES, False)


def test_bootstrap_resolvers_are_asked_by_udp_on_port_53() -> None:
    assert Settings(bootstrap_dns=("9.9.9.9",)).bootstrap() == (Socket("9.9.9.9", "udp", 53),)
