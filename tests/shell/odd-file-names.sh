#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Whatever a file, an option or a value is called, nothing reaches the terminal
# or JSON that would do more than be read.

. ./functions.sh
requires python3 --version
requires qcow2_img --version

mkdir "$tmp/files"
cd "$tmp/files"
qcow2_img create -q -f qcow2 good 1M
qcow2_img create -q -f qcow2 -b good -F qcow2 overlay
ASAN_OPTIONS="log_path=$tmp/sanitizer" LSAN_OPTIONS=exitcode=0 \
UBSAN_OPTIONS="log_path=$tmp/sanitizer:print_stacktrace=1" \
    python3 "$srcdir/shell/odd-file-names.py" \
    "$abs_top_builddir/qcow2/tool/qcow2-img"
