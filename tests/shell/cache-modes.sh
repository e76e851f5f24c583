#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# cache= of the plugin: only the image itself goes past the host's cache, in
# each mode it reads and writes right, and what it does not know is refused.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires qemu-img --version

cd "$tmp"
qemu-img create -q -f qcow2 base.qcow2 1M
qemu-io -c 'write -q -P 1 0 1M' base.qcow2
for mode in writeback default writethrough none directsync unsafe; do
    rm -f disk.qcow2
    qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 disk.qcow2
    want=0
    [[ "$mode" != none && "$mode" != directsync ]] || want=1
    start_nbdkit "$tmp/socket" disk.qcow2 cache="$mode"
    # Descriptors with O_DIRECT, which is 040000, are counted.
    nbd_client <<END
h.pwrite(b"x" * 700, 1234)
h.zero(65536 * 2, 65536 * 3 + 100)
h.flush()
assert h.pread(3000, 1000) == (b"\x01" * 234 + b"x" * 700
                               + b"\x01" * 2066)
import os
nr = 0
for fd in os.listdir("/proc/$nbdkit_pid/fdinfo"):
    for line in open("/proc/$nbdkit_pid/fdinfo/" + fd):
        if line.startswith("flags:") and int(line.split()[1], 8) & 0o40000:
            nr += 1
assert nr == $want, nr
END
    stop_nbdkit
    check_image disk.qcow2
    qemu-io -r -c 'read -q -P 120 1234 700' \
        -c "read -q -P 0 $((65536 * 3 + 100)) 131072" \
        -c 'read -q -P 1 512k 512k' disk.qcow2 >out
    [ ! -s out ] || fail "mode $mode: $(cat out)"
done
if nbdkit_qcow2 -U - disk.qcow2 cache=fast --run true 2>err; then
    fail "cache=fast was taken"
fi
grep -q "cache=fast: use writeback, none" err || fail "$(cat err)"
