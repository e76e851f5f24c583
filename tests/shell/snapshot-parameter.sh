#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# snapshot= makes a snapshot, chosen by name or id, the default export. The
# image is only read then; other snapshots are there as always.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires qemu-img --version

cd "$tmp"
qemu-img create -q -f qcow2 disk.qcow2 1M
qemu-io -c 'write -P 1 0 1M' disk.qcow2 >/dev/null
qemu-img snapshot -c one disk.qcow2
qemu-img resize -q disk.qcow2 2M
qemu-io -c 'write -P 2 0 2M' disk.qcow2 >/dev/null
qemu-img snapshot -c two disk.qcow2
qemu-io -c 'write -P 3 0 2M' disk.qcow2 >/dev/null
before="$(sha256sum <disk.qcow2)"

for snapshot in one 1 id:1 name:one snapshot.id=1 snapshot.name=one; do
    start_nbdkit "$tmp/socket" disk.qcow2 snapshot=$snapshot
    nbd_client <<END
assert h.is_read_only()
assert h.pread(1 << 20, 0) == b"\1" * (1 << 20)
assert h.get_size() == 1 << 20
for name in "@two", "@id:2", "@name:two", "@snapshot.id=2":
    assert connect(name).get_size() == 2 << 20
assert connect("@two").pread(2 << 20, 0) == b"\2" * (2 << 20)
assert os.system("qemu-img snapshot -l disk.qcow2 >/dev/null") == 0
END
    stop_nbdkit
done
[ "$before" = "$(sha256sum <disk.qcow2)" ] || fail "the image has changed"

expect_failure nbdkit_qcow2 -U - disk.qcow2 snapshot=three --run true 2>err
cat err
grep -q 'three' err
