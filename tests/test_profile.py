# SPDX-License-Identifier: GPL-2.0-or-later
"""Profiles: what providers hand out is read exactly, all else is refused with line and reason."""

import base64
import copy
import pickle
import time
from ipaddress import (
    IPv4Interface,
    IPv4Network,
    IPv6Interface,
    ip_address,
    ip_interface,
    ip_network,
)

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portcullis.profile import (
    Carried,
    Peer,
    Problem,
    Profile,
    ProfileError,
    Secret,
    carried,
    routes,
    secrets_removed,
    valid_name,
)
from portcullis.wgconf import LINES_MAX, SIZE_MAX, parse

quick = settings(max_examples=200, deadline=None, derandomize=True, database=None)


def key(seed: int) -> bytes:
    return bytes((seed * 37 + at * 11) % 255 + 1 for at in range(32))


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


PRIVATE, SERVER, SHARED, OTHER = (key(seed) for seed in (1, 2, 3, 4))

MULLVAD = f"""\
[Interface]
# Device: Happy Otter
PrivateKey = {b64(PRIVATE)}
Address = 10.66.123.45/32,fc00:bbbb:bbbb:bb01::3:7b2c/128
DNS = 10.64.0.1

[Peer]
PublicKey = {b64(SERVER)}
AllowedIPs = 0.0.0.0/0,::0/0
Endpoint = 192.0.2.66:51820
"""
PROTON = f"""\
[Interface]
# Key for router
# Bouncing = 4
# NetShield = 1
# NAT-PMP (Port Forwarding) = off
# VPN Accelerator = on
PrivateKey = {b64(PRIVATE)}
Address = 10.2.0.2/32
DNS = 10.2.0.1

[Peer]
# CH#5
PublicKey = {b64(SERVER)}
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = 192.0.2.129:51820
PersistentKeepalive = 25
"""
IVPN = f"""\
[Interface]
PrivateKey = {b64(PRIVATE)}
Address = 172.26.12.34/32, fd00:4956:504e:ffff::ac1a:c22/128
DNS = 172.16.0.1

[Peer]
PublicKey = {b64(SERVER)}
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = nl1.wg.vpn.example:2049
"""
AIRVPN = f"""\
[Interface]
Address = 10.168.42.17/32,fd7d:76ee:e68f:a993:1234:5678:9abc:def0/128
PrivateKey = {b64(PRIVATE)}
MTU = 1320
DNS = 10.128.0.1, fd7d:76ee:e68f:a993::1

[Peer]
PublicKey = {b64(SERVER)}
PresharedKey = {b64(SHARED)}
Endpoint = europe3.vpn.example:1637
AllowedIPs = 0.0.0.0/0,::/0
PersistentKeepalive = 15
"""
EXPRESS = f"""\
\ufeff[interface]\r
privatekey={b64(PRIVATE)}\r
address=100.64.100.6\r
dns=100.64.100.1 vpn.example\r
listenport=0\r
\r
[PEER]\r
publickey={b64(SERVER)} # usa - new york\r
endpoint=[2001:DB8:0::5]:443\r
allowedips=0.0.0.0/1\r
allowedips=128.0.0.0/1\r
persistentkeepalive=off\r
"""
SAMPLES = {
    "mullvad": MULLVAD,
    "proton": PROTON,
    "ivpn": IVPN,
    "airvpn": AIRVPN,
    "express": EXPRESS,
}
ALL4, ALL6 = ip_network("0.0.0.0/0"), ip_network("::/0")
PEER = Peer(SERVER, None, (ALL4, ALL6), ("192.0.2.66", 51820), 0)
BASE = Profile("x", Secret(PRIVATE), (), (), (), None, None, (PEER,))


def addresses(*texts: str) -> tuple[IPv4Interface | IPv6Interface, ...]:
    return tuple(ip_interface(text) for text in texts)


READ = {
    "mullvad": BASE._replace(
        addresses=addresses("10.66.123.45/32", "fc00:bbbb:bbbb:bb01::3:7b2c/128"),
        dns=("10.64.0.1",),
    ),
    "proton": BASE._replace(
        addresses=addresses("10.2.0.2/32"),
        dns=("10.2.0.1",),
        peers=(PEER._replace(endpoint=("192.0.2.129", 51820), keepalive=25),),
    ),
    "ivpn": BASE._replace(
        addresses=addresses("172.26.12.34/32", "fd00:4956:504e:ffff::ac1a:c22/128"),
        dns=("172.16.0.1",),
        peers=(PEER._replace(endpoint=("nl1.wg.vpn.example", 2049)),),
    ),
    "airvpn": BASE._replace(
        addresses=addresses("10.168.42.17/32", "fd7d:76ee:e68f:a993:1234:5678:9abc:def0/128"),
        dns=("10.128.0.1", "fd7d:76ee:e68f:a993::1"),
        mtu=1320,
        peers=(Peer(SERVER, Secret(SHARED), (ALL4, ALL6), ("europe3.vpn.example", 1637), 15),),
    ),
    "express": BASE._replace(
        addresses=addresses("100.64.100.6/32"),
        dns=("100.64.100.1",),
        search=("vpn.example",),
        peers=(Peer(SERVER, None, tuple(ALL4.subnets()), ("2001:db8::5", 443), 0),),
    ),
}


