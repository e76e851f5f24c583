#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What load-state writes is bounded by what the image holds, whatever the
# snapshot table and the tables say; and zeroes of a state are holes.

. ./functions.sh
requires qcow2_img --version
requires python3 --version
cd "$tmp"

# A state of 40 MiB with data at its start, in its middle and near its end.
truncate -s 40M state
for at in 0 20 39; do
    head -c 70000 /dev/urandom \
        | dd of=state bs=1M seek="$at" conv=notrunc status=none
done
qcow2_img create -q -f qcow2 vm.qcow2 64M
qcow2_img snapshot save-state s state vm.qcow2

# It is what it was: in a file, with holes; through a pipe; behind something.
qcow2_img snapshot load-state s loaded vm.qcow2
cmp state loaded
if [ "$(du -k state | cut -f1)" -lt 30000 ]; then
    [ "$(du -k loaded | cut -f1)" -lt 30000 ] || fail "no holes: $(du -k loaded)"
fi
qcow2_img snapshot load-state s - vm.qcow2 | cmp state -
echo before >both
qcow2_img snapshot load-state s - vm.qcow2 >>both
cmp both <(echo before; cat state)
head -c 41M /dev/urandom >over
qcow2_img snapshot load-state s - vm.qcow2 1<>over
cmp -n $((40 << 20)) state over

# A state that ends in zeroes has its length.
truncate -s 5000001 state
qcow2_img create -q -f qcow2 tail.qcow2 1M
qcow2_img snapshot save-state s state tail.qcow2
qcow2_img snapshot load-state s loaded tail.qcow2
cmp state loaded

# poke SCRIPT: changes vm.qcow2, as the bytes b of a bad image, by Python
poke ()
{
    cp --sparse=always vm.qcow2 bad.qcow2
    python3 - "$1" <<'END'
import struct, sys
b = bytearray(open("bad.qcow2", "rb").read())
def get(at, n=8): return int.from_bytes(b[at:at + n], "big")
def put(at, v, n=8): b[at:at + n] = v.to_bytes(n, "big")
table = get(64)
l1, nr_l1 = get(table), get(table + 8, 4)
exec(sys.argv[1])
open("bad.qcow2", "wb").write(b)
END
}

# refused WHAT: load-state fails, and wrote no more than the image is long
refused ()
{
    local status=0
    rm -f loaded
    (ulimit -t 10 -f 200000
     qcow2_img snapshot load-state s loaded bad.qcow2) 2>err || status=$?
    [ "$status" -eq 1 ] || fail "$1: status $status: $(cat err)"
    [ -s err ] || fail "$1: no word"
    [ ! -e loaded ] \
        || [ "$(stat -c %s loaded)" -le "$(stat -c %s bad.qcow2)" ] \
        || fail "$1: wrote $(stat -c %s loaded) bytes"
}

for size in $((1 << 62)) $((0xfffffffffffffff)) $(((512 << 20) + 1)); do
    poke "put(table + 40, $size)"
    refused "a state of $size bytes"
    [ ! -e loaded ] || fail "the file was made"
done
poke 'put(table + 40, 512 << 20)
l2 = get(l1 + (nr_l1 - 1) * 8) & 0xfffffffffffe00
for i in range(8192): put(l2 + i * 8, get(l2))'
refused "a state that is one cluster again and again"
