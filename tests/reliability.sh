#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# reliability.sh: prints the figures of the README's section "Reliability":
# what the last `make check` tried, from its logs. In tests/ of the build tree.

srcdir="$(dirname "$0")"
export LC_ALL=C

# sum PATTERN LOG...: adds the numbers where the pattern has its parentheses
sum ()
{
    local pattern="$1"
    shift
    sed -nE "s/$pattern/\1/p" "$@" 2>/dev/null | awk '{ n += $1 } END {
        print n + 0 }'
}

row ()
{
    printf '%10d  %s\n' "$@"
}

row "$(sum '^crash states: ([0-9]+) tried.*' ./*/*.log)" \
    "crash states tried"
row "$(sum '^crash states: .* of ([0-9]+) made.*' ./*/*.log)" \
    "crash states they stand for (many are the same)"
row "$(sum '^crash states: .* ([0-9]+) by qemu-img check.*' ./*/*.log)" \
    "of them checked by qemu-img, too"
row "$(sum '^ *([0-9]+) failures$' fault/*.log)" "failures of the host's I/O"
row "$(sum '^([0-9]+) allocations$' fault/*.log)" \
    "failures to allocate memory"
row "$(sum '^damaged images: ([0-9]+) .*' check/*.log)" "damaged images"
row "$(sum '^damaged images: .* ([0-9]+) repaired.*' check/*.log)" \
    "of them repaired without remainder"
row "$(grep -cE '^\| ([0-9]+|CVE[-0-9]+|[a-z][a-z0-9]*(-[a-z0-9]+)+) \|' \
    "$srcdir/hostile.md")" \
    "classes of hostile images"
row "$(sum '.*: ([0-9]+) images, .* of them served$' data/*.log)" \
    "images with an extreme value"
row "$(sum '.*: ([0-9]+) inputs$' fuzz/*.log)" "inputs of fuzzers run again"
row "$(find "$srcdir/mutation" -name '*.mutation' 2>/dev/null | wc -l)" \
    "breakages of the engine to be noticed (make check-mutation)"