def problems(text: str | bytes, name: str = "x") -> list[str]:
    with pytest.raises(ProfileError) as caught:
        parse(text, name)
    assert str(caught.value) == str(caught.value.problems[0])
    return [str(problem) for problem in caught.value.problems]


def with_line(line: str, section: str = "Interface") -> str:
    """Proton's profile with one more line on top of a section."""
    return PROTON.replace(f"[{section}]\n", f"[{section}]\n{line}\n")


def with_value(setting: str, value: str, text: str = AIRVPN) -> str:
    lines = [
        f"{setting} = {value}" if line.startswith(setting + " ") else line
        for line in text.split("\n")
    ]
    return "\n".join(lines)


def render(profile: Profile) -> str:
    lines = ["[Interface]", f"PrivateKey = {b64(profile.private_key)}"]
    lines += [f"Address = {address}" for address in profile.addresses]
    if profile.dns or profile.search:
        lines.append("DNS = " + ", ".join((*profile.dns, *profile.search)))
    if profile.mtu is not None:
        lines.append(f"MTU = {profile.mtu}")
    if profile.listen_port is not None:
        lines.append(f"ListenPort = {profile.listen_port}")
    for peer in profile.peers:
        lines += ["", "[Peer]", f"PublicKey = {b64(peer.public_key)}"]
        if peer.preshared_key is not None:
            lines.append(f"PresharedKey = {b64(peer.preshared_key)}")
        lines.append("AllowedIPs = " + ", ".join(map(str, peer.allowed_ips)))
        if peer.endpoint:
            host, port = peer.endpoint
            lines.append(
                f"Endpoint = [{host}]:{port}" if ":" in host else f"Endpoint = {host}:{port}"
            )
        lines.append(f"PersistentKeepalive = {peer.keepalive}")
    return "\n".join(lines)


@pytest.mark.parametrize("provider", SAMPLES)
def test_a_providers_profile_is_read_whole(provider: str) -> None:
    assert parse(SAMPLES[provider], "x") == READ[provider]
    assert parse(SAMPLES[provider].encode(), "x") == READ[provider]


@pytest.mark.parametrize(
    ("line", "section", "field", "value"),
    [
        ("MTU = 576", "Interface", "mtu", 576),
        ("MTU = 65535", "Interface", "mtu", 65535),
        ("ListenPort = 51820", "Interface", "listen_port", 51820),
        ("DNS = 2001:db8::53", "Interface", "dns", ("2001:db8::53", "10.2.0.1")),
        ("DNS = 10.2.0.1, 10.2.0.1", "Interface", "dns", ("10.2.0.1",)),
        ("DNS = ,Corp.Example.,", "Interface", "search", ("corp.example",)),
        ("\t # only a comment = here", "Interface", "mtu", None),
        ("MTU=1400#1300", "Interface", "mtu", 1400),
    ],
)
def test_a_further_interface_line_is_read(
    line: str, section: str, field: str, value: object
) -> None:
    assert getattr(parse(with_line(line, section), "x"), field) == value


@pytest.mark.parametrize(
    ("value", "endpoint"),
    [
        ("192.0.2.1:1", ("192.0.2.1", 1)),
        ("10.0.0.1:65535", ("10.0.0.1", 65535)),
        ("[2001:db8:0:0::1]:51820", ("2001:db8::1", 51820)),
        ("NL1.Vpn.Example.:51820", ("nl1.vpn.example", 51820)),
        ("xn--bcher-kva.example:443", ("xn--bcher-kva.example", 443)),
    ],
)
def test_an_endpoint_is_read_in_its_canonical_form(value: str, endpoint: tuple[str, int]) -> None:
    assert parse(with_value("Endpoint", value), "x").peers[0].endpoint == endpoint


