#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The same tests with a newer userland: nft 1.1, which has tables that are owned and persist, and
# Python 3.13 or later. A Debian of its own, unpacked into .newer/ of the checkout.
#   tests/newer.sh [trixie|sid] [pytest arguments]
set -eu

here=$(cd "$(dirname "$0")" && pwd)
top=$(dirname "$here")
suite=${1:-trixie}
[ $# = 0 ] || shift
root=$top/.newer/$suite
PATH="$PATH:/usr/sbin:/sbin"

[ "$(id -u)" = 0 ] || {
	echo "tests/newer.sh: root is missing: the other Debian is run in a chroot" >&2
	exit 1
}

libraries="bottle|execnet|hypothesis|iniconfig|packaging|pluggy|pygments|pyroute2|pytest|pytest-xdist"
libraries="$libraries|sortedcontainers"

# Only unpacked, and not set up: nothing of it runs as a service.
unpack() {
	command -v mmdebstrap > /dev/null || {
		echo "installing: mmdebstrap"
		apt-get update -qq
		DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends mmdebstrap > /dev/null
	}
	echo "unpacking: $suite"
	rm -rf "$root"
	mkdir -p "$top/.newer"
	programs=python3,nftables,iproute2,iputils-ping,bind9-dnsutils,busybox,dnsmasq-base,mount
	# A mirror that lags behind is good enough for tests; it is signed all the same.
	mmdebstrap --quiet --aptopt='Acquire::Check-Valid-Until "false"' --variant=extract "$suite" "$root" http://deb.debian.org/debian \
		--include="?essential" --include="$programs,netbase,openssl,wireguard-go,wireguard-tools"
	cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
	cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
	rm -rf "$root/var/run"
	ln -s /run "$root/var/run"
	mkdir -p "$root/opt" "$root/srv/portcullis"
	python=$(readlink "$root/usr/bin/python3")
	# The same libraries, on both lines of pyroute2; by our pip, without what is built for a machine.
	for line in "" -old; do
		pyroute2=$("$top/.venv$line/bin/pip" freeze | grep '^pyroute2==')
		"$top/.venv/bin/pip" freeze | sed "s/^pyroute2==.*/$pyroute2/" | grep -iE "^($libraries)==" \
			> "$root/opt/requirements.txt"
		chroot "$root" python3 -m venv --without-pip "/opt/venv$line"
		"$top/.venv/bin/pip" install -qq --no-deps --only-binary=:all: \
			--python-version "${python#python}" --requirement "$root/opt/requirements.txt" \
			--target "$root/opt/venv$line/lib/$python/site-packages"
	done
	touch "$root/ready"
}

[ -e "$root/ready" ] || unpack

# As the commit says; the other Debian has no git.
commit=$(git -C "$top" rev-parse --short=7 HEAD 2> /dev/null || echo 1)
: "${SEED:=$((0x$commit))}"

# shellcheck disable=SC2016 # for the shell inside
inside='
mount --bind "$0" "$0"
mount --bind "$1" "$0/srv/portcullis"
mount -t proc proc "$0/proc"
mount --rbind /sys "$0/sys"
mount --rbind /dev "$0/dev"
mount -t tmpfs tmpfs "$0/run"
mount -t tmpfs -o mode=1777 tmpfs "$0/tmp"
root=$0
seed=$2
shift 2
exec chroot "$root" /usr/bin/env -i HOME=/root SEED="$seed" TERM="${TERM:-dumb}" ${CI:+CI="$CI"} \
	PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONPATH=/srv/portcullis/src:/srv/portcullis/tests \
	PYTHONDONTWRITEBYTECODE=1 "$@"'
run() {
	unshare --mount --propagation private sh -ec "$inside" "$root" "$top" "$SEED" \
		sh -c 'cd /srv/portcullis && exec "$@"' sh "$@"
}

run sh -c 'nft --version; python3 --version; uname -r'
# Browsers and the building of packages are no matter of this.
set -- -c src/pyproject.toml --rootdir . "$@"
for left_out in luci luci_files openwrt package pages sdk; do
	set -- "$@" "--ignore=tests/test_$left_out.py"
done
failed=0
run /opt/venv-old/bin/python -m pytest -q -m 'pyroute2 and not vm' "$@" || [ $? = 5 ] || failed=1
run /opt/venv/bin/python -m pytest -n 2 "$@" || failed=1
exit $failed
