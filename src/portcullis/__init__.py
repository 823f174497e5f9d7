# SPDX-License-Identifier: GPL-2.0-or-later
"""Portcullis: an always-on VPN kill switch for a whole house."""

__version__ = "0.1.0"
