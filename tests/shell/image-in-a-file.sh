#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# image-offset= and image-size=: an image in an archive is served, and written
# without a change to what lies around it; without its size it is only read.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires qemu-img --version

cd "$tmp"
qemu-img create -q -f qcow2 disk.qcow2 1M
qemu-io -c 'write -q -P 5 0 128k' disk.qcow2
echo '<Envelope/>' >vm.ovf
echo signed >vm.mf
tar cf vm.ova vm.ovf disk.qcow2 vm.mf
size="$(stat -c %s disk.qcow2)"
block="$(tar tvRf vm.ova | sed -n 's/^block \([0-9]*\):.*disk.qcow2/\1/p')"
offset=$((block * 512 + 512))
cp vm.ova before.ova

start_nbdkit "$tmp/socket" vm.ova image-offset="$offset" image-size="$size"
nbd_client <<'END'
assert h.get_size() == 1 << 20
assert h.pread(131072, 0) == b"\x05" * 131072
h.pwrite(b"x" * 4096, 4096)
h.flush()
fails(errno.ENOSPC, h.pwrite, b"y" * (512 * 1024), 256 * 1024)
assert h.pread(4096, 4096) == b"x" * 4096
END
stop_nbdkit
mkdir out
tar xf vm.ova -C out
cmp vm.ovf out/vm.ovf
cmp vm.mf out/vm.mf
check_image out/disk.qcow2
qemu-io -r -c 'read -q -P 120 4k 4k' out/disk.qcow2 >said
[ ! -s said ] || fail "$(cat said)"

start_nbdkit "$tmp/socket" vm.ova image-offset="$offset"
nbd_client <<'END'
assert h.is_read_only()
assert h.pread(4096, 4096) == b"x" * 4096
END
stop_nbdkit

nbdkit_qcow2 -U - dir=. image-offset=512 --run true 2>err && fail "dir= was taken"
grep -q 'dir= excludes.*image-offset=' err || fail "$(cat err)"
nbdkit_qcow2 -U - vm.ova image-size=0 --run true 2>err && fail "0 was taken"
grep -q 'image-size=0: an image is not empty' err || fail "$(cat err)"
