#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later

case "$PKG_NAME" in
portcullis)
	portcullisctl --version | grep -F "$PKG_VERSION"
	;;
*)
	echo "Untested package: $PKG_NAME" >&2
	exit 1
	;;
esac
