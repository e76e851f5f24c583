#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Images with external data files, plain and raw, that qemu-img makes are read
# and written by us, and the other way round: content, map, check, resize,
# commit, rebase, convert and amend. QEMU runs in the directory of the image.

. ./functions.sh
requires qemu-img --version
requires qemu-io --version
requires nbdcopy --version
requires qcow2_img --version

cd "$tmp"

# same IMAGE: both read the same, find nothing wrong, and map alike
same ()
{
    qemu-img convert -f qcow2 -O raw "$1" theirs.raw
    qcow2_img convert -f qcow2 -O raw "$1" ours.raw
    cmp theirs.raw ours.raw
    qemu-img check -q "$1"
    qcow2_img check -q "$1"
    qemu-img map "$1" >theirs.map
    qcow2_img map "$1" >ours.map
    diff theirs.map ours.map
}

# raw IMAGE FILE: the data file is the disk
raw ()
{
    qemu-img convert -f qcow2 -O raw "$1" theirs.raw
    cmp -n "$(stat -c %s theirs.raw)" theirs.raw "$2"
}

# refused PATTERN COMMAND...
refused ()
{
    ! "${@:2}" 2>err || fail "'${*:2}' was not refused"
    grep -q "$1" err || fail "'${*:2}': $(cat err)"
}

# change SEED: commands of qemu-io, one word a line
change ()
{
    local seed="$1" commands=()
    for i in $(seq 0 40); do
        local off=$(((seed * 7919 + i * 104729) % 5000 * 512))
        local len=$(((seed + i * 31) % 300 * 512 + 512))
        case $(((seed + i) % 4)) in
            0) commands+=(-c "write -z $off $len") ;;
            1) commands+=(-c "write -z -u $off $len") ;;
            2) commands+=(-c "discard $off $len") ;;
            *) commands+=(-c "write -P $((i + seed)) $off $len") ;;
        esac
    done
    printf '%s\n' "${commands[@]}"
}

for options in "" data_file_raw=on cluster_size=4k \
               data_file_raw=on,cluster_size=512 \
               extended_l2=on,cluster_size=16k \
               extended_l2=on,data_file_raw=on; do
    for maker in qemu-img qcow2_img; do
        rm -f disk.qcow2 data.raw
        $maker create -q -f qcow2 -o "data_file=data.raw${options:+,$options}" \
               disk.qcow2 3M >/dev/null
        same disk.qcow2
        [ "$(stat -c %s data.raw)" -ge 3145728 ] || fail "the data file is short"
        mapfile -t commands < <(change 1)
        qemu-io -f qcow2 -d unmap "${commands[@]}" disk.qcow2 >/dev/null
        same disk.qcow2
        mapfile -t commands < <(change 11)
        printf '%s ' "${commands[@]@Q}" >args
        nbdkit_qcow2 -U - disk.qcow2 \
            --run 'eval "qemu-io -f raw -d unmap $(cat args) \"\$uri\"" \
                   >/dev/null'
        same disk.qcow2
        [[ "$options" != *raw* ]] || raw disk.qcow2 data.raw
        qcow2_img resize -q disk.qcow2 4M
        qemu-io -f qcow2 -c 'read -P 0 3M 1M' disk.qcow2 >/dev/null
        same disk.qcow2
        if [[ "$options" == data_file_raw* ]]; then
            qcow2_img amend -o size=4608K disk.qcow2
            # What is written to a raw data file by itself shows.
            printf hello | dd of=data.raw bs=1 seek=4000000 conv=notrunc status=none
            printf hello | dd of=data.raw bs=1 seek=4700000 conv=notrunc status=none
            raw disk.qcow2 data.raw
            same disk.qcow2
        fi
        qemu-img resize -q disk.qcow2 5000192
        same disk.qcow2
        qcow2_img resize -q --shrink disk.qcow2 1000448
        same disk.qcow2
        [ "$(stat -c %s data.raw)" -eq 1000448 ] || fail "it was not cut"
        [[ "$options" != *raw* ]] || raw disk.qcow2 data.raw
    done
done

