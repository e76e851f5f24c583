#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The man pages are correct POD, with the sections nbdkit's pages have, in
# the order they have them.

. ./functions.sh
requires command -v podchecker

pod="$abs_top_srcdir/man/nbdkit-qcow2-plugin.pod"
podchecker -warnings -warnings "$pod" 2>&1 | tee "$tmp/out"
grep -q 'pod syntax OK' "$tmp/out" || fail "podchecker found errors"
! grep -qi warning "$tmp/out" || fail "podchecker warns"

sections="NAME SYNOPSIS DESCRIPTION PARAMETERS FILES VERSION"
sections+=" SEE_ALSO AUTHORS LICENSE"
# shellcheck disable=SC2086  # one word each
[ "$(sed -n 's/^=head1 //p' "$pod" | tr ' ' _ \
    | grep -Fx "$(printf '%s\n' $sections)" | xargs)" = "$sections" ] \
    || fail "sections are missing or in another order: $sections"
