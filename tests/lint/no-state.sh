#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The engine has no file-scope mutable state: nothing of it is in a section
# for writable data. (Constants with addresses in them are in .data.rel.ro.)

. ./functions.sh
requires objdump --version
cd "$abs_top_builddir/qcow2"

objects=([!t]*/.libs/*.o)
[ -e "${objects[0]}" ] || fail "no objects below $PWD"

# The compiler's own names, for sanitizers and coverage, begin with "__".
state="$(objdump -t "${objects[@]}" | awk '
    /file format/ { file = $1 }
    {
        for (i = 1; i < NF; i++)
            if ($i ~ /^(\.t?(data|bss)(\.|$)|\*COM\*$)/ &&
                $i !~ /^\.data\.rel\.ro/ && $NF !~ /^(__|\.)/)
                print file, $NF
    }')"
if [ -n "$state" ]; then
    echo "$state"
    fail "the engine has variables at file scope"
fi
