# SPDX-License-Identifier: GPL-2.0-or-later
"""The virtual router: a household, a router, an ISP, an internet and VPN servers in namespaces."""

from .topology import VirtualRouter

__all__ = ["VirtualRouter"]
