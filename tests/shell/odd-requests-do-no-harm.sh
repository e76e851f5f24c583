#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A client may send any command with any flags, whether offered or not: the
# server answers and goes on, for every kind of export.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires qemu-img --version

cd "$tmp"
mkdir dir
qemu-img create -q -f raw dir/base.raw 1M
qemu-img create -q -f qcow2 dir/v3.qcow2 1M
qemu-img create -q -f qcow2 -o compat=0.10 dir/v2.qcow2 1M
qemu-img create -q -f qcow2 -o compat=0.10 -b base.raw -F raw dir/overlay.qcow2
for name in v3 v2 overlay; do
    qemu-io -c 'write -P 1 0 512k' "dir/$name.qcow2" >/dev/null
    qemu-img snapshot -c sn "dir/$name.qcow2"
done

# attack OPTION...: all exports of a server
attack ()
{
    local target
    start_nbdkit "$tmp/socket" "$@" dir=dir
    for target in {v3,v2,overlay}.qcow2{,@sn}; do
        nbd_client "$target" <<'END'
def ask(f, *args):
    try:
        f(*args)
        return True
    except nbd.Error as e:
        assert e.errnum is not None, e # else the server is gone
        return False

h.set_strict_mode(0)
K = 1 << 10
answered = 0
for flags in range(64):
    for length, at in (64 * K, 0), (300, 700 * K), (64 * K, 1 << 20):
        answered += ask(h.zero, length, at, flags)
        answered += ask(h.trim, length, at, flags)
        answered += ask(h.pwrite, bytes(length), at, flags)
        answered += ask(h.cache, length, at, flags)
        answered += ask(h.block_status, length, at, lambda *a: 0, flags)
    answered += ask(h.flush, flags)
h.set_pread_initialize(False)
assert len(h.pread(512, 0)) == 512
assert answered > 0
END
    done
    stop_nbdkit
}

attack
attack -r
qemu-img create -q -f qcow2 dir/v3.qcow2 8G
start_nbdkit "$tmp/socket" dir=dir
nbd_client v3.qcow2 <<'END'
for flags in 0, nbd.CMD_FLAG_REQ_ONE:
    found = []
    h.block_status(2**32 - 1, 0, lambda c, at, e, err: found.extend(e), flags)
    assert found and found[0] <= 2**32 - 1, found
assert len(h.pread(512, 0)) == 512
END
stop_nbdkit
check_image dir/v3.qcow2
check_image dir/v2.qcow2
check_image dir/overlay.qcow2
