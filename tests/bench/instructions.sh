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

# instructions IMAGE read|write COUNT
instructions ()
{
    valgrind --tool=callgrind --callgrind-out-file="$tmp/callgrind" \
        "$abs_top_builddir/tests/bench/requests" "$@" 2>&1 \
        | sed -nE 's/^==.* Collected *: *//p'
}

# costs WHAT IMAGE read|write
costs ()
{
    local few many cost limit
    limit="$(budget "$1")"
    [ -n "$limit" ] || fail "DESIGN.md has no budget for '$1'"
    few="$(instructions "$2" "$3" 20000)"
    many="$(instructions "$2" "$3" 40000)"
    cost=$(((many - few) / 20000))
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
