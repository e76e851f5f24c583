#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# nbdkit goes into the background and to another directory: relative names
# on the command line keep their meaning, and errors come before that.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires qemu-img --version

# shellcheck disable=SC2034 # for nbd_client
uri="nbd+unix:///?socket=$tmp/socket"

mkdir -p "$tmp/images" "$tmp/bases"
cd "$tmp/images"
qemu-img create -q -f qcow2 ../bases/base.qcow2 1M
qemu-io -c 'write -P 1 0 1M' ../bases/base.qcow2 >/dev/null
qemu-img create -q -f qcow2 -b ../bases/base.qcow2 -F qcow2 disk.qcow2

# background ARG...
# The server has the FIFO open: who reads it finds its end when it has ended.
background ()
{
    rm -f "$tmp/pid" "$tmp/ended"
    mkfifo "$tmp/ended"
    nbdkit_qcow2 -U "$tmp/socket" -P "$tmp/pid" "$@" 9<>"$tmp/ended"
}
end_background ()
{
    [ -e "$tmp/pid" ] || return 0
    exec 8<"$tmp/ended"
    kill "$(cat "$tmp/pid")"
    cat <&8
    exec 8<&-
    rm "$tmp/pid" "$tmp/socket"
}
cleanup_fn end_background

for args in 'disk.qcow2 allow=../bases' 'disk.qcow2 backing=../bases/base.qcow2'
do
    # shellcheck disable=SC2086
    background $args
    nbd_client <<'END'
assert h.pread(1 << 20, 0)[65536:] == b"\1" * ((1 << 20) - 65536)
h.pwrite(b"\2" * 65536, 0)
END
    nbd_client <<<'assert h.pread(65536, 0) == b"\2" * 65536'
    end_background
    check_image disk.qcow2
done
background dir=. allow=../bases
nbd_client disk.qcow2 <<<'assert h.pread(65536, 0) == b"\2" * 65536'
end_background

expect_output 'allow=' background disk.qcow2
[ ! -e "$tmp/pid" ] || fail "it started nevertheless"
