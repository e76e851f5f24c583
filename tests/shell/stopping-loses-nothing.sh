#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# When nbdkit is stopped, or clients leave without a word, all that they
# wrote is in the image, and nothing leaks.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires qemu-img --version
requires qemu-io --version

cd "$tmp"
new ()
{
    rm -f disk.qcow2
    qemu-img create -q -f qcow2 -o lazy_refcounts=on disk.qcow2 64M
    qemu-img snapshot -c snap disk.qcow2
}
holds_all ()
{
    check_image disk.qcow2
    [ "$(qemu-io -r -c 'read -P 5 0 10M' -c 'read -P 0 10M 1M' \
        -c 'read -P 6 60M 1M' disk.qcow2 | tee out | grep -c failed)" -eq 0 ] \
        || fail "$(cat out)"
}
writes='
h.pwrite(b"\5" * (10 << 20), 0)
h.pwrite(b"\7" * (1 << 20), 10 << 20)
h.zero(1 << 20, 10 << 20)
connect().pwrite(b"\6" * (1 << 20), 60 << 20)
snapshot = connect("@snap")
'

# Stopped while clients are connected: nbdkit waits until they have gone.
new
start_nbdkit "$tmp/socket" disk.qcow2
nbd_client <<END
$writes
import signal
os.kill($nbdkit_pid, signal.SIGTERM)
END
stop_nbdkit
holds_all

# The clients are gone.
new
start_nbdkit "$tmp/socket" disk.qcow2
nbd_client <<<"$writes"
stop_nbdkit
holds_all

# The command of --run ends the server.
new
nbdkit_qcow2 -U - disk.qcow2 --run "
    qemu-io -f raw -c 'write -P 5 0 10M' -c 'write -P 6 60M 1M' \"\$uri\""
holds_all
