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
expect_status 0 qcow2_img check -r all damage.qcow2
expect_status 0 qcow2_img check --restore all.undo damage.qcow2
cmp damage.qcow2 damage.before

# An undo file that was cut short by a crash: the last write was not done.
head -c "$(($(stat -c %s all.undo) - 1))" all.undo >short.undo
expect_status 0 qcow2_img check --restore short.undo damage.qcow2
cmp damage.qcow2 damage.before

# What changed since is not overwritten.
expect_status 0 qcow2_img check -r all damage.qcow2
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
