#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Nothing in the sources is a note to ourselves, or names a place on the
# machine of whoever wrote it.

. ./functions.sh
cd "$abs_top_srcdir"

sources ()
{
    find qcow2 plugin tests man .ci README.md CONTRIBUTING.md quickstart \
         configure.ac Makefile.am -type f \
         ! -name '*.o' ! -name '*.lo' ! -name '*.log' ! -name '*.trs' \
         ! -name Makefile ! -name Makefile.in ! -path '*/.*/*' "$@"
}

if sources ! -path tests/lint/words.sh -exec \
     grep -InE '\b(TODO|FIXME|XXX|HACK|WIP)\b' {} +; then
    fail "finish this, or put it into an issue"
fi
if sources -exec \
     grep -InE '(^|[^A-Za-z0-9_.*-])/(home|root|work|builds?|Users)/' {} +; then
    fail "this path exists on one machine only"
fi