def test_allowed_ips_lose_host_bits_and_doubles_and_keep_their_order() -> None:
    text = with_value("AllowedIPs", "10.1.2.3/8, 2001:db8::1/32 ,10.0.0.0/8, 192.0.2.1")
    assert parse(text, "x").peers[0].allowed_ips == (
        ip_network("10.0.0.0/8"),
        ip_network("2001:db8::/32"),
        ip_network("192.0.2.1/32"),
    )


def peer(seed: int, allowed: str, endpoint: str = "") -> str:
    return f"\n[Peer]\nPublicKey = {b64(key(seed))}\nAllowedIPs = {allowed}\n{endpoint}\n"


HEAD = f"[Interface]\nPrivateKey = {b64(PRIVATE)}\nAddress = 10.0.0.2/32, fd00::2/128\n"
FIRST = peer(2, "10.0.0.0/8, fd00::/64", "Endpoint = 192.0.2.1:1")


def test_a_second_peer_needs_no_endpoint() -> None:
    found = parse(HEAD + FIRST + peer(5, "192.168.0.0/16"), "x")
    assert [peer.endpoint for peer in found.peers] == [("192.0.2.1", 1), None]


REFUSALS = [
    # where the line goes, the line, what is said
    ("Interface", "FwMark = 51820", "FwMark: Portcullis sets this itself"),
    ("Interface", "Table = off", "Table: Portcullis sets the routes itself"),
    ("Interface", "PreUp = id", "PreUp: Portcullis never executes commands"),
    ("Interface", "PostUp = iptables -I OUTPUT", "PostUp: Portcullis never executes commands"),
    ("Interface", "predown = id", "PreDown: Portcullis never executes commands"),
    ("Interface", "PostDown = id", "PostDown: Portcullis never executes commands"),
    ("Peer", "PostUp = id", "PostUp: Portcullis never executes commands"),
    ("Interface", "PostUp =", "PostUp: Portcullis never executes commands"),
    ("Interface", "SaveConfig = true", "SaveConfig: Portcullis never executes commands"),
    ("Interface", "Jc = 4", "Jc: unknown key"),
    ("Interface", "Endpoint = 192.0.2.1:1", "Endpoint: belongs into [Peer], not [Interface]"),
    ("Peer", "MTU = 1400", "MTU: belongs into [Interface], not [Peer]"),
    ("Interface", "hello", "neither a [section], nor Key = value, nor a # comment"),
    ("Interface", "; comment = x", "neither a [section], nor Key = value, nor a # comment"),
    ("Interface", "= x", "neither a [section], nor Key = value, nor a # comment"),
    ("Interface", "MTU =", "MTU: has no value"),
    ("Interface", "MTU", "MTU: has no value"),
    ("Interface", "DNS = ,", "DNS: has no value"),
    ("Interface", "MTU = 575", "MTU: 575 is not between 576 and 65535"),
    ("Interface", "MTU = 65536", "MTU: 65536 is not between 576 and 65535"),
    ("Interface", "MTU = 1_400", "MTU: '1_400' is not between 576 and 65535"),
    ("Interface", "MTU = \u0661\u0664\u0660\u0660", "MTU: '\\u0661\\u0664\\u0660\\u0660' is not"),
    ("Interface", "ListenPort = 65536", "ListenPort: 65536 is not between 0 and 65535"),
    ("Interface", "ListenPort = -1", "ListenPort: '-1' is not between 0 and 65535"),
    ("Interface", "Address = 0.0.0.0/32", "Address: 0.0.0.0 is an unspecified address"),
    ("Interface", "Address = 127.0.0.2/8", "Address: 127.0.0.2 is a loopback address"),
    ("Interface", "Address = ::1", "Address: ::1 is a loopback address"),
    ("Interface", "Address = 224.0.0.5", "Address: 224.0.0.5 is a multicast address"),
    ("Interface", "Address = ff02::5", "Address: ff02::5 is a multicast address"),
    ("Interface", "Address = 10.0.0.2/33", "Address: '10.0.0.2/33' is no IPv4 or IPv6 address"),
    ("Interface", "Address = 10.0.0.2/255.0.0.0", "Address: '10.0.0.2/255.0.0.0' is no IPv4"),
    ("Interface", "Address = 10.0.0.02", "Address: '10.0.0.02' is no IPv4 or IPv6 address"),
    ("Interface", "Address = fe80::2%eth0/64", "Address: 'fe80::2%eth0/64' is no IPv4 or IPv6"),
    ("Interface", "Address = 10.0.0.2/0", "Address: 10.0.0.2/0 claims every address"),
    ("Interface", "DNS = 127.0.0.1", "DNS: 127.0.0.1 is a loopback address"),
    ("Interface", "DNS = 0.0.0.0", "DNS: 0.0.0.0 is an unspecified address"),
    ("Interface", "DNS = 169.254.1.1", "DNS: 169.254.1.1 is a link-local address"),
    ("Interface", "DNS = fe80::1", "DNS: fe80::1 is a link-local address"),
    ("Interface", "DNS = ff02::fb", "DNS: ff02::fb is a multicast address"),
    ("Interface", "DNS = 10.2.0", "DNS: '10.2.0' is no IPv4 or IPv6 address"),
    ("Interface", "DNS = ::1:", "DNS: '::1:' is no IPv4 or IPv6 address"),
    ("Interface", "DNS = 2001:db8::/32", "DNS: '2001:db8::/32' is a network, not an address"),
    ("Interface", "DNS = 10.2.0.1/32", "DNS: host name '10.2.0.1/32' has characters other"),
    ("Interface", "DNS = corp..example", "DNS: host name 'corp..example' has an empty label"),
    ("Peer", "AllowedIPs = 10.0.0.0/8/8", "AllowedIPs: '10.0.0.0/8/8' is no IPv4 or IPv6"),
    ("Peer", "AllowedIPs = +10.0.0.0/8", "AllowedIPs: '+10.0.0.0/8' is no IPv4 or IPv6"),
    ("Peer", "AllowedIPs = " + "x" * 81, "AllowedIPs: a value of 81 characters is no IPv4"),
]


