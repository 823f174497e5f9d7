# SPDX-License-Identifier: GPL-2.0-or-later
"""DNS messages: what is asked, what counts as the answer, and that nothing else gets through."""

import struct
import time
from contextlib import suppress
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portcullis.dns import (
    AAAA,
    LINK_LOCAL,
    MESSAGE_MAX,
    NOERROR,
    NXDOMAIN,
    A,
    Answer,
    DNSError,
    answer,
    labels,
    query,
    unfit,
)

CNAME, SOA, OPT = 5, 6, 41
IDENT = 0x1234
NAME = "nl1.vpn.example"
POINTER = b"\xc0\x0c"  # to the question's name

quick = settings(max_examples=300, deadline=None, derandomize=True, database=None)


def wire(name: str) -> bytes:
    parts = [part.encode() for part in name.split(".") if part]
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def record(
    rtype: int, data: bytes, owner: bytes = POINTER, ttl: int = 300, rclass: int = 1
) -> bytes:
    return owner + struct.pack("!2HIH", rtype, rclass, ttl, len(data)) + data


def a(address: str, owner: bytes = POINTER, ttl: int = 300) -> bytes:
    packed = ip_address(address).packed
    return record(A if len(packed) == 4 else AAAA, packed, owner, ttl)


def reply(
    *answers: bytes,
    name: str = NAME,
    qtype: int = A,
    ident: int = IDENT,
    flags: int = 0x8180,
    questions: int = 1,
    qclass: int = 1,
    authority: tuple[bytes, ...] = (),
    additional: tuple[bytes, ...] = (),
) -> bytes:
    counts = (questions, len(answers), len(authority), len(additional))
    question = (wire(name) + struct.pack("!2H", qtype, qclass)) * questions
    rest = b"".join((*answers, *authority, *additional))
    return struct.pack("!6H", ident, flags, *counts) + question + rest


def read(message: bytes, name: str = NAME, qtype: int = A) -> Answer:
    return answer(message, IDENT, name, qtype)


def test_a_query_is_one_recursive_question_of_class_in() -> None:
    assert query("nl1.vpn.example.", AAAA, 0xBEEF) == (
        b"\xbe\xef\x01\x00\0\x01\0\0\0\0\0\0" + b"\x03nl1\x03vpn\x07example\0" + b"\0\x1c\0\x01"
    )


def test_a_query_keeps_the_mixed_case_it_is_given() -> None:
    assert b"\x03nL1\x03VPn\x07eXample\0" in query("nL1.VPn.eXample", A, 1)


@pytest.mark.parametrize(("qtype", "ident"), [(A, -1), (A, 0x10000), (0, 1), (0x10000, 1)])
def test_a_query_refuses_numbers_of_more_than_16_bits(qtype: int, ident: int) -> None:
    with pytest.raises(DNSError, match="16 bits"):
        query(NAME, qtype, ident)


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "a.b.",
        "_wg._udp.vpn.example",
        "xn--bcher-kva.example",
        "3com.com",
        "1.2.3.4a",
        "_",
        "A-b.C",
        ".".join(["a" * 63] * 3 + ["b" * 61]),
    ],
)
def test_a_host_name_is_accepted(name: str) -> None:
    assert ".".join(label.decode() for label in labels(name)) == name.removesuffix(".")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "empty host name"),
        (".", "empty host name"),
        ("a..b", "empty label"),
        (".a", "empty label"),
        ("a.b..", "empty label"),
        ("bücher.example", "not ASCII"),
        ("a" * 64 + ".example", "more than 63"),
        (".".join(["a" * 63] * 4), "more than 253"),
        ("-a.example", "hyphen"),
        ("a-.example", "hyphen"),
        ("-", "hyphen"),
        ("a b.example", "characters other"),
        ("a/b", "characters other"),
        ("a\0b", "characters other"),
        ("a\nb", "characters other"),
        ("a:1", "characters other"),
        ("127.1", "ends in a number"),
        ("2130706433", "ends in a number"),
        ("0x7f000001", "ends in a number"),
        ("vpn.0x", "ends in a number"),
        ("1.2.3.4", "ends in a number"),
    ],
)
def test_what_is_no_host_name_is_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(DNSError, match=reason):
        labels(name)


