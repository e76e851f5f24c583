#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What the shell completes are the verbs and options that there are.

. ./functions.sh
. "$srcdir/shell/img.sh"
# shellcheck source=/dev/null
. "$abs_top_srcdir/qcow2/tool/qcow2-img.bash"
tool="$abs_top_builddir/qcow2/tool/qcow2-img"
requires qemu-img --version
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
completes "qcow2" convert --target-format q
completes "none" convert --target-cache n
completes "human json" info --output ""
completes "leaks all" check -r ""
completes "native" bench -i n
completes "" commit -r ""
completes "list load-state" snapshot l
completes "" info disk

# Values behind '=', in one word or split there as bash does, and of options.
completes "--output=human --output=json" info --output=
completes "--output=json" info --output=j
completes "human json" info --output =
completes "json" info --output = j
completes "leaks all" check --repair =
completes "compat=0.10 compat=1.1" create -o compat=
completes "zlib zstd" create -o compression_type = z
completes "falloc full" create -o size=1M,preallocation = f
completes "compat= compression_type=" amend -o comp
completes "writeback writethrough" convert -t write
completes "snapshot" help sn

qemu-img create -q -f qcow2 disk.qcow2 1M
qemu-img snapshot -c monday disk.qcow2
qemu-img snapshot -c tuesday disk.qcow2
completes "monday tuesday" snapshot disk.qcow2 -a ""
completes "tuesday" convert disk.qcow2 -l t