@pytest.mark.parametrize(("section", "line", "said"), REFUSALS)
def test_a_wrong_line_is_refused_with_its_number_and_the_reason(
    section: str, line: str, said: str
) -> None:
    text = with_line(line, section)
    at = text.split("\n").index(line) + 1
    assert problems(text)[0].startswith(f"line {at}: {said}")


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("MTU", "1279", "1279 is not between 1280 and 65535"),
        ("PersistentKeepalive", "65536", "65536 is not between 0 and 65535"),
        ("PersistentKeepalive", "on", "'on' is not between 0 and 65535"),
        (
            "PrivateKey",
            b64(PRIVATE)[:-1],
            "no key: 44 characters of base64, the last '='; this has 43",
        ),
        ("PrivateKey", b64(b"\0" * 32), "all zero, which is no key"),
        ("PublicKey", b64(b"\0" * 32), "all zero, which is no key"),
        ("PresharedKey", b64(b"\0" * 32), "all zero, which is no key"),
        ("PublicKey", b64(SERVER[:31]), "no key"),
        ("PublicKey", b64(SERVER + b"x"), "no key"),
        ("PublicKey", b64(SERVER)[:-2] + "B=", "no key"),  # not canonical: low bits set
        ("PublicKey", "-" + b64(SERVER)[1:], "no key"),
        ("PublicKey", SERVER.hex(), "no key"),
        ("Endpoint", "192.0.2.1", "'192.0.2.1' is not host:port"),
        ("Endpoint", "192.0.2.1:", "'192.0.2.1:' is not host:port"),
        ("Endpoint", ":51820", "':51820' is not host:port"),
        (
            "Endpoint",
            "2001:db8::1:51820",
            "'2001:db8::1:51820' is not host:port, address:port or [",
        ),
        ("Endpoint", "[2001:db8::1]", "'[2001:db8::1]' is not host:port"),
        ("Endpoint", "[2001:db8::1]51820", "'[2001:db8::1]51820' is not host:port"),
        ("Endpoint", "[192.0.2.1]:1", "'192.0.2.1' in brackets"),
        ("Endpoint", "[vpn.example]:1", "'vpn.example' in brackets"),
        ("Endpoint", "[[2001:db8::1]]:1", "'[[2001:db8::1]]:1' is not host:port"),
        ("Endpoint", "[fe80::1%pc0]:1", "'fe80::1%pc0' is no IPv4 or IPv6 address"),
        ("Endpoint", "[2001:db8::/64]:1", "'2001:db8::/64' is a network"),
        ("Endpoint", "192.0.2.1:0", "port 0 is not between 1 and 65535"),
        ("Endpoint", "192.0.2.1:70000", "port 70000 is not between 1 and 65535"),
        ("Endpoint", "192.0.2.1:http", "port 'http' is not between 1 and 65535"),
        ("Endpoint", "127.0.0.1:1", "127.0.0.1 is a loopback address"),
        ("Endpoint", "0.0.0.0:1", "0.0.0.0 is an unspecified address"),
        ("Endpoint", "224.0.0.1:1", "224.0.0.1 is a multicast address"),
        ("Endpoint", "169.254.1.1:1", "169.254.1.1 is a link-local address"),
        ("Endpoint", "255.255.255.255:1", "255.255.255.255 is the broadcast address"),
        ("Endpoint", "[::1]:1", "::1 is a loopback address"),
        ("Endpoint", "[::]:1", ":: is an unspecified address"),
        ("Endpoint", "[ff02::1]:1", "ff02::1 is a multicast address"),
        ("Endpoint", "[fe80::1]:1", "fe80::1 is a link-local address"),
        ("Endpoint", "[::ffff:127.0.0.1]:1", "is an IPv4-mapped address"),
        ("Endpoint", "127.1:1", "'127.1' is no IPv4 or IPv6 address"),
        ("Endpoint", "0x7f000001:1", "host name '0x7f000001' ends in a number"),
        ("Endpoint", "bücher.example:1", "host name 'b\\xfccher.example' is not ASCII"),
        ("Endpoint", "vpn example:1", "host name 'vpn example' has characters other"),
    ],
)
def test_a_wrong_value_is_refused_with_its_line_and_the_reason(
    setting: str, value: str, said: str
) -> None:
    text = with_value(setting, value)
    at = text.split("\n").index(f"{setting} = {value}") + 1
    found = problems(text)
    assert len(found) == 1
    assert f"line {at}: {setting}: " in found[0]
    assert said in found[0]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("PrivateKey", "line 1: PrivateKey: missing from [Interface]"),
        ("Address", "line 1: Address: missing from [Interface]"),
        ("PublicKey", "line 7: PublicKey: missing from [Peer]"),
        ("AllowedIPs", "line 7: AllowedIPs: missing from [Peer]"),
        ("Endpoint", "line 7: Endpoint: missing; one peer at least must have it"),
    ],
)
def test_what_is_missing_is_named(setting: str, said: str) -> None:
    assert problems(with_value(setting, "").replace(f"{setting} = \n", "#\n")) == [said]


