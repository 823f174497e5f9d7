# SPDX-License-Identifier: GPL-2.0-or-later
"""OpenWrt itself in a container: an image for each release, and a router that runs it."""
