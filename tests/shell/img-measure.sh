#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# qcow2-img measure: an image that is then made is not larger than it says.

. ./functions.sh
. "$srcdir/shell/img.sh"
cd "$tmp"

qemu-img create -q -f raw source.raw 20M
fill source.raw raw "write -P 1 64k 3M" "write -P 2 10M 1500k" "write 19M 1k"
qemu-img convert -O qcow2 source.raw source.qcow2
qemu-img snapshot -c one source.qcow2
fill source.qcow2 qcow2 "write -P 3 0 15M"

# fits SOURCE OPTION...: for convert and measure alike
fits ()
{
    local source="$1" required
    shift
    qcow2_img measure --output=json "$@" "$source" >out.json
    qcow2_img convert "$@" "$source" target
    required="$(json_value out.json required)"
    [ "$(stat -c %s target)" -le "$required" ] \
        || [ $(($(stat -c %b target) * 512)) -le "$required" ] \
        || fail "measure $* $source: more than $required bytes were needed"
    rm target
}
for source in source.raw source.qcow2; do
    fits "$source" -O raw
    fits "$source" -O qcow2
    fits "$source" -O qcow2 -o cluster_size=512
    fits "$source" -O qcow2 -o cluster_size=2M
    fits "$source" -O qcow2 -o compat=0.10
    fits "$source" -O qcow2 -o refcount_bits=64
done
fits source.qcow2 -O qcow2 -l one
qemu-img measure -O qcow2 source.raw >theirs
qcow2_img measure -O qcow2 source.raw | diff -u theirs -

# Whole numbers are exact, and rounded up to sectors only then.
qcow2_img measure --size 9007199254740993 >ours
expect_output '^required size: 9007199254741504$' cat ours

refuses 'either one image or --size' qcow2_img measure
refuses 'either one image or --size' qcow2_img measure --size 1G source.raw
refuses 'goes without --size' qcow2_img measure -l one --size 1G
refuses 'No such file' qcow2_img measure nowhere
refuses 'not a size' qcow2_img measure --size x
refuses 'no snapshot' qcow2_img measure -l two source.qcow2
