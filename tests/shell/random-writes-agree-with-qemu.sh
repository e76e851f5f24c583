#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What random writes over NBD leave behind is for QEMU a clean image with the
# same contents, whatever the version, cluster size and backing file.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires qemu-img --version

cd "$tmp"
qemu-img create -q -f qcow2 base.qcow2 8M
qemu-io -c 'write -P 1 0 3M' -c 'write -z 5M 64k' base.qcow2 >/dev/null
head -c 5000000 /dev/urandom >base.raw

# try OPTIONS [-b BASE -F FORMAT]
try ()
{
    echo "--- $*"
    rm -f disk.qcow2
    qemu-img create -q -f qcow2 -o "$@" disk.qcow2 8M
    qemu-img convert -O raw disk.qcow2 model.raw
    start_nbdkit "$tmp/socket" disk.qcow2
    model=model.raw count=500 nbd_client <"$srcdir/shell/random-writes.py"
    stop_nbdkit
    check_image disk.qcow2
    qemu-img compare -f qcow2 -F raw disk.qcow2 model.raw
}

try compat=v3
try compat=v3,cluster_size=512
try compat=v3,cluster_size=2M,refcount_bits=1
try compat=0.10 -b base.qcow2 -F qcow2
try compat=v3 -b base.qcow2 -F qcow2
try compat=v3,cluster_size=4k,refcount_bits=64 -b base.raw -F raw
