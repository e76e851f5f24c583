#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A real kernel after a failed flush: ext4 on a loop device whose backing
# store is full for a while. The kernel then counts pages as clean that are
# not on the disk. Whoever opens the file in the same server cannot write to
# it; a new process finds what the disk has; and what is flushed from then on,
# or committed, is there after the file system was mounted anew.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires qemu-img --version
requires mke2fs -V
requires losetup --version
requires fstrim --version
# Not every machine has loop devices for us, which is no reason to fail.
if [ "$(id -u)" -ne 0 ] || ! losetup -f >/dev/null 2>&1; then
    echo "$0: skipped: this needs root and loop devices"
    exit 77
fi
if [ -z "${IN_NAMESPACE:-}" ]; then
    requires unshare -m mount -t tmpfs none "$tmp"
    unshare -m env IN_NAMESPACE=1 bash "$0"
    exit
fi

store="$tmp/store"
disk="$tmp/disk"
mkdir "$store" "$disk"
mount -t tmpfs -o size=48m none "$store"
cleanup_fn umount -l "$store"
truncate -s 200M "$store/image"
# Without a journal: ext4 goes on after the failure.
mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=0 -F "$store/image"
mount_disk ()
{
    mount -o loop "$store/image" "$disk"
}
mount_disk
cleanup_fn umount "$disk"
cleanup_fn cd /
cd "$disk"

# What files that are gone had in the store must not be there to be reused.
fill_store ()
{
    sync -f "$disk"
    fstrim "$disk"
    dd if=/dev/zero of="$store/ballast" bs=64k 2>/dev/null || :
}

empty_store ()
{
    rm "$store/ballast"
}

# What is on the disk, past all caches.
mount_anew ()
{
    cd "$tmp"
    umount "$disk"
    mount_disk
    cd "$disk"
}

# data_are FILE FORMAT COMMAND...: qemu-io reads what it is told to.
data_are ()
{
    local file="$1" format="$2" commands=()
    shift 2
    for c; do
        commands+=(-c "$c")
    done
    qemu-io -r -f "$format" "${commands[@]}" "$file" | tee "$tmp/out"
    expect_failure grep -q failed "$tmp/out"
}

# fail_and_reconnect FORMAT FILE ARG...: a server with these arguments
fail_and_reconnect ()
{
    local format="$1" file="$2"
    shift 2
    start_nbdkit "$tmp/socket" "$@" 2>"$tmp/log"
    nbd_client "${export:-}" <<'PY'
h.pwrite(b"\1" * 65536, 0)
h.flush()
PY
    fill_store
    nbd_client "${export:-}" <<'PY'
h.pwrite(b"\2" * (4 << 20), 8 << 20)
try:
    h.flush()
except nbd.Error as e:
    assert e.errnum in (errno.ENOSPC, errno.EIO), e
else:
    raise AssertionError("the flush did not fail: nothing was tested")
fails(errno.EIO, h.flush)
PY
    empty_store
    # Anew, in the same process.
    if nbd_client "${export:-}" <<'PY' 2>"$tmp/refused"
h.pread(512, 8 << 20)
h.pwrite(b"\3" * 512, 0)
h.flush()
PY
    then
        fail "$format: the file takes writes after a failed flush"
    fi
    cat "$tmp/log"
    grep -q 'restart the process' "$tmp/log"
    stop_nbdkit || :
    # Another process.
    start_nbdkit "$tmp/socket" "$@" 2>"$tmp/log"
    nbd_client "${export:-}" <<'PY'
assert h.pread(65536, 0) == b"\1" * 65536
seen = h.pread(4 << 20, 8 << 20)
open(os.environ["tmp"] + "/seen", "wb").write(seen)
h.pwrite(b"\4" * 65536, 65536)
h.pwrite(b"\5" * 512, (8 << 20) + 4096)
h.flush()
PY
    stop_nbdkit
    mount_anew
    qemu-img convert -f "$format" -O raw "$file" "$tmp/now"
    cmp -n 65536 "$tmp/now" <(tr '\0' '\1' </dev/zero | head -c 65536)
    cmp -n 65536 -i 65536:0 "$tmp/now" \
        <(tr '\0' '\4' </dev/zero | head -c 65536)
    # What was read was on the disk, but for the sector written since.
    printf '\5%.0s' {1..512} \
        | dd of="$tmp/seen" bs=512 seek=8 conv=notrunc status=none
    cmp -n $((4 << 20)) -i $((8 << 20)):0 "$tmp/now" "$tmp/seen"
}

export tmp
qemu-img create -q -f qcow2 v3.qcow2 64M
fail_and_reconnect qcow2 v3.qcow2 v3.qcow2
check_image v3.qcow2
rm v3.qcow2

qemu-img create -q -f qcow2 -o compat=0.10 v2.qcow2 64M
fail_and_reconnect qcow2 v2.qcow2 v2.qcow2
rm v2.qcow2

mkdir dir
truncate -s 64M dir/disk.raw
export=disk.raw fail_and_reconnect raw dir/disk.raw dir=dir
rm -r dir

# commit: fails, and "do it again" does it.
for format in qcow2 raw; do
    qemu-img create -q -f $format base 32M
    qemu-img create -q -f qcow2 -b base -F $format top.qcow2 32M
    qemu-io -f qcow2 -c 'write -P 7 0 6M' -c 'write -P 8 20M 1M' -c flush \
        top.qcow2
    fill_store
    expect_failure qcow2_img commit top.qcow2
    empty_store
    qcow2_img commit top.qcow2
    mount_anew
    data_are top.qcow2 qcow2 'read -P 7 0 6M' 'read -P 8 20M 1M'
    [ $format = raw ] || check_image base
    check_image top.qcow2
    rm base top.qcow2
done
