#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Every public function of the engine has a comment above it (a group
# without empty lines shares one).

. ./functions.sh

undocumented="$(awk -v RS= '
    /QCOW2_PUBLIC/ && !/\*\// && !/# *define/ { print "", $0, "" }
    ' "$abs_top_srcdir/qcow2/qcow2.h")"
if [ -n "$undocumented" ]; then
    echo "$undocumented"
    fail "qcow2.h does not say what these do"
fi
