#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# qcow2-img convert copies disks of every kind to images that QEMU reads the
# same and finds clean.

. ./functions.sh
. "$srcdir/shell/img.sh"
cd "$tmp"

# is_copy SOURCE TARGET
is_copy ()
{
    qemu-img compare -q "$1" "$2" || fail "$2 reads differently from $1"
    case "$2" in
        *.qcow2) check_image "$2" >/dev/null ;;
    esac
}

qemu-img create -q -f raw source.raw 6M
fill source.raw raw "write -P 1 64k 1M" "write -P 2 3M 100k" \
     "write -P 3 5M 1M"
dd if=/dev/urandom of=source.raw bs=64k seek=40 count=4 conv=notrunc \
    status=none
qemu-img create -q -f qcow2 -o cluster_size=4k -b source.raw -F raw mid.qcow2
fill mid.qcow2 qcow2 "write -P 4 2M 200k" "write -z 5M 128k"
qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2 8M
fill top.qcow2 qcow2 "write -P 5 7M 64k" "write -P 6 1k 1k"

for source in source.raw mid.qcow2 top.qcow2; do
    qcow2_img convert -O raw "$source" out.raw
    is_copy "$source" out.raw
    for options in "" "-c" "-c -o compression_type=zstd" "-c -W -m 4" \
                   "-o compat=0.10" "-o cluster_size=512" "-S 0" "-S 64k" \
                   "-m 1" "-o cluster_size=2M" "-c -o cluster_size=2M" \
                   "-o refcount_bits=1" "-r 1G" "-t none -T none" \
                   "-o preallocation=metadata" "-o preallocation=full"
    do
        # shellcheck disable=SC2086  # several words
        qcow2_img convert -O qcow2 $options "$source" out.qcow2
        is_copy "$source" out.qcow2
    done
done

# Holes stay holes, and -S 0 makes none.
qcow2_img convert -O raw top.qcow2 out.raw
[ "$(stat -c '%b' out.raw)" -lt 8192 ] || fail "no holes"
qcow2_img convert -S 0 -O raw top.qcow2 out.raw
[ "$(stat -c '%b' out.raw)" -ge 16384 ] || fail "holes"
qcow2_img convert -S 0 -O qcow2 top.qcow2 out.qcow2
check_image out.qcow2 | grep -q '^128/128 ' || fail "not all is allocated"
qcow2_img convert -c -O qcow2 top.qcow2 out.qcow2
check_image out.qcow2 | grep -qE '[1-9][0-9][.0-9]*% compressed' \
    || fail "not compressed"

# Only what is above a common base.
qcow2_img convert -O qcow2 -B mid.qcow2 -F qcow2 top.qcow2 copy.qcow2
is_copy top.qcow2 copy.qcow2
qcow2_img map --output=json copy.qcow2 | grep -q '"depth": 1' \
    || fail "the base was copied"
qcow2_img convert -O qcow2 -o backing_file=mid.qcow2,backing_fmt=qcow2 \
    top.qcow2 copy.qcow2
is_copy top.qcow2 copy.qcow2

# That base may be anywhere, for the source as well; but it alone.
mkdir ours theirs
qemu-img convert -O qcow2 mid.qcow2 theirs/base.qcow2
cp theirs/base.qcow2 theirs/other.qcow2
qemu-img rebase -u -b ../theirs/base.qcow2 -F qcow2 -f qcow2 top.qcow2
cp top.qcow2 ours/top.qcow2
qemu-img rebase -u -b mid.qcow2 -F qcow2 -f qcow2 top.qcow2
refuses 'from 1 to 64' qcow2_img convert -m 100 source.qcow2 target.qcow2
refuses 'from 1 to 64' qcow2_img convert -m 0 source.qcow2 target.qcow2
refuses '; --allow=.*/theirs allows it, .* always; --source-backing' \
    qcow2_img convert -O qcow2 ours/top.qcow2 ours/copy.qcow2
refuses '; --allow=.*/theirs allows it, .* always; --source-backing' \
    qcow2_img convert -O qcow2 -B ../theirs/other.qcow2 -F qcow2 \
    ours/top.qcow2 ours/copy.qcow2
qcow2_img convert -O qcow2 -B ../theirs/base.qcow2 -F qcow2 \
    ours/top.qcow2 ours/copy.qcow2
qcow2_img compare --allow theirs ours/top.qcow2 ours/copy.qcow2

