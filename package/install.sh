#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Lays out what a package installs: `install.sh LIST ROOT`. A line of LIST is `MODE SOURCE TARGET`.
# SOURCE is relative to the top of the repository; one that ends with / is a folder, all of it.
# `python:MODULE` is what that module prints, `lmo:FILE.po` a translation as LuCI reads it. PYTHON
# names the interpreter for both. The OpenWrt recipes and build.py use this, so that a package is
# the same from either.
set -eu

list=$1 root=$2
top=$(cd "$(dirname "$0")/.." && pwd)

fail() {
	echo "$list:$number: $1" >&2
	exit 1
}

put() { # MODE FILE TARGET
	[ ! -e "$root$3" ] || fail "$3 is installed twice"
	install -D -m "$1" "$2" "$root$3"
}

print() { # COMMAND: what it prints becomes the target
	put "$mode" /dev/null "$target"
	# -B: nothing is left behind in the sources
	PYTHONPATH="$top/src" "${PYTHON:-python3}" -B "$@" > "$root$target" || fail "$* failed"
	[ -s "$root$target" ] || fail "$* printed nothing"
}

number=0
while read -r mode source target rest; do
	number=$((number + 1))
	case $mode in
	'' | '#'*) continue ;;
	0[4-7][0-7][0-7]) ;;
	*) fail "a mode has four octal digits, not \`$mode'" ;;
	esac
	if [ -z "$target" ] || [ -n "$rest" ]; then
		fail "a line is MODE SOURCE TARGET"
	fi
	case /$source/$target/ in
	*/../*) fail "no .. in a path" ;;
	esac
	case $target in
	/*) ;;
	*) fail "a target starts with /, not \`$target'" ;;
	esac
	case $source in
	python:*) print -m "${source#python:}" ;;
	lmo:*) print "$top/package/lmo.py" "$top/${source#lmo:}" ;;
	*/)
		[ "${target%/}" != "$target" ] || fail "the target of a folder ends with /"
		[ -d "$top/$source" ] || fail "there is no folder $source"
		(cd "$top/$source" && find . -name __pycache__ -prune -o -type f -print) |
			LC_ALL=C sort | while read -r file; do
			put "$mode" "$top/$source$file" "$target${file#./}"
		done
		;;
	*)
		[ -f "$top/$source" ] || fail "there is no file $source"
		put "$mode" "$top/$source" "$target"
		;;
	esac
done < "$list"
[ "$number" -gt 0 ] || fail "the list is empty"
