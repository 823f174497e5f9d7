# SPDX-License-Identifier: GPL-2.0-or-later
"""python -m vm [pytest arguments] | python -m vm --exec PROGRAM [ARGUMENT…]

Runs the tests marked `vm`, on both lines of pyroute2, or a program, in the virtual machine.
VM_SECONDS bounds the time (default 1800). Ends with the exit code; 124 out of time, 125 no result.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys

from router.isolation import OWN_CLOCK

from .image import TOP, Missing
from .machine import run

_LINES = (".venv-old", ".venv")
_PASSED_ON = ("CI", "LANG", "LC_ALL", "PYTEST_ADDOPTS", "TERM")


def main(arguments: list[str]) -> int:
    if arguments and arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    # an exception, so that what was started is ended
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= {"HOME": "/root", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    environment |= {"PYTHONPATH": f"{TOP}/src:{TOP}/tests", OWN_CLOCK: "1"}
    script = [f"cd {shlex.quote(str(TOP))} || exit"]
    script += [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    if arguments and arguments[0] == "--exec":
        script += [f"exec {shlex.join(arguments[1:])}"]
    else:
        tests = shlex.join(["-m", "pytest", "-c", "src/pyproject.toml", "-m", "vm", *arguments])
        script += ["failed=0"]
        for line in _LINES:  # 5: none of these tests is for in here
            script += [
                f"{line}/bin/python {tests}; code=$?",
                "[ $code = 5 ] || failed=$((failed + code))",
            ]
        script += ["exit $((failed > 0))"]
    try:
        return run("\n".join(script) + "\n", float(os.environ.get("VM_SECONDS", "1800")))
    except Missing as missing:
        print(f"vm: {missing}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
