#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# qcow2-img amend: another version, another width of refcounts, the same
# content.

. ./functions.sh
. "$srcdir/shell/img.sh"
cd "$tmp"

# specific KEY VALUE: of the format specific data that qemu-img tells.
specific ()
{
    qemu-img info --output=json disk.qcow2 >out.json
    [ "$(json_value out.json "format-specific.data.$1")" = "$2" ] \
        || fail "$1 is not $2"
    check_image disk.qcow2 >/dev/null
    qemu-img compare -q disk.qcow2 expected.raw || fail "other content"
}

qemu-img create -q -f raw base.raw 4M
fill base.raw raw "write -P 1 0 4M"
qemu-img create -q -f qcow2 -b base.raw -F raw disk.qcow2
fill disk.qcow2 qcow2 "write -P 2 100k 300k" "write -z 1M 128k"
qemu-img convert -O raw disk.qcow2 expected.raw

qcow2_img amend -o compat=0.10 disk.qcow2
specific compat 0.10
[ -z "$(qcow2_img amend -q -o compat=1.1 disk.qcow2)" ]
specific compat 1.1
for bits in 1 64 8 16; do
    qcow2_img amend -o "refcount_bits=$bits" disk.qcow2
    specific refcount-bits "$bits"
done
qcow2_img amend -o lazy_refcounts=on disk.qcow2
specific lazy-refcounts true
qcow2_img amend -o lazy_refcounts=off,refcount_bits=32 disk.qcow2
specific lazy-refcounts false
specific refcount-bits 32

cp disk.qcow2 before.qcow2
refuses '16' qcow2_img amend -o compat=0.10 disk.qcow2
qcow2_img snapshot -c one disk.qcow2
cp disk.qcow2 before.qcow2
refuses 'refcount' qcow2_img amend -o refcount_bits=1 disk.qcow2
refuses 'say what to change' qcow2_img amend disk.qcow2
refuses 'changed by rebase' qcow2_img amend -o backing_file=x disk.qcow2
refuses 'can be changed' qcow2_img amend -o cluster_size=4k disk.qcow2
refuses 'can be changed' qcow2_img amend -o compression_type=zlib disk.qcow2
refuses '1, 2, 4' qcow2_img amend -o refcount_bits=7 disk.qcow2
refuses 'nothing to amend' qcow2_img amend -f raw -o compat=1.1 base.raw
refuses 'one image' qcow2_img amend -o compat=1.1
cmp disk.qcow2 before.qcow2
