#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# -D qcow2.TOPIC=1 prints what its topic is about, and only that.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires qemu-img --version

cd "$tmp"
patterns=('.*: version 3, ' ': map 0x' ': allocate ' ': flush: ')

# prints INDEX [TOPIC]: of the patterns, only this one is in the log
prints ()
{
    local i
    qemu-img create -q -f qcow2 disk.qcow2 1M
    start_nbdkit "$tmp/socket" -v ${2:+-D "qcow2.$2=1"} disk.qcow2 2>log
    nbd_client >/dev/null <<<'h.pwrite(b"x", 0); h.flush(); h.pread(1, 0)'
    stop_nbdkit
    for i in 0 1 2 3; do
        if grep -q "debug${patterns[i]}" log; then
            [ "$i" = "$1" ] || fail "'${patterns[i]}' is in the log of $2"
        else
            [ "$i" != "$1" ] || fail "'${patterns[i]}' is not in it: $(cat log)"
        fi
    done
}
prints none
prints 0 open
prints 1 map
prints 2 alloc
prints 3 flush