@pytest.mark.parametrize(
    "setting", ["PrivateKey", "MTU", "PublicKey", "PresharedKey", "Endpoint", "PersistentKeepalive"]
)
def test_a_single_value_given_twice_is_refused(setting: str) -> None:
    line = next(line for line in AIRVPN.split("\n") if line.startswith(setting))
    first = AIRVPN.split("\n").index(line) + 1
    text = AIRVPN.replace(line, f"{line}\n{line.lower() if setting == 'MTU' else line}")
    assert problems(text) == [f"line {first + 1}: {setting}: given twice, first in line {first}"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "[Interface] is missing"),
        (HEAD, "0 [Peer] sections where 1 to 64 may be"),
        (HEAD + FIRST + "".join(peer(9, "::/0") for _ in range(64)), "65 [Peer] sections"),
        ("MTU = 1400\n" + HEAD + FIRST, "line 1: stands before the first [section]"),
        (
            HEAD + FIRST + peer(2, "1.0.0.0/8"),
            "line 11: PublicKey: the same as of the peer in line 5",
        ),
        (HEAD + FIRST + "\0", "line 9: a NUL byte"),
        (HEAD.encode() + b"#\xff\n", "line 4: not UTF-8 text"),
        ((HEAD + FIRST).encode("utf-16"), "line 1: not UTF-8 text"),
        (HEAD + "# \ud800", "line 4: not UTF-8 text"),
        (HEAD + FIRST + "#" * SIZE_MAX, f"more than {SIZE_MAX} bytes"),
        (HEAD + FIRST + "\n" * LINES_MAX, f"more than {LINES_MAX} lines"),
        (HEAD + "Address = " + "10.0.0.1," * 15, "line 4: Address: more than 16 entries in all"),
        (HEAD + "DNS = " + "10.0.0.1 " * 17, "line 4: DNS: more than 16 entries in all"),
        (
            HEAD + FIRST + peer(3, "::," * 4000) + peer(4, "::," * 95),
            "line 17: AllowedIPs: more than 4096 entries in all",
        ),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_is_refused(text: str | bytes, said: str) -> None:
    assert any(problem.startswith(said) for problem in problems(text))


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (
            "0.0.0.0/0",
            "10.0.0.0/8",
            "line 10: AllowedIPs: 10.0.0.0/8 overlaps 0.0.0.0/0 of the peer in line 5",
        ),
        (
            "10.1.0.0/16",
            "1.0.0.0/8, 10.0.0.0/8",
            "line 5: AllowedIPs: 10.1.0.0/16 overlaps 10.0.0.0/8 of the peer in line 10",
        ),
        ("::/0", "::/0", "line 10: AllowedIPs: ::/0 overlaps ::/0 of the peer in line 5"),
    ],
)
def test_peers_that_accept_the_same_address_are_refused(first: str, second: str, said: str) -> None:
    head = HEAD + peer(2, first, "Endpoint = 192.0.2.1:1")
    assert problems(head + peer(3, second)) == [said]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("10.0.0.0/9", "10.128.0.0/9"),
        ("0.0.0.0/0", "::/0"),
        ("10.0.0.0/8, 10.1.0.0/16, 10.1.1.0/24", "11.0.0.0/8, 9.0.0.0/8"),
        ("255.255.255.255", "::"),
    ],
)
def test_peers_with_networks_apart_are_accepted(first: str, second: str) -> None:
    parse(HEAD + peer(2, first, "Endpoint = 192.0.2.1:1") + peer(3, second), "x")


