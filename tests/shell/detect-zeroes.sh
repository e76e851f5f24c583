#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# detect-zeroes= turns written zeroes into zero clusters, with or without
# their space; without it they are data.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires qemu-img --version

cd "$tmp"
# after PARAMETER PATTERN: what qemu-img says of a cluster after zeroes were
# written to it
after ()
{
    rm -f disk.qcow2
    qemu-img create -q -f qcow2 disk.qcow2 1M
    qemu-io -c 'write -P 1 0 1M' disk.qcow2 >/dev/null
    start_nbdkit "$tmp/socket" disk.qcow2 ${1:+"$1"}
    nbd_client <<'END'
h.pwrite(bytes(65536), 0)
h.pwrite(bytes(65535) + b"x", 65536)
assert h.pread(131072, 0) == bytes(131071) + b"x"
h.flush()
END
    stop_nbdkit
    check_image disk.qcow2
    qemu-img map --output=json disk.qcow2 | tee map
    head -1 map | grep -Eq "$2" || fail "with '$1' the first cluster is not $2"
}
after '' '"length": 1048576,.*"zero": false'
after detect-zeroes=off '"length": 1048576,.*"zero": false'
after detect-zeroes=on '"length": 65536,.*"zero": true.*"offset"'
after detect-zeroes=unmap '"length": 65536,.*"zero": true'
