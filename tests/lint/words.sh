#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Nothing in the sources is a note to ourselves, or names a place on the
# machine of whoever wrote it; and programs are no persons (CONTRIBUTING.md,
# "Language").

. ./functions.sh
cd "$abs_top_srcdir"

sources="$(find qcow2 plugin tests man .ci README.md CONTRIBUTING.md SECURITY.md \
                quickstart configure.ac Makefile.am \
                \( -name '*.[ch]' -o -name '*.sh' -o -name '*.am' \
                   -o -name '*.in' -o -name '*.ac' -o -name '*.md' \
                   -o -name '*.pod' -o -name run -o -name quickstart \) \
                ! -name Makefile.in ! -path tests/lint/words.sh)"

# forbid REGEX WHY
forbid ()
{
    if xargs grep -nE "$1" <<<"$sources"; then
        fail "$2"
    fi
}

forbid '\b(TODO|FIXME|XXX|HACK|WIP)\b' "finish this, or open an issue"
forbid '(^|[^A-Za-z0-9_.*-])/(home|root|work|builds?|Users)/' \
       "this path exists on one machine only"
forbid '\b(he|him|his|himself|she|her)\b' "a process or a caller is 'it'"
forbid '(/\*|^ \*|[.:;]) Who [a-z]+s\b|\b(for|by|to) who\b' \
       "name the subject: the caller, the reader, a thread"
