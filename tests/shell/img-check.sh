#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# qcow2-img check: exit statuses, plans, repairs, and their undoing.

. ./functions.sh
. "$srcdir/shell/img.sh"
cd "$tmp"

# refcount FILE CLUSTER VALUE: pokes one of the first refcount block.
refcount ()
{
    python3 - "$@" <<'END'
import struct, sys
with open(sys.argv[1], "r+b") as f:
    f.seek(48)
    f.seek(struct.unpack(">Q", f.read(8))[0])
    block = struct.unpack(">Q", f.read(8))[0]
    f.seek(block + 2 * int(sys.argv[2]))
    f.write(struct.pack(">H", int(sys.argv[3])))
END
}

qemu-img create -q -f qcow2 clean.qcow2 64M
fill clean.qcow2 qcow2 "write -P 1 0 1M"
expect_status 0 qcow2_img check clean.qcow2
expect_status 0 qemu-img check clean.qcow2 >theirs
qcow2_img check clean.qcow2 | diff -u theirs -
[ -z "$(qcow2_img check -q clean.qcow2)" ] || fail "-q prints"

cp clean.qcow2 leaks.qcow2
refcount leaks.qcow2 300 1
truncate -s 32M leaks.qcow2
cp leaks.qcow2 leaks.before
expect_status 3 qcow2_img check leaks.qcow2
expect_status 3 qemu-img check leaks.qcow2
cp leaks.qcow2 damage.qcow2
refcount damage.qcow2 7 0
cp damage.qcow2 damage.before
expect_status 2 qcow2_img check damage.qcow2
expect_status 2 qemu-img check damage.qcow2
expect_output 'ERROR refcount-too-low: cluster at 0x70000' \
    qcow2_img check damage.qcow2
expect_status 2 qcow2_img check --output=json damage.qcow2 >out.json
[ "$(json_value out.json leaks)" = 1 ] || fail "the leak is not counted"
python3 - <<'END' || fail "the problems are not in the JSON"
import json
out = json.load(open("out.json"))
codes = {p["code"]: p for p in out["problems"]}
assert codes["leak"]["offset"] == 300 * 65536
assert codes["refcount-too-low"]["severity"] == "ERROR"
END
cmp damage.qcow2 damage.before

# A plan changes nothing.
expect_status 2 qcow2_img check -r all --plan damage.qcow2 >plan
grep -q '^would write .* at host offset ' plan || fail "no plan"
expect_status 2 qcow2_img check -r all --plan --output=json damage.qcow2 \
    >out.json
[ "$(json_value out.json plan | wc -c)" -gt 10 ] || fail "no plan in JSON"
cmp damage.qcow2 damage.before

# A repair, and the way back.
expect_status 2 qcow2_img check -r leaks --undo=leaks.undo damage.qcow2
expect_status 0 qcow2_img check --restore=leaks.undo damage.qcow2
cmp damage.qcow2 damage.before
expect_status 0 qcow2_img check -r all --undo=all.undo damage.qcow2
expect_status 0 qemu-img check damage.qcow2
expect_status 0 qcow2_img check --repair=all damage.qcow2
expect_status 0 qcow2_img check --restore all.undo damage.qcow2
cmp damage.qcow2 damage.before

# The undo file, its name too, is durable before the image changes.
if strace true >/dev/null 2>&1; then
    mkdir kept
    # LeakSanitizer cannot work in what is traced.
    ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0" \
        strace -f -y -e trace=fsync,pwritev,pwrite64 -o calls \
        "$abs_top_builddir/qcow2/tool/qcow2-img" check -q -r all \
        --undo=kept/all.undo damage.qcow2
    sed -nE 's/^[0-9]+ +(fsync|pwrite)[^/]*[^>]*\/([^/>]*)>.*/\1 \2/p' calls |
        uniq | head -n 3 >order
    printf '%s\n' 'fsync all.undo' 'fsync kept' 'pwrite damage.qcow2' |
        diff - order || fail "not in this order: $(cat calls)"
    expect_status 0 qcow2_img check --restore kept/all.undo damage.qcow2
    cmp damage.qcow2 damage.before
fi

# An undo file that was cut short by a crash: the last write was not done.
head -c "$(($(stat -c %s all.undo) - 1))" all.undo >short.undo
expect_status 0 qcow2_img check --restore short.undo damage.qcow2
cmp damage.qcow2 damage.before

# What changed since is not overwritten.
expect_status 0 qcow2_img check -r all damage.qcow2
cp damage.qcow2 repaired.qcow2
refcount damage.qcow2 7 5
cp damage.qcow2 changed.qcow2
refuses 'changed since' qcow2_img check --restore all.undo damage.qcow2
cmp damage.qcow2 changed.qcow2
cp damage.before damage.qcow2
refuses 'File exists' qcow2_img check -r all --undo=all.undo damage.qcow2
refuses 'cannot open' qcow2_img check --restore nowhere damage.qcow2
refuses 'is not a file that check --undo made' \
    qcow2_img check --restore damage.before damage.qcow2
cmp damage.qcow2 damage.before

