#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The man pages are correct POD, with the sections nbdkit's pages have, in
# the order they have them.

. ./functions.sh
requires command -v podchecker

# check_page NAME SECTION...
check_page ()
{
    local pod="$abs_top_srcdir/man/$1.pod"
    shift
    # The options of several verbs have the same name.
    podchecker -warnings -warnings "$pod" 2>&1 \
        | grep -v 'multiple occurrences' | tee "$tmp/out"
    grep -q 'pod syntax OK' "$tmp/out" || fail "podchecker found errors"
    ! grep -qi warning "$tmp/out" || fail "podchecker warns"
    [ "$(sed -n 's/^=head1 //p' "$pod" | tr ' ' _ \
        | grep -Fx "$(printf '%s\n' "$@")" | xargs)" = "$*" ] \
        || fail "$pod: sections are missing or in another order: $*"
}

check_page nbdkit-qcow2-plugin NAME SYNOPSIS DESCRIPTION PARAMETERS FILES \
           VERSION SEE_ALSO AUTHORS LICENSE
check_page qcow2-img NAME SYNOPSIS DESCRIPTION EXAMPLES COMMON_OPTIONS VERBS \
           EXIT_STATUS FILES VERSION SEE_ALSO AUTHORS LICENSE
