# SPDX-License-Identifier: GPL-2.0-or-later
"""Who has which address around the virtual router (RFC 1918, RFC 4193 and RFC 5737/3849 only)."""

from __future__ import annotations

from dataclasses import dataclass

LAN4, LAN6, LAN_ULA = "192.168.1.0/24", "2001:db8:1::/64", "fd27:70fa:5c1d::/64"
GUEST4, GUEST6 = "192.168.2.0/24", "2001:db8:2::/64"
WAN4, WAN6 = "203.0.113.0/24", "2001:db8:ffff::/64"

WAN_DEVICE, LAN_BRIDGE, GUEST_BRIDGE, TUNNEL_DEVICE = "eth1", "br-lan", "br-guest", "pc0"
# 00-00-5E-00-53-xx are the documentation MAC addresses (RFC 7042); 02 makes them local ones.
WAN_MAC, LAN_A_MAC, LAN_B_MAC, GUEST_MAC = (f"02:00:5e:00:53:{n:02x}" for n in (2, 16, 17, 32))
ISP_MAC, BR_LAN_MAC, BR_GUEST_MAC = (f"02:00:5e:00:53:{n:02x}" for n in (1, 3, 4))


@dataclass(frozen=True)
class Host:
    """A name with an address of each family; `ula` is the second IPv6 address of LAN hosts."""

    name: str
    v4: str
    v6: str
    ula: str = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(a for a in (self.v4, self.v6, self.ula) if a)


ROUTER_LAN = Host("router", "192.168.1.1", "2001:db8:1::1", "fd27:70fa:5c1d::1")
ROUTER_GUEST = Host("router-guest", "192.168.2.1", "2001:db8:2::1")
ROUTER_WAN = Host("router-wan", "203.0.113.2", "2001:db8:ffff::2")
LAN_A = Host("lana", "192.168.1.10", "2001:db8:1::10", "fd27:70fa:5c1d::10")
LAN_B = Host("lanb", "192.168.1.11", "2001:db8:1::11", "fd27:70fa:5c1d::11")
GUEST = Host("guest", "192.168.2.10", "2001:db8:2::10")
ISP = Host("isp", "203.0.113.1", "2001:db8:ffff::1")
FRIENDLY = Host("friendly", "198.51.100.7", "2001:db8:64::7")
HOSTILE = Host("hostile", "198.51.100.66", "2001:db8:64::66")
PUBLIC_DNS = Host("public-dns", "198.51.100.53", "2001:db8:64::53")
VPN1 = Host("vpn1", "198.51.100.101", "2001:db8:64::101")
VPN2 = Host("vpn2", "198.51.100.102", "2001:db8:64::102")
TUNNEL1 = Host("tunnel1", "10.64.1.1", "fd64:1::1")
TUNNEL2 = Host("tunnel2", "10.64.2.1", "fd64:2::1")
CLIENT1 = Host("client1", "10.64.1.2", "fd64:1::2")
CLIENT2 = Host("client2", "10.64.2.2", "fd64:2::2")

CORE4, CORE6 = "198.51.100.1", "2001:db8:64::1"  # the ISP's leg in the internet's one network
INTERNET = (FRIENDLY, HOSTILE, PUBLIC_DNS)
VPN_SERVERS = (VPN1, VPN2)

DOMAIN = "example.net"
WIREGUARD_PORT = 51820
ECHO_PORTS = (7, 80, 123, 443, 853, 4500, 5001, 33434)
ODD_PROTOCOL = 253  # "use for experimentation and testing", RFC 3692
GROUP4, GROUP6 = "239.1.2.3", "ff1e::1:2:3"  # multicast that is routable beyond the link
