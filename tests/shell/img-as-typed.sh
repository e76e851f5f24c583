#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Command lines that programs have for qemu-img do here what they do there: the
# exit status, what is printed, and the images are the same.

. ./functions.sh
. "$srcdir/shell/img.sh"
cd "$tmp"

# fresh: the images that the command lines are about, in theirs/ and ours/.
fresh ()
{
    rm -rf theirs ours
    mkdir theirs
    (
        cd theirs
        qemu-img create -q -f qcow2 base.qcow2 4M
        fill base.qcow2 qcow2 "write -P 7 0 128k" "write -P 8 2M 1M"
        qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 over.qcow2
        fill over.qcow2 qcow2 "write -P 9 64k 128k"
        qemu-img create -q -f raw disk.raw 4M
        fill disk.raw raw "write -P 7 1M 64k"
    )
    cp -r theirs ours
}

# state IMAGE: what it is, as far as both should agree.
state ()
{
    [ -e "$1" ] || return 0
    qemu-img info --output=json -U "$1" \
        | grep -vE '"(filename|full-backing-filename|actual-size)"'
}

# alike IMAGE ARG...: both do the same; IMAGE is what changes.
alike ()
{
    local image="$1" theirs=0 ours=0
    shift
    fresh
    (cd theirs; exec qemu-img "$@") >theirs.out 2>theirs.err || theirs=$?
    (cd ours; qcow2_img "$@") >ours.out 2>ours.err || ours=$?
    [ "$theirs" -eq "$ours" ] \
        || fail "'$*' ended with $ours, not $theirs: $(cat ours.err)"
    sed -E -e 's/completed in [0-9.]+/completed/' -e 's/\{ /{/' \
        -e 's/, "compressed": [a-z]+//' -i theirs.out ours.out
    [ "$theirs" -ne 0 ] || diff -u theirs.out ours.out \
        || fail "'$*' printed something else"
    [ "$theirs" -ne 0 ] || [ ! -s ours.err ] \
        || fail "'$*' complained: $(cat ours.err)"
    [ -n "$image" ] && [ "$theirs" -eq 0 ] || return 0
    (cd theirs; state "$image") >theirs.out
    (cd ours; state "$image") >ours.out
    diff -u theirs.out ours.out || fail "'$*' made another image"
    qemu-img compare -q "theirs/$image" "ours/$image" \
        || fail "'$*' made another content"
}

alike '' map -s 64k -l 1M base.qcow2
alike '' map -s 64k --output=json over.qcow2
alike '' bench -c 8 -i threads base.qcow2
alike '' bench -c 8 -i io_uring base.qcow2
alike '' bench -c 8 -n -t none base.qcow2
alike '' bench -c 8 -i aio base.qcow2
alike x convert -C -O qcow2 base.qcow2 x
alike '' convert -C -c -O qcow2 base.qcow2 x
alike '' convert -C -S 4k -O qcow2 base.qcow2 x
alike x convert -c -S 0 -O qcow2 base.qcow2 x
alike x dd count=0 if=base.qcow2 of=x
alike x dd bs=1M count=0 -O qcow2 if=base.qcow2 of=x
alike x create -f qcow2 x +1M
alike x create -f raw x +1M
alike x create -f qcow2 -o size=+1M x
for options in nocow=on nocow=off extent_size_hint=1M extent_size_hint=0 \
               nocow=on,extent_size_hint=64k; do
    alike x create -f qcow2 -o "$options" x 1M
    alike x create -f raw -o "$options" x 1M
done
alike x convert -O qcow2 -o nocow=on,extent_size_hint=1M base.qcow2 x
alike x convert -O raw -o nocow=on,extent_size_hint=1M base.qcow2 x
for options in encryption=off data_file_raw=off encryption=on data_file_raw \
               encryption=off,data_file_raw=off,nocow=on; do
    alike x create -f qcow2 -o "$options" x 1M
done
alike '' amend -o encryption=off base.qcow2
alike '' amend -o nocow=on base.qcow2
alike base.qcow2 amend -o data_file_raw=off base.qcow2
alike x create -f raw -o preallocation=full x 1M
alike '' create -f qcow2 -o size=2M x 1M
alike '' measure -O qcow2 -o size=1M base.qcow2
alike '' measure -O raw -o size=512 over.qcow2
alike '' measure --size=+1M -O qcow2
alike over.qcow2 amend -o size=8M over.qcow2
alike base.qcow2 amend -o compat=0.10,size=8M base.qcow2
alike base.qcow2 amend --force -f qcow2 -o size=8M,lazy_refcounts base.qcow2
alike base.qcow2 amend --force -f qcow2 -o size=1M base.qcow2
alike '' amend -f raw -o size=8M disk.raw
alike over.qcow2 rebase -b '' -F qcow2 over.qcow2
alike over.qcow2 rebase -u -b '' -F qcow2 over.qcow2
alike over.qcow2 rebase -u over.qcow2
alike over.qcow2 rebase -u -F raw over.qcow2
alike '' rebase over.qcow2
alike '' rebase -F qcow2 over.qcow2

