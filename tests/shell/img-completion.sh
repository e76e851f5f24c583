#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What the shell completes are the verbs and options that there are.

. ./functions.sh
. "$srcdir/shell/img.sh"
# shellcheck source=/dev/null
. "$abs_top_srcdir/qcow2/tool/qcow2-img.bash"
tool="$abs_top_builddir/qcow2/tool/qcow2-img"
cd "$tmp"

# completes EXPECTED WORD...: the last word becomes one of the expected.
completes ()
{
    local expected="$1"
    shift
    COMP_WORDS=("$tool" "$@")
    COMP_CWORD=$#
    _qcow2_img
    [ "${COMPREPLY[*]}" = "$expected" ] \
        || fail "'$*' completes to '${COMPREPLY[*]}', not '$expected'"
}
completes "chain check" ch
completes "snapshot" sn
completes "--backing-chain" info --backing-c
completes "--undo" check --u
completes "-c" convert -c
completes "qcow2" convert -O q
completes "raw" create -f r
completes "human json" info --output ""
completes "leaks all" check -r ""
completes "" commit -r ""
completes "list load-state" snapshot l
completes "" info disk
