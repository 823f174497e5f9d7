# SPDX-License-Identifier: GPL-2.0-or-later
"""The web page: `python3 -m portcullis.web`, run by procd as the user `portcullis`."""

from __future__ import annotations

import argparse
import ctypes
import logging
import signal
import ssl
import sys
from pathlib import Path

from portcullis import __version__, bus
from portcullis.bus import BusError
from portcullis.logs import log_to_procd
from portcullis.loop import Loop
from portcullis.rights import OBJECT, PORT
from portcullis.web import assets, tls
from portcullis.web.app import Pages
from portcullis.web.bridge import Bridge
from portcullis.web.listeners import Listeners
from portcullis.web.live import Live
from portcullis.web.server import Server

log = logging.getLogger("portcullis.web")
_LOOK_EVERY, _LOOK_AGAIN = 2.0, 1.0
_NO_NEW_PRIVS = 38  # prctl(2): no program started from here gains a right, setuid or not
_REST = 0.5  # nothing but this page waits with us
_STATE_EVENT = "portcullis.state"


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="portcullis.web", description="the web page")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--ubus", default=bus.SOCKET, metavar="SOCKET", help="ubusd's socket")
    parser.add_argument("--ui", type=Path, default=assets.FOLDER, help="what browsers load")
    parser.add_argument("--name", action="append", default=[], help="a host name to answer to")
    return parser.parse_args(argv)


class Web:
    """The process: the loop speaks ubus and accepts, threads answer browsers."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.loop = Loop(lambda error: log.error("internal error", exc_info=error))
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.on_signal(number, self.loop.stop)
        self.loop.on_signal(signal.SIGCHLD, lambda: None)  # or python-ubus takes it over
        self.bus = bus.Bus(
            self.loop,
            options.ubus,
            objects=lambda _: {},
            listeners={_STATE_EVENT: lambda _: self.live.refresh()},
            on_up=lambda: self._up(),
            rest=_REST,
        )
        bridge = Bridge(self.loop, self.bus)
        self.live = Live(self.loop, self.bus, bridge)
        pages = Pages(bridge, self.live, assets.load(options.ui), tuple(options.name))
        self.server = Server(pages)
        self._listeners = Listeners(self.loop, self.server.accept)
        self._stamp: str | None = None
        self._said = ""

    def run(self) -> None:
        self.bus.connect()
        self._look()
        self.loop.run()

    def _up(self) -> None:
        self._follow()
        self.live.refresh()

    def _look(self) -> None:
        """Networks come and go, and uhttpd may get another certificate."""
        try:
            self._follow()
        finally:  # one look that fails is not the last
            self.loop.after(_LOOK_AGAIN if self._said else _LOOK_EVERY, self._look)

    def _follow(self) -> None:
        problem = ""
        try:
            found = self.bus.call(OBJECT, "listen", {})
            if not found.get("ok"):
                raise BusError(str(found.get("reason")))
            if (stamp := found.get("certificate", "")) != self._stamp:
                problem = self._use(self.bus.call(OBJECT, "certificate", {}))
                self._stamp = None if problem else stamp
        except BusError as error:
            self._say(f"waiting for the core: {error}")
            return  # where we listen already, we go on
        self._say(problem)
        self._listeners.follow(found.get("devices", ()), found.get("port", PORT))

    def _use(self, found: dict[str, str]) -> str:
        """What may pass and is to be tried again, if anything: until then all stays as it is."""
        pair = (found.get("certificate", ""), found.get("key", ""))
        if not pair[0]:
            reason = found.get("reason", "")
            if found.get("code") != "no_certificate":
                return f"the router's certificate cannot be had: {reason}"
            log.warning("no TLS, plain HTTP: %s", reason)
            self.server.tls = None
            return ""
        try:
            self.server.tls = tls.context(*map(bytes.fromhex, pair))
            log.info("TLS with the router's certificate")
        except (ssl.SSLError, ValueError) as error:
            log.error("no TLS, plain HTTP: the router's certificate cannot be used: %s", error)
            self.server.tls = None
        except OSError as error:
            return f"the router's certificate cannot be loaded: {error}"
        return ""

    def _say(self, problem: str) -> None:
        if problem and problem != self._said:
            log.warning("%s", problem)
        self._said = problem


def main(argv: list[str] | None = None) -> int:
    options = _arguments(sys.argv[1:] if argv is None else argv)
    log_to_procd("portcullis-web")
    log.setLevel(logging.INFO)
    # procd does this in its jail alone.
    ctypes.CDLL(None).prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    try:
        web = Web(options)
    except OSError as error:
        log.error("the page cannot be loaded: %s", error)
        return 1
    web.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
