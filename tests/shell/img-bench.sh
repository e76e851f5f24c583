#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# qcow2-img bench makes the requests that it is told to make.

. ./functions.sh
. "$srcdir/shell/img.sh"
cd "$tmp"

# same [ARG...]: both announce the same.
same ()
{
    qemu-img bench "$@" disk.qcow2 | sed '$d' >theirs
    qcow2_img bench "$@" disk.qcow2 >ours
    grep -qE '^Run completed in [0-9]+\.[0-9]{3} seconds\.$' ours \
        || fail "it did not complete"
    sed '$d' ours | diff -u theirs -
    check_image disk.qcow2 >/dev/null
}
qemu-img create -q -f qcow2 disk.qcow2 4M
same -c 100
same -c 100 -d 4 -s 64k -S 128k -o 1M
same -c 100 -w -d 8 --flush-interval=10
same -c 100 -w -d 8 --flush-interval=10 --no-drain
same -c 10 -w -s 1k --pattern=7 -S 2k
fill disk.qcow2 qcow2 "read -P 7 0 1k" "read -P 7 18k 1k"
[ -z "$(qcow2_img bench -q -c 10 disk.qcow2)" ] || fail "-q prints"

refuses 'does not fit' qcow2_img bench -c 1 -s 8M disk.qcow2
refuses 'does not fit' qcow2_img bench -c 1 -o 4M disk.qcow2
refuses 'at least 1' qcow2_img bench -d 0 disk.qcow2
refuses 'needs* the locks' qcow2_img bench -U -w disk.qcow2
refuses 'goes with -w' qcow2_img bench --flush-interval=5 disk.qcow2
refuses 'not a number' qcow2_img bench -c x disk.qcow2
refuses 'No such file' qcow2_img bench nowhere