def test_all_that_is_wrong_is_reported_at_once_in_the_files_order() -> None:
    text = MULLVAD.replace("DNS = 10.64.0.1", "DNS = ::1, 1.1.1\nPostUp = id")
    text = text.replace(":51820", ":70000").replace("Address", "Addres")
    assert problems(text, "no/name") == [
        valid_name("no/name"),
        "line 1: Address: missing from [Interface]",
        "line 4: Addres: unknown key",
        "line 5: DNS: ::1 is a loopback address",
        "line 5: DNS: '1.1.1' is no IPv4 or IPv6 address",
        "line 6: PostUp: Portcullis never executes commands from a profile; remove this line",
        "line 11: Endpoint: port 70000 is not between 1 and 65535",
    ]


def test_an_error_carries_the_first_problem_in_parts() -> None:
    with pytest.raises(ProfileError) as caught:
        parse(with_value("Endpoint", "192.0.2.1:70000"), "x")
    error = caught.value
    assert (error.line, error.key) == (10, "Endpoint")
    assert error.reason == "port 70000 is not between 1 and 65535"
    assert error.problems == (Problem(error.line, error.key, error.reason),)


def test_a_second_interface_section_is_told_and_nothing_else() -> None:
    assert problems(with_line("[Interface]")) == [
        "line 2: a second [Interface], the first is in line 1"
    ]


def test_an_unknown_section_is_told_once_and_its_lines_are_passed_over() -> None:
    assert problems(PROTON + "[Wat]\nPublicKey = x\nwhatever\n") == [
        "line 17: unknown section '[Wat]'"
    ]


def test_the_list_of_problems_has_an_end() -> None:
    found = problems("x\n" * 4000)
    assert len(found) == 101
    assert found[-1] == "line 100: too many errors, stopped"


def test_neither_repr_nor_str_nor_format_shows_a_secret_key() -> None:
    profile = parse(AIRVPN, "x")
    for shown in (repr(profile), str(profile), f"{profile.peers}", f"{profile.private_key:}"):
        for secret in (PRIVATE, SHARED):
            assert repr(secret)[2:-1] not in shown
            assert b64(secret) not in shown
        assert "<secret>" in shown


def test_a_secret_is_bytes_to_the_tunnel() -> None:
    profile = parse(AIRVPN, "x")
    assert b"" + profile.private_key == PRIVATE
    assert profile.peers[0].preshared_key == SHARED
    assert type(profile.peers[0].public_key) is bytes
    assert pickle.loads(pickle.dumps(copy.deepcopy(profile))) == profile


SECRET_TEXT = b64(PRIVATE)
LEAKY = [
    f"PrivateKey = x{SECRET_TEXT}",
    f"PrivateKey: {SECRET_TEXT}",
    f"{SECRET_TEXT}",
    f"PrivatKey = {SECRET_TEXT}",
    f"{SECRET_TEXT} = 1",
    f"[PrivateKey = {SECRET_TEXT[:30]}]",
    f"[{SECRET_TEXT}]",
    f"DNS = {SECRET_TEXT}",
    f"DNS = {'a.' * 20}{SECRET_TEXT}",
    f"Address = {SECRET_TEXT}",
    f"MTU = {SECRET_TEXT}",
    f"ListenPort = PrivateKey={SECRET_TEXT[:30]}",
    f"PrivateKey = {SECRET_TEXT[:22]}\n{SECRET_TEXT[22:]}",
    f"PrivateKey = {SECRET_TEXT[:36]}\n{SECRET_TEXT[36:]}",
]


@pytest.mark.parametrize("line", LEAKY)
def test_no_error_shows_a_key_wherever_it_was_pasted(line: str) -> None:
    text = with_line(line) + f"\nEndpoint = {SECRET_TEXT}:1\nAllowedIPs = {SECRET_TEXT}\n"
    said = "\n".join(problems(text))
    assert not any(SECRET_TEXT[at : at + 6] in said for at in range(len(SECRET_TEXT) - 6))


