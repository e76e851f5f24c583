#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# qcow2-img commit is killed at random moments, and done again: the overlay
# reads right all the time, and the base in the end. COMMIT_KILLS says how
# often.

. ./functions.sh
. "$srcdir/shell/img.sh"
cd "$tmp"
tool="$abs_top_builddir/qcow2/tool/qcow2-img"
kills="${COMMIT_KILLS:-50}"
RANDOM="${TEST_SEED:-1}"
echo "TEST_SEED=${TEST_SEED:-1}"

qemu-img create -q -f qcow2 base.start 8M
fill base.start qcow2 "write -P 1 0 6M"
qemu-img create -q -f qcow2 -o cluster_size=4k -b base.qcow2 -F qcow2 -u \
    overlay.start 9M
cp base.start base.qcow2
head -c 3M /dev/urandom >random
fill overlay.start qcow2 "write -s random 1M 3M" "write -z 5M 512k" \
     "write -P 2 7M 1M" "write -P 3 8900k 4k"
qcow2_img snapshot -c kept overlay.start
fill overlay.start qcow2 "write -P 4 2M 1M"
qemu-img convert -O raw overlay.start expected.raw
qemu-img convert -O raw -l kept overlay.start kept.raw

# How long a commit takes here.
cp overlay.start overlay.qcow2
start="$(date +%s%N)"
"$tool" commit -q overlay.qcow2
took=$((($(date +%s%N) - start) / 1000000))

unfinished=0
for ((i = 0; i < kills; i++)); do
    cp base.start base.qcow2
    cp overlay.start overlay.qcow2
    "$tool" commit -q overlay.qcow2 &
    job=$!
    sleep "$(printf '0.%03d' $((RANDOM % (took < 990 ? took + 10 : 999))))"
    kill -9 "$job" 2>/dev/null || :
    wait "$job" 2>/dev/null || unfinished=$((unfinished + 1))

    # Leaks are all that may be left.
    qemu-img check -q base.qcow2 || [ $? -eq 3 ] || fail "kill $i: the base"
    qemu-img check -q overlay.qcow2 || [ $? -eq 3 ] || fail "kill $i: overlay"
    qemu-img compare -q overlay.qcow2 expected.raw \
        || fail "kill $i: the overlay reads differently"
    "$tool" commit -q overlay.qcow2
    qemu-img compare -q base.qcow2 expected.raw \
        || fail "kill $i: the base reads differently"
    qemu-img compare -q overlay.qcow2 expected.raw \
        || fail "kill $i: the overlay reads differently in the end"
    qemu-img check -q overlay.qcow2 || [ $? -eq 3 ] || fail "kill $i: check"
    qcow2_img convert -l kept -O raw overlay.qcow2 kept.now
    qemu-img compare -q kept.raw kept.now || fail "kill $i: the snapshot"
done
echo "$kills kills, $unfinished of them before the end"
[ "$unfinished" -gt 0 ] || fail "not one came in time"
