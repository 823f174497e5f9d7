# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon: `python3 -m portcullis`, run and supervised by procd."""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import signal
import sys
from pathlib import Path

from portcullis import __version__, api, bus, hotplug
from portcullis.alarms import Alarm
from portcullis.core import Core
from portcullis.door import CERTIFICATE, KEY, Door
from portcullis.logs import LastLines, log_to_procd
from portcullis.loop import Loop
from portcullis.paths import Paths
from portcullis.states import State
from portcullis.watch import Watch
from portcullis.wireguard import WireGuard

log = logging.getLogger("portcullis")


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="portcullis", description="VPN kill switch: the core")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--ubus", default=bus.SOCKET, metavar="SOCKET", help="ubusd's socket")
    parser.add_argument("--home", type=Path, default=Paths().home, help="intent, profiles, caches")
    parser.add_argument("--run", type=Path, default=Paths().run, help="what a reboot may forget")
    parser.add_argument("--share", type=Path, default=Paths().share, help="what came with it")
    parser.add_argument("--hotplug", default=hotplug.PROGRAM, help="called at every transition")
    parser.add_argument("--certificate", type=Path, default=CERTIFICATE, help="the web page's")
    parser.add_argument("--key", type=Path, default=KEY, help="the certificate's")
    parser.add_argument("--debug", action="store_true", help="log every detail")
    return parser.parse_args(argv)


def _alone(run: Path) -> bool:
    """Whether this is the only daemon; holds the lock as long as the process lives."""
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def main(argv: list[str] | None = None) -> int:
    options = _arguments(sys.argv[1:] if argv is None else argv)
    log_to_procd("portcullis")
    # Ours alone: libraries log whole messages, keys included.
    log.setLevel(logging.DEBUG if options.debug else logging.INFO)
    lines = LastLines()
    log.addHandler(lines)
    if not _alone(options.run):
        log.error("another portcullis runs already: two would undo each other's work")
        return 1
    loop = Loop(lambda error: core.recover(error))
    # Before the bus: python-ubus takes over what is at its default, and swallows SIGTERM.
    loop.on_signal(signal.SIGTERM, loop.stop)
    loop.on_signal(signal.SIGINT, loop.stop)
    driver = WireGuard(lambda descriptor: loop.add(descriptor, reap), loop.remove)
    loop.on_signal(signal.SIGCHLD, driver.reap)

    def reap() -> None:
        driver.reap()
        core.tunnel.check()

    def tell(old: State, new: State, reason: str) -> None:
        scripts.call({"STATE": new.value, "OLD_STATE": old.value, "REASON": reason})
        connection.send(api.STATE_EVENT, api.transition_event(core, old.value, reason))

    def warn(alarm: Alarm) -> None:
        connection.send(api.ALARM_EVENT, api.alarm_event(alarm))

    scripts = hotplug.Hotplug(loop, options.hotplug)
    connection = bus.Bus(
        loop,
        options.ubus,
        objects=lambda ubus: api.objects(core, door, lines, ubus),
        listeners={"network.interface": lambda event: core.network_changed(event)},
        on_up=lambda: core.bus_up(),
    )
    core = Core(
        loop, connection, driver, Paths(options.home, options.run, options.share), tell, warn
    )
    door = Door(core, options.certificate, options.key)
    watch = Watch(loop, core.kernel_changed)
    log.info("version %s starts", __version__)
    core.start()
    loop.run()
    core.shutdown()
    scripts.close()
    watch.close()
    log.info("ends; the block stays as it is")
    return 0


if __name__ == "__main__":
    sys.exit(main())
