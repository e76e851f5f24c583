#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Zeroing and trimming give space back to the host, never show the backing
# file, and are fast or say so; discard=off keeps the space.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires qemu-img --version

cd "$tmp"
qemu-img create -q -f qcow2 base.qcow2 8M
qemu-io -c 'write -P 1 0 8M' base.qcow2 >/dev/null

# new OPTIONS: an overlay that is full
new ()
{
    rm -f disk.qcow2
    qemu-img create -q -f qcow2 -o "$1" -b base.qcow2 -F qcow2 disk.qcow2
    qemu-io -c 'write -P 2 0 8M' disk.qcow2 >/dev/null
}

# takes_less KIB, takes_more KIB: how much of the host it takes
takes_less ()
{
    [ "$(du -k disk.qcow2 | cut -f1)" -lt "$1" ] \
        || fail "the image takes $(du -k disk.qcow2)"
}
takes_more ()
{
    [ "$(du -k disk.qcow2 | cut -f1)" -gt "$1" ] \
        || fail "the image takes only $(du -k disk.qcow2)"
}

# Space cannot be given back where the host's file system has no holes.
requires fallocate -l 1M full
requires fallocate -p -l 1M full

prelude='
K, M = 1 << 10, 1 << 20
FAST = nbd.CMD_FLAG_FAST_ZERO
'

# Version 3: zero and trim are changes of metadata.
new compat=v3
start_nbdkit "$tmp/socket" disk.qcow2
nbd_client <<END
$prelude
assert h.can_fast_zero()
h.zero(2 * M, 0, FAST)
fails(errno.EOPNOTSUPP, h.zero, 300, 6 * M, FAST) # would have to write
assert h.pread(300, 6 * M) == b"\2" * 300
h.trim(2 * M, 2 * M)
h.zero(2 * M, 4 * M)
h.zero(300, 6 * M + 100)   # parts of a cluster
h.trim(64 * K, 6 * M + 300 * K)
assert h.pread(6 * M, 0) == bytes(6 * M)
assert h.pread(500, 6 * M) == b"\2" * 100 + bytes(300) + b"\2" * 100
h.flush()
END
stop_nbdkit
check_image disk.qcow2
takes_less 2600
qemu-io -c 'read -P 0 0 6M' -c 'read -P 2 7M 1M' disk.qcow2 | tee read
expect_failure grep -q 'failed' read

# NO_HOLE keeps the space.
new compat=v3
start_nbdkit "$tmp/socket" disk.qcow2
nbd_client <<END
$prelude
h.zero(8 * M, 0, nbd.CMD_FLAG_NO_HOLE)
assert h.pread(8 * M, 0) == bytes(8 * M)
h.flush()
END
stop_nbdkit
check_image disk.qcow2
takes_more 8000

# discard=off keeps it for good.
new compat=v3
start_nbdkit "$tmp/socket" disk.qcow2 discard=off
nbd_client <<END
$prelude
h.zero(4 * M, 0)
h.trim(4 * M, 4 * M)
assert h.pread(4 * M, 0) == bytes(4 * M)
h.flush()
END
stop_nbdkit
check_image disk.qcow2
takes_more 8000

# Version 2 has no zero clusters: over a backing file zeroes are data.
new compat=0.10
start_nbdkit "$tmp/socket" disk.qcow2
nbd_client <<END
$prelude
assert h.can_fast_zero()
fails(errno.EOPNOTSUPP, h.zero, M, 0, FAST)
assert h.pread(M, 0) == b"\2" * M
h.zero(M, 0)
assert h.pread(M, 0) == bytes(M)
h.trim(M, 2 * M)
assert b"\1" not in h.pread(M, 2 * M)
h.flush()
END
stop_nbdkit
check_image disk.qcow2
qemu-io -c 'read -P 0 0 1M' disk.qcow2 | tee read
expect_failure grep -q 'failed' read
