#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Where numbers are as a file has them, an index of a cluster or the number of
# them is not shifted to bytes as it is: scale_up (base/checked.h) does that
# without wrapping around.

. ./functions.sh
cd "$abs_top_srcdir/qcow2"

if grep -nE '<< *([a-z]+(->|\.))*[a-z0-9_]*(cluster|refblock|entry|l2)_bits' \
       -- check/*.c format/*.c disk/info.c \
    | grep -vE '(UINT(32|64)_C\(1\)|\b1u?) << [a-z>.-]*_bits'; then
    fail "a raw shift of a number that a file may claim: use scale_up"
fi
