#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Includes in the engine go down or sideways, never up: a layer is a folder,
# and their order is that of the table in qcow2/DESIGN.md, the highest first.

. ./functions.sh
cd "$abs_top_srcdir/qcow2"

declare -A layer
nr=0
while read -r folder; do
    nr=$((nr + 1))
    layer[$folder]=$nr
done < <(sed -nE 's,^\| `([a-z]+)/` \|.*,\1,p' DESIGN.md | tac)
[ $nr -gt 5 ] || fail "found no table of layers in DESIGN.md"

bad=0
complain ()
{
    echo "$*"
    bad=1
}

for file in *.[ch]; do
    [ "$file" = qcow2.h ] || complain "qcow2/$file is in no layer"
done
for file in */*.[ch]; do
    folder="${file%/*}"
    [ "$folder" != tool ] || continue
    mine="${layer[$folder]:-}"
    if [ -z "$mine" ]; then
        complain "qcow2/$folder/ is not in the table of DESIGN.md"
        continue
    fi
    while read -r included; do
        case "$included" in
            qcow2.h | config.h) continue ;;
        esac
        theirs="${layer[${included%/*}]:-}"
        if [ -z "$theirs" ] || [ ! -e "$included" ]; then
            complain "qcow2/$file includes $included: not FOLDER/FILE"
        elif [ "$theirs" -gt "$mine" ]; then
            complain "qcow2/$file includes $included, which is further up"
        fi
    done < <(sed -nE 's/^ *# *include +"([^"]+)".*/\1/p' "$file")
done

# A file and its header are one, and no such two need each other, directly or
# by way of others. Below these folders some still do: DESIGN.md names them.
for file in */*.[ch]; do
    case "$file" in tool/* | disk/* | layer/* | storage/*) continue ;; esac
    sed -nE 's,^ *# *include +"([a-z]+/[^"]+)\.h".*,\1,p' "$file" \
        | grep -vxF "${file%.?}" | sed "s,^,${file%.?} ,"
done | grep -vE ' (disk|layer|storage)/' >"$tmp/includes" || true
[ -s "$tmp/includes" ] || fail "found no includes"
if circles="$(tsort "$tmp/includes" 2>&1 >"$tmp/order")" \
    && [ -z "$circles" ]
then
    :
else
    complain "files that include each other in a circle: $circles"
fi

# only_in REGEX FILE...: nothing else in the engine and the plugin may match
# it, comments aside.
only_in ()
{
    local regex="$1" file
    shift
    for file in */*.[ch] ../plugin/*.[ch]; do
        [ -e "$file" ] && [[ "$file" != tool/* ]] || continue
        [[ " $* " != *" $file "* ]] || continue
        if grep -HnE "$regex" "$file" | grep -vE '^[^:]*:[0-9]+: *(/\*|\*)'
        then
            complain "only ${*:-nobody} may do this"
        fi
    done
}

only_in '# *include *<(zlib|zstd|libdeflate|isa-l.*)\.h>' base/compress.c
only_in '\b(F_(OFD_)?(SET|GET)LKW?|flock|lockf)\b' storage/io-file.c storage/io-lock.c
only_in '\bf(data)?sync *\(' storage/io-file.c storage/io-lock.c
only_in '# *include *<libnbd\.h>' storage/io-nbd.c storage/nbd-library.h
only_in '\bio_(nbd_open_within|file_open_held) *\(' \
    storage/{io.h,io-file.c,io-nbd.h,io-nbd.c,io-open.c}
only_in '\b(write_data|write_compressed|zero_range|zero_trim) *\(' \
    request/{request.h,change.c,write.c,write-compressed.c,zero.c}
only_in '# *include *[<"]nbdkit-' ../plugin/*.[ch]

# The plugin and the tool know the engine by its public header alone.
for file in ../plugin/*.[ch] tool/*.[ch]; do
    [ -e "$file" ] || continue
    while read -r included; do
        if [ "$included" != qcow2.h ] && [ -e "$included" ]; then
            complain "${file#../} includes the engine's private $included"
        fi
    done < <(sed -nE 's/^ *# *include +"([^"]+)".*/\1/p' "$file")
done

exit $bad
