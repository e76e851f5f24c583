#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# qcow2-img chain: the layers of an image, and the images of a directory.

. ./functions.sh
. "$srcdir/shell/img.sh"
cd "$tmp"

mkdir images
cd images
qemu-img create -q -f raw base.raw 64M
fill base.raw raw "write -P 1 0 8M"
qemu-img create -q -f qcow2 -b base.raw -F raw mid.qcow2
fill mid.qcow2 qcow2 "write -P 2 4M 8M"
qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2 80M
fill top.qcow2 qcow2 "write -P 3 6M 3M" "write -z 70M 1M"
qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 other.qcow2

qcow2_img chain --output=json top.qcow2 >"$tmp/out.json"
# layer INDEX KEY VALUE
layer ()
{
    [ "$(json_value "$tmp/out.json" "$1.$2")" = "$3" ] \
        || { cat "$tmp/out.json"; fail "$2 of layer $1 is not $3"; }
}
M=1048576
layer 0 filename base.raw
layer 0 own $((8 * M))
layer 0 visible $((4 * M))
layer 1 filename mid.qcow2
layer 1 own $((8 * M))
layer 1 visible $((5 * M))
layer 2 filename top.qcow2
layer 2 own $((4 * M))
layer 2 visible $((4 * M))
layer 2 actual-size "$(($(stat -c %b top.qcow2) * 512))"

# What committing frees is near the truth.
promised="$(json_value "$tmp/out.json" 1.freed-by-commit)"
before="$(du -sB1 base.raw mid.qcow2 | awk '{ n += $1 } END { print n }')"
cp --sparse=always base.raw mid.qcow2 "$tmp"
(cd "$tmp" && qcow2_img commit -q mid.qcow2)
after="$(cd "$tmp" && du -sB1 base.raw mid.qcow2 \
    | awk '{ n += $1 } END { print n }')"
freed=$((before - after))
[ $((freed - promised)) -le $M ] && [ $((promised - freed)) -le $M ] \
    || fail "$promised bytes were promised and $freed freed"

qcow2_img chain top.qcow2 >"$tmp/out"
expect_output '^base\.raw$' cat "$tmp/out"
expect_output '^   `- top\.qcow2$' cat "$tmp/out"
expect_output 'owns: 8 MiB \(8388608 bytes\), of it hidden .* 4 MiB' \
    cat "$tmp/out"

# A directory.
head -c 1M /dev/urandom >unrelated.raw
qemu-img create -q -f qcow2 -u -b ../outside.qcow2 -F qcow2 lost.qcow2 1M
qemu-img create -q -f qcow2 loop.qcow2 1M
qemu-img rebase -q -u -b loop.qcow2 -F qcow2 loop.qcow2
printf 'QFI\373' >broken.qcow2
cd ..
qcow2_img chain images >out
cat out
grep -qE '^base\.raw: raw, virtual size 64 MiB \(67108864 bytes\)' out
grep -qE '^`- mid\.qcow2: qcow2, ' out
grep -qE '^   `- top\.qcow2: qcow2, ' out
grep -qE '^   `- other\.qcow2: qcow2, ' out
grep -qE '^lost\.qcow2: .* stands on \.\./outside\.qcow2, which is not here' out
grep -qE '^in a loop: loop\.qcow2' out
grep -qE 'broken\.qcow2: .*ends inside the header' out
! grep -q unrelated out || fail "it shows what is no image"
qcow2_img chain --output=json images >out.json
python3 - <<'END' || fail "the JSON is wrong"
import json
nodes = {n["filename"]: n for n in json.load(open("out.json"))}
assert nodes["mid.qcow2"]["overlays"] == ["other.qcow2", "top.qcow2"]
assert nodes["mid.qcow2"]["backing-is-here"]
assert not nodes["lost.qcow2"]["backing-is-here"]
assert "error" in nodes["broken.qcow2"]
END

mkdir empty
[ -z "$(qcow2_img chain empty)" ] || fail "something is in nothing"
refuses 'No such file' qcow2_img chain nowhere
refuses '--allow=/|No such file' qcow2_img chain images/lost.qcow2
refuses 'loop' qcow2_img chain images/loop.qcow2