# Nor is what a guest wrote in other clusters, or appended, or what the file
# lost; what it wrote in place stays.
cp repaired.qcow2 damage.qcow2
fill damage.qcow2 qcow2 "write -P 7 16M 16M"
cp damage.qcow2 changed.qcow2
refuses 'changed since' qcow2_img check --restore all.undo damage.qcow2
cmp damage.qcow2 changed.qcow2
cp repaired.qcow2 damage.qcow2
printf data >>damage.qcow2
cp damage.qcow2 changed.qcow2
refuses 'changed since' qcow2_img check --restore all.undo damage.qcow2
cmp damage.qcow2 changed.qcow2
truncate -s 1M damage.qcow2
refuses 'changed since' qcow2_img check --restore all.undo damage.qcow2
cp repaired.qcow2 damage.qcow2
fill damage.qcow2 qcow2 "write -P 9 0 64k"
expect_status 0 qcow2_img check --restore all.undo damage.qcow2
cmp -s damage.qcow2 damage.before && fail "what was written in place is gone"
expect_status 2 qcow2_img check damage.qcow2

# An undo file that is hostile, or of another image, is refused before any
# write; a pipe keeps nobody waiting.
python3 - all.undo <<'END'
import struct, sys

M = (1 << 64) - 1

def mix(h, w):
    h = (h ^ w) * 0x9e3779b97f4a7c15 & M
    return h ^ h >> 29

def total(sum, b):
    for i in range(0, len(b), 8):
        sum = mix(sum, int.from_bytes(b[i:i + 8], "little"))
    return mix(sum, len(b))

def record(kind, off, n, x, old=b"", new=b""):
    head = struct.pack("<4Q", kind, off, n, x)
    sum = total(total(total(1, head), old), new)
    return head + old + new + struct.pack("<Q", sum)

def records(b):
    pos = 8
    while pos < len(b):
        kind, off, n, x = struct.unpack("<4Q", b[pos:pos + 32])
        length = n if kind == 3 else 0
        pos += 32
        yield (kind, off, n, x, b[pos:pos + length],
               b[pos + length:pos + 2 * length])
        pos += 2 * length + 8

good = list(records(open(sys.argv[1], "rb").read()))
assert b"QCOWUND2" + b"".join(record(*r) for r in good) \
    == open(sys.argv[1], "rb").read()
begin = [r for r in good if r[0] == 1]
metadata = [r for r in good if r[0] == 2]
writes = [r for r in good if r[0] == 3]
after = good[-1][3]

def write(name, begin=begin, metadata=metadata, writes=writes, end=None):
    rs = begin + metadata + writes
    rs.append((4, 0, len(writes), end or after, b"", b""))
    with open(name, "wb") as f:
        f.write(b"QCOWUND2" + b"".join(record(*r) for r in rs))

def fake(off, old, new):
    return (3, off, len(old), begin[0][3], old, new)

data = open("repaired.qcow2", "rb").read()
write("bad.size-0", begin=[(1, 0, 0, 0, b"", b"")])
write("bad.size-small", begin=[(1, 0, 0, 65536, b"", b"")])
write("bad.size-cut", begin=[(1, 0, 0, 65536, b"", b"")],
      metadata=[(2, 0, 65536, 0, b"", b"")])
write("bad.outside", writes=writes + [fake(1 << 60, b"abcd", b"abcd")])
write("bad.wraps", writes=writes + [fake((1 << 64) - 2, b"abcd", b"abcd")])
write("bad.past-end", writes=writes + [fake(len(data) + 65536, b"x", b"y")])
write("bad.empty", writes=writes + [fake(65536, b"", b"")])
write("bad.overlap", writes=writes + [writes[-1]])
write("bad.order", begin=[], metadata=metadata, writes=writes)
write("bad.no-metadata", metadata=[])
guest = 0x50000
assert data[guest:guest + 512] == b"\1" * 512
write("bad.data", writes=writes + [fake(guest, b"hostile!" * 64,
                                        data[guest:guest + 512])])
write("bad.header", writes=writes + [fake(24, bytes(8), data[24:32])])
END
cp repaired.qcow2 damage.qcow2
for f in bad.*; do
    refuses 'damaged|changed since' qcow2_img check --restore "$f" damage.qcow2
    cmp damage.qcow2 repaired.qcow2
done
mkfifo pipe
refuses 'not a file that check --undo made' \
    timeout 10 "$abs_top_builddir/qcow2/tool/qcow2-img" check --restore pipe \
    damage.qcow2
cmp damage.qcow2 repaired.qcow2

# A clean image leaves no undo file.
expect_status 0 qcow2_img check -r all --undo=nothing clean.qcow2
[ ! -e nothing ] || fail "there is an undo file of nothing"

# Neither image nor qcow2.
qemu-img create -q raw.raw 1M
expect_status 63 qcow2_img check raw.raw
expect_status 63 qcow2_img check -f raw clean.qcow2
expect_status 1 qcow2_img check nowhere.qcow2
expect_status 1 qcow2_img check -f qcow2 raw.raw
refuses 'leaks or all' qcow2_img check -r some clean.qcow2
refuses 'go with -r' qcow2_img check --plan clean.qcow2
refuses 'needs the locks' qcow2_img check -U -r all clean.qcow2

# An image in use.
hold_open clean.qcow2
expect_status 1 qcow2_img check clean.qcow2
expect_status 1 qcow2_img check -r all clean.qcow2
qcow2_img check -U clean.qcow2 || [ $? -eq 3 ]
