#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Files that the documents name exist.

. ./functions.sh
cd "$abs_top_srcdir"

bad=0
for document in README.md CONTRIBUTING.md qcow2/DESIGN.md; do
    # In backquotes or as a link; what looks like a path of this tree.
    while read -r name; do
        found=
        for dir in . "$(dirname "$document")" qcow2; do
            [ ! -e "$dir/$name" ] || found=yes
        done
        if [ -z "$found" ]; then
            echo "$document names $name, which does not exist"
            bad=1
        fi
    done < <(sed -E 's/\]\(([^)]*)\)/ `\1` /g' "$document" \
                 | grep -oE '`[^` ]+`' | tr -d '`' | sed 's,^\./,,' \
                 | grep -E '/|\.([ch]|sh|md|ac|am|in|pod)$' \
                 | grep -vE '^/|^build|[][:=*<>$]|^(docs/interop)' | sort -u)
done

# And the comments of the sources, for test scripts and headers.
while IFS=: read -r file _ name; do
    if [ ! -e "$name" ]; then
        echo "$file names $name, which does not exist"
        bad=1
    fi
done < <(grep -onE '\b(qcow2|plugin|tests/[a-z]+|man)/[a-z0-9-]+\.(c|h|sh|md|pod)\b' \
              qcow2/*.[ch] plugin/*.[ch] tests/*/*.[ch] 2>/dev/null)

exit $bad