@pytest.mark.parametrize(
    "text",
    [
        f"PrivateKey = {SECRET_TEXT}",
        f"# privatekey={SECRET_TEXT[:20]} {SECRET_TEXT[20:]} # old",
        f"Private Key: {SECRET_TEXT[:20]}",
        f"preshared_key={SECRET_TEXT}",
        f"PublicKey = {SECRET_TEXT}",
        f"note {SECRET_TEXT[:-1]}, end",
        f"private_key={PRIVATE.hex()}",
        f"key {PRIVATE.hex()}",
    ],
)
def test_a_report_holds_no_key(text: str) -> None:
    removed = secrets_removed(f"MTU = 1400\n{text}\nAddress = 10.0.0.2/32\n")
    assert removed.startswith("MTU = 1400\n")
    assert removed.endswith("\nAddress = 10.0.0.2/32\n")
    assert "(removed)" in removed
    for secret in (SECRET_TEXT, PRIVATE.hex()):
        assert not any(secret[at : at + 6] in removed for at in range(len(secret) - 6))


def test_a_report_keeps_everything_but_the_keys() -> None:
    assert secrets_removed(AIRVPN) == AIRVPN.replace(b64(PRIVATE), "(removed)").replace(
        b64(SERVER), "(removed)"
    ).replace(b64(SHARED), "(removed)")


@pytest.mark.parametrize(
    "name", ["x", "wg-CH-5", "AirVPN_Europe_UDP-1637-Entry3", "se.got.1", "9", "a" * 64, "con"]
)
def test_a_safe_name_is_valid(name: str) -> None:
    assert valid_name(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a" * 65,
        ".",
        "..",
        ".a",
        "-a",
        "_a",
        "a/b",
        "a\\b",
        "a b",
        "a\n",
        "a\0",
        "a'b",
        "a$b",
        "é",
        "\u212a",
    ],
)
def test_an_unsafe_name_is_refused_and_so_is_the_profile(name: str) -> None:
    reason = valid_name(name)
    assert reason
    assert problems(PROTON, name) == [reason]


@pytest.mark.parametrize(
    ("own", "allowed", "ipv4", "ipv6"),
    [
        ("10.0.0.2, fd00::2", "0.0.0.0/1, 128.0.0.0/1, ::/0", "all of IPv4", "all of IPv6"),
        (
            "10.0.0.2",
            "0.0.0.0/0, ::/0",
            "all of IPv4",
            "no IPv6 (the profile has no IPv6 address)",
        ),
        (
            "fd00::2",
            "0.0.0.0/0, ::/1, 8000::/1",
            "no IPv4 (the profile has no IPv4 address)",
            "all of IPv6",
        ),
        ("10.0.0.2, fd00::2", "0.0.0.0/0", "all of IPv4", "no IPv6 (AllowedIPs names none)"),
        (
            "10.0.0.2, fd00::2",
            "0.0.0.0/2, 128.0.0.0/1, 2000::/3",
            "only 0.0.0.0/2, 128.0.0.0/1 of IPv4",
            "only 2000::/3 of IPv6",
        ),
        (
            "10.0.0.2, fd00::2",
            "::/0, 1.0.0.0, 2.0.0.0, 3.0.0.0, 4.0.0.0, 5.0.0.0",
            "only 1.0.0.0/32, 2.0.0.0/32, 3.0.0.0/32 and 2 more networks of IPv4",
            "all of IPv6",
        ),
    ],
)
def test_what_is_carried_is_computed_and_said(own: str, allowed: str, ipv4: str, ipv6: str) -> None:
    text = with_value("Address", own, with_value("AllowedIPs", allowed))
    whole = (ipv4 == "all of IPv4", ipv6 == "all of IPv6")
    rest = "the rest of the internet is blocked while the kill switch is active"
    sentence = f"The tunnel carries {ipv4} and {ipv6}; {rest}."
    assert carried(parse(text, "x")) == Carried(*whole, "" if all(whole) else sentence)


def test_one_missing_address_is_not_all_of_ipv4() -> None:
    missing = IPv4Network("203.0.113.7")
    most = ", ".join(map(str, IPv4Network("0.0.0.0/0").address_exclude(missing)))
    assert not carried(parse(with_value("AllowedIPs", most), "x")).ipv4
    assert carried(parse(with_value("AllowedIPs", f"{most}, {missing}"), "x")).ipv4


def test_routes_are_collapsed_over_all_peers() -> None:
    found = routes(parse(HEAD + FIRST + peer(5, "11.0.0.0/8, fd01::/64, 11.1.0.0/16"), "x"))
    assert found.ipv4 == (ip_network("10.0.0.0/7"),)
    assert found.ipv6 == (ip_network("fd00::/64"), ip_network("fd01::/64"))


