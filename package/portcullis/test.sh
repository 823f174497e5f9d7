#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Run by the packages feed's CI on an OpenWrt system with the package installed.

[ "$1" = portcullis ] || exit 0

set -e
export PYTHONPATH=/usr/lib/portcullis
# Every module loads with the libraries of this release.
python3 - << 'EOT'
import importlib
import pkgutil

import portcullis

for module in pkgutil.walk_packages(portcullis.__path__, "portcullis."):
    importlib.import_module(module.name)
    print(module.name)
EOT
# What the boot guard loads is what the daemon renders.
python3 -m portcullis.ruleset | cmp - /usr/share/portcullis/table.nft
