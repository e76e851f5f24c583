#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# With -r no byte of any file changes, whatever a writer would have to put in
# order first: the dirty bit, unknown autoclear bits, leaks.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires qemu-img --version

cd "$tmp"
qemu-img create -q -f qcow2 base.qcow2 4M
qemu-io -c 'write -P 1 0 4M' base.qcow2 >/dev/null
qemu-img create -q -f qcow2 -o lazy_refcounts=on -b base.qcow2 -F qcow2 \
         disk.qcow2
qemu-io -c 'write -P 2 0 1M' disk.qcow2 >/dev/null
qemu-img snapshot -c snap disk.qcow2
# A crash with lazy refcounts leaves the image dirty.
qemu-io -c 'write -P 3 1M 1M' -c flush -c 'sigraise 9' disk.qcow2 \
        >/dev/null 2>&1 || :
"$nbd_python" - <<'END'
with open("disk.qcow2", "r+b") as f:
    f.seek(79)
    assert f.read(1) == b"\1", "the image is dirty"
    f.seek(88) # autoclear_features: all that nobody knows
    f.write(b"\xff" * 7 + b"\xf8")
END
chmod 444 base.qcow2 disk.qcow2
sha256sum base.qcow2 disk.qcow2 >before
stat -c '%Y %Z %b %s' base.qcow2 disk.qcow2 >>before

# use [PARAMETER...]
use ()
{
    start_nbdkit "$tmp/socket" "$@"
    nbd_client "$export" <<'END'
assert h.is_read_only()
assert h.pread(1 << 20, 0) == b"\2" * (1 << 20)
assert h.pread(1 << 20, 2 << 20) == b"\1" * (1 << 20)
assert h.pread(1 << 20, 1 << 20) in (b"\3" * (1 << 20), b"\1" * (1 << 20))
h.flush()
h.cache(4 << 20, 0)
h.set_strict_mode(0) # let the server refuse
fails(errno.EPERM, h.pwrite, b"x", 0)
fails(errno.EPERM, h.zero, 512, 0)
fails(errno.EPERM, h.trim, 512, 0)
END
    nbd_client "$snapshot" <<<'assert h.is_read_only(); h.pread(512, 0)'
    stop_nbdkit
    sha256sum base.qcow2 disk.qcow2 >after
    stat -c '%Y %Z %b %s' base.qcow2 disk.qcow2 >>after
    diff before after
}
export='' snapshot=@snap
use -r disk.qcow2
use -r disk.qcow2 discard=on detect-zeroes=unmap lock=off
export=disk.qcow2 snapshot=disk.qcow2@snap
use -r dir=.

# A descriptor open for reading is as good.
export='' snapshot=@snap
use fd=7 7<disk.qcow2
