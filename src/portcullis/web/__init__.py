# SPDX-License-Identifier: GPL-2.0-or-later
"""The web page's process: no privileges, no rights of its own (architecture.md, two doors)."""
