# SPDX-License-Identifier: GPL-2.0-or-later
"""A real browser on a host of the virtual router."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .namespace import Namespace

SCREENSHOTS = Path(__file__).resolve().parents[1] / ".screenshots"
_FLAGS = (
    *("--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"),
    *("--disable-component-update", "--no-first-run", "--disable-gpu"),
)
PHONE, DESKTOP = (390, 844), (1280, 900)


@contextmanager
def browser(host: Namespace) -> Iterator[Any]:
    """Debian's headless Chromium, in the host's network namespace."""
    from playwright.sync_api import sync_playwright

    program = next((p for p in map(shutil.which, _PROGRAMS) if p), None)
    if program is None:
        raise RuntimeError("there is no chromium-headless-shell (tests/setup.sh installs it)")
    with host.inside():  # what is started here stays there
        playwright = sync_playwright().start()
        try:
            found = playwright.chromium.launch(executable_path=program, args=list(_FLAGS))
            try:
                yield found
            finally:
                found.close()
        finally:
            playwright.stop()


def visit(page: Any, address: str, tries: int = 8) -> None:
    """Go to a page. Chromium gives up what it has begun when its host's addresses change, and on
    a host that was made a moment ago they still may: a person would try again."""
    for left in reversed(range(tries)):
        try:
            page.goto(address)
            return
        except Exception as error:  # playwright's, which is not imported before it is needed
            if "ERR_NETWORK_CHANGED" not in str(error) or not left:
                raise


_PROGRAMS = ("chromium-headless-shell", "chromium")


def shoot(page: Any, name: str) -> None:
    """Keep a picture of the whole page, for people to look at."""
    SCREENSHOTS.mkdir(exist_ok=True)
    with suppress(TimeoutError):
        page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def complaints(page: Any) -> list[str]:
    """What axe-core finds wrong with the page as it is."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{p['id']}: {p['help']} at {[n['target'] for n in p['nodes']]}" for p in found]
