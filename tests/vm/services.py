# SPDX-License-Identifier: GPL-2.0-or-later
"""python -m vm.services STEP… : in the guest, the bus and the daemon as procd runs them.

Steps, done one after another: phase=NAME is said, hold=SECONDS, connect=PROFILE, await=STATE.
After the last the daemon is ended, as at shutdown; the block stays.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from router.appliance import SOURCE
from router.standin.bus import Bus

HOME = Path("/etc/boot/bus")
_PATIENCE = 120.0


class Services:
    def __init__(self) -> None:
        self._bus = Bus(HOME)
        self._bus.patience = _PATIENCE
        for config in Path("/etc/config").iterdir():
            shutil.copy(config, self._bus.config_dir)
        self._bus.start()
        environment = self._bus.environment()
        environment["PYTHONPATH"] = f"{SOURCE}{os.pathsep}{environment['PYTHONPATH']}"
        command = [sys.executable, "-m", "portcullis", "--ubus", str(self._bus.socket)]
        self._daemon = subprocess.Popen(command, env=environment)

    def do(self, step: str) -> None:
        kind, _, value = step.partition("=")
        if kind == "phase":
            print(f"phase {value}", flush=True)
        elif kind == "hold":
            time.sleep(float(value))
        elif kind == "connect":
            print("connect:", self._call("connect", profile=value), flush=True)
        elif kind == "await":
            self._await(value)
        else:
            raise ValueError(f"no such step: {step}")

    def end(self) -> None:
        self._daemon.terminate()
        self._daemon.wait()

    def _await(self, state: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while (found := self._state()) != state:
            assert self._daemon.poll() is None, "the daemon ended"
            assert time.monotonic() < deadline, f"{found or 'silent'} and not {state}"
            time.sleep(0.05)

    def _state(self) -> str:
        try:
            return str(self._call("status")["state"])
        except (OSError, RuntimeError):
            return ""  # it is not on the bus yet

    def _call(self, method: str, **arguments: Any) -> dict[str, Any]:
        (answer,) = self._bus.call("portcullis", method, arguments, timeout=60_000)
        return answer


def main(steps: list[str]) -> None:
    services = Services()
    for step in steps:
        services.do(step)
    services.end()


if __name__ == "__main__":
    main(sys.argv[1:])