# Snapshots: by name, by id, by both; with their own size.
cp source.raw snap.raw
qemu-img convert -O qcow2 source.raw snap.qcow2
qemu-img snapshot -c one snap.qcow2
fill snap.qcow2 qcow2 "write -P 9 0 6M"
qemu-img resize -q snap.qcow2 9M
for snapshot in one 1 snapshot.name=one snapshot.id=1 \
                snapshot.id=1,snapshot.name=one; do
    qcow2_img convert -l "$snapshot" -O raw snap.qcow2 out.raw
    cmp snap.raw out.raw
done
refuses "no snapshot" qcow2_img convert -l two -O raw snap.qcow2 none.raw
refuses "no snapshot" qcow2_img convert -l snapshot.id=1,snapshot.name=two \
    -O raw snap.qcow2 none.raw

# Behind each other.
head -c 1000448 /dev/urandom >odd.raw
cat odd.raw source.raw >both.raw
qcow2_img convert -f raw -O qcow2 odd.raw source.raw out.qcow2
is_copy both.raw out.qcow2

# Into what is there already.
qemu-img create -q -f raw there.raw 8M
fill there.raw raw "write -P 7 0 8M"
qcow2_img convert -n -O raw top.qcow2 there.raw
is_copy top.qcow2 there.raw
qemu-img create -q -f qcow2 there.qcow2 8M
qcow2_img convert -n --target-is-zero -O qcow2 top.qcow2 there.qcow2
is_copy top.qcow2 there.qcow2

# Progress.
qcow2_img convert -p -O raw top.qcow2 out.raw | tr '\r' '\n' >out
expect_output '^    \(0\.00/100%\)$' cat out
expect_output '^    \(100\.00/100%\)$' cat out
[ -z "$(qcow2_img convert -O raw top.qcow2 out.raw)" ] || fail "it prints"

# Mistakes leave nothing behind.
rm -f out.*
qcow2_img convert -O qcow2 source.raw keep.qcow2
cp keep.qcow2 keep.before
ls >before
refuses 'File exists' qcow2_img convert --no-clobber -O qcow2 \
    source.raw keep.qcow2
refuses 'cannot be the target' qcow2_img convert -O qcow2 mid.qcow2 mid.qcow2
refuses 'No such file' qcow2_img convert -O raw nowhere.raw out.raw
refuses 'cannot be compressed' qcow2_img convert -c source.raw out.raw
refuses 'at least one source' qcow2_img convert source.raw
refuses 'multiple of 512' qcow2_img convert -S 100 source.raw out.raw
refuses 'goes with -n' qcow2_img convert --target-is-zero source.raw out.raw
refuses '-n makes none' qcow2_img convert -n -o size=1G source.raw there.raw
refuses 'No such file' qcow2_img convert -n -O raw source.raw out.raw
refuses 'must be 2 or 3|compat' qcow2_img convert -O qcow2 -o compat=9 \
    source.raw out.qcow2
refuses 'version 2' qcow2_img convert -O qcow2 \
    -o compat=0.10,refcount_bits=1 source.raw out.qcow2
refuses 'the target has 1000448 bytes' qcow2_img convert -n -O raw both.raw odd.raw
cmp keep.qcow2 keep.before
ls | diff -u before -

# 4 KiB here and there take a subcluster each, as in QEMU.
python3 - <<'END'
with open("sparse.raw", "wb") as f:
    f.truncate(8 << 20)
    for off in range(0, 8 << 20, 1 << 16):
        f.seek(off)
        f.write(b"a" * 4096)
END
qcow2_img convert -O qcow2 -o extended_l2=on sparse.raw out.qcow2
qemu-img convert -O qcow2 -o extended_l2=on,cluster_size=128k sparse.raw \
    qemu.qcow2
[ "$(qemu-img map out.qcow2 | wc -l)" = "$(qemu-img map qemu.qcow2 | wc -l)" ] \
    || fail "other subclusters than QEMU's are allocated"
rm sparse.raw out.qcow2 qemu.qcow2

# A source that cannot be read: the target does not stay, unless told.
cp top.qcow2 bad.qcow2
python3 - <<'END'
import struct
with open("bad.qcow2", "r+b") as f:
    header = f.read(104)
    l1, = struct.unpack(">Q", header[40:48])
    f.seek(l1)
    l2 = struct.unpack(">Q", f.read(8))[0] & 0x00fffffffffffe00
    f.seek(l2 + 8 * 112) # guest offset 7 MiB
    f.write(struct.pack(">Q", 0x8000000000000200)) # not a cluster's start
END
expect_failure qcow2_img convert -O raw bad.qcow2 out.raw
[ ! -e out.raw ] || fail "the target was left"
qcow2_img convert --salvage -O raw bad.qcow2 out.raw
fill out.raw raw "read -P 0 7M 64k" "read -P 6 1k 1k"
