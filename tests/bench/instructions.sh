#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A 4 KiB request costs the engine no more instructions than DESIGN.md says
# ("Hot path"). Instructions, unlike seconds, are the same on a busy machine.

. ./functions.sh
requires qemu-img --version
requires valgrind --version
"$abs_top_builddir/tests/bench/requests" 2>"$tmp/log" || status=$?
[ "${status:-0}" -ne 77 ] || skip "$(cat "$tmp/log")"

# budget WHAT
budget ()
{
    sed -nE "s/^\\| $1 \\| ([0-9,]+) \\|.*/\\1/p" "$abs_top_srcdir/qcow2/DESIGN.md" \
        | tr -d ,
}

# instructions IMAGE read|write|first-write COUNT: of a copy of IMAGE when it
# is written for the first time.
instructions ()
{
    cp "$1" run.qcow2
    set -- run.qcow2 "${@:2}"
    valgrind --tool=callgrind --callgrind-out-file="$tmp/callgrind" \
        "$abs_top_builddir/tests/bench/requests" "$@" 2>&1 \
        | sed -nE 's/^==.* Collected *: *//p'
}

# costs WHAT IMAGE read|write|first-write [COUNT]
costs ()
{
    local few many cost limit count="${4:-20000}"
    limit="$(budget "$1")"
    [ -n "$limit" ] || fail "DESIGN.md has no budget for '$1'"
    few="$(instructions "$2" "$3" "$count")"
    many="$(instructions "$2" "$3" $((2 * count)))"
    cost=$(((many - few) / count))
    echo "$1: $cost instructions, at most $limit"
    [ "$cost" -gt 0 ] && [ "$cost" -le "$limit" ] \
        || fail "$1: $cost instructions, more than $limit"
}

cd "$tmp"
qemu-img create -q -f qcow2 -o preallocation=falloc 0.qcow2 64M
qemu-io -f qcow2 -c 'write -q -P 1 0 64M' 0.qcow2
for i in 1 2 3 4 5 6 7; do
    qemu-img create -q -f qcow2 -b $((i - 1)).qcow2 -F qcow2 $i.qcow2
done
costs "read" 0.qcow2 read
costs "read through a chain of 8" 7.qcow2 read
costs "overwrite" 0.qcow2 write
qemu-img create -q -f qcow2 -b 0.qcow2 -F qcow2 -o cluster_size=8k cow.qcow2
costs "copy-on-write" cow.qcow2 first-write 4000
