#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# An image with lazy refcounts whose server was killed is marked dirty, holds
# what was flushed, and is mended by qemu-img, by QEMU when it opens it, and
# by us; so is one that QEMU left behind. Closed, it is as any other.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
. "$srcdir/shell/img.sh"
requires qemu-img --version
requires qemu-io --version

cd "$tmp"
qemu-img create -q -f qcow2 base.qcow2 64M
qemu-io -c 'write -P 1 0 64M' base.qcow2 >/dev/null

# is_dirty FILE
is_dirty ()
{
    [ "$(od -An -tu1 -j79 -N1 "$1" | tr -d ' ')" = 1 ]
}

# reads FILE [QEMU-IO-READ...]
reads ()
{
    local file="$1" read
    shift
    for read in "$@"; do
        qemu-io -r -c "read -P $read" "$file" >out
        expect_failure grep -q failed out
    done
}

# serve FILE COMMANDS: flushed, then killed
serve_and_kill ()
{
    start_nbdkit "$tmp/socket" "$1"
    hold_client <<<"$2"
    kill_nbdkit
    release_client
}

# mended FILE READ...: closed properly, nothing leaks, and it holds all
mended ()
{
    expect_failure is_dirty "$1"
    check_image "$1"
    reads "$@"
}

for options in cluster_size=64k cluster_size=4k,refcount_bits=1 \
               cluster_size=512,refcount_bits=64; do
    rm -f killed.qcow2
    qemu-img create -q -f qcow2 -o "lazy_refcounts=on,$options" \
             -b base.qcow2 -F qcow2 killed.qcow2
    serve_and_kill killed.qcow2 '
K, M = 1 << 10, 1 << 20
h.pwrite(b"\2" * M, 0)
h.pwrite(b"\2" * 100000, 30 * M)
h.flush()
h.zero(256 * K, 0)
h.trim(512 * K, 256 * K)
h.pwrite(b"\3" * 4096, 40 * M, nbd.CMD_FLAG_FUA)
'
    is_dirty killed.qcow2 || fail "$options: it is not marked"
    set -- '0 0 768k' '2 768k 256k' '2 30M 100000' '3 40M 4k' '1 41M 1M'
    reads killed.qcow2 "$@"

    cp killed.qcow2 by-check.qcow2
    qemu-img check -q -r all by-check.qcow2 >/dev/null
    mended by-check.qcow2 "$@"
    cp killed.qcow2 by-qemu.qcow2
    qemu-io -c 'write -P 4 50M 4k' by-qemu.qcow2 >/dev/null
    mended by-qemu.qcow2 "$@" '4 50M 4k'
    cp killed.qcow2 by-us.qcow2
    serve_and_kill by-us.qcow2 'h.pread(512, 0)'
    mended by-us.qcow2 "$@"
    qcow2_img check -q -r all killed.qcow2 >/dev/null
    mended killed.qcow2 "$@"
    rm by-*.qcow2
done

# QEMU's, killed.
rm -f qemu.qcow2
qemu-img create -q -f qcow2 -o lazy_refcounts=on -b base.qcow2 -F qcow2 \
         qemu.qcow2
qemu-io -c 'write -P 2 0 1M' -c 'write -P 3 30M 100000' -c flush \
        -c 'discard 0 128k' -c flush -c 'sigraise 9' qemu.qcow2 \
        >/dev/null 2>&1 || :
is_dirty qemu.qcow2
start_nbdkit "$tmp/socket" qemu.qcow2
nbd_client <<<'h.pwrite(b"\4" * 4096, 50 << 20, nbd.CMD_FLAG_FUA)'
stop_nbdkit
mended qemu.qcow2 '2 128k 896k' '3 30M 100000' '4 50M 4k' '1 41M 1M'

# Snapshots come and go meanwhile.
qcow2_img snapshot -c one qemu.qcow2
start_nbdkit "$tmp/socket" qemu.qcow2
hold_client <<<'
h.pwrite(b"\5" * (1 << 20), 0)
h.flush()
'
kill_nbdkit
release_client
is_dirty qemu.qcow2
qemu-img convert -l one -O qcow2 qemu.qcow2 one.qcow2
reads one.qcow2 '2 128k 896k' '1 41M 1M'
qcow2_img snapshot -d one qemu.qcow2
mended qemu.qcow2 '5 0 1M' '4 50M 4k'

# The image says so, in the same words as to qemu-img.
qcow2_img create -q -f qcow2 -o lazy_refcounts=on,compat=1.1 new.qcow2 1M
qcow2_img info new.qcow2 | grep -q 'lazy refcounts: true'
qcow2_img amend -q -o lazy_refcounts=off new.qcow2
qcow2_img info --output=json new.qcow2 >ours.json
qemu-img info --output=json new.qcow2 >theirs.json
[ "$(json_value ours.json format-specific.data.lazy-refcounts)" = \
  "$(json_value theirs.json format-specific.data.lazy-refcounts)" ]
expect_failure qcow2_img create -q -f qcow2 \
               -o lazy_refcounts=on,compat=0.10 old.qcow2 1M
