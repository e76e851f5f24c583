#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A damaged L2 entry fails the request that meets it, with EIO; the image is
# marked corrupt once and takes no more writes; the rest can be read, what
# was flushed is there, and afterwards the image is served read-only.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires qemu-img --version

cd "$tmp"
# damage VALUE: the L2 entry of guest offset 1 MiB becomes VALUE
damage ()
{
    rm -f disk.qcow2
    qemu-img create -q -f qcow2 -o "${compat:-compat=v3}" disk.qcow2 4M
    qemu-io -c 'write -P 1 0 4M' disk.qcow2 >/dev/null
    "$nbd_python" - "$1" <<'END'
import struct, sys
with open("disk.qcow2", "r+b") as f:
    f.seek(40)
    l1, = struct.unpack(">Q", f.read(8))
    f.seek(l1)
    l2, = struct.unpack(">Q", f.read(8))
    f.seek((l2 & 0x00fffffffffffe00) + 16 * 8)
    f.write(struct.pack(">Q", int(sys.argv[1], 0)))
END
}
is_marked ()
{
    "$nbd_python" -c '
print(bool(open("disk.qcow2", "rb").read(80)[79] & 2))' | grep -q "$1" \
        || fail "marked corrupt should be $1"
}

meet='
M = 1 << 20
fails(errno.EIO, h.pread, M, M)
fails(errno.EIO, h.pread, 512, M)
assert h.pread(M, 0) == b"\1" * M
assert h.pread(M, 2 * M) == b"\1" * M
'

# Not at a cluster; a reserved bit.
for entry in 0x8000000000123400 0x8000000000120002; do
    damage $entry
    start_nbdkit "$tmp/socket" disk.qcow2 2>log
    nbd_client <<END
h.pwrite(b"\2" * 4096, 0x3f0000)
h.flush()
$meet
for write in (lambda: h.pwrite(b"x", 0), lambda: h.pwrite(b"x", M),
              lambda: h.zero(65536, 0), lambda: h.trim(65536, 0)):
    try:
        write()
    except nbd.Error as e:
        assert e.errnum in (errno.EIO, errno.EPERM), e
    else:
        raise AssertionError("a damaged image was written")
assert connect().pread(4096, 0x3f0000) == b"\2" * 4096
END
    stop_nbdkit
    cat log
    grep -q 'disk.qcow2.*damaged' log
    is_marked True

    # From now on it is read-only.
    sha256sum disk.qcow2 >before
    start_nbdkit "$tmp/socket" -v disk.qcow2 2>log
    nbd_client <<END
assert h.is_read_only()
$meet
assert h.pread(4096, 0x3f0000) == b"\2" * 4096
END
    stop_nbdkit
    grep -q 'read-only.*disk.qcow2.*corrupt' log
    sha256sum -c before
done

# Onto the refcount table: it is not overwritten.
damage 0x8000000000010000
start_nbdkit "$tmp/socket" disk.qcow2
nbd_client <<END
fails(errno.EIO, h.pwrite, b"x" * 512, M := 1 << 20)
fails(errno.EIO, h.pwrite, b"x", 0)
assert h.pread(M, 0) == b"\1" * M
END
stop_nbdkit
is_marked True
expect_output 'ERROR cluster 1 refcount=1 reference=2' qemu-img check disk.qcow2

# Without the right to write nothing is marked.
damage 0x8000000000123400
sha256sum disk.qcow2 >before
start_nbdkit "$tmp/socket" -r disk.qcow2
nbd_client <<<"$meet"
stop_nbdkit
sha256sum -c before

# Version 2 has no bit for it.
compat=compat=0.10 damage 0x8000000000123400
start_nbdkit "$tmp/socket" disk.qcow2
nbd_client <<END
$meet
fails(errno.EIO, h.pwrite, b"x", M)
END
stop_nbdkit
