#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# QEMU's own NBD client works with us: it copies images in and out, checks
# them, and finds the snapshot exports.

. ./functions.sh
requires qemu-img --version
requires qemu-io --version

cd "$tmp"
(seq 1 300000; head -c 3000000 /dev/urandom) >content.raw
truncate -s 16M content.raw
qemu-img create -q -f qcow2 disk.qcow2 16M

start_nbdkit "$tmp/socket" disk.qcow2
qemu-img convert -n -f raw -O raw -W content.raw "$uri"
qemu-img compare -f raw -F raw content.raw "$uri"
qemu-io -f raw -c 'write -P 5 15M 64k' -c 'write -z 0 64k' \
        -c 'write -zu 1M 64k' -c 'discard 2M 64k' -c 'write -f -P 6 3M 512' \
        -c flush -c 'read -P 5 15M 64k' -c 'read -P 0 0 64k' \
        -c 'read -P 0 1M 64k' -c 'read -P 6 3M 512' "$uri" >out
cat out
expect_failure grep -q failed out
qemu-img bench -f raw -w -c 200 -d 16 -s 4096 --flush-interval=50 \
         -o 8M "$uri"
qemu-img convert -f raw -O qcow2 "$uri" copy.qcow2
stop_nbdkit

check_image disk.qcow2
qemu-img compare disk.qcow2 copy.qcow2
qemu-img snapshot -c snap disk.qcow2
start_nbdkit "$tmp/socket" disk.qcow2
qemu-img info "nbd+unix:///%40snap?socket=$tmp/socket" | tee info
grep -q 'virtual size: 16 MiB' info
