#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What CONTRIBUTING.md asks of the form of C files: at most 800 lines of 80
# columns, functions of 70 lines, no tabs, a licence, and a sentence on top.

. ./functions.sh
export LC_ALL=C.UTF-8
cd "$abs_top_srcdir"

files=()
for file in qcow2/*.[ch] qcow2/*/*.[ch] plugin/*.[ch] tests/*/*.[ch]; do
    [ ! -e "$file" ] || files+=("$file")
done

# Not by awk, which may count bytes.
if grep -HnE '^.{81,}' "${files[@]}"; then
    fail "wider than 80 columns; see CONTRIBUTING.md"
fi

awk '
    function complain(what) { print FILENAME ":" FNR ": " what; bad = 1 }
    FNR == 1 && !/SPDX-License-Identifier: BSD-3-Clause/ {
        complain("no licence")
    }
    FNR == 2 && !/^\/\* ./ { complain("does not say what the file is") }
    # The public interface is one file by design, and half of it comments.
    FNR == (FILENAME ~ /qcow2\/qcow2\.h$/ ? 1301 : 801) {
        complain("longer than " FNR - 1 " lines")
    }
    /\t/ { complain("a tab") }
    /[ \r]$/ { complain("ends in a blank") }
    /^{$/ { start = FNR }
    /^}$/ {
        if (FNR - start + 1 > 70)
            complain("end of a function of " FNR - start + 1 " lines")
    }
    END { exit bad }' "${files[@]}" || fail "see CONTRIBUTING.md"
