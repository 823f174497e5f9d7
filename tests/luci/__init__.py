# SPDX-License-Identifier: GPL-2.0-or-later
"""LuCI's side of Portcullis: what is translated, and a stand-in for LuCI's browser run time."""
