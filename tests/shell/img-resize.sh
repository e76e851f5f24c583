#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# qcow2-img resize: new parts are zeroes, lost parts need leave.

. ./functions.sh
. "$srcdir/shell/img.sh"
cd "$tmp"

# size_is BYTES FILE
size_is ()
{
    qemu-img info --output=json "$2" >out.json
    [ "$(json_value out.json virtual-size)" = "$1" ] \
        || fail "$2 has not the size $1"
}

for version in 0.10 1.1; do
    qemu-img create -q -f qcow2 -o "compat=$version" disk.qcow2 1M
    fill disk.qcow2 qcow2 "write -P 1 0 1M"
    [ "$(qcow2_img resize disk.qcow2 4M)" = "Image resized." ]
    size_is 4194304 disk.qcow2
    fill disk.qcow2 qcow2 "read -P 1 0 1M" "read -P 0 1M 3M"
    check_image disk.qcow2
    [ -z "$(qcow2_img resize -q disk.qcow2 +1G)" ]
    size_is 1077936128 disk.qcow2
    [ -z "$(qcow2_img resize --shrink -q disk.qcow2 -1G)" ]
    size_is 4194304 disk.qcow2
    qcow2_img resize -q disk.qcow2 +1000
    size_is 4195328 disk.qcow2
    check_image disk.qcow2

    # What was cut off never comes back.
    fill disk.qcow2 qcow2 "write -P 7 0 3M"
    qcow2_img resize -q --shrink disk.qcow2 100k
    check_image disk.qcow2
    qcow2_img resize -q disk.qcow2 3M
    fill disk.qcow2 qcow2 "read -P 7 0 100k" "read -P 0 100k 2972k"
    check_image disk.qcow2
done

# Nor does what a longer base has there show through.
qemu-img create -q -f raw base.raw 4M
fill base.raw raw "write -P 9 0 4M"
for version in 0.10 1.1; do
    qemu-img create -q -f qcow2 -o "compat=$version" \
        -b base.raw -F raw over.qcow2 1M
    qcow2_img resize -q over.qcow2 3M
    fill over.qcow2 qcow2 "read -P 9 0 1M" "read -P 0 1M 2M"
    check_image over.qcow2
done

for mode in metadata falloc full; do
    qemu-img create -q -f qcow2 part.qcow2 1M
    qcow2_img resize -q --preallocation="$mode" part.qcow2 3M
    fill part.qcow2 qcow2 "read -P 0 0 3M"
    check_image part.qcow2 | grep '^32/48 ' \
        || fail "$mode did not allocate the new part"
done

# Snapshots keep their size, but version 2 cannot say so.
qemu-img create -q -f qcow2 snap.qcow2 2M
fill snap.qcow2 qcow2 "write -P 1 0 2M"
qcow2_img snapshot -c one snap.qcow2
qcow2_img resize -q --shrink snap.qcow2 1M
qcow2_img snapshot -a one snap.qcow2
size_is 2097152 snap.qcow2
fill snap.qcow2 qcow2 "read -P 1 0 2M"
check_image snap.qcow2
qemu-img create -q -f qcow2 -o compat=0.10 old.qcow2 2M
qemu-img snapshot -c one old.qcow2
refuses 'version 2' qcow2_img resize old.qcow2 3M
size_is 2097152 old.qcow2

# Raw files.
qemu-img create -q raw.raw 1M
qcow2_img resize -q -f raw raw.raw 1500k
size_is 1536000 raw.raw
qcow2_img resize -q -f raw --shrink raw.raw 512
size_is 512 raw.raw
expect_output 'guessed to be raw' qcow2_img resize raw.raw 1k

cp disk.qcow2 before.qcow2
refuses 'lost; --shrink allows it$' qcow2_img resize disk.qcow2 1M
refuses 'Unsupported preallocation mode: metadata' \
    qcow2_img resize -f raw --preallocation=metadata raw.raw 4k
refuses "Unsupported preallocation mode: 'most'" \
    qcow2_img resize -f raw --preallocation=most raw.raw 4k
size_is 1024 raw.raw
# What a script computes when it goes wrong.
cp disk.qcow2 before-nothing.qcow2
now="$(qemu-img info --output=json disk.qcow2 \
    | sed -nE 's/^ +"virtual-size": ([0-9]+),$/\1/p' | head -n 1)"
for size in 0 0k 0.0k "-$now"; do
    refuses 'the size must be positive' \
        qcow2_img resize --shrink disk.qcow2 "$size"
done
for size in '' + - +- -- --1 +-1 nan NaN -nan inf -inf -1e3 ' ' null None; do
    refuses 'size' qcow2_img resize --shrink disk.qcow2 "$size"
done
cmp disk.qcow2 before-nothing.qcow2
refuses "disk.qcow2: '-1G' leads to no size" \
    qcow2_img resize --shrink disk.qcow2 -1G
refuses 'for disks that grow' \
    qcow2_img resize --shrink --preallocation=full disk.qcow2 512
refuses 'or is too large' qcow2_img resize disk.qcow2 16E
refuses 'not a size' qcow2_img resize disk.qcow2 foo
refuses 'unknown option' qcow2_img resize disk.qcow2 --help2
refuses 'expects one image and a size' qcow2_img resize disk.qcow2
refuses 'L1|clusters' qcow2_img resize disk.qcow2 7E
refuses 'L1|clusters' qcow2_img resize --shrink disk.qcow2 0xffffffffffffffff
cmp disk.qcow2 before.qcow2
# Options anywhere.
qcow2_img resize disk.qcow2 +1M -q
qcow2_img resize disk.qcow2 -q -1M --shrink
qemu-img compare disk.qcow2 before.qcow2
expect_output '^Example' qcow2_img resize --help