def test_addresses_come_in_the_servers_order_once_each_with_the_smallest_ttl() -> None:
    message = reply(
        a("198.51.100.9", ttl=600), a("198.51.100.2", ttl=60), a("198.51.100.9", ttl=900)
    )
    assert read(message) == Answer(NOERROR, ("198.51.100.9", "198.51.100.2"), 60, False, ())


def test_ipv6_addresses_are_canonical_text() -> None:
    message = reply(a("2001:0db8:0::0001"), qtype=AAAA)
    assert read(message, qtype=AAAA).addresses == ("2001:db8::1",)


def test_a_cname_chain_is_followed_in_any_order_and_its_ttl_counts() -> None:
    host = wire("host.cdn.example")
    message = reply(
        a("198.51.100.1", owner=wire("HOST.cdn.example")),
        record(CNAME, host, owner=wire("edge.example"), ttl=20),
        record(CNAME, wire("edge.example"), ttl=3000),
    )
    assert read(message) == Answer(NOERROR, ("198.51.100.1",), 20, False, ())


def test_a_compressed_cname_target_is_read() -> None:
    # The target is "x" + the question's name.
    message = reply(record(CNAME, b"\x01x" + POINTER), a("198.51.100.1", owner=wire("x." + NAME)))
    assert read(message).addresses == ("198.51.100.1",)


def test_addresses_of_other_names_and_types_do_not_count() -> None:
    message = reply(
        a("198.51.100.1", owner=wire("evil.example")),
        a("2001:db8::1"),
        record(16, b"\x03txt"),
        record(CNAME, wire("host.example")),
        a("198.51.100.2"),  # beside a CNAME, so not at the chain's end
    )
    assert read(message) == Answer(NOERROR, (), 0, False, ())


def test_a_label_with_a_dot_in_it_is_not_two_labels() -> None:
    assert read(reply(a("198.51.100.1", owner=b"\x07nl1.vpn\x07example\0"))).addresses == ()


def test_authority_and_additional_records_are_walked_and_not_believed() -> None:
    message = reply(
        authority=(record(SOA, b"\0" * 22, owner=b"\0"), a("198.51.100.1")),
        additional=(record(OPT, b"", owner=b"\0", rclass=1232), a("198.51.100.2")),
    )
    assert read(message) == Answer(NOERROR, (), 0, False, ())


@pytest.mark.parametrize("rcode", [1, 2, NXDOMAIN, 5, 15])
def test_an_error_code_is_told_and_its_addresses_are_not_used(rcode: int) -> None:
    message = reply(a("198.51.100.1"), flags=0x8180 | rcode)
    assert read(message) == Answer(rcode, (), 0, False, ())


def test_a_truncated_reply_is_told_and_not_used_wherever_it_was_cut() -> None:
    message = reply(a("198.51.100.1"), a("198.51.100.2"), flags=0x8380)
    for length in range(12 + len(wire(NAME)) + 4, len(message) + 1):
        assert read(message[:length]) == Answer(NOERROR, (), 0, True, ())


@pytest.mark.parametrize(
    ("ttl", "seconds"), [(0, 0), (2**31 - 1, 2**31 - 1), (2**31, 0), (2**32 - 1, 0)]
)
def test_a_ttl_with_the_top_bit_is_zero(ttl: int, seconds: int) -> None:
    assert read(reply(a("198.51.100.1", ttl=ttl))).ttl == seconds


UNFIT = [
    ("0.0.0.0", "an unspecified address"),
    ("0.1.2.3", "an unspecified address"),
    ("127.0.0.1", "a loopback address"),
    ("127.255.0.1", "a loopback address"),
    ("169.254.169.254", LINK_LOCAL),
    ("224.0.0.1", "a multicast address"),
    ("239.255.255.255", "a multicast address"),
    ("240.0.0.1", "a reserved address"),
    ("255.255.255.255", "the broadcast address"),
    ("::", "an unspecified address"),
    ("::1", "a loopback address"),
    ("::7f00:1", "an IPv4-compatible address"),
    ("::ffff:127.0.0.1", "an IPv4-mapped address"),
    ("fe80::1", LINK_LOCAL),
    ("febf::1", LINK_LOCAL),
    ("ff02::1", "a multicast address"),
]
FIT = ["1.0.0.0", "126.255.255.255", "10.0.0.1", "192.168.1.1", "100.64.0.1", "223.255.255.255"]
FIT += ["2001:db8::1", "fd00::1", "64:ff9b::c633:6401", "fec0::1", "::1:0:0:0"]


