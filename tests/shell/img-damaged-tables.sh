#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Damage in one table does not close the rest: the active disk is read as long
# as its own tables are there, check says what is wrong (2), and repair mends
# what can be mended.

. ./functions.sh
. "$srcdir/shell/img.sh"
requires nbdkit --version
requires nbdcopy --version
cd "$tmp"

# be FILE OFFSET BYTES VALUE: pokes a big-endian number.
be ()
{
    python3 -c '
import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(int(sys.argv[2]))
    f.write(int(sys.argv[4], 0).to_bytes(int(sys.argv[3]), "big"))' "$@"
}

# number FILE OFFSET BYTES
number ()
{
    python3 -c '
import sys
with open(sys.argv[1], "rb") as f:
    f.seek(int(sys.argv[2]))
    print(int.from_bytes(f.read(int(sys.argv[3])), "big"))' "$@"
}

qemu-img create -q -f qcow2 good.qcow2 16M
fill good.qcow2 qcow2 "write -P 1 0 1M"
qemu-img snapshot -c one good.qcow2
fill good.qcow2 qcow2 "write -P 2 512k 1M"
qemu-img snapshot -c two good.qcow2
fill good.qcow2 qcow2 "write -P 3 1M 1M"
qemu-img convert -O raw good.qcow2 disk.raw
snapshots="$(number good.qcow2 64 8)"

# readable FILE: everything that reads the active disk does.
readable ()
{
    qcow2_img info "$1" >/dev/null
    qcow2_img map --output=json "$1" >/dev/null
    qcow2_img convert -O raw "$1" out.raw
    cmp out.raw disk.raw
    qcow2_img convert --salvage -O raw "$1" out.raw
    cmp out.raw disk.raw
    rm -f out.raw
    nbdkit_qcow2 -r -U - "$1" --run 'nbdcopy "$uri" out.raw'
    cmp out.raw disk.raw
    qemu-img create -q -f qcow2 -u -b "$1" -F qcow2 overlay.qcow2 16M
    qcow2_img convert -O raw overlay.qcow2 out.raw
    cmp out.raw disk.raw
}

# mends FILE CODE: found, planned, repaired; and QEMU agrees.
mends ()
{
    cp "$1" before
    expect_status 2 qcow2_img check "$1" >/dev/null 2>found
    grep -q "ERROR $2: " found || fail "$1: no $2: $(cat found)"
    refuses . qcow2_img snapshot -c three "$1"
    expect_status 2 qcow2_img check -r all --plan "$1" >plan 2>found
    grep -q "$2: .*repair: " found || fail "the plan does not say it"
    grep -q '^would write ' plan || fail "nothing is planned"
    cmp "$1" before
    rm -f undo
    expect_status 0 qcow2_img check -r all --undo=undo "$1"
    expect_status 0 qemu-img check "$1" >/dev/null
    readable "$1"
    cp "$1" mended
    expect_status 0 qcow2_img check --restore=undo "$1"
    cmp "$1" before
    cp mended "$1"
}

# A snapshot's L1 table is nowhere: the other one stays.
cp good.qcow2 l1.qcow2
be l1.qcow2 "$snapshots" 8 0x123456789
readable l1.qcow2
refuses "snapshot 'one' is damaged" \
    qcow2_img convert -l one -O raw l1.qcow2 out.raw
qemu-img convert -l two -O raw good.qcow2 two.raw
rm -f out.raw
qcow2_img convert -l two -O raw l1.qcow2 out.raw
cmp out.raw two.raw
mends l1.qcow2 snapshot-unusable
[ "$(qcow2_img snapshot -l l1.qcow2 | grep -c two)" = 1 ] || fail "no two"
if qcow2_img snapshot -l l1.qcow2 | grep -q one; then fail "one is left"; fi
rm -f out.raw
qemu-img convert -l two -O raw l1.qcow2 out.raw
cmp out.raw two.raw

# The snapshot table is nowhere.
cp good.qcow2 table.qcow2
be table.qcow2 64 8 0x7000000000
readable table.qcow2
mends table.qcow2 snapshot-table-unusable

# There are more than anybody has.
cp good.qcow2 many.qcow2
be many.qcow2 60 4 0x10000002
readable many.qcow2
mends many.qcow2 snapshot-table-unusable
[ "$(qcow2_img snapshot -l many.qcow2 | grep -cE 'one|two')" = 2 ] \
    || fail "snapshots that are there were dropped"

# Refcounts are nowhere.
cp good.qcow2 refcounts.qcow2
be refcounts.qcow2 48 8 0
readable refcounts.qcow2
mends refcounts.qcow2 refcount-table-unusable

# What cannot be mended says so, and ends with 2.
cp good.qcow2 lost.qcow2
be lost.qcow2 40 8 0x7000000000
expect_status 2 qcow2_img check lost.qcow2 2>found
grep -q 'ERROR l1-table-unusable: .*nothing is repaired' found
expect_status 2 qcow2_img check -r all lost.qcow2 2>/dev/null
refuses 'L1 table' qcow2_img convert -O raw lost.qcow2 out2.raw
cp good.qcow2 bits.qcow2
be bits.qcow2 20 4 77
expect_status 2 qcow2_img check bits.qcow2 2>found
grep -q 'ERROR header-unusable: .*cluster_bits is 77' found
expect_status 2 qcow2_img check -r all --output=json bits.qcow2 >out.json
[ "$(json_value out.json corruptions)" = 1 ] || fail "not in JSON"

# Compressed data are looked at when asked.
qemu-img convert -c -O qcow2 disk.raw packed.qcow2
python3 - <<'END'
import struct
with open("packed.qcow2", "r+b") as f:
    f.seek(40)
    f.seek(struct.unpack(">Q", f.read(8))[0])
    f.seek(struct.unpack(">Q", f.read(8))[0] & (1 << 56) - 512)
    f.seek(struct.unpack(">Q", f.read(8))[0] & (1 << 54) - 1)
    f.write(b"\xff" * 16)
END
expect_status 0 qcow2_img check packed.qcow2 >/dev/null
expect_status 2 qcow2_img check --data packed.qcow2 2>found
grep -q 'ERROR compressed-damaged: ' found
