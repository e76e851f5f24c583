#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What holds a disk's data or a guest's memory has the mode of what it was
# made of, or is for its owner alone.

. ./functions.sh
requires qcow2_img --version
cd "$tmp"
umask 022

# mode FILE MODE
mode ()
{
    [ "$(stat -c %a "$1")" = "$2" ] || fail "$1 has mode $(stat -c %a "$1")"
}

qcow2_img create -q -f qcow2 disk 1M
mode disk 644
# Its owner may write it, whatever the source is.
for m in 600 640 644 400; do
    chmod $m disk
    for format in raw qcow2; do
        qcow2_img convert -O $format disk copy
        mode copy "$([ $m = 400 ] && echo 600 || echo $m)"
        rm copy
    done
    qcow2_img dd -O raw if=disk of=copy
    mode copy "$([ $m = 400 ] && echo 600 || echo $m)"
    rm copy
done
chmod 644 disk

# Of two, what both allow; what is there keeps its mode.
qcow2_img create -q -f qcow2 second 1M
chmod 600 second
qcow2_img convert -O raw disk second copy
mode copy 600
chmod 644 copy
qcow2_img convert -O raw second copy
mode copy 644

# The backing file counts as well.
qcow2_img create -q -f qcow2 -b second -F qcow2 overlay
qcow2_img convert -O raw overlay flat
mode flat 600

# VM state.
head -c 70000 /dev/urandom >memory
qcow2_img snapshot save-state one memory disk
qcow2_img snapshot load-state one state disk
mode state 600
cmp -n 70000 memory state
head -c 100000 /dev/zero >old
qcow2_img snapshot load-state one old disk
mode old 644
[ "$(stat -c %s old)" = "$(stat -c %s state)" ] || fail "old was not emptied"

# The image itself is not written over, whatever name it has.
ln disk hard
ln -s disk soft
for name in disk hard soft; do
    qcow2_img snapshot load-state one $name disk 2>err && fail "done"
    grep -q 'the image itself' err || fail "$(cat err)"
    qcow2_img snapshot save-state two $name disk 2>err && fail "done"
    grep -q 'the image itself' err || fail "$(cat err)"
done
qcow2_img check -q disk
