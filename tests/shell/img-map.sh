#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# qcow2-img map: parts of a disk, mistakes, and chains that need leave.

. ./functions.sh
. "$srcdir/shell/img.sh"
cd "$tmp"

mkdir bases
qemu-img create -q -f raw bases/base.raw 4M
fill bases/base.raw raw "write -P 1 1M 64k"
qemu-img create -q -f qcow2 -b bases/base.raw -F raw over.qcow2
fill over.qcow2 qcow2 "write -P 2 2M 64k"
qcow2_img map over.qcow2 >out
expect_output '^0x100000 +0x10000 +0x100000 +bases/base.raw$' cat out
expect_output '^0x200000 +0x10000 +0x[0-9a-f]+ +over.qcow2$' cat out

# Parts.
qcow2_img map --output=json --start-offset=2M --max-length=64k over.qcow2 >out
[ "$(json_value out 0.length) $(json_value out 0.start)" = "65536 2097152" ] \
    || fail "not the part that was asked for"
[ "$(qcow2_img map --output=json --start-offset=1G over.qcow2)" = "[]" ] \
    || fail "there is something past the end"
qemu-img create -q -f qcow2 empty.qcow2 0
[ "$(qcow2_img map --output=json empty.qcow2)" = "[]" ] \
    || fail "there is something in nothing"

# Compressed clusters have no place that could be told.
qemu-img convert -c -O qcow2 bases/base.raw compressed.qcow2
refuses 'compressed' qcow2_img map compressed.qcow2
qcow2_img map --output=json compressed.qcow2 >out
[ "$(json_value out 1.compressed)" = true ] || fail "it is not compressed"

# The chain.
mkdir elsewhere
mv bases/base.raw elsewhere
refuses 'No such file' qcow2_img map over.qcow2
qcow2_img map --source-backing elsewhere/base.raw over.qcow2 >out
expect_output ' elsewhere/base.raw$' cat out
qcow2_img map --source-backing none over.qcow2 >out
[ "$(wc -l <out)" -eq 2 ] || fail "the base is still there"
qemu-img rebase -q -u -b "$tmp/elsewhere/base.raw" -F raw over.qcow2
mkdir sub
mv over.qcow2 sub
refuses '--allow=/' qcow2_img map sub/over.qcow2
qcow2_img map --allow elsewhere sub/over.qcow2 >/dev/null
qcow2_img map --allow / sub/over.qcow2 >/dev/null

refuses 'not a size' qcow2_img map --start-offset=x sub/over.qcow2
refuses 'one image' qcow2_img map
