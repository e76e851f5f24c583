#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Whatever changes an image with persistent bitmaps warns of them once, by
# name, and removes them with nothing left behind, for qemu-img to find. What
# changes no data, or is refused, keeps them.

. ./functions.sh
. "$srcdir/shell/img.sh"
requires qemu-img bitmap --help
cd "$tmp"

qemu-img create -q -f raw base.raw 4M

# new [OPTIONS]: an image with bitmaps and a snapshot
new ()
{
    rm -f b.qcow2
    qemu-img create -q -f qcow2 "$@" b.qcow2 4M
    fill b.qcow2 qcow2 'write -P 1 0 1M'
    qemu-img snapshot -c s b.qcow2
    qemu-img bitmap --add b.qcow2 fine -g 512
    qemu-img bitmap --add b.qcow2 'with a space'
    # So that they have bits, which are stored.
    fill b.qcow2 qcow2 'write -P 2 512k 1M'
    has_bitmaps
}

has_bitmaps ()
{
    qemu-img info --output=json b.qcow2 >info.json
    [ "$(json_value info.json format-specific.data.bitmaps.1.name)" \
      = "with a space" ] || fail "the bitmaps are gone"
}

# removes COMMAND...
removes ()
{
    "$@" 2>errors || { cat errors; fail "'$*' failed"; }
    cat errors
    [ "$(grep -c bitmaps errors)" -eq 1 ] || fail "'$*': not one warning"
    grep -q "persistent bitmaps, so they were removed: 'fine', 'with a space'$" \
        errors || fail "'$*': no names"
    check_image b.qcow2
    qcow2_img check b.qcow2
    qemu-img info --output=json b.qcow2 >info.json 2>errors
    [ ! -s errors ] || { cat errors; fail "'$*': qemu-img still warns"; }
    ! grep -q '"bitmaps"' info.json || fail "'$*' kept them"
}

# keeps COMMAND...
keeps ()
{
    "$@" 2>errors || :
    ! grep bitmaps errors || fail "'$*' warned"
    has_bitmaps
    check_image b.qcow2
}

qemu-img create -q -f raw other.raw 4M
for options in "" "-ocluster_size=512" "-obacking_file=base.raw,backing_fmt=raw"
do
    # shellcheck disable=SC2086  # one word or none
    n () { new $options; }
    n
    keeps qcow2_img info b.qcow2
    keeps qcow2_img check b.qcow2
    keeps qcow2_img snapshot -l b.qcow2
    keeps qcow2_img convert -O raw b.qcow2 out.raw
    keeps qcow2_img snapshot -a none b.qcow2
    keeps qcow2_img snapshot -d none b.qcow2
    keeps qcow2_img resize b.qcow2 1M
    keeps qcow2_img amend -o compat=0.10 b.qcow2
    keeps qcow2_img rebase -u -b other.raw -F raw b.qcow2
    removes qcow2_img resize b.qcow2 8M
    n; removes qcow2_img resize --shrink b.qcow2 2M
    n; removes qcow2_img snapshot -c t b.qcow2
    n; removes qcow2_img snapshot -a s b.qcow2
    n; removes qcow2_img snapshot -d s b.qcow2
    n; qemu-img snapshot -d s b.qcow2
    removes qcow2_img amend -o compat=0.10 b.qcow2
    n; removes qcow2_img amend -o refcount_bits=32 b.qcow2
    n; removes qcow2_img convert -n -O qcow2 base.raw b.qcow2
    n; removes qcow2_img bench -w -c 1 b.qcow2
    n; qemu-img create -q -f qcow2 -b b.qcow2 -F qcow2 top.qcow2
    fill top.qcow2 qcow2 'write -P 3 0 64k'
    removes qcow2_img commit top.qcow2
    n
    removes nbdkit_qcow2 -U - file=b.qcow2 --run \
        'qemu-io -f raw -c "write -P 5 0 64k" -c "write 1M 64k" "$uri"'
done
new -obacking_file=base.raw,backing_fmt=raw
removes qcow2_img rebase --change-snapshots -b '' b.qcow2
