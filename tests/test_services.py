# SPDX-License-Identifier: GPL-2.0-or-later
"""The service as procd is told of it: who runs, as whom, and what restarts it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from router.rootfs import SHELLS, RootFilesystem

SERVICE = "/etc/init.d/portcullis"
CODE = ("portcullis/__init__.py", "portcullis/core.pyc", "portcullis/web/server.pyc")
USER = "portcullis:x:6443:6443:portcullis:/var/run/portcullis:/bin/false\n"


@pytest.fixture(params=SHELLS)
def root(request: pytest.FixtureRequest) -> Iterator[RootFilesystem]:
    with RootFilesystem(request.param) as found:
        # /usr/lib is the host's; what is installed lies over it.
        found.program("stand-in/find", "#!/bin/sh\nprintf '%s\\n' " + " ".join(CODE) + "\n")
        with found.path("etc/passwd").open("a") as file:
            file.write(USER)
        yield found


def instances(root: RootFilesystem) -> dict[str, dict[str, str]]:
    """What procd was told of each instance, by parameter."""
    found: dict[str, dict[str, str]] = {}
    for line in root.told("procd").splitlines():
        word, _, rest = line.partition(" ")
        if word == "open_instance":
            current = found[rest] = {}
        elif word == "set_param":
            key, _, value = rest.partition(" ")
            current[key] = value
    return found
