# SPDX-License-Identifier: GPL-2.0-or-later
"""Every test runs in private namespaces: nothing is left behind, and no root is needed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator, Iterator

import pytest
from router.appliance import Appliance
from router.isolation import is_isolated, isolate
from router.namespace import Namespace


def pytest_configure(config: pytest.Config) -> None:
    if not is_isolated():
        capture = config.pluginmanager.getplugin("capturemanager")
        capture.stop_global_capturing()
        isolate()


@pytest.fixture
def appliance() -> Iterator[Appliance]:
    """A router with Portcullis running on it, freshly installed, two profiles in its folder."""
    with Appliance() as found:
        found.start()
        yield found


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """A network namespace of the test's own; the test runs inside it."""
    found = Namespace(f"test-{os.getpid()}")
    subprocess.run(["ip", "netns", "add", found.name], check=True)
    try:
        with found.inside():
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield found
    finally:
        subprocess.run(["ip", "netns", "del", found.name], check=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    for found in getattr(item, "funcargs", {}).values():
        if report.failed and isinstance(found, Appliance) and found.log.exists():
            report.sections.append(("the daemon's log", found.log.read_text()[-6000:]))
    return report