@pytest.mark.parametrize(("address", "kind"), [*UNFIT, *((address, None) for address in FIT)])
def test_an_address_is_told_fit_or_what_it_is(address: str, kind: str | None) -> None:
    assert unfit(ip_address(address)) == kind


@pytest.mark.parametrize(("address", "kind"), UNFIT)
def test_an_unfit_address_is_left_out_and_reported(address: str, kind: str) -> None:
    qtype = AAAA if ":" in address else A
    good = "2001:db8::1" if qtype == AAAA else "198.51.100.1"
    found = read(reply(a(address, ttl=1), a(good, ttl=50), qtype=qtype), qtype=qtype)
    assert found.addresses == (good,)
    assert found.ttl == 50
    assert found.unfit == (f"{ip_address(address)} is {kind}",)


def test_the_question_may_come_back_in_another_case_if_small_letters_were_asked() -> None:
    assert read(reply(a("198.51.100.1"), name=NAME.upper())).addresses


def test_a_mixed_case_question_must_come_back_letter_for_letter() -> None:
    mixed = "nL1.vPN.exAmple"
    assert read(reply(a("198.51.100.1"), name=mixed), name=mixed).addresses
    for other in (NAME, "Nl1.vPN.exAmple"):
        with pytest.raises(DNSError, match="the question is not for"):
            read(reply(a("198.51.100.1"), name=other), name=mixed)


GOOD = reply(a("198.51.100.1"))
QUESTION = struct.pack("!2H", A, 1)


def with_owner(owner: bytes) -> bytes:
    return reply(a("198.51.100.1", owner=owner))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "cut short in a header"),
        (GOOD[:11], "cut short in a header"),
        (GOOD[:12], "cut short in a name"),
        (GOOD[:30], "cut short in a question"),
        (GOOD[:-1], "cut short in a record's data"),
        (GOOD[:-16], "cut short in a name"),
        (GOOD[:-5], "cut short in a record:"),
        (GOOD + b"\0", "1 octets after the last record"),
        (b"\0" * (MESSAGE_MAX + 1), "more than 4096"),
        (reply(ident=IDENT + 1), "ident 0x1235"),
        (reply(flags=0x0180), "not a response"),
        (query(NAME, A, IDENT), "not a response"),
        (reply(flags=0xA980), "opcode 5"),
        (reply(questions=0), "0 questions"),
        (reply(questions=2), "2 questions"),
        (reply(name="nl2.vpn.example"), "not for nl1"),
        (reply(name="vpn.example"), "not for nl1"),
        (reply(name=NAME + ".evil"), "not for nl1"),
        (reply(qtype=AAAA), "type 28"),
        (reply(qclass=3), "class 3"),
        (reply(record(A, b"\1\2\3\4", rclass=3)), "an answer of class 3"),
        (reply(record(A, b"\1\2\3")), "an address of 3 octets"),
        (reply(record(A, b"\1" * 16)), "an address of 16 octets"),
        (reply(record(CNAME, wire("a.example") + b"x")), "a CNAME of 11 octets"),
        (reply(record(CNAME, b"\x01x")), "cut short"),
        (
            reply(record(CNAME, wire("a.example")), record(CNAME, wire("b.example"))),
            "two different CNAMEs",
        ),
        (reply(record(CNAME, wire(NAME))), "a loop of CNAMEs"),
        (
            reply(
                record(CNAME, wire("a.example")),
                record(CNAME, wire("B.example"), owner=wire("a.example")),
                record(CNAME, wire("A.example"), owner=wire("b.example")),
            ),
            "a loop of CNAMEs",
        ),
        (with_owner(b"\xc0\x21"), "pointer at 33 that leads to 33"),  # to itself
        (with_owner(b"\xff\xff"), "that leads to 16383"),
        (with_owner(b"\xc0\x00"), "that leads to 0"),  # into the header
        (with_owner(b"\x01a\xc0\x21"), "pointer at 35 that leads to 33"),  # its own start
        (with_owner(b"\x40a\0"), "unknown kind 1"),
        (with_owner(b"\x80a\0"), "unknown kind 2"),
        (with_owner(wire(".".join(["a" * 63] * 4))), "more than 255"),
    ],
)
def test_a_malformed_or_foreign_reply_is_refused_with_the_reason(
    message: bytes, reason: str
) -> None:
    with pytest.raises(DNSError, match=reason):
        read(message)


