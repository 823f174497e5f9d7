# SPDX-License-Identifier: GPL-2.0-or-later
"""What the daemon loads of pyroute2 and with it."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

_IMPORTS = """
import sys
import portcullis.__main__
print({"asyncio", "ssl", "_hashlib", "unittest"} & set(sys.modules))
import unittest.mock
"""


@pytest.mark.pyroute2
@pytest.mark.skipif(not find_spec("pyroute2.lab"), reason="pyroute2 0.9 cannot do without asyncio")
def test_the_daemon_carries_no_library_it_does_not_use() -> None:
    command = [sys.executable, "-S", "-c", f"import sys\nsys.path[:] = {sys.path!r}\n{_IMPORTS}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("set()\n", "")
