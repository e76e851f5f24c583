#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Files of a MiB or a few, which claim as much work as the format lets them:
# they are opened, shown, checked, repaired, changed and served within 10 s of
# the processor and 256 MiB of memory. (What reads all of a disk takes as long
# as the disk is large; that is left out.)

. ./functions.sh
requires python3 --version
requires qcow2_img --version
requires qemu-io --version

cd "$tmp"
mkdir images
images="$(cd images && python3 "$srcdir/shell/costly-images.py")" \
    || skip "no sparse files of 8 TiB here"

# bounded COMMAND [ARG...]: fails if it needs more
bounded ()
{
    local status=0
    (
        ulimit -t 10 -s 1024
        [ -n "$sanitizer_runtime" ] || ulimit -d 262144
        "$@"
    ) >out 2>&1 </dev/null || status=$?
    [ "$status" -lt 128 ] || fail "'$*' with $image: died ($status)"
    ! grep -qi 'cannot allocate' out || fail "'$*' with $image: $(cat out)"
    [ "$status" -eq 0 ] || [ -s out ] || fail "'$*' with $image: no word"
}

nr=0
for image in $images; do
    for command in info "info --output=json" "check --output=json" \
                   "snapshot -l" "map --max-length=1M" "resize +64K" \
                   "snapshot -c another" "snapshot -a 1" "snapshot -d 1" \
                   "amend -o lazy_refcounts=on" "check -r leaks" \
                   "check -r all"; do
        cp --sparse=always "images/$image" it
        case "$command" in
            resize*) bounded qcow2_img resize it "${command#* }" ;;
            *) read -ra words <<<"$command"
               bounded qcow2_img "${words[@]}" it ;;
        esac
    done
    cp --sparse=always "images/$image" it
    bounded nbdkit_qcow2 -U - it --run 'qemu-io -f raw "$uri" -c "write 0 64k" \
        -c "read 1M 64k" -c "discard 64k 64k" -c flush'
    nr=$((nr + 1))
done
[ "$nr" -ge 10 ] || fail "only $nr images"