# Layers with data files, commit to and from one, and rebase.
seq 1 400000 | head -c 2000000 >content.raw
truncate -s 2097152 content.raw
qcow2_img convert -O qcow2 -o data_file=base.raw,data_file_raw=on \
          content.raw base.qcow2
cmp content.raw base.raw
qcow2_img create -q -f qcow2 -o data_file=over.raw -b base.qcow2 -F qcow2 \
          over.qcow2
qemu-io -f qcow2 -c 'write -P 5 100k 300k' -c 'write -z 1M 100k' over.qcow2 \
        >/dev/null
same over.qcow2
cp ours.raw expected.raw
qcow2_img commit -q over.qcow2
cmp expected.raw base.raw
same over.qcow2

# With subclusters, too, the place of the first cluster is host offset 0.
qcow2_img create -q -f qcow2 -o data_file=sub.raw,extended_l2=on \
          -b base.qcow2 -F qcow2 sub.qcow2
qemu-io -f qcow2 -c 'write -P 7 2k 20k' sub.qcow2 >/dev/null
same sub.qcow2
cp ours.raw expected.raw
qcow2_img commit -q sub.qcow2
cmp expected.raw base.raw
same sub.qcow2

qemu-io -f qcow2 -c 'write -P 6 0 70k' over.qcow2 >/dev/null
qemu-img convert -f qcow2 -O raw over.qcow2 expected.raw
qcow2_img rebase -q -b '' over.qcow2
same over.qcow2
cmp expected.raw ours.raw
refused 'raw' qcow2_img rebase -q -u -b over.qcow2 -F qcow2 base.qcow2
refused 'backing chain' qcow2_img rebase -q -u -b over.raw -F raw over.qcow2

# What there is none of, by name.
refused 'reference counts' qcow2_img snapshot -q -c one over.qcow2
refused 'compressed' qcow2_img convert -c -O qcow2 -o data_file=c.raw content.raw c.qcow2
[ ! -e c.raw ] && [ ! -e c.qcow2 ] || fail "something was left behind"
refused 'version 2' qcow2_img create -q -f qcow2 -o data_file=x.raw,compat=0.10 x.qcow2 1M
refused 'no data file' qcow2_img create -q -f qcow2 -o data_file_raw=on x.qcow2 1M
refused 'itself' qcow2_img create -q -f qcow2 -o data_file=x.qcow2 x.qcow2 1M
[ ! -e x.raw ] && [ ! -e x.qcow2 ] || fail "something was left behind"

# An old image stays if there is no way to its new data file.
cp over.qcow2 kept.qcow2
mkdir dir.raw
refused 'directory' qcow2_img create -q -f qcow2 -o data_file=dir.raw kept.qcow2 1M
refused 'directory' qcow2_img convert -O qcow2 -o data_file=dir.raw content.raw \
                    kept.qcow2
cmp over.qcow2 kept.qcow2

# A source is not overwritten, whatever is locked.
cp content.raw source.raw
refused 'read from' \
        qcow2_img convert -U -O qcow2 -o data_file=source.raw source.raw x.qcow2
cmp content.raw source.raw
qcow2_img create -q -f qcow2 -o data_file=old.raw old.qcow2 1M
ln -f source.raw old.raw
refused 'read from' qcow2_img convert -U -n -O qcow2 source.raw old.qcow2
qcow2_img create -q -f qcow2 -b source.raw -F raw above.qcow2 1M
refused 'read from' qcow2_img convert -U -n -O qcow2 above.qcow2 old.qcow2
cmp content.raw source.raw

# The name, and that it is raw, can be changed; the latter once.
mv over.raw moved.raw
refused 'No such file' qcow2_img map over.qcow2
qcow2_img amend -o data_file=moved.raw over.qcow2
same over.qcow2
qcow2_img amend -o data_file_raw=off base.qcow2
qcow2_img info base.qcow2 | grep -q 'data file raw: false'
qemu-img info base.qcow2 | grep -q 'data file raw: false'
refused 'from the start' qcow2_img amend -o data_file_raw=on base.qcow2
same base.qcow2
