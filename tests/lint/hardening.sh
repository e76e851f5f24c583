#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The plugin and the tool are built with what configure found to make mistakes
# harder to exploit: it has reached each of their files, and the linker.

. ./functions.sh
requires readelf --version
requires nm --version
flags="$(sed -nE 's/^(HARDENING|PROGRAM)_(C|LD)FLAGS = *//p' \
    "$abs_top_builddir/Makefile" | tr '\n' ' ')"
tool="$abs_top_builddir/qcow2/tool/qcow2-img"
[ -x "$tool" ] || tool=

# has FLAG
has ()
{
    [[ " $flags" == *" $1"* ]]
}

# needs WHAT COMMAND [ARG...]
needs ()
{
    local what="$1"
    shift
    echo "$*"
    "$@" >"$tmp/out" 2>&1
    grep -Eq "$what" "$tmp/out" || fail "no $what: $*"
}

if [ -z "${flags// /}" ]; then
    grep -q 'define IS_INSTRUMENTED' "$abs_top_builddir/config.h" \
        || grep -q -e --disable-hardening "$abs_top_builddir/config.log" \
        || fail "configure found nothing to harden the build with"
    exit 0
fi
for file in "$plugin" ${tool:+"$tool"}; do
    ! has -Wl,-z,relro || needs GNU_RELRO readelf -lW "$file"
    ! has -Wl,-z,now || needs 'BIND_NOW|NOW' readelf -dW "$file"
    ! has -Wl,-z,noexecstack || needs 'GNU_STACK .* RW ' readelf -lW "$file"
    ! has -fstack-protector-strong || needs __stack_chk_fail nm -D "$file"
    ! has -D_FORTIFY_SOURCE || needs '__[a-z]+_chk' nm -D "$file"
done
if has -pie && [ -n "$tool" ]; then
    needs 'DYN' readelf -hW "$tool"
fi
