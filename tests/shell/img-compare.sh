#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# qcow2-img compare says what qemu-img compare says, with the same status.

. ./functions.sh
. "$srcdir/shell/img.sh"
cd "$tmp"

# same STATUS [ARG...]
same ()
{
    local status="$1"
    shift
    expect_status "$status" qemu-img compare "$@" >theirs
    expect_status "$status" qcow2_img compare "$@" >ours
    diff -u theirs ours
    [ -z "$(qcow2_img compare -q "$@")" ] || fail "-q prints"
}

qemu-img create -q -f raw a.raw 4M
fill a.raw raw "write -P 1 1M 300k"
qemu-img convert -O qcow2 a.raw a.qcow2
qemu-img convert -c -O qcow2 a.raw compressed.qcow2
same 0 a.raw a.raw
same 0 a.qcow2 compressed.qcow2
same 0 -f raw -F qcow2 a.raw a.qcow2
same 0 -s a.qcow2 a.qcow2

cp a.qcow2 longer.qcow2
qemu-img resize -q longer.qcow2 5M
same 0 a.qcow2 longer.qcow2
same 0 longer.qcow2 a.raw
same 1 -s a.qcow2 longer.qcow2
fill longer.qcow2 qcow2 "write -P 1 4500k 1k"
same 1 longer.qcow2 a.qcow2
same 1 a.qcow2 longer.qcow2
# A difference before the shorter one ends is reported alone.
fill longer.qcow2 qcow2 "write -P 1 0 1k"
same 1 longer.qcow2 a.qcow2
same 1 a.qcow2 longer.qcow2

cp a.qcow2 other.qcow2
fill other.qcow2 qcow2 "write -P 2 1200k 512"
same 1 a.qcow2 other.qcow2
same 1 a.raw other.qcow2
cp a.qcow2 zeroes.qcow2
fill zeroes.qcow2 qcow2 "write -P 0 2M 64k"
same 0 a.qcow2 zeroes.qcow2
expect_status 1 qcow2_img compare -s a.qcow2 zeroes.qcow2 >out
expect_output '^Strict mode: Offset 2097152 block status mismatch!$' cat out
cp a.qcow2 early.qcow2
fill early.qcow2 qcow2 "write -P 1 0 1"
same 1 early.qcow2 a.qcow2

# Overlays, and the base they have in common.
qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 over.qcow2
same 0 a.qcow2 over.qcow2
same 0 over.qcow2 a.qcow2

qcow2_img compare -p a.qcow2 over.qcow2 | tr '\r' '\n' >out
expect_output '^    \(100\.00/100%\)$' cat out
expect_output '^Images are identical\.$' cat out

expect_status 2 qcow2_img compare a.qcow2 nowhere
expect_status 2 qcow2_img compare nowhere a.qcow2
# Nor does a mistake mean that they differ.
for option in '-f x' '-T x' --nonsense -B; do
    # shellcheck disable=SC2086  # words
    expect_status 2 qcow2_img compare $option a.qcow2 a.qcow2
done
expect_status 2 qcow2_img compare a.qcow2
refuses 'two images' qcow2_img compare a.qcow2

# Damage: neither same nor different.
cp a.qcow2 bad.qcow2
python3 - <<'END'
import struct
with open("bad.qcow2", "r+b") as f:
    header = f.read(104)
    l1, = struct.unpack(">Q", header[40:48])
    f.seek(l1)
    l2 = struct.unpack(">Q", f.read(8))[0] & 0x00fffffffffffe00
    f.seek(l2 + 8 * 16) # guest offset 1 MiB
    f.write(struct.pack(">Q", 0x8000000000000200)) # not a cluster's start
END
expect_status 4 qcow2_img compare bad.qcow2 a.qcow2
