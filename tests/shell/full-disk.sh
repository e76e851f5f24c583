#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# When the host's file system is full, writes fail with ENOSPC, what was
# flushed stays, and after space was made the same server goes on.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires qemu-img --version
requires mount --version

# A small file system needs a name space of our own.
if [ -z "${IN_NAMESPACE:-}" ]; then
    root=-r
    if [ "$(id -u)" -eq 0 ]; then
        root=
    fi
    requires unshare $root -m mount -t tmpfs none "$tmp"
    unshare $root -m env IN_NAMESPACE=1 bash "$0"
    exit
fi
mkdir "$tmp/small"
mount -t tmpfs -o size=8m none "$tmp/small"
cleanup_fn umount -l "$tmp/small"
cd "$tmp/small"

qemu-img create -q -f qcow2 disk.qcow2 64M
head -c 3000000 /dev/zero >ballast
start_nbdkit "$tmp/socket" disk.qcow2 2>"$tmp/log"
nbd_client <<'END'
M = 1 << 20
h.pwrite(b"\1" * M, 0)
h.flush()
full = None
for at in range(M, 32 * M, 65536):
    try:
        h.pwrite(b"\2" * 65536, at)
    except nbd.Error as e:
        assert e.errnum == errno.ENOSPC, e
        full = at
        break
assert full
assert h.pread(M, 0) == b"\1" * M
h.pwrite(b"\3" * M, 0) # in place

# Space to go on.
os.remove("ballast")
h.flush()
h.pwrite(b"\4" * M, full)
h.flush()
assert h.pread(M, 0) == b"\3" * M
assert h.pread(65536, full - 65536) == b"\2" * 65536
assert h.pread(M, full) == b"\4" * M
END
stop_nbdkit
check_image disk.qcow2
qemu-io -r -c 'read -P 3 0 1M' -c 'read -P 2 1M 64k' disk.qcow2 | tee out
expect_failure grep -q failed out
cat "$tmp/log"
grep -q 'No space left' "$tmp/log"
