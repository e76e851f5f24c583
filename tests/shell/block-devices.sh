#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Images on block devices, with sectors of 512 and of 4096 bytes: made there,
# copied there, served by any cache mode. They end where the device does,
# which says ENOSPC and leaves a clean image; freed space goes back to it; and
# the end of the image is where its last cluster is.

. ./functions.sh
. "$srcdir/shell/img.sh"
. "$srcdir/shell/nbd.sh"
requires losetup --version
requires qemu-img --version
# Not every machine has loop devices for us, which is no reason to fail.
skipped ()
{
    echo "$0: skipped: this needs root and loop devices"
    exit 77
}
[ "$(id -u)" -eq 0 ] && losetup -f >/dev/null 2>&1 || skipped
cd "$tmp"

megabytes=12
devices=()
detach () { losetup -d "${devices[@]}" 2>/dev/null || true; }
cleanup_fn detach
# The bytes of a file that take space.
allocated () { echo $(($(stat -c '%b * %B' "$1"))); }

# end_of IMAGE: as both say it.
end_of ()
{
    local ours theirs
    ours="$(qcow2_img check --output=json "$1" \
            | sed -n 's/.*"image-end-offset": \([0-9]*\).*/\1/p')"
    theirs="$(qemu-img check --output=json "$1" \
              | sed -n 's/.*"image-end-offset": \([0-9]*\).*/\1/p')"
    [ "$ours" = "$theirs" ] || fail "image end: $ours, $theirs"
    echo "$ours"
}

# serve_until_full MODE
serve_until_full ()
{
    start_nbdkit "$tmp/socket" "$device" cache="$1"
    nbd_client <<'END'
h.pwrite(b"a" * (1 << 20), 0)
h.flush()
done, full = 0, False
for i in range(16):
    try:
        h.pwrite(b"b" * (1 << 20), (2 + i) << 20)
        done += 1
    except nbd.Error as e:
        assert e.errnum == errno.ENOSPC, e
        full = True
        break
assert full and done > 8, done
h.flush()
assert h.pread(1 << 20, 0) == b"a" * (1 << 20)
for i in range(done):
    assert h.pread(1 << 20, (2 + i) << 20) == b"b" * (1 << 20), i
h.trim((done - 1) << 20, 3 << 20)
h.flush()
# What was freed can be used again.
h.pwrite(b"c" * (1 << 20), 40 << 20)
h.flush()
assert h.pread(1 << 20, 40 << 20) == b"c" * (1 << 20)
h.trim(1 << 20, 40 << 20)
h.flush()
END
    stop_nbdkit
    qcow2_img check -q "$device"
    qemu-img check -q "$device"
    qemu-io -r -c 'read -q -P 97 0 1M' -c 'read -q -P 98 2M 1M' "$device" >out
    [ ! -s out ] || fail "$1: $(cat out)"
    [ "$(blockdev --getsize64 "$device")" = $((megabytes << 20)) ]
}

head -c 2M /dev/urandom >source.raw
qemu-img create -q -f qcow2 large.qcow2 1G
for sector in 512 4096; do
    rm -f disk
    tr '\0' j </dev/zero | head -c ${megabytes}M >disk
    device="$(losetup --sector-size $sector -f --show disk)" || skipped
    devices+=("$device")
    (: <"$device") 2>/dev/null || skipped

    # Made among junk, of which nothing shows.
    qcow2_img create -q -f qcow2 -o cluster_size=4k "$device" 64M
    qemu-img check -q "$device"
    [ "$(end_of "$device")" -lt 1000000 ] || fail "it ends with the device"
    qemu-io -r -c 'read -q -P 0 0 64M' "$device" >out
    [ ! -s out ] || fail "$(cat out)"

    for mode in writeback none writethrough; do
        qcow2_img create -q -f qcow2 "$device" 64M
        serve_until_full $mode
    done
    # Most was freed, and the device has it back.
    [ "$(allocated disk)" -lt $((8 << 20)) ] \
        || fail "nothing was discarded: $(allocated disk)"

    # Copied, past the cache and through it; clusters smaller than sectors.
    for mode in none writeback; do
        qcow2_img convert -t $mode -T $mode -O qcow2 \
            -o cluster_size=512 source.raw "$device"
        qemu-img compare -q source.raw "$device"
        qcow2_img check -q -T $mode "$device"
        qcow2_img convert -t $mode -T $mode -c -n -O qcow2 source.raw \
            "$device"
        qemu-img compare -q source.raw "$device"
        qcow2_img convert -t $mode -T $mode -O raw "$device" back.raw
        cmp source.raw back.raw
    done
    # A raw disk: what the source has as zeroes is zero, not what was there.
    truncate -s ${megabytes}M hole.raw
    qcow2_img convert -t none -O raw hole.raw "$device"
    cmp -n $((megabytes << 20)) "$device" /dev/zero

    # What does not fit is refused before anything is written.
    qcow2_img create -q -f qcow2 "$device" 64M
    md5sum "$device" >before
    refuses 'it has [0-9]+ bytes' \
        qcow2_img create -q -f qcow2 -o cluster_size=512 "$device" 100G
    refuses 'it has [0-9]+ bytes' \
        qcow2_img convert -O raw large.qcow2 "$device"
    md5sum -c --quiet before
    detach
    devices=()
    rm -f hole.raw back.raw
done
