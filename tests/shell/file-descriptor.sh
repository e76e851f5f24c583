#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# fd= serves the image that is open on a descriptor: with the backing file
# beside it, for writing if the descriptor is, and letting go of it when the
# last client leaves.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires qemu-img --version

mkdir "$tmp/images"
cd "$tmp/images"
qemu-img create -q -f qcow2 base.qcow2 1M
qemu-io -c 'write -P 1 0 1M' base.qcow2 >/dev/null
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 disk.qcow2
qemu-img snapshot -c snap disk.qcow2
cd "$tmp"

start_nbdkit "$tmp/socket" fd=7 7<>images/disk.qcow2
nbd_client <<'END'
assert not h.is_read_only()
assert h.pread(1 << 20, 0) == b"\1" * (1 << 20)
h.pwrite(b"\2" * 65536, 0)
assert connect().pread(65536, 0) == b"\2" * 65536
assert connect("@snap").pread(1 << 20, 0) == b"\1" * (1 << 20)
assert os.system("qemu-img snapshot -c x images/disk.qcow2 2>/dev/null") != 0
END
nbdinfo --list "$uri" | grep -F '"@snap"'
stop_nbdkit
check_image images/disk.qcow2

# The name is gone, and so is what it stood for in the chain's directory.
qemu-img create -q -f qcow2 images/other.qcow2 1M
exec 7<>images/other.qcow2
rm images/other.qcow2
start_nbdkit "$tmp/socket" fd=7
nbd_client <<'END'
h.pwrite(b"\3" * 65536, 0)
h.flush()
END
nbd_client <<<'assert h.pread(65536, 0) == b"\3" * 65536'
stop_nbdkit

# Our descriptor is still open: the locks ended with the last client anyway.
exec 7<>images/disk.qcow2
start_nbdkit "$tmp/socket" fd=7
nbd_client <<<'h.pwrite(b"\4", 0); h.shutdown()'
stop_nbdkit
qemu-img snapshot -c x images/disk.qcow2
exec 7>&-

start_nbdkit "$tmp/socket" fd=7 7<images/disk.qcow2
nbd_client <<<'assert h.is_read_only()'
stop_nbdkit