def test_routes_leave_out_a_family_the_profile_has_no_address_in() -> None:
    assert routes(parse(PROTON, "x")).ipv6 == ()


def test_the_largest_hostile_profile_costs_little_time() -> None:
    nets = [f"10.{n // 256}.{n % 256}.0/24" for n in range(4000)]
    text = HEAD + peer(2, ",".join(nets), "Endpoint = 192.0.2.1:1")
    started = time.process_time()
    found = parse(text, "x")
    carried(found)
    assert time.process_time() - started < 2
    assert len(found.peers[0].allowed_ips) == 4000


# Fuzzing


def sieve(text: str | bytes) -> None:
    try:
        profile = parse(text, "x")
    except ProfileError as error:
        for problem in error.problems:
            assert str(problem).isprintable()
            assert b64(PRIVATE)[:40] not in str(problem)
    else:
        assert parse(render(profile), "x") == profile
        carried(profile)


@quick
@given(st.one_of(st.binary(max_size=300), st.text(max_size=300)))
def test_arbitrary_input_raises_nothing_but_profile_errors(text: str | bytes) -> None:
    sieve(text)
    sieve(MULLVAD.encode() + text if isinstance(text, bytes) else MULLVAD + text)


@quick
@given(st.sampled_from(sorted(SAMPLES)), st.data())
def test_a_mutated_profile_raises_nothing_but_profile_errors(
    provider: str, data: st.DataObject
) -> None:
    text = bytearray(SAMPLES[provider].encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        end = min(len(text), at + data.draw(st.integers(0, 4)))
        text[at:end] = data.draw(
            st.one_of(st.binary(max_size=3), st.sampled_from([b"\n", b"/", b"[", b":", b",", b"="]))
        )
    sieve(bytes(text))


WORDS = [
    "[Interface]",
    "[Peer]",
    "PrivateKey",
    "AllowedIPs",
    "Endpoint",
    "DNS",
    "MTU",
    "Address",
    "=",
    "\n",
]
WORDS += [
    "\n",
    "=",
    " ",
    ",",
    "#",
    "[::1]:5",
    "0.0.0.0/0",
    "::/0",
    "/",
    ":",
    "%",
    "a.b",
    "1.2.3.4",
    b64(PRIVATE),
]


@quick
@given(st.lists(st.sampled_from(WORDS), max_size=60))
def test_shuffled_words_of_a_profile_raise_nothing_but_profile_errors(words: list[str]) -> None:
    sieve("".join(words))


secrets = st.binary(min_size=32, max_size=32).filter(any)
ports = st.integers(1, 65535)
v4 = st.integers(0x01000000, 0x7EFFFFFF)
v6 = st.integers(0x2000 << 112, (0x4000 << 112) - 1)
literals = st.one_of(v4, v6).map(lambda number: str(ip_address(number)))
names = st.lists(st.text("az09_", min_size=1, max_size=5), min_size=1, max_size=3).map(
    lambda parts: ".".join([*parts, "example"])
)
interfaces = st.one_of(st.tuples(v4, st.integers(1, 32)), st.tuples(v6, st.integers(1, 128))).map(
    ip_interface
)
endpoints = st.tuples(st.one_of(names, literals), ports)
lengths = st.tuples(st.integers(8, 32), st.integers(16, 128))


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    peers = []
    for at, public_key in enumerate(draw(st.lists(secrets, min_size=1, max_size=3, unique=True))):
        # Each peer has a /8 and a /16 of its own, so that none overlaps another.
        short, long = draw(lengths)
        allowed = (ip_network(f"{20 + at}.0.0.0/{short}"), ip_network(f"{20 + at}::/{long}"))
        shared = draw(st.none() | secrets.map(Secret))
        endpoint = draw(endpoints if at == 0 else st.none() | endpoints)
        peers.append(Peer(public_key, shared, allowed, endpoint, draw(st.integers(0, 65535))))
    return Profile(
        name="x",
        private_key=Secret(draw(secrets)),
        addresses=tuple(draw(st.lists(interfaces, min_size=1, max_size=3, unique=True))),
        dns=tuple(draw(st.lists(literals, max_size=2, unique=True))),
        search=tuple(draw(st.lists(names, max_size=2, unique=True))),
        mtu=draw(st.none() | st.integers(1280, 65535)),
        listen_port=draw(st.none() | ports),
        peers=tuple(peers),
    )


@quick
@given(profiles())
def test_a_rendered_profile_reads_back_the_same(profile: Profile) -> None:
    assert parse(render(profile), "x") == profile
