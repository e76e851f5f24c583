#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Images named by options of QEMU's block drivers, as --image-opts and json:
# have them: what qemu-img reads so reads the same, parts of files included;
# what is not supported is refused, and said by its name.

. ./functions.sh
. "$srcdir/shell/img.sh"
requires qemu-img --version

cd "$tmp"
qemu-img create -q -f qcow2 base.qcow2 1M
qemu-io -c 'write -q -P 5 0 128k' base.qcow2
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 over.qcow2
qemu-io -c 'write -q -P 6 64k 128k' over.qcow2
cp base.qcow2 other.qcow2
qemu-io -c 'write -q -P 7 0 64k' other.qcow2
head -c 3584 /dev/zero | tr '\0' z >archive
cat base.qcow2 >>archive
head -c 5120 /dev/zero | tr '\0' e >>archive
size="$(stat -c %s base.qcow2)"

# same OPTIONS: read alike by qemu-img, as options and (if given) as JSON.
same ()
{
    rm -f theirs ours
    qemu-img convert --image-opts "$1" -O raw theirs \
        || fail "qemu-img itself refuses $1"
    qcow2_img convert --image-opts "$1" -O raw ours || fail "refused: $1"
    cmp theirs ours || fail "reads differently: $1"
    [ -n "${2-}" ] || return 0
    rm ours
    qcow2_img convert "json:$2" -O raw ours || fail "refused: $2"
    cmp theirs ours || fail "reads differently: $2"
}

part="offset=3584,size=$size"
json_part='"offset": 3584, "size": "'"$size"'"'
same driver=qcow2,file.filename=over.qcow2 \
    '{"driver": "qcow2", "file": {"driver": "file", "filename":
      "over.qcow2"}}'
same file.filename=over.qcow2 '{"file": {"filename": "over.qcow2"}}'
same driver=raw,file.filename=over.qcow2
same driver=file,filename=over.qcow2 \
    '{"driver": "file", "filename": "over.qcow2"}'
same "driver=raw,$part,file.driver=file,file.filename=archive" \
    "{\"driver\": \"raw\", $json_part, \"file.filename\": \"archive\"}"
same driver=raw,offset=3072,file.filename=archive
same driver=raw,offset=1k,file.filename=archive \
    '{"driver": "raw", "offset": 1024, "file": {"filename": "archive"}}'
same driver=raw,size=1k,file.filename=archive
same driver=raw,offset=0x200,file.filename=archive
same "driver=qcow2,file.driver=raw,file.offset=3584,file.size=$size,\
file.file.driver=file,file.file.filename=archive" \
    "{\"driver\": \"qcow2\", \"file\": {\"driver\": \"raw\", $json_part,
      \"file\": {\"driver\": \"file\", \"filename\": \"archive\"}}}"
same "driver=qcow2,file.driver=raw,file.offset=3584,\
file.file.filename=archive"
same driver=qcow2,file.driver=raw,file.file.filename=over.qcow2
same "driver=qcow2,file.filename=over.qcow2,\
backing.driver=qcow2,backing.file.filename=other.qcow2" \
    '{"driver": "qcow2", "file.filename": "over.qcow2", "backing":
      {"driver": "qcow2", "file": {"filename": "other.qcow2"}}}'
same driver=qcow2,file.filename=over.qcow2,backing.driver=raw,\
backing.file.filename=other.qcow2
same driver=qcow2,file.filename=over.qcow2,backing= \
    '{"driver": "qcow2", "file.filename": "over.qcow2", "backing": null}'
for option in read-only=on read-only=off auto-read-only=on cache.direct=on \
    cache.direct=off cache.no-flush=on file.cache.direct=on \
    cache.direct=on,cache.no-flush=on discard=unmap discard=ignore \
    discard=on,detect-zeroes=unmap detect-zeroes=on detect-zeroes=off \
    lazy-refcounts=on,l2-cache-size=1M overlap-check=all \
    cache-size=1M,refcount-cache-size=256k,cache-clean-interval=10 \
    l2-cache-entry-size=4k file.aio=threads file.locking=auto \
    node-name=x,file.node-name=y file.drop-cache=off \
    pass-discard-request=on force-share=off
