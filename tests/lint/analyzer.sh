#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# clang's analyzer finds nothing in the engine and the plugin. Left out are its
# deep mode, which takes minutes and does not see that loops over a table and
# its entries are of one length; and its checkers of leaks, which do not know
# the cleanup attribute, and of values stored in vain.

. ./functions.sh
requires clang --version
cd "$abs_top_srcdir"

# analyze FILE...
analyze ()
{
    printf '%s\n' "$@" | xargs -P2 -n4 clang --analyze \
        -Xclang -analyzer-output=text \
        -Xclang -analyzer-config -Xclang mode=shallow \
        -Xclang -analyzer-disable-checker=unix.Malloc \
        -Xclang -analyzer-disable-checker=deadcode.DeadStores \
        -std=gnu11 -D_GNU_SOURCE -DHAVE_CONFIG_H \
        -I"$abs_top_builddir" -Iqcow2 -include tests/lint/analyzer.h \
        >"$tmp/out" 2>&1
}

# It finds what is there.
cat >"$tmp/wrong.c" <<'END'
int f(int *p);
int f(int *p) { return p ? 0 : *p; }
END
analyze "$tmp/wrong.c" || cat "$tmp/out"
grep -q 'warning: .*null pointer' "$tmp/out" \
    || fail "the analyzer does not work: $(cat "$tmp/out")"

files=()
for file in qcow2/{base,storage,format,cache,layer,meta,request,check}/*.c \
        qcow2/{disk,edit,job}/*.c plugin/*.c; do
    # analyzer.h has macros of the functions defined there.
    [ "$file" = qcow2/base/error.c ] || files+=("$file")
done
analyze "${files[@]}" || fail "$(cat "$tmp/out")"
if grep -q 'warning:' "$tmp/out"; then
    cat "$tmp/out"
    fail "the analyzer has found something"
fi
