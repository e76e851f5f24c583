#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# When the host's file system is full, writes fail with ENOSPC, what was
# acknowledged stays, what is freed can be used, and after space was made the
# same server goes on.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires qemu-img --version
requires mount --version
requires fallocate --version

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

# clusters FILE: it has a whole number of them.
clusters ()
{
    [ $(($(stat -c %s "$1") % 65536)) -eq 0 ] \
        || fail "$1 ends in the middle of a cluster: $(stat -c %s "$1")"
}

fill='
def fill():
    with open("ballast", "ab", 0) as f:
        try:
            while True:
                f.write(bytes(4096))
        except OSError:
            pass
'

# Where the L1 table is a hole the flush needs space.
rm disk.qcow2
qemu-img create -q -f qcow2 disk.qcow2 64M
l1=$((16#$(od -An -tx8 --endian=big -j 40 -N 8 disk.qcow2 | tr -d ' ')))
fallocate --punch-hole --offset $l1 --length 65536 disk.qcow2
start_nbdkit "$tmp/socket2" disk.qcow2 2>"$tmp/log"
nbd_client <<END
$fill
h.pwrite(b"\1" * 100000, 0)
fill()
for i in range(2):
    try:
        h.flush()
        assert False, "the flush needed no space"
    except nbd.Error as e:
        assert e.errnum == errno.ENOSPC, e
h.pwrite(b"\2" * 1000, 0) # in place
assert h.pread(100000, 0) == b"\2" * 1000 + b"\1" * 99000
os.remove("ballast")
h.flush()
h.pwrite(b"\3" * 1000, 1 << 20)
h.flush()
END
stop_nbdkit
check_image disk.qcow2
clusters disk.qcow2
qemu-io -r -c 'read -P 2 0 1000' -c 'read -P 1 1000 99000' \
    -c 'read -P 3 1M 1000' disk.qcow2 | tee out
expect_failure grep -q failed out

# In an image of ours it needs none; and what is trimmed can be used at once.
rm disk.qcow2
qcow2_img create -q -f qcow2 disk.qcow2 64M
start_nbdkit "$tmp/socket3" disk.qcow2 2>"$tmp/log"
nbd_client <<END
$fill
M = 1 << 20
h.pwrite(b"\1" * (2 * M), 0)
fill()
h.flush()
try:
    h.pwrite(b"\2" * 65536, 4 * M)
    assert False, "the file system is not full"
except nbd.Error as e:
    assert e.errnum == errno.ENOSPC, e
h.trim(M, 0)
for i in range(16):
    h.pwrite(b"\3" * 65536, 4 * M + i * 65536)
assert h.pread(M, 4 * M) == b"\3" * M
assert h.pread(M, M) == b"\1" * M
h.flush()
END
stop_nbdkit
check_image disk.qcow2
clusters disk.qcow2
