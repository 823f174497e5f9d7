#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=dash
# The guest's first program, in the initramfs: modules, then the host's files under an overlay.
set -e
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /host /over /root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
# shellcheck disable=SC2046 # a list of words
modprobe -a $(cat /modules)

mount -t virtiofs -o ro host /host
mount -t tmpfs -o mode=0755 tmpfs /over
mkdir /over/upper /over/work
mount -t overlay -o lowerdir=/host,upperdir=/over/upper,workdir=/over/work overlay /root
for moved in proc sys dev; do
	mount --move "/$moved" "/root/$moved"
done
cd /root
mount -t tmpfs -o mode=0755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir -p dev/pts dev/shm run/vm
mount -t devpts devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
cp /command.sh /inside.sh /bin/busybox run/vm
hostname vm
ip link set lo up
exec switch_root /root /run/vm/busybox sh /run/vm/inside.sh
