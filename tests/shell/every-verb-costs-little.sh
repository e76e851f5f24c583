#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Small images, however costly they were made, cost no verb of qcow2-img more
# than 256 MiB and 10 s of the processor; nor do chains and directories of
# them.

. ./functions.sh
requires python3 --version
requires qcow2_img --version

mkdir "$tmp/images"
cd "$tmp/images"
truncate -s 8T sparse && rm sparse || skip "no sparse files of 8 TiB here"
ASAN_OPTIONS="log_path=$tmp/sanitizer" LSAN_OPTIONS=exitcode=0 \
UBSAN_OPTIONS="log_path=$tmp/sanitizer:print_stacktrace=1" \
    python3 "$srcdir/shell/every-verb-costs-little.py" \
    "$abs_top_builddir/qcow2/tool/qcow2-img" \
    ${sanitizer_runtime:+sanitized}
