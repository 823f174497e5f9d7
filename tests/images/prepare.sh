#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Installs what is missing of the packages named, with the release's own package manager.
set -eu
mkdir -p /var/lock /var/run

if command -v apk > /dev/null && [ ! -e /usr/lib/opkg/status ]; then
	apk update
	exec apk add "$@"
fi

missing=
for package; do
	opkg list-installed "$package" | grep -q . || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
opkg update
# shellcheck disable=SC2086 # a list of words
opkg install $missing
