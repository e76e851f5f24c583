#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Internal snapshots are read-only exports, by name or id, each with the
# size and the contents the disk had then.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires nbdinfo --version
requires qemu-img --version

cd "$tmp"
qemu-img create -q -f qcow2 disk.qcow2 1M
qemu-io -c 'write -P 1 0 1M' disk.qcow2 >/dev/null
qemu-img snapshot -c small disk.qcow2
qemu-img resize -q disk.qcow2 3M
qemu-io -c 'write -P 2 512k 2M' disk.qcow2 >/dev/null
qemu-img snapshot -c 'größer, 2' disk.qcow2
qemu-img resize -q --shrink disk.qcow2 2M
qemu-io -c 'write -P 3 0 2M' disk.qcow2 >/dev/null
# The name of one is the id of another: the name goes first.
qemu-img snapshot -c 1 disk.qcow2

start_nbdkit "$tmp/socket" disk.qcow2
nbd_client <<END
def is_made_of(c, *parts):
    assert c.get_size() == sum(n for n, _ in parts)
    at = 0
    for n, byte in parts:
        assert c.pread(n, at) == bytes([byte]) * n
        at += n

K, M = 1 << 10, 1 << 20
# The snapshots do not change while the disk is written.
small = connect("@small")
h.pwrite(b"\4" * M, 0)
h.flush()
is_made_of(small, (M, 1))
is_made_of(connect("@größer, 2"), (512 * K, 1), (2 * M, 2), (512 * K, 0))
is_made_of(connect("@2"), (512 * K, 1), (2 * M, 2), (512 * K, 0))
is_made_of(connect("@name:1"), (2 * M, 3))
is_made_of(connect("@3"), (2 * M, 3))
is_made_of(h, (M, 4), (M, 3))

assert small.is_read_only() and not h.is_read_only()
assert small.can_multi_conn()
fails(errno.EPERM, small.pwrite, b"x", 0)
for name in "@", "@none", "@smal", "@4", "small", "@small@1":
    fails(errno.ENOENT, connect, name)
END
nbdinfo --list "$uri" >list
stop_nbdkit
check_image disk.qcow2

grep '^export=' list
[ "$(grep -c '^export=' list)" -eq 4 ] || fail "there are 4 exports"
for name in '' @small '@größer, 2' @name:1; do
    grep -qxF "export=\"$name\":" list || fail "'$name' is not listed"
done
grep -q 'description: qcow2 image, 2097152 bytes' list
grep -Eq 'description: snapshot 2 of [-0-9]+ [:0-9]+ UTC, 3145728 bytes' list
