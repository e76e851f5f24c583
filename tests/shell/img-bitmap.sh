#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# qcow2-img bitmap does what qemu-img bitmap does: the same sequences of
# actions, some by one and some by the other, leave the same bitmaps, and
# images that both find right. What is refused there is refused here, and
# changes nothing.

. ./functions.sh
. "$srcdir/shell/img.sh"
requires qemu-img bitmap --help
cd "$tmp"

# both ARG...: of `bitmap`, for ours.qcow2 and theirs.qcow2, called FILE. A
# bitmap is known by what qemu-img says of it, and by its bits.
both ()
{
    local ours=0 theirs=0
    qcow2_img bitmap "${@/FILE/ours.qcow2}" 2>errors || ours=$?
    qemu-img bitmap "${@/FILE/theirs.qcow2}" 2>/dev/null || theirs=$?
    [ "$ours" -eq "$theirs" ] || { cat errors; fail "$*: $ours, not $theirs"; }
    for image in ours theirs; do
        qemu-img info --output=json "$image.qcow2" >info.json
        json_value info.json format-specific.data.bitmaps >"$image.list" \
            2>/dev/null || echo none >"$image.list"
    done
    cmp ours.list theirs.list || fail "$*: other bitmaps"
}

same_bits ()
{
    for name in "$@"; do
        qcow2_img bitmap --dump --output=json ours.qcow2 "$name" >ours.json
        qcow2_img bitmap --dump --output=json theirs.qcow2 "$name" >theirs.json
        cmp ours.json theirs.json || fail "$name differs"
    done
    check_image ours.qcow2
    qcow2_img check ours.qcow2
}

# write REQUEST...: to both, by either program
write ()
{
    for request in "$@"; do
        fill theirs.qcow2 qcow2 "$request"
        nbdkit_qcow2 -U - file=ours.qcow2 --run \
            "qemu-io -f raw -c '$request' \"\$uri\"" >/dev/null
    done
}

for image in ours theirs; do
    qemu-img create -q -f qcow2 -o cluster_size=4k "$image.qcow2" 8M
done
both --add FILE one
both --add -g 512 FILE two
both --add --disable -g 1M FILE three
write 'write 100k 30k' 'write 3M 1M'
same_bits one two three
both --enable FILE three
both --disable FILE one
write 'write 6M 4k'
same_bits one two three
both --add -g 64k FILE four
both --merge two --merge one FILE four
both --merge three FILE one
same_bits one two three four
both --clear FILE two
both --remove FILE three
both --add --clear --merge one --disable FILE five
same_bits one two four five

# One makes bitmaps, the other goes on with them.
cp ours.qcow2 x && mv theirs.qcow2 ours.qcow2 && mv x theirs.qcow2
write 'write 7M 1000'
same_bits one two four five

# From another file.
cp ours.qcow2 src.qcow2
both --merge four -b src.qcow2 -F qcow2 FILE two
same_bits two

# They go with a copy of the disk.
for options in "" -c -ocluster_size=512; do
    # shellcheck disable=SC2086  # one word or none
    qcow2_img convert --bitmaps $options -O qcow2 src.qcow2 ours.qcow2
    # shellcheck disable=SC2086
    qemu-img convert --bitmaps $options -O qcow2 src.qcow2 theirs.qcow2
    qemu-img bitmap --clear theirs.qcow2 one
    both --clear FILE one
    same_bits one two four five
done

# One that cannot be copied is not there, without its bits, all the same.
qemu-img create -q -f qcow2 larger.qcow2 16M
expect_status 1 qcow2_img convert -n --bitmaps -O qcow2 src.qcow2 larger.qcow2
expect_status 1 qcow2_img bitmap --dump larger.qcow2 one
check_image larger.qcow2

expect_status 1 qcow2_img convert --bitmaps -O raw src.qcow2 copy
expect_status 1 qcow2_img convert --bitmaps -O qcow2 -o compat=v2 src.qcow2 copy
expect_status 1 qcow2_img convert --bitmaps -O qcow2 src.qcow2 src.qcow2 copy
expect_status 1 qcow2_img convert --skip-broken-bitmaps -O qcow2 src.qcow2 copy
[ ! -e copy ]

# What is refused.
cp ours.qcow2 before
both --add FILE one
both --add FILE ''
both --add FILE "$(printf 'x%.0s' {1..1024})"
both --add -g 256 FILE six
both --add -g 1000 FILE six
both --add -g 4G FILE six
both --clear -g 512 FILE one
for action in --remove --clear --enable --disable; do
    both "$action" FILE none
done
both --merge none FILE one
both --merge one FILE none
both --merge one -F qcow2 FILE two
both --add -b src.qcow2 FILE six
both FILE one
both --add FILE
qemu-img create -q -f qcow2 other.qcow2 4M
qemu-img bitmap --add other.qcow2 one
both --merge one -b other.qcow2 -F qcow2 FILE one
cmp before ours.qcow2
qemu-img create -q -f qcow2 -o compat=0.10 old.qcow2 4M
expect_status 1 qcow2_img bitmap --add old.qcow2 one
qemu-img create -q -f raw plain 4M
expect_status 1 qcow2_img bitmap --add -f raw plain one

# What its writer did not store can only be removed.
for image in ours theirs; do
    qemu-io -c 'write 0 4k' -c abort "$image.qcow2" >/dev/null 2>&1 || :
done
for action in --clear --enable --disable '--merge=four'; do
    both "$action" FILE one
done
expect_status 1 qcow2_img bitmap --dump ours.qcow2 one
expect_status 1 qcow2_img convert --bitmaps -O qcow2 ours.qcow2 copy
[ ! -e copy ]
qcow2_img convert --bitmaps --skip-broken-bitmaps -O qcow2 ours.qcow2 copy \
    2>errors
[ "$(grep -c 'not copied' errors)" -eq 4 ] || { cat errors; fail "warnings"; }
for name in one two four five; do
    both --remove FILE "$name"
done
check_image ours.qcow2
qcow2_img check ours.qcow2
