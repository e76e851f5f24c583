#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What a flush on any connection, or a write with FUA, covered is in the
# image when the server is killed; the image leaks at worst.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires qemu-img --version
requires qemu-io --version

cd "$tmp"
qemu-img create -q -f qcow2 base.qcow2 64M
qemu-io -c 'write -P 1 0 64M' base.qcow2 >/dev/null

# try SCRIPT [QEMU-IO-READ...]: what the script did before the kill is there
try ()
{
    rm -f disk.qcow2
    qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 disk.qcow2
    start_nbdkit "$tmp/socket" disk.qcow2
    hold_client <<END
assert h.can_multi_conn() and h.can_fua()
FUA = nbd.CMD_FLAG_FUA
K, M = 1 << 10, 1 << 20
$1
END
    kill_nbdkit
    release_client
    # 3: leaks only
    qemu-img check disk.qcow2 >/dev/null || [ $? -eq 3 ] \
        || fail "the image is corrupt"
    shift
    for read in "$@"; do
        qemu-io -r -c "read -P $read" disk.qcow2 | tee out
        expect_failure grep -q failed out
    done
}

# Flushed on another connection than written, with allocation and without.
try '
other, third = connect(), connect()
for i in range(32):
    h.pwrite(b"\2" * 100000, 2 * M * i)
other.pwrite(b"\3" * 10, 10)
third.flush()
' '2 0 10' '3 10 10' '2 20 99980' '2 40M 100000' '1 41M 1M'

# FUA covers at least its own request.
try '
h.pwrite(b"\2" * 4096, 5 * M + 100, FUA)
h.zero(M, 7 * M, FUA)
h.pwrite(b"\3" * 4096, 5 * M + 200, FUA)
h.trim(M, 10 * M, FUA)
' '2 5242980 100' '3 5243080 4096' '1 5M 100' '0 7M 1M' '0 10M 1M'
