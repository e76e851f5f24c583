#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Every mutation of tests/mutation applies to the sources as they are.

. ./functions.sh
requires python3 --version

python3 "$srcdir/mutation/mutate.py" --check \
    || fail "the sources have changed: write these mutations anew"
