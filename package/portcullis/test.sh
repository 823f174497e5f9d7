#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Run by the packages feed's CI on an OpenWrt system with the package installed.

[ "$1" = portcullis ] || exit 0

set -e
export PYTHONPATH=/usr/lib/portcullis
# Every module loads with the libraries of this release.
for module in /usr/lib/portcullis/portcullis/*.py*; do
	module=${module##*/}
	python3 -c "import portcullis.${module%.py*}"
done
# What the boot guard loads is what the daemon renders.
python3 -m portcullis.ruleset | cmp - /usr/share/portcullis/table.nft
