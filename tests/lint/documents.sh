#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Files that the documents name exist, and functions that the design names.

. ./functions.sh
cd "$abs_top_srcdir"

bad=0

# exists NAME DIR...: relative to the top or one of the directories; tests
# are named without .c
exists ()
{
    local name="${1#./}" dir
    shift
    for dir in . "$@"; do
        [ ! -e "$dir/$name" ] && [ ! -e "$dir/$name.c" ] || return 0
    done
    return 1
}

# In backquotes, or a link; what looks like a file of this tree.
for document in README.md CONTRIBUTING.md SECURITY.md qcow2/DESIGN.md \
                tests/hostile.md; do
    names="$(sed -E 's/\]\(([^)]*)\)/ `\1` /g' "$document" \
        | grep -oE '`[A-Za-z0-9_./-]+`' | tr -d '`' \
        | grep -E '/|\.([ch]|sh|md|ac|am|in|pod)$' \
        | grep -vE '^/|^(./)?build(/|$)|^docs/interop' | sort -u)"
    [ -n "$names" ] || fail "$document names no files at all?"
    for name in $names; do
        if ! exists "$name" "$(dirname "$document")" qcow2 qcow2/* tests; then
            echo "$document names $name, which does not exist"
            bad=1
        fi
    done
done

# Functions and the like in the design.
grep -oE '`[a-z][a-z0-9]*(_[a-z0-9]+)+`' qcow2/DESIGN.md | tr -d '`' \
    | sort -u >"$tmp/names"
[ -s "$tmp/names" ] || fail "DESIGN.md names no functions at all?"
while read -r name; do
    if ! grep -rqw --include='*.[ch]' "$name" qcow2 plugin; then
        echo "qcow2/DESIGN.md names $name, which does not exist"
        bad=1
    fi
done <"$tmp/names"

# In comments.
while IFS=: read -r file name; do
    if ! exists "$name"; then
        echo "$file names $name, which does not exist"
        bad=1
    fi
done < <(find qcow2 plugin tests -name '*.[ch]' -exec grep -oHE \
    '\b(qcow2(/[a-z]+)?|plugin|tests/[a-z]+|man)/[a-z0-9-]+\.(c|h|sh|md|pod)\b' {} +)

exit $bad
