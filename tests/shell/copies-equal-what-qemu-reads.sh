#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# nbdcopy gets from us what 'qemu-img convert' reads: every version, cluster
# size and compression, and chains of mixed formats and sizes.

. ./functions.sh
requires nbdcopy --version
requires qemu-img --version

cd "$tmp"
# Data, zeroes, holes, and what compresses well and badly.
(
    seq 1 200000
    head -c 1000000 /dev/urandom
    head -c 1000000 /dev/zero
    seq 1 50000
) >content.raw
truncate -s 6000128 content.raw

# same IMAGE
same ()
{
    qemu-img convert -O raw "$1" expected.raw
    rm -f copy.raw
    nbdkit_qcow2 -r -U - "$1" --run 'nbdcopy "$uri" copy.raw'
    cmp expected.raw copy.raw
}

for options in compat=0.10 compat=v3 \
               cluster_size=512 cluster_size=4k cluster_size=2M \
               extended_l2=on,cluster_size=16k \
               extended_l2=on,cluster_size=2M; do
    qemu-img convert -O qcow2 -o "$options" content.raw disk.qcow2
    same disk.qcow2
    qemu-img convert -c -O qcow2 -o "$options" content.raw disk.qcow2
    same disk.qcow2
done
if nbdkit_qcow2 --dump-plugin | grep -q qcow2_zstd=yes; then
    qemu-img convert -c -O qcow2 -o compression_type=zstd \
             content.raw disk.qcow2
    same disk.qcow2
fi

# raw <- v2 compressed <- longer v3 <- shorter v3
qemu-img convert -c -O qcow2 -o compat=0.10,cluster_size=4k \
         -B content.raw -F raw content.raw one.qcow2
qemu-io -c 'write -P 1 100k 300k' one.qcow2 >/dev/null
qemu-img create -q -f qcow2 -b one.qcow2 -F qcow2 two.qcow2 9M
qemu-io -c 'write -P 2 5M 2M' -c 'write -z 200k 1M' two.qcow2 >/dev/null
qemu-img create -q -f qcow2 -o cluster_size=512 -b two.qcow2 -F qcow2 \
         three.qcow2 8000000
qemu-io -c 'write -P 3 7999488 512' three.qcow2 >/dev/null
same one.qcow2
same two.qcow2
same three.qcow2

# Subclusters of all kinds, which take turns with those of the layers below.
qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=64k -b three.qcow2 \
         -F qcow2 four.qcow2 8M
for kib in 2 70 131 133 300 1024 1052; do
    qemu-io -c "write -P 4 ${kib}k 5000" -c "write -z $((kib * 5))k 6k" \
            four.qcow2 >/dev/null
done
qemu-io -c 'write -P 5 4M 1M' -c 'discard 4100k 100k' -c 'write -z 4M 6k' \
        four.qcow2 >/dev/null
same four.qcow2
qemu-img snapshot -c earlier four.qcow2
qemu-io -c 'write -P 6 3M 2M' four.qcow2 >/dev/null
same four.qcow2
