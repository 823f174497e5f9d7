# SPDX-License-Identifier: GPL-2.0-or-later
"""Routes, asked of the kernel."""

from __future__ import annotations

from socket import AF_INET, AF_INET6, if_nametoindex

import pytest
from router.namespace import Namespace

from portcullis.netlink import default_routes, routes

pytestmark = pytest.mark.pyroute2
_LINK = "link add br0 type bridge\naddr add 192.0.2.1/24 dev br0\nlink set br0 up\n"


def test_a_table_is_read_without_what_is_in_others(namespace: Namespace) -> None:
    namespace.ip(_LINK + "".join(f"route add 10.{n}.0.0/16 dev br0\n" for n in range(200)))
    namespace.ip("route add 198.51.100.0/24 dev br0 table 706\nroute add ::/0 dev br0 table 706\n")
    found = [route.get_attr("RTA_DST") for route in routes(AF_INET, 706)]
    assert found == ["198.51.100.0"]
    assert [route["dst_len"] for route in routes(AF_INET6, 706)] == [0]


@pytest.mark.parametrize("family", [AF_INET, AF_INET6])
def test_a_table_that_never_was_is_an_empty_one(namespace: Namespace, family: int) -> None:
    assert routes(family, 4711) == []


@pytest.mark.parametrize(
    ("family", "route"),
    [
        (AF_INET, "default via 192.0.2.2 metric 7"),
        (AF_INET, "128.0.0.0/1 dev br0"),
        (AF_INET, "default nexthop via 192.0.2.2 nexthop via 192.0.2.3"),
        (AF_INET6, "::/0 dev br0"),
        (AF_INET6, "8000::/1 dev br0"),
    ],
)
def test_a_default_route_is_whatever_leads_to_half_of_the_internet(
    namespace: Namespace, family: int, route: str
) -> None:
    namespace.ip(_LINK + "route add 10.0.0.0/8 dev br0\nroute add unreachable 64.0.0.0/2\n")
    assert default_routes(family) == set()
    namespace.ip(f"route add {route}\n")
    assert default_routes(family) == {if_nametoindex("br0")}