# Long names, as version 10.1 has them: the same as the letters.
# same_as "ARG..." ARG...
same_as ()
{
    local words
    read -ra words <<<"${1//$'\n'/ }"
    shift
    fresh
    (cd theirs; qcow2_img "${words[@]}") >theirs.out
    (cd ours; qcow2_img "$@") >ours.out
    sed -E 's/completed in [0-9.]+/completed/' -i theirs.out ours.out
    diff -u theirs.out ours.out || fail "'$*' printed something else"
    for image in x base.qcow2 over.qcow2; do
        [ ! -e "theirs/$image" ] || cmp "theirs/$image" "ours/$image" \
            || fail "'$*' made another image"
    done
}
same_as "convert -f qcow2 -O qcow2 -o cluster_size=4k -c -T none -t none -m 1
         base.qcow2 x" \
    convert --source-format=qcow2 --target-format=qcow2 --compress \
    --target-format-options=cluster_size=4k --source-cache=none \
    --target-cache=none --parallel=1 base.qcow2 x
same_as "convert -f qcow2 -O raw -C -W -r 1G base.qcow2 x" \
    convert --format=qcow2 --target-format raw --copy-range-offloading \
    --oob-writes --rate-limit=1G base.qcow2 x
same_as "convert --image-opts -S 64k driver=qcow2,file.filename=base.qcow2 x" \
    convert --source-image-opts --sparse-size=64k \
    driver=qcow2,file.filename=base.qcow2 x
same_as "create -f qcow2 -u -b base.qcow2 -F qcow2 -o compat=0.10 x 1M" \
    create --format=qcow2 --backing-unsafe --backing=base.qcow2 \
    --backing-format=qcow2 --options=compat=0.10 x 1M
same_as "amend -t none -o compat=0.10 base.qcow2" \
    amend --cache=none --options=compat=0.10 base.qcow2
same_as "bench -c 8 -d 2 -o 64k -s 8k -S 4k -i native -n base.qcow2" \
    bench --count=8 --depth=2 --offset=64k --buffer-size=8k --step-size=4k \
    --aio=native --native base.qcow2
same_as "commit -d -r 1G -b base.qcow2 over.qcow2" \
    commit --drop --rate-limit=1G --base=base.qcow2 over.qcow2
same_as "compare -s -f qcow2 -F qcow2 -T none base.qcow2 base.qcow2" \
    compare --strict --a-format=qcow2 --b-format=qcow2 --cache=none \
    base.qcow2 base.qcow2
same_as "measure -f qcow2 -O qcow2 -o cluster_size=4k base.qcow2" \
    measure --source-format=qcow2 --target-format=qcow2 \
    --options=cluster_size=4k base.qcow2
same_as "rebase -u over.qcow2" \
    rebase --backing-unsafe --backing-cache=none over.qcow2
same_as "snapshot -l base.qcow2" snapshot --list base.qcow2
fresh
qcow2_img snapshot --create=one ours/base.qcow2
qcow2_img convert --snapshot=one ours/base.qcow2 ours/x
qcow2_img snapshot --apply=one ours/base.qcow2
qcow2_img snapshot --delete=one ours/base.qcow2
qemu-img compare -q ours/base.qcow2 ours/x
[ -z "$(qemu-img snapshot -l ours/base.qcow2)" ] || fail "a snapshot is left"

# All of a disk that is compressed with -S 0 takes space.
expect_output '64/64 = 100.00% allocated, 100.00% fragmented, 100.00% compr' \
    qemu-img check "$(fresh; cd ours; qcow2_img convert -c -S 0 -O qcow2 \
                          base.qcow2 x; pwd)/x"

# What measure says of a disk that is to be larger holds for it.
fresh
cd ours
qcow2_img measure -O qcow2 -o size=1G --output=json base.qcow2 >out.json
qcow2_img convert -O qcow2 -o size=1G,preallocation=metadata base.qcow2 x
[ "$(stat -c %s x)" -le "$(json_value out.json fully-allocated)" ] \
    || fail "it is larger than measure said"

# A disk becomes smaller only when that is asked for; qemu-img does not ask.
refuses 'would lose.*; --force allows' qcow2_img amend -o size=1M base.qcow2
refuses 'must be positive' qcow2_img amend --force -o size=0 base.qcow2
ln -s "$abs_top_builddir/qcow2/tool/qcow2-img" qemu-img
./qemu-img amend -o size=1M base.qcow2
[ "$(qemu-img info --output=json base.qcow2 | grep -c '"virtual-size": 1048576')" -eq 1 ] \
    || fail "it did not become smaller"
check_image base.qcow2 >/dev/null
