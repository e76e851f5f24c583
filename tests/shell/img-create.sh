#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# qcow2-img create makes what qemu-img create makes.

. ./functions.sh
. "$srcdir/shell/img.sh"
mkdir "$tmp/theirs" "$tmp/ours"

# same [ARG...]: both print the same and make images of the same kind.
same ()
{
    (cd "$tmp/theirs" && qemu-img create "$@") >"$tmp/theirs.out"
    (cd "$tmp/ours" && qcow2_img create "$@") >"$tmp/ours.out"
    diff -u "$tmp/theirs.out" "$tmp/ours.out"
    for file in "$tmp/ours"/*; do
        name="$(basename "$file")"
        [ "$name" != base.qcow2 ] || continue
        (cd "$tmp/theirs" && qemu-img info --output=json "$name") \
            >"$tmp/theirs.json"
        (cd "$tmp/ours" && qemu-img info --output=json "$name") \
            >"$tmp/ours.json"
        # How much space tables take is each one's own business.
        same_json "$tmp/theirs.json" "$tmp/ours.json" actual-size
        if [[ "$name" = *.qcow2 && " $* " != *" -u "* ]]; then
            check_image "$file"
        fi
        rm "$file" "$tmp/theirs/$name"
    done
}

same raw.raw 1M
same -f raw raw.raw 1G
same -f raw -o size=3M raw.raw
same -f qcow2 a.qcow2 0
same -f qcow2 a.qcow2 1G
same -f qcow2 a.qcow2 10000
same -f qcow2 a.qcow2 1.5M
same -f qcow2 a.qcow2 0x100000
same -f qcow2 -o compat=0.10 a.qcow2 1G
same -f qcow2 -o compat=v3 a.qcow2 1G
for cluster_size in 512 4k 2M; do
    same -f qcow2 -o "cluster_size=$cluster_size" a.qcow2 100M
done
for bits in 1 2 4 8 16 32 64; do
    same -f qcow2 -o "refcount_bits=$bits,lazy_refcounts=on" a.qcow2 1G
done
same -f qcow2 -o compression_type=zstd,size=5M a.qcow2
for mode in off metadata falloc full; do
    same -f qcow2 -o "preallocation=$mode" a.qcow2 2M
done
for mode in off falloc full; do
    same -f raw -o "preallocation=$mode" a.raw 2M
done

# Overlays: the size comes from the base, or not.
for dir in theirs ours; do
    qemu-img create -q -f qcow2 "$tmp/$dir/base.qcow2" 10M
done
same -f qcow2 -b base.qcow2 -F qcow2 a.qcow2
same -f qcow2 -b base.qcow2 -F qcow2 a.qcow2 20M
same -f qcow2 -o backing_file=base.qcow2,backing_fmt=qcow2 a.qcow2 5M
same -u -f qcow2 -b nowhere.qcow2 -F qcow2 a.qcow2 5M

cd "$tmp/ours"
[ -z "$(qcow2_img create -q -f qcow2 a.qcow2 1M)" ] || fail "-q prints"
expect_output 'cluster_size' qcow2_img create -o help

# The space that preallocation promises is there.
qcow2_img create -q -f qcow2 -o preallocation=falloc a.qcow2 8M
[ "$(stat -c '%b * %B / 1048576' a.qcow2 | xargs expr)" -ge 8 ] \
    || fail "falloc took no space"
rm a.qcow2

# Mistakes leave nothing behind.
refuses 'say the size' qcow2_img create -f qcow2 a.qcow2
refuses 'not a size' qcow2_img create -f qcow2 a.qcow2 1Q
refuses 'not a size' qcow2_img create -f qcow2 a.qcow2 -- -1G
refuses 'not a size' qcow2_img create -f qcow2 a.qcow2 99999999999999999999
refuses 'more than clusters' qcow2_img create -f qcow2 \
        -o cluster_size=512 a.qcow2 1P
refuses 'power of two' qcow2_img create -f qcow2 -o cluster_size=1000 \
        a.qcow2 1M
refuses 'power of two' qcow2_img create -f qcow2 -o refcount_bits=7 a.qcow2 1M
refuses 'version 2' qcow2_img create -f qcow2 \
        -o compat=0.10,refcount_bits=8 a.qcow2 1M
refuses 'version 2' qcow2_img create -f qcow2 \
        -o compat=0.10,lazy_refcounts=on a.qcow2 1M
refuses 'no option -o bogus' qcow2_img create -o bogus=1 a.qcow2 1M
refuses 'needs a value' qcow2_img create -o size a.qcow2
refuses 'write 10G$' qcow2_img create -f qcow2 a.qcow2 10GB
refuses 'write 1.5T$' qcow2_img create -f qcow2 a.qcow2 1.5TiB
refuses 'did you mean create' qcow2_img creat a.qcow2 1M
refuses 'did you mean create' qcow2_img craete a.qcow2 1M
refuses 'did you mean map' qcow2_img maps a.qcow2
refuses "'qcow2-img --help' lists them" qcow2_img frobnicate a.qcow2

# What is on or off is on by its name alone.
qcow2_img create -q -f qcow2 -o lazy_refcounts,compat=1.1 bare.qcow2 1M
expect_output 'lazy refcounts: true' qemu-img info bare.qcow2
rm bare.qcow2
refuses "format 'vmdk'" qcow2_img create -f vmdk a.qcow2 1M
refuses 'neither a backing file' qcow2_img create -f raw \
        -b base.qcow2 -F qcow2 a.raw
refuses 'Unsupported preallocation mode: metadata' qcow2_img create -f raw -o preallocation=metadata \
        a.raw 1M
refuses 'format must be said' qcow2_img create -f qcow2 -b base.qcow2 a.qcow2
refuses 'No such file' qcow2_img create -f qcow2 -b no.qcow2 -F qcow2 a.qcow2
refuses 'nothing to preallocate' qcow2_img create -f qcow2 \
        -b base.qcow2 -F qcow2 -o preallocation=metadata a.qcow2
refuses 'there is no directory .no.such.' \
    qcow2_img create -f qcow2 no/such/dir.qcow2 1M
refuses 'one file name' qcow2_img create -f qcow2
[ "$(ls)" = base.qcow2 ] || fail "something was left behind"

# What may not be replaced.
cp base.qcow2 keep.qcow2
refuses 'File exists' qcow2_img create --no-clobber -f qcow2 base.qcow2 1M
qcow2_img create -q -f qcow2 -b base.qcow2 -F qcow2 over.qcow2
for option in -q -u; do # -u: the backing file is not even opened
    refuses 'own backing chain' qcow2_img create "$option" -f qcow2 \
            -b ./base.qcow2 -F qcow2 base.qcow2 1M
done
refuses 'own backing chain' qcow2_img create -f qcow2 \
        -b over.qcow2 -F qcow2 base.qcow2
cmp base.qcow2 keep.qcow2
rm over.qcow2

# Backing files that the user names may be anywhere, but not what they name.
mkdir elsewhere
mv keep.qcow2 elsewhere
keep="$tmp/ours/elsewhere/keep.qcow2"
qcow2_img create -q -f qcow2 -b ../ours/elsewhere/keep.qcow2 -F qcow2 \
        "$tmp/theirs/b.qcow2"
check_image "$tmp/theirs/b.qcow2"
qcow2_img create -q -f qcow2 -o "backing_file=$keep,backing_fmt=qcow2" \
        "$tmp/theirs/b.qcow2"
check_image "$tmp/theirs/b.qcow2"
refuses "; --allow=$tmp/ours/elsewhere allows it, QCOW2_ALLOW=$tmp/ours/elsewhere " qcow2_img create \
        -f qcow2 -b ../theirs/b.qcow2 -F qcow2 c.qcow2
[ ! -e c.qcow2 ] || fail "c.qcow2 was made"
qcow2_img create -q -f qcow2 -b ../theirs/b.qcow2 -F qcow2 --allow . c.qcow2

# A backing file may be in use: its size and format are all that is needed.
hold_open base.qcow2
qcow2_img create -q -f qcow2 -b base.qcow2 -F qcow2 over.qcow2
qcow2_img create -q -f qcow2 -b over.qcow2 -F qcow2 top.qcow2
for image in over.qcow2 top.qcow2; do
    [ "$(qemu-img info -U --output=json $image | grep -c '"virtual-size": 10485760')" \
      -eq 1 ] || fail "$image has another size"
done
refuses 'lock' qcow2_img create -f qcow2 base.qcow2 1M
refuses 'own backing chain' qcow2_img create -f qcow2 -b over.qcow2 -F qcow2 \
        base.qcow2
release
check_image top.qcow2
