#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A user's walk through the life of a disk: each step is made by qcow2-img or
# through the plugin, and confirmed by qemu-img. The README tells the same
# story.

. ./functions.sh
. "$srcdir/shell/img.sh"
requires mke2fs -V
requires debugfs -V
requires nbdcopy --version
cd "$tmp"

# write_through IMAGE FILE: copies a raw file to a disk, through the plugin.
write_through ()
{
    nbdkit_qcow2 -U - "$1" --run "nbdcopy --flush '$2' \"\$uri\""
    check_image "$1"
}

# read_through IMAGE FILE: the other way.
read_through ()
{
    nbdkit_qcow2 -r -U - "$1" --run "nbdcopy \"\$uri\" '$2'"
}

# has_release IMAGE TEXT: a file in the file system on the disk says so.
has_release ()
{
    read_through "$1" now.raw
    [ "$(debugfs -R 'cat /release' now.raw 2>/dev/null)" = "$2" ] \
        || fail "$1 does not have release $2"
    e2fsck -fn now.raw >/dev/null 2>&1 || fail "the file system is broken"
}

# 1. A base with a file system, and an overlay for what changes.
mkdir tree
cp -R "$abs_top_srcdir/qcow2" tree/
echo one >tree/release
mke2fs -q -t ext4 -d tree fs.raw 64M
qcow2_img create -f qcow2 base.qcow2 64M
write_through base.qcow2 fs.raw
qemu-img compare base.qcow2 fs.raw
qcow2_img create -f qcow2 -b base.qcow2 -F qcow2 disk.qcow2
check_image disk.qcow2
qemu-img compare disk.qcow2 base.qcow2

# 2. An upgrade of it.
cp fs.raw two.raw
echo two >tree/release
debugfs -w -R 'rm /release' two.raw 2>/dev/null
debugfs -w -R 'write tree/release /release' two.raw 2>/dev/null
write_through disk.qcow2 two.raw
has_release disk.qcow2 two
has_release base.qcow2 one

# 3. A snapshot, and something that goes wrong.
qcow2_img snapshot create upgraded disk.qcow2
check_image disk.qcow2
qemu-img snapshot -l disk.qcow2 | grep -q upgraded
head -c 2M /dev/urandom >junk
nbdkit_qcow2 -U - disk.qcow2 --run 'nbdcopy junk "$uri"'
check_image disk.qcow2
if qemu-img compare -q disk.qcow2 two.raw; then
    fail "it is not broken"
fi

# 4. Back.
qcow2_img snapshot apply upgraded disk.qcow2
check_image disk.qcow2
qemu-img compare disk.qcow2 two.raw
has_release disk.qcow2 two

# 5. The change goes into a copy of the base; the base stays.
qcow2_img convert -O qcow2 base.qcow2 newbase.qcow2
qemu-img compare base.qcow2 newbase.qcow2
cp base.qcow2 base.before
cp disk.qcow2 tocommit.qcow2
qcow2_img rebase -u -b newbase.qcow2 -F qcow2 tocommit.qcow2
qcow2_img commit tocommit.qcow2
check_image newbase.qcow2
check_image tocommit.qcow2
qemu-img compare newbase.qcow2 two.raw
qemu-img compare tocommit.qcow2 two.raw
cmp base.qcow2 base.before

# 6. The disk moves to the new base, and needs the old one no more.
qcow2_img rebase -b newbase.qcow2 -F qcow2 disk.qcow2
check_image disk.qcow2
mv base.qcow2 gone.qcow2
qemu-img compare disk.qcow2 two.raw
has_release disk.qcow2 two

# 7. The snapshot is not wanted any longer.
qcow2_img snapshot delete upgraded disk.qcow2
[ -z "$(qemu-img snapshot -l disk.qcow2)" ] || fail "it is still there"
check_image disk.qcow2
qemu-img compare disk.qcow2 two.raw
qcow2_img check disk.qcow2
qcow2_img chain disk.qcow2