def test_a_name_of_255_octets_is_read() -> None:
    longest = ".".join(["a" * 63] * 3 + ["b" * 61])
    assert read(reply(a("198.51.100.1"), name=longest), name=longest).addresses


def ladder(rungs: int) -> tuple[bytes, bytes]:
    """A TXT record full of pointers, each to the one before it, and a pointer to the last."""
    first = len(reply()) + 11
    steps = (struct.pack("!H", 0xC000 | first + 2 * step) for step in range(rungs))
    top = struct.pack("!H", 0xC000 | first + 2 * rungs)
    return record(16, POINTER + b"".join(steps), owner=b"\0"), top


def test_a_long_ladder_of_pointers_is_refused() -> None:
    rungs, top = ladder(125)
    assert read(reply(rungs, a("198.51.100.1", owner=top))).addresses
    rungs, top = ladder(126)
    with pytest.raises(DNSError, match="more than 127 compression pointers"):
        read(reply(rungs, a("198.51.100.1", owner=top)))


def test_the_largest_hostile_reply_costs_little_time() -> None:
    rungs, top = ladder(125)
    message = reply(rungs, *[record(CNAME, top, owner=top)] * 265)
    assert MESSAGE_MAX - 300 < len(message) <= MESSAGE_MAX
    started = time.process_time()
    with pytest.raises(DNSError, match="loop of CNAMEs"):
        read(message)
    assert time.process_time() - started < 1


@quick
@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_dns_error(data: bytes) -> None:
    for message in (data, GOOD[:12] + data, reply()[:-4] + QUESTION + data):
        with suppress(DNSError):
            read(message)


RICH = reply(
    record(CNAME, b"\x04edge" + b"\xc0\x10", ttl=20),
    a("198.51.100.1", owner=b"\x04edge\xc0\x10"),
    a("127.0.0.1", owner=b"\x04EDGE\xc0\x10"),
    authority=(record(2, b"\x02ns\xc0\x10"),),
    additional=(record(OPT, b"", owner=b"\0", rclass=1232),),
)


def test_the_rich_sample_is_good() -> None:
    assert read(RICH).addresses == ("198.51.100.1",)


@quick
@given(
    st.lists(st.tuples(st.integers(0, len(RICH) - 1), st.integers(0, 255)), max_size=6), st.data()
)
def test_a_mutated_reply_raises_nothing_but_dns_error(
    changes: list[tuple[int, int]], data: st.DataObject
) -> None:
    message = bytearray(RICH)
    for at, octet in changes:
        message[at] = octet
    cut = data.draw(st.integers(0, len(message)))
    for mutated in (
        bytes(message),
        bytes(message[:cut]),
        bytes(message[:cut] + message[cut // 2 :]),
    ):
        try:
            found = read(mutated)
        except DNSError:
            continue
        assert all(unfit(ip_address(address)) is None for address in found.addresses)


@quick
@given(st.text(max_size=80))
def test_any_text_is_a_host_name_or_a_dns_error_of_one_printable_line(name: str) -> None:
    try:
        assert 1 <= len(labels(name)) <= 127
    except DNSError as error:
        if not str(error).isprintable():
            raise AssertionError(repr(error)) from error


@quick
@given(
    st.lists(st.text("aZ9_", min_size=1, max_size=20), min_size=1, max_size=8),
    st.sampled_from([A, AAAA]),
    st.integers(0, 0xFFFF),
)
def test_a_query_made_a_response_answers_itself(parts: list[str], qtype: int, ident: int) -> None:
    name = ".".join([*parts, "example"])
    message = bytearray(query(name, qtype, ident))
    message[2] |= 0x80
    assert answer(bytes(message), ident, name, qtype) == Answer(NOERROR, (), 0, False, ())
