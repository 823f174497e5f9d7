#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later

case "$PKG_NAME" in
luci-app-portcullis)
	# No executable in it.
	exit 0
	;;
*)
	echo "Untested package: $PKG_NAME" >&2
	exit 1
	;;
esac
