#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# When the file system is full, qcow2-img says so, nothing is lost, and with
# space the same command completes.

. ./functions.sh
. "$srcdir/shell/img.sh"
requires mount --version

# A small file system needs a name space of our own.
if [ -z "${IN_NAMESPACE:-}" ]; then
    root=-r
    if [ "$(id -u)" -eq 0 ]; then
        root=
    fi
    requires unshare $root -m mount -t tmpfs none "$tmp"
    unshare $root -m env IN_NAMESPACE=1 bash "$0"
    exit
fi
mkdir "$tmp/small"
mount -t tmpfs -o size=24m none "$tmp/small"
cleanup_fn umount -l "$tmp/small"

head -c 4M /dev/urandom >"$tmp/random"
qemu-img create -q -f qcow2 "$tmp/base.qcow2" 8M
fill "$tmp/base.qcow2" qcow2 "write -s $tmp/random 4M 4M"
qemu-img create -q -f qcow2 "$tmp/other.qcow2" 8M
fill "$tmp/other.qcow2" qcow2 "write -s $tmp/random 0 4M"
cd "$tmp/small"

# start: a base, an overlay of 4 MiB, and no space left but 1 MiB.
start ()
{
    rm -f ./*
    cp "$tmp/base.qcow2" "$tmp/other.qcow2" .
    qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2
    fill overlay.qcow2 qcow2 "write -s $tmp/random 2M 4M"
    qemu-img convert -O raw overlay.qcow2 "$tmp/expected.raw"
    head -c "$(($(stat -f -c '%a * %S' .) - 1048576))" /dev/zero >ballast
}

# fails [ARG...]: for want of space, and all reads as before.
fails ()
{
    refuses 'No space left' qcow2_img "$@"
    qemu-img compare -q overlay.qcow2 "$tmp/expected.raw" \
        || fail "$1 changed the overlay"
    for image in base.qcow2 overlay.qcow2 other.qcow2; do
        qemu-img check -q "$image" 2>/dev/null || [ $? -eq 3 ] \
            || fail "$1 damaged $image"
    done
    [ "$(echo *)" = "ballast base.qcow2 other.qcow2 overlay.qcow2" ] \
        || fail "$1 left something behind: $(echo *)"
    rm ballast
}

start
fails commit overlay.qcow2
qcow2_img commit -q overlay.qcow2
qemu-img compare -q base.qcow2 "$tmp/expected.raw" || fail "not committed"

start
fails rebase -b other.qcow2 -F qcow2 overlay.qcow2
qcow2_img rebase -b other.qcow2 -F qcow2 overlay.qcow2
qemu-img compare -q overlay.qcow2 "$tmp/expected.raw" || fail "not rebased"

start
fails convert -O raw overlay.qcow2 copy.raw
qcow2_img convert -O raw overlay.qcow2 copy.raw
qemu-img compare -q copy.raw "$tmp/expected.raw" || fail "not converted"

start
fails convert -O qcow2 overlay.qcow2 copy.raw
start
fails create -q -f qcow2 -o preallocation=full copy.raw 4M

start
head -c 4M "$tmp/random" >"$tmp/state"
fails snapshot save-state one "$tmp/state" overlay.qcow2
[ -z "$(qcow2_img snapshot -l overlay.qcow2)" ] || fail "half a snapshot"
qcow2_img snapshot save-state one "$tmp/state" overlay.qcow2
qcow2_img snapshot load-state one - overlay.qcow2 | cmp "$tmp/state"

start
fails resize --preallocation=full overlay.qcow2 16M
expect_output '^virtual size: 8 MiB' qcow2_img info overlay.qcow2
