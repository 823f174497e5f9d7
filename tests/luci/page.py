# SPDX-License-Identifier: GPL-2.0-or-later
"""A page of LuCI in a real browser, over the stand-in for its run time. No network is used: what
the browser asks for is answered here, and calls of `luci.portcullis` go to `answer`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from luci import contract

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]
SCREENSHOTS = TOP / "tests/.screenshots"
ORIGIN = "http://router.test"
OVERVIEW = "view.portcullis.overview"
INCLUDE = "view.status.include.15_portcullis"
PATIENCE_MS = 30_000

Answer = Callable[[str, dict[str, str]], dict[str, Any]]


class Unreachable(Exception):
    """Raised by `answer` for a router that does not answer at all."""


@contextmanager
def browser() -> Iterator[Any]:
    """Debian's headless Chromium, driven by playwright."""
    from playwright.sync_api import sync_playwright  # the old environment does without

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path="/usr/bin/chromium-headless-shell", args=["--no-sandbox"]
        )
        yield chromium
        chromium.close()


class Page:
    """One view, opened. `read_only`: as a login without the right to write sees it."""

    def __init__(
        self,
        chromium: Any,
        answer: Answer,
        *,
        view: str = OVERVIEW,
        read_only: bool = False,
        translations: dict[str, str] | None = None,
        width: int = 1000,
    ) -> None:
        self.answer = answer
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.errors: list[str] = []
        self._rights = [
            *contract.granted("read"),
            *([] if read_only else contract.granted("write")),
        ]
        self._environment = {
            "page": view,
            "permission": not read_only,
            "translations": translations or {},
        }
        self._arguments = contract.plugin_methods()
        self.context = chromium.new_context(viewport={"width": width, "height": 800})
        self.context.route("**/*", self._serve)
        self.tab = self.context.new_page()
        self.tab.set_default_timeout(PATIENCE_MS)
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("dialog", lambda dialog: self.errors.append(f"dialog: {dialog.message}"))

    def __enter__(self) -> Page:
        self.tab.clock.install()
        self.tab.goto(f"{ORIGIN}/")
        self.tab.evaluate("ready")
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()
        assert not self.errors, self.errors

    def _serve(self, route: Any) -> None:
        path = route.request.url.removeprefix(ORIGIN).partition("?")[0]
        if path == "/ubus":
            self._serve_call(route)
        elif path == "/environment.js":
            route.fulfill(
                content_type="text/javascript",
                body=f"window.standin = {json.dumps(self._environment)};",
            )
        elif path == "/":
            route.fulfill(path=HERE / "page.html")
        elif path == "/standin.js":
            route.fulfill(path=HERE / "standin.js")
        elif path.startswith("/resources/"):
            route.fulfill(path=TOP / "www/luci" / path.removeprefix("/resources/"))
        else:
            route.fulfill(status=404)

    def _serve_call(self, route: Any) -> None:
        _, name, method, arguments = json.loads(route.request.post_data)["params"]
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": 1}
        if name != contract.OBJECT or method not in self._rights:
            reply["error"] = {"code": -32002, "message": "Access denied"}
        elif tuple(arguments) != self._arguments[method] or not all(
            isinstance(value, str) for value in arguments.values()
        ):
            reply["result"] = [2]  # rpcd's: invalid argument
        else:
            self.calls.append((method, arguments))
            try:
                reply["result"] = [0, self.answer(method, arguments)]
            except Unreachable:
                route.abort()
                return
        route.fulfill(content_type="application/json", body=json.dumps(reply))

    # What a person sees and does

    @property
    def text(self) -> str:
        return str(self.tab.inner_text("body"))

    @property
    def headline(self) -> str:
        return str(self.tab.inner_text("#view .alert-message h4 >> nth=0"))

    @property
    def colour(self) -> str:
        classes = self.tab.get_attribute("#view .alert-message >> nth=0", "class")
        return str(classes).split()[-1]

    def until(self, text: str) -> None:
        """Wait until `text` is to be seen."""
        self.tab.get_by_text(text).first.wait_for()

    def pass_time(self, seconds: float) -> None:
        """Let the browser's clock run ahead, timers included."""
        self.tab.clock.run_for(seconds * 1000)

    def settle(self) -> None:
        """Wait until no command is being carried out."""
        self.tab.wait_for_function("!document.querySelector('.spinning')")

    def click(self, label: str) -> None:
        self.tab.get_by_role("button", name=label, exact=True).last.click()

    def choose(self, control: str, value: str) -> None:
        self.tab.select_option(control, value)

    def called(self, method: str) -> list[dict[str, str]]:
        return [arguments for name, arguments in self.calls if name == method]

    def screenshot(self, name: str) -> None:
        SCREENSHOTS.mkdir(exist_ok=True)
        self.tab.screenshot(path=SCREENSHOTS / f"luci-{name}.png", full_page=True)
