#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Every verb with every option that it has in common with qemu-img, alone and
# in pairs, ends and prints as qemu-img does, but for what the manual page
# lists. A part of the pairs, or all of them with DROP_IN=all.

. ./functions.sh
. "$srcdir/shell/img.sh"
requires python3 --version
cd "$tmp"
stride=20
[ "${DROP_IN:-}" != all ] || stride=1
export ASAN_OPTIONS="log_path=$tmp/sanitizer" LSAN_OPTIONS=exitcode=0
export UBSAN_OPTIONS="log_path=$tmp/sanitizer:print_stacktrace=1"
export TSAN_OPTIONS="log_path=$tmp/sanitizer"
python3 "$srcdir/shell/drop-in.py" "$abs_top_builddir/qcow2/tool/qcow2-img" \
    "$abs_top_srcdir/man/qcow2-img.pod" "$stride" \
    || fail "there are other differences than those in the manual page"
