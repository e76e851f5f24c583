#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# qcow2-img dd copies a part of a disk.

. ./functions.sh
. "$srcdir/shell/img.sh"
cd "$tmp"

head -c 3000320 /dev/urandom >source.raw
qemu-img convert -f raw -O qcow2 source.raw source.qcow2

# same ARG...: ours and theirs make the same file of it.
same ()
{
    rm -f theirs ours
    qemu-img dd "$@" of=theirs
    qcow2_img dd "$@" of=ours
    qemu-img compare -q theirs ours || fail "dd $* is different"
    [ "$(qemu-img info --output=json theirs | grep virtual-size)" = \
      "$(qemu-img info --output=json ours | grep virtual-size)" ] \
        || fail "dd $* has another size"
}
same if=source.qcow2
same if=source.qcow2 bs=1M count=1
same if=source.qcow2 bs=512 skip=100
same if=source.qcow2 bs=1M count=100
same -f raw -O qcow2 if=source.raw bs=1M skip=2
same -O qcow2 if=source.qcow2 bs=4k count=7
same if=source.qcow2 bs=4k count=0

# With both, qemu-img copies fewer blocks than count says.
dd if=source.raw of=expected bs=1k skip=3 count=5 status=none
qcow2_img dd if=source.qcow2 of=ours bs=1k skip=3 count=5
cmp expected ours

refuses 'expects if=FILE and of=FILE' qcow2_img dd if=source.qcow2
refuses 'expects if=FILE and of=FILE' qcow2_img dd of=x
refuses 'none of if=' qcow2_img dd if=source.qcow2 of=x conv=notrunc
refuses 'bs must not be 0' qcow2_img dd if=source.qcow2 of=x bs=0
refuses 'not a size' qcow2_img dd if=source.qcow2 of=x skip=-1
refuses 'too far' qcow2_img dd if=source.qcow2 of=x bs=1M skip=999999999999999
refuses 'No such file' qcow2_img dd if=nowhere of=x
refuses 'File exists' qcow2_img dd --no-clobber if=source.qcow2 of=ours
[ ! -e x ] || fail "something was left behind"
cmp expected ours