do
    same "driver=qcow2,file.filename=over.qcow2,$option"
done

# refused OPTIONS REGEX: by us; qemu-img has it or not.
refused ()
{
    rm -f ours
    if qcow2_img convert --image-opts "$1" -O raw ours 2>err; then
        fail "$1 was taken"
    fi
    [ ! -e ours ] || fail "$1: something was written"
    grep -Eq "$2" err || fail "$1: $(cat err)"
}
image=driver=qcow2,file.filename=over.qcow2
refused driver=luks,file.filename=over.qcow2 "driver 'luks' is not"
refused driver=blkdebug,image.filename=over.qcow2 "driver 'blkdebug'"
refused driver=raw,file.driver=qcow2,file.file.filename=over.qcow2 \
    "'file.driver' can only be"
refused driver=raw,offset=1k,file.driver=raw,file.offset=512,\
file.file.filename=archive "part of a part"
refused driver=qcow2,offset=512,file.filename=archive "option 'offset'"
refused driver=raw,offset=-1,file.filename=archive "'offset' is not a size"
refused driver=raw,offset=x,file.filename=archive "'offset' is not a size"
refused driver=raw,size=0,file.filename=archive "'size' must be"
refused driver=raw,offset=10M,file.filename=archive 'it has [0-9]+ bytes'
refused driver=raw,offset=1k,size=10M,file.filename=archive \
    'it has [0-9]+ bytes'
refused driver=raw,offset=16E,size=16E,file.filename=archive \
    'it has [0-9]+ bytes|not a size'
refused "$image,read-only=maybe" "'read-only' must be on or off"
refused "$image,cache.direct=1" "'cache.direct' must be on or off"
refused "$image,cache.writeback=on" "option 'cache.writeback'"
refused "$image,discard=all" "'discard' must be unmap or ignore"
refused "$image,detect-zeroes=maybe" "'detect-zeroes' must be"
refused "$image,file.aio=fast" "'file.aio' cannot be 'fast'"
refused "$image,file.locking=off" "'file.locking' cannot be 'off'"
refused "$image,force-share=on" "'force-share' can only be off"
refused "$image,file.pr-manager=x" "option 'file.pr-manager'"
refused "$image,file=x" "'file' names a node"
refused "$image,backing=x" "'backing' names a node"
refused "$image,backing.driver=raw,backing.offset=512,\
backing.file.filename=base.qcow2" "option 'backing.offset'"
refused driver=qcow2,filename=over.qcow2 "file.filename' is missing"
refused '' "file.filename' is missing"

# Verbs that are told where the image is: all see the part.
front=file.driver=file,file.filename=archive
opts="driver=qcow2,file.driver=raw,file.offset=3584,file.size=$size,\
file.file.filename=archive"
qcow2_img info --image-opts "$opts" | grep -q '^virtual size: 1 MiB' \
    || fail "info"
qcow2_img check -q --image-opts "$opts"
qcow2_img snapshot --image-opts -l "$opts"
qcow2_img measure -O qcow2 --image-opts "$opts" >ours
qemu-img measure -O qcow2 --image-opts "$opts" | cmp - ours
# Offsets are those of the file that is named; QEMU names the part.
at="$(qcow2_img map --image-opts "$opts" \
      | awk '$4 == "archive" { print $3; exit }')"
[ "$(dd if=archive bs=1 skip=$((at)) count=1 2>dd.log | od -An -tx1)" = " 05" ] \
    || fail "map: $at"
qcow2_img compare --image-opts "$opts" \
    driver=qcow2,file.filename=base.qcow2
