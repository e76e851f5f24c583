#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The main job: a file system in a base, an overlay on it served. The files
# read back equal those that went in, 10,000 random writes with flushes all
# arrive, and the base does not change by a byte.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires nbdcopy --version
requires qemu-img --version
requires mke2fs -V
requires debugfs -V

cd "$tmp"
cp -r "$abs_top_srcdir/qcow2" "$abs_top_srcdir/tests" "$abs_top_srcdir/man" .
mkdir -p tree/empty tree/deep/er/still
mv qcow2 tests man tree
seq 1 1000000 >tree/deep/er/still/numbers
head -c 3000000 /dev/urandom >tree/random
truncate -s 5M tree/sparse
ln -s random tree/link

mke2fs -q -t ext4 -d tree base.raw 64M
qemu-img convert -c -O qcow2 base.raw base.qcow2
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2
before="$(sha256sum <base.qcow2)"

# files_equal_tree: what is in the served file system
files_equal_tree ()
{
    rm -rf copy.raw files
    nbdcopy "$uri" copy.raw
    e2fsck -fn copy.raw
    mkdir files
    debugfs -R 'rdump / files' copy.raw
    rmdir files/lost+found
    diff -r --no-dereference tree files
}

start_nbdkit "$tmp/socket" overlay.qcow2
files_equal_tree

# Write to the file system as a guest would, with clients of NBD only.
seq 1000000 2000000 >tree/written
debugfs -w -R 'write tree/written written' copy.raw
nbdcopy --flush copy.raw "$uri"
files_equal_tree

cp copy.raw model.raw
model=model.raw count=10000 nbd_client <"$srcdir/shell/random-writes.py"
stop_nbdkit

check_image overlay.qcow2
check_image base.qcow2
qemu-img compare -f qcow2 -F raw overlay.qcow2 model.raw
[ "$before" = "$(sha256sum <base.qcow2)" ] || fail "the base has changed"
