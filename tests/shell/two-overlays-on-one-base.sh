#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Two overlays on one base, served at once by one process with dir=, do not
# see each other's writes. Deleting an overlay goes back to the base.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires qemu-img --version

mkdir "$tmp/images"
cd "$tmp/images"
qemu-img create -q -f qcow2 base.qcow2 16M
qemu-io -c 'write -P 1 0 16M' base.qcow2 >/dev/null
make_overlay ()
{
    qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 "$1"
}
make_overlay a.qcow2
make_overlay b.qcow2
before="$(sha256sum <base.qcow2)"

start_nbdkit "$tmp/socket" dir="$tmp/images"
nbd_client a.qcow2 <<END
a, b = h, connect("b.qcow2")
for i in range(0, 16 << 20, 1 << 20):
    a.pwrite(b"a" * 100000, i)
    b.pwrite(b"b" * 100000, i + 50000)
a.flush()
b.flush()
for i in range(0, 16 << 20, 1 << 20):
    assert a.pread(200000, i) == b"a" * 100000 + b"\1" * 100000
    assert b.pread(200000, i) == b"\1" * 50000 + b"b" * 100000 + b"\1" * 50000

# The base is in use, so it is there for reading only.
base = connect("base.qcow2")
assert base.is_read_only()
assert base.pread(512, 0) == b"\1" * 512
END

# The server goes on, and takes what is there now under that name.
rm a.qcow2
make_overlay a.qcow2
nbd_client a.qcow2 <<END
assert h.pread(1 << 20, 0) == b"\1" * (1 << 20)
b = connect("b.qcow2")
assert b.pread(100000, 50000) == b"b" * 100000
END

# Also while somebody still has the old one.
nbd_client a.qcow2 <<END
h.pwrite(b"old", 0)
os.remove("a.qcow2")
assert os.system("qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2"
                 " a.qcow2") == 0
new = connect()
assert new.pread(3, 0) == b"\1\1\1"
assert h.pread(3, 0) == b"old"
END
stop_nbdkit
check_image a.qcow2
check_image b.qcow2
[ "$before" = "$(sha256sum <base.qcow2)" ] || fail "the base has changed"

# Nobody uses the base any more.
start_nbdkit "$tmp/socket" dir="$tmp/images"
nbd_client base.qcow2 <<END
assert not h.is_read_only()
END