if qcow2_img compare -q --image-opts driver=raw,size=512,$front \
    driver=raw,offset=3584,size=512,$front
then
    fail "two parts of a file count as one"
fi
qcow2_img compare -q --image-opts driver=raw,offset=512,size=512,$front \
    driver=raw,offset=1024,size=512,$front
cp archive archive.before
qcow2_img bench -q -w --pattern 9 -c 16 -s 4k --image-opts "$opts"
qcow2_img check -q --image-opts "$opts"
qemu-img check -q --image-opts "$opts"
cmp <(head -c 3584 archive) <(head -c 3584 archive.before)
cmp <(tail -c 5120 archive) <(tail -c 5120 archive.before)
[ "$(stat -c %s archive)" = "$(stat -c %s archive.before)" ]
qemu-io --image-opts -r -c 'read -q -P 9 0 64k' "$opts" >out
[ ! -s out ] || fail "$(cat out)"
qcow2_img amend -o compat=0.10 --image-opts "$opts"
qcow2_img convert -n --target-image-opts base.qcow2 "$opts"
qemu-img compare -q --image-opts driver=qcow2,file.filename=base.qcow2 \
    "$opts"

# What stands beside the part is no part: a new backing file is all of a file,
# and data in a data file are at their own offset.
qemu-img create -q -f raw old.raw 1M
qemu-io -f raw -c 'write -q -P 17 0 1M' old.raw
qemu-img create -q -f raw new.raw 8M
qemu-io -f raw -c 'write -q -P 34 0 4M' -c 'write -q -P 17 4M 4M' new.raw
qemu-img create -q -f qcow2 -b old.raw -F raw part.qcow2
qemu-io -c 'write -q -P 51 0 64k' part.qcow2
qemu-img create -q -f qcow2 -o data_file=data.raw with-data.qcow2 1M
qemu-io -c 'write -q -P 5 0 64k' with-data.qcow2
qemu-img create -q -f raw box 8M
dd if=part.qcow2 of=box bs=1M seek=4 conv=notrunc status=none
part=driver=qcow2,file.driver=raw,file.offset=4M,file.size=4M,\
file.file.filename=box
qcow2_img convert --image-opts "$part" -O raw before.raw
qcow2_img rebase -b new.raw -F raw --image-opts "$part"
qcow2_img convert --image-opts "$part" -O raw after.raw
cmp before.raw after.raw || fail "the part reads differently after rebase"
dd if=with-data.qcow2 of=box bs=1M seek=4 conv=notrunc status=none
qcow2_img map --image-opts "$part" >said
grep -Eq '^0 +0x10000 +0 +data.raw$' said || fail "map: $(cat said)"

rm -f undo
! qcow2_img check -q -r all --undo=undo --image-opts "$opts" 2>err
grep -q -- '--undo' err

# What may only be read is not written.
not_written ()
{
    if qcow2_img "$@" 2>err; then
        fail "$* wrote"
    fi
    grep -q "'read-only' is on" err || fail "$*: $(cat err)"
}
for verb in 'bench -w -c 1' 'amend -o compat=1.1' commit 'check -r all' \
    'snapshot -c x'
do
    read -ra words <<<"$verb"
    not_written "${words[@]}" --image-opts "$image,read-only=on"
done
not_written rebase -b '' --image-opts "$image,read-only=on"
not_written resize --image-opts "$image,read-only=on" +1M
if qcow2_img convert -n --target-image-opts base.qcow2 "$opts,read-only=on" \
    2>err
then
    fail "convert wrote"
fi
grep -q "'read-only' is on" err

# A qcow2 image is written only where its end is known.
if qcow2_img bench -w -c 1 --image-opts \
    driver=qcow2,file.driver=raw,file.offset=3584,file.file.filename=archive \
    2>err
then
    fail "it was written"
fi
grep -q 'its size must be given' err || fail "$(cat err)"
