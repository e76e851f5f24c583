#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# An image that cannot be right is refused when nbdkit starts, with exit
# status 1 and one sentence: which file, what is wrong, what can be done.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires qemu-img --version

cd "$tmp"
qemu-img create -q -f qcow2 good.qcow2 64M
qemu-io -c 'write -P 1 0 1M' good.qcow2 >/dev/null
qemu-img snapshot -c snap good.qcow2
cat >edit.py <<'END'
import struct, sys
path, *edits = sys.argv[1:]
with open(path, "r+b") as f:
    for edit in edits:
        offset, kind, value = edit.split(":")
        f.seek(int(offset, 0))
        f.write(struct.pack(">" + kind, int(value, 0)))
END

# refused PATTERN IMAGE [PARAMETER...]
refused ()
{
    local status=0
    nbdkit_qcow2 -r -U - "${@:2}" --run true 2>err || status=$?
    cat err
    [ "$status" -eq 1 ] || fail "exit status $status"
    [ "$(wc -l <err)" -eq 1 ] || fail "it is not one sentence"
    grep -qF "$2" err || fail "it does not say which file"
    grep -Eqi -- "$1" err || fail "no '$1' in what it says"
}

# bad PATTERN OFFSET:TYPE:VALUE...: refused after these edits
bad ()
{
    cp good.qcow2 bad.qcow2
    "$nbd_python" edit.py bad.qcow2 "${@:2}"
    refused "$1" bad.qcow2
}

# bad_to_write PATTERN OFFSET:TYPE:VALUE...: the active disk can still be read
bad_to_write ()
{
    local status=0
    cp good.qcow2 bad.qcow2
    "$nbd_python" edit.py bad.qcow2 "${@:2}"
    nbdkit_qcow2 -r -U - bad.qcow2 --run true || fail "it cannot be read"
    qcow2_img snapshot -c more bad.qcow2 2>err || status=$?
    cat err
    [ "$status" -eq 1 ] || fail "exit status $status"
    grep -Eqi -- "$1" err || fail "no '$1' in what it says"
}

# Not an image at all.
refused 'no such file' missing.qcow2
: >empty.qcow2
refused 'not.*qcow2' empty.qcow2
seq 10000 >text.qcow2
refused 'not.*qcow2' text.qcow2
mkdir directory
refused 'directory' directory
mkfifo pipe
refused 'pipe' pipe
refused 'character device' /dev/null
if [ "$(id -u)" -ne 0 ]; then
    cp good.qcow2 secret.qcow2
    chmod 0 secret.qcow2
    refused 'permission denied' secret.qcow2
fi

# The header.
bad 'not.*qcow2' 0:I:0x12345678
bad 'format qcow\b' 4:I:1
bad 'version 4\b' 4:I:4
bad 'cluster' 20:I:8
bad 'cluster' 20:I:22
bad 'cluster' 20:I:200
bad 'size' 24:Q:0x7fffffffffffffff
bad 'size' 24:Q:0xffffffffffffffff
bad 'encrypt' 32:I:1
bad 'encrypt|luks' 32:I:2
bad 'crypt|encrypt' 32:I:77
bad 'L1' 36:I:0
bad 'L1' 36:I:0xffffffff
bad 'L1' 40:Q:0x30001
bad 'L1' 40:Q:0x7fffffff0000
bad_to_write 'refcount table|reftable' 48:Q:0x10001
bad_to_write 'refcount table|reftable' 48:Q:0x7fffffff0000
bad_to_write 'refcount table|reftable' 56:I:0
bad_to_write 'refcount table|reftable' 56:I:0xffffffff
bad_to_write 'snapshot' 60:I:0xffffffff
bad_to_write 'snapshot' 64:Q:0x12345
bad_to_write 'snapshot' 64:Q:0x7fffffff0000
bad 'extended L2' 20:I:13 72:Q:0x10
bad 'data file' 72:Q:0x4
bad 'feature' 72:Q:0x8000000000000000
bad 'compression' 72:Q:0x8
bad 'refcount' 96:I:7
bad 'header' 100:I:50
bad 'header' 100:I:0x7fffffff
bad 'backing' 8:Q:0x10 16:I:100
bad 'backing' 8:Q:0x200 16:I:1024
bad 'backing' 8:Q:0x7fffffff0000 16:I:10

# Tables that lie on each other: the L1 table on the refcount table.
bad 'overlap|L1' 40:Q:0x10000
bad 'overlap|L1' 40:Q:0
# A snapshot's own L1 table.
table=$("$nbd_python" -c '
import struct
print(struct.unpack_from(">Q", open("good.qcow2", "rb").read(), 64)[0])')
bad_to_write 'snapshot' "$table:Q:0x12345"
bad_to_write 'snapshot' "$((table + 8)):I:0xffffffff"
bad_to_write 'snapshot' "$((table + 36)):I:0xffffffff"

# An unknown feature, by the name the image itself gives it.
qemu-img create -q -f qcow2 named.qcow2 1M
"$nbd_python" - <<'END'
import struct
with open("named.qcow2", "r+b") as f:
    data = f.read(4096)
    at = data.index(struct.pack(">I", 0x6803f857)) + 8
    assert data[at] == 0
    f.seek(at)
    f.write(struct.pack("BB46s", 0, 33, b"frobnication\x1b[31m"))
    f.seek(72)
    f.write(struct.pack(">Q", 1 << 33))
END
refused 'frobnication' named.qcow2
if LC_ALL=C grep -q $'\x1b' err; then
    fail "the message has control characters"
fi

# Cut off anywhere, it is refused or served as far as it goes.
size="$(stat -c %s good.qcow2)"
for cut in 1 3 4 8 71 72 103 104 200 511 512 4096 65535 65536 131072 196608 \
           262144 $((size - 65536)) $((size - 1)); do
    head -c "$cut" good.qcow2 >cut.qcow2
    status=0
    nbdkit_qcow2 -r -U - cut.qcow2 \
        --run 'nbdcopy "$uri" null: 2>/dev/null || :' 2>err || status=$?
    [ "$status" -le 1 ] || fail "cut at $cut: exit status $status"
    if [ "$status" -eq 1 ]; then
        [ "$(wc -l <err)" -eq 1 ] || fail "cut at $cut: $(cat err)"
        grep -qF cut.qcow2 err
    fi
done
