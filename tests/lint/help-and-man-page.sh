#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# 'nbdkit qcow2 --help', the plugin's symbols and --dump-plugin on one side
# and the man page on the other know the same things.

. ./functions.sh
requires nbdkit --version
requires nm --version
pod="$abs_top_srcdir/man/nbdkit-qcow2-plugin.pod"

# agree WHAT: compares the lists $tmp/page and $tmp/program.
agree ()
{
    [ -s "$tmp/page" ] || fail "the man page has no $1"
    diff -u "$tmp/page" "$tmp/program" \
        || fail "the man page (-) and the plugin (+) have different $1"
}

# section NAME: the text of one =head1.
section ()
{
    awk -v name="=head1 $1" '/^=head1/ { on = $0 == name } on' "$pod"
}

section PARAMETERS | sed -nE 's/^=item \[?B<([a-z-]+)=.*/\1/p' \
    | LC_ALL=C sort -u >"$tmp/page"
nbdkit_qcow2 --help >"$tmp/help"
sed -nE 's/^ *\[?([a-z][a-z-]*)=.*/\1/p' "$tmp/help" \
    | LC_ALL=C sort -u >"$tmp/program"
agree parameters

section "DEBUG FLAGS" | sed -nE 's/^=item B<-D qcow2\.([a-z]+)=1>.*/\1/p' \
    | LC_ALL=C sort -u >"$tmp/page"
nm -D --defined-only "$plugin" | sed -nE 's/.* qcow2_debug_([a-z]+)$/\1/p' \
    | LC_ALL=C sort -u >"$tmp/program"
agree "debug flags"

grep -oE '\bqcow2_[a-z0-9]+=' "$pod" | LC_ALL=C sort -u >"$tmp/page"
nbdkit_qcow2 --dump-plugin | sed -nE 's/^(qcow2_[a-z0-9]+=)(yes|no)$/\1/p' \
    | LC_ALL=C sort -u >"$tmp/program"
agree "keys of --dump-plugin"
