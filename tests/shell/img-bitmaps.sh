#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Whatever changes an image with persistent bitmaps keeps them right, as QEMU
# reads them afterwards. What changes no data, or is refused, leaves them as
# they are.

. ./functions.sh
. "$srcdir/shell/img.sh"
requires qemu-img bitmap --help
requires qemu-nbd --version
requires nbdinfo --version
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
    qemu-img bitmap --add --disable b.qcow2 off
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

# dirty NAME: what the bitmap says has changed, as QEMU reads it: FROM+LENGTH
# in units of 64 KiB
dirty ()
{
    rm -f socket
    qemu-nbd -r -f qcow2 -B "$1" -k "$PWD/socket" b.qcow2 &
    until [ -S socket ]; do :; done
    nbdinfo --map="qemu:dirty-bitmap:$1" "nbd+unix:///?socket=$PWD/socket" |
        awk '$4 == "dirty" { printf "%s%d+%d", n++ ? " " : "", $1 / 65536,
                             ($2 + 65535) / 65536 }'
    wait # it ends with its client
}

# maintains RANGES COMMAND...: those are what QEMU takes as changed afterwards
maintains ()
{
    local expected="$1"
    shift
    "$@" 2>errors || { cat errors; fail "'$*' failed"; }
    ! grep bitmap errors || fail "'$*' warned"
    check_image b.qcow2
    qcow2_img check b.qcow2
    qemu-img info --output=json b.qcow2 >info.json 2>errors
    [ ! -s errors ] || { cat errors; fail "'$*': qemu-img warns"; }
    ! grep '"in-use"' info.json || fail "'$*' leaves them in use"
    has_bitmaps
    [ "$(dirty fine)" = "$expected" ] \
        || fail "'$*': QEMU reads $(dirty fine), not $expected"
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
new -obacking_file=base.raw,backing_fmt=raw
keeps qcow2_img info b.qcow2
keeps qcow2_img check b.qcow2
keeps qcow2_img snapshot -l b.qcow2
keeps qcow2_img convert -O raw b.qcow2 out.raw
keeps qcow2_img snapshot -a none b.qcow2
keeps qcow2_img snapshot -d none b.qcow2
keeps qcow2_img resize b.qcow2 1M
expect_status 1 qcow2_img amend -o compat=0.10 b.qcow2 2>errors
grep -q 'remove them first' errors || { cat errors; fail "amend"; }
has_bitmaps
was="8+16"
maintains "$was" qcow2_img rebase --change-snapshots -b '' b.qcow2
keeps qcow2_img rebase -u -b other.raw -F raw b.qcow2
maintains "$was 64+64" qcow2_img resize b.qcow2 8M
maintains "$was" qcow2_img resize --shrink b.qcow2 2M
# What a disk has grown by may have been something else there once.
maintains "$was 32+32" qcow2_img resize b.qcow2 4M
new
maintains "$was" qcow2_img snapshot -c t b.qcow2
maintains "$was" qcow2_img snapshot -d s b.qcow2
maintains "$was" qcow2_img amend -o refcount_bits=32 b.qcow2
maintains "0+64" qcow2_img snapshot -a t b.qcow2
[ "$(dirty 'with a space')" = "0+64" ] || fail "two bitmaps differ"
[ -z "$(dirty off)" ] || fail "a disabled bitmap changed"
for options in "" "-ocluster_size=512"; do
    # shellcheck disable=SC2086  # one word or none
    new $options
    maintains "0+1 8+16 40+1 60+1" nbdkit_qcow2 -U - file=b.qcow2 --run \
        'qemu-io -f raw -c "write -P 5 0 64k" -c "write 1M 64k" \
            -c "write -z 2560k 512" -c "discard 3840k 64k" "$uri"'
done
qemu-img create -q -f qcow2 -b b.qcow2 -F qcow2 top.qcow2
fill top.qcow2 qcow2 'write -P 3 2M 64k'
maintains "0+1 8+16 32+1 40+1 60+1" qcow2_img commit top.qcow2
