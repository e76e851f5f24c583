#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Any client of a writable dir= may write every image in it, those that
# others use as backing files too, unless one is in use as such just now; with
# -r nobody may. With -u it is that user's rights that count. A server that a
# service manager hands its socket is no different.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires qemu-img --version
requires nbdinfo --version

cd "$tmp"
mkdir images
qemu-img create -q -f qcow2 images/base.qcow2 1M
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 images/disk.qcow2
qemu-img create -q -f qcow2 images/other.qcow2 1M

start_nbdkit "$tmp/socket" dir=images
nbd_client base.qcow2 <<'END'
h.pwrite(b"1" * 512, 0)
h.flush()
h.shutdown()
overlay = connect("disk.qcow2")
assert overlay.pread(512, 0) == b"1" * 512
c = connect("base.qcow2")
assert c.is_read_only()
fails(errno.EPERM, c.pwrite, b"2" * 512, 0)
assert not connect("other.qcow2").is_read_only()
END
stop_nbdkit

start_nbdkit "$tmp/socket" -r dir=images
nbd_client base.qcow2 <<'END'
for name in "base.qcow2", "disk.qcow2", "other.qcow2":
    c = connect(name)
    assert c.is_read_only()
    fails(errno.EPERM, c.pwrite, b"2" * 512, 0)
END
stop_nbdkit

# By systemd's protocol.
if [ -z "$sanitizer_runtime" ]; then
    [ "$(nbdinfo --size -- [ nbdkit "$plugin" images/disk.qcow2 ])" \
      = 1048576 ] || fail "it does not serve on a socket that it is given"
fi

[ "$(id -u)" -eq 0 ] && [ -z "$sanitizer_runtime" ] || exit 0
chmod 755 "$tmp" images
chown nobody images/disk.qcow2
qemu-img create -q -f qcow2 images/secret.qcow2 1M
chmod 600 images/secret.qcow2
install -d -o nobody run
start_nbdkit "$tmp/run/socket" -u nobody dir=images 2>log
grep -Eqx "Uid:(.$(id -u nobody)){4}" "/proc/$nbdkit_pid/status" \
    || fail "the server runs as somebody else"
nbd_client disk.qcow2 <<'END'
assert not h.is_read_only()
h.pwrite(b"3" * 512, 0)
h.flush()
c = connect("other.qcow2")
assert c.is_read_only()
fails(errno.EPERM, c.pwrite, b"2" * 512, 0)
fails(errno.ENOENT, connect, "secret.qcow2")
END
stop_nbdkit
check_image images/disk.qcow2
grep -q 'secret.qcow2: cannot open: Permission denied$' log \
    || fail "another reason, or a remedy that is none: $(cat log)"
