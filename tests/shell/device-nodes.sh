#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A block device is one disk, whichever of its nodes is named: nobody writes
# to it by one while others use it by another, and nothing is copied onto
# itself, or takes the image for a file of VM state.

. ./functions.sh
. "$srcdir/shell/img.sh"
requires losetup --version
# Not every machine has loop devices for us, which is no reason to fail.
if [ "$(id -u)" -ne 0 ] || ! losetup -f >/dev/null 2>&1; then
    echo "$0: skipped: this needs root and loop devices"
    exit 77
fi
cd "$tmp"

qcow2_img create -q -f qcow2 image.qcow2 8M
truncate -s 4M image.qcow2
head -c 70000 /dev/urandom >state
device="$(losetup -f --show image.qcow2)"
cleanup_fn losetup -d "$device"
mknod node b "$(stat -c 0x%t "$device")" "$(stat -c 0x%T "$device")"
if ! (: <node) 2>/dev/null; then
    echo "$0: skipped: nodes of devices cannot be opened here"
    exit 77
fi
qcow2_img snapshot save-state s state "$device"
md5sum "$device" >before

for pair in "$device $tmp/node" "$tmp/node $device"; do
    read -r one two <<<"$pair"
    refuses 'cannot be the image itself' \
        qcow2_img snapshot load-state s "$one" "$two"
    refuses 'cannot be the target|lock|in use' \
        qcow2_img convert -n -O qcow2 "$one" "$two"
done

# QEMU has it open by the system's node.
hold_open "$device" -r
refuses '"write" lock' qcow2_img snapshot -c t node
qcow2_img info node
release
md5sum -c before
