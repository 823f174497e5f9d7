# SPDX-License-Identifier: GPL-2.0-or-later
"""A ubus for tests: a broker, rpcd, procd and netifd beside it, and python-ubus's module.

    with running(directory, interfaces=dump) as bus:
        subprocess.Popen([sys.executable, "daemon.py"], env=bus.environment())

With PORTCULLIS_REAL_UBUS=1 in the environment the real ubusd, rpcd and python-ubus do the work.
"""

from .bus import MODULE_DIR, Bus, real_wanted, running

__all__ = ["MODULE_DIR", "Bus", "real_wanted", "running"]
