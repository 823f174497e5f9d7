# SPDX-License-Identifier: GPL-2.0-or-later
"""What the core's two doors and the web process agree on; light, as the latter loads it too."""

from __future__ import annotations

OBJECT = "portcullis.web"
PORT = 8443
"""The page's, where the owner has set no other."""

READ = {
    "status": "status",
    "get": "get",
    "profiles": "profiles",
    "find_profiles": "profiles",
    "events": "events",
    "traffic": "events",
    "devices": "devices",
    "log": "log",
    "selftest_result": "selftest_result",
}
"""What a visitor may look at → the function of rpcd's access list that lets him."""

QUESTIONS: dict[str, tuple[str, ...]] = {"find_profiles": ("search",)}
"""What he may ask while looking, as text; the others take nothing."""

WRITE: dict[str, tuple[str, ...]] = {
    "connect": ("profile",),
    "disconnect": (),
    "set": ("name", "value"),
    "reload": (),
    "set_device": ("mac", "access"),
    "selftest": (),
    "import_profile": ("name", "text"),
    "rename_profile": ("name", "new_name"),
    "delete_profile": ("name",),
}
"""What changes something → its arguments, all of them text."""
