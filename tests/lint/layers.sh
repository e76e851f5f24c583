#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Includes in the engine go down or sideways, never up: the layers are those
# of the table in qcow2/DESIGN.md. A file a-b.c is in the layer of a unless
# the table lists a-b.

. ./functions.sh
cd "$abs_top_srcdir/qcow2"

declare -A layer
while IFS='|' read -r _ title files _; do
    for name in $(grep -o '`[^`]*`' <<<"$files" | tr -d '`'); do
        layer[${name%.h}]="$(tr -dc 0-9 <<<"$title")"
    done
done < <(grep -E '^\| [0-9] [^|]*\|[^|]*`' DESIGN.md)
[ ${#layer[@]} -gt 20 ] || fail "found no table of layers in DESIGN.md"

# layer_of FILE
layer_of ()
{
    local name="${1%.[ch]}"
    echo "${layer[$name]:-${layer[${name%%-*}]:-}}"
}

bad=0
for file in *.[ch]; do
    [ "$file" != qcow2.h ] || continue
    mine="$(layer_of "$file")"
    if [ -z "$mine" ]; then
        echo "qcow2/$file is not in the table of DESIGN.md"
        bad=1
        continue
    fi
    while read -r included; do
        case "$included" in
            qcow2.h | config.h) continue ;;
        esac
        theirs="$(layer_of "$included")"
        if [ -z "$theirs" ] || [ "$theirs" -gt "$mine" ]; then
            echo "qcow2/$file (layer $mine) includes" \
                 "$included (layer ${theirs:-unknown})"
            bad=1
        fi
    done < <(sed -nE 's/^ *# *include +"([^"]+)".*/\1/p' "$file")
done

# only_in REGEX FILE...: nothing else in the engine and the plugin may match
# it, comments aside.
only_in ()
{
    local regex="$1" file
    shift
    for file in *.[ch] ../plugin/*.[ch]; do
        [ -e "$file" ] || continue
        [[ " $* " != *" $file "* ]] || continue
        if grep -HnE "$regex" "$file" | grep -vE '^[^:]*:[0-9]+: *(/\*|\*)'
        then
            echo "only ${*:-nobody} may do this"
            bad=1
        fi
    done
}

only_in '# *include *<(zlib|zstd|libdeflate|isa-l.*)\.h>' compress.c
only_in '\b(F_(OFD_)?(SET|GET)LKW?|flock|lockf)\b' io-file.c io-lock.c
only_in '\bf(data)?sync *\(' io-file.c io-lock.c
only_in '# *include *<libnbd\.h>' io-nbd.c
only_in '# *include *[<"]nbdkit-' ../plugin/*.[ch]

# The plugin and the tool know the engine by its public header alone.
for file in ../plugin/*.[ch] tool/*.[ch]; do
    [ -e "$file" ] || continue
    while read -r included; do
        if [ "$included" != qcow2.h ] && [ -e "$included" ]; then
            echo "${file#../} includes the engine's private $included"
            bad=1
        fi
    done < <(sed -nE 's/^ *# *include +"([^"]+)".*/\1/p' "$file")
done

exit $bad
