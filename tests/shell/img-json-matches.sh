#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# qcow2-img and qemu-img print the same JSON, and the same text where they
# tell the same, for many kinds of images.

. ./functions.sh
. "$srcdir/shell/img.sh"
cd "$tmp"

# matches FILE VERB [ARG...]: keeps the JSON of both, to be compared at the
# end.
mkdir json
nr=0
matches ()
{
    local file="$1" verb="$2" status=0
    shift 2
    nr=$((nr + 1))
    echo "$verb $* $file" >"json/$nr.what"
    qemu-img "$verb" --output=json "$@" "$file" >"json/$nr.theirs" \
        || status=$?
    expect_status "$status" qcow2_img "$verb" --output=json "$@" "$file" \
        >"json/$nr.ours"
}

# text_matches FILE VERB [ARG...]: they print the same.
text_matches ()
{
    local file="$1" verb="$2"
    shift 2
    qemu-img "$verb" "$@" "$file" >theirs.txt
    qcow2_img "$verb" "$@" "$file" >ours.txt
    diff -u theirs.txt ours.txt
}

all_match ()
{
    local file="$1"
    matches "$file" info
    text_matches "$file" info
    matches "$file" map
    matches "$file" measure -O qcow2
    matches "$file" measure -O raw
    text_matches "$file" measure -O qcow2
    case "$file" in
        *.qcow2) matches "$file" check ;;
    esac
}

# Data, zeroes of both kinds, nothing, and something behind a hole.
content ()
{
    fill "$1" "$2" "write -P 1 64k 192k" "write -P 2 300k 1k" \
         "write -z 1M 256k" "write -z -u 2M 256k" "write -P 3 3M 100k" \
         "write -P 4 6M 64k" "discard 3M 64k"
}

size=7M
for version in 0.10 1.1; do
    for cluster_size in 512 4k 64k 2M; do
        file="plain-$version-$cluster_size.qcow2"
        qemu-img create -q -f qcow2 \
            -o "compat=$version,cluster_size=$cluster_size" "$file" $size
        all_match "$file"
        content "$file" qcow2
        all_match "$file"
    done
done

for bits in 1 2 4 8 32 64; do
    qemu-img create -q -f qcow2 -o "refcount_bits=$bits,lazy_refcounts=on" \
        "bits-$bits.qcow2" $size
    content "bits-$bits.qcow2" qcow2
    all_match "bits-$bits.qcow2"
done

# Raw files: sparse, full, and with an end inside a sector.
qemu-img create -q sparse.raw $size
content sparse.raw raw
all_match sparse.raw
head -c 1536 /dev/urandom >small.raw
all_match small.raw

# Compressed clusters, next to others.
qemu-img convert -c -O qcow2 sparse.raw compressed.qcow2
all_match compressed.qcow2
fill compressed.qcow2 qcow2 "write -P 9 100k 64k"
all_match compressed.qcow2

# Snapshots, one of them of another size.
cp plain-1.1-64k.qcow2 snapshots.qcow2
qemu-img snapshot -c first snapshots.qcow2
fill snapshots.qcow2 qcow2 "write -P 7 5M 300k"
qemu-img snapshot -c 'sécond "one"' snapshots.qcow2
qemu-img resize -q snapshots.qcow2 +5M
qcow2_img snapshot -c ours snapshots.qcow2
all_match snapshots.qcow2
text_matches snapshots.qcow2 snapshot -l

# Chains: shorter and longer bases, of other formats and cluster sizes.
qemu-img create -q -f qcow2 -b plain-1.1-4k.qcow2 -F qcow2 \
    same-size.qcow2
qemu-img create -q -f qcow2 -b plain-0.10-64k.qcow2 -F qcow2 \
    -o cluster_size=4k longer.qcow2 10M
qemu-img create -q -f qcow2 -b sparse.raw -F raw shorter.qcow2 4M
qemu-img create -q -f qcow2 -b longer.qcow2 -F qcow2 top.qcow2 12M
for file in same-size longer shorter top; do
    all_match "$file.qcow2"
    matches "$file.qcow2" info --backing-chain
    text_matches "$file.qcow2" map
    fill "$file.qcow2" qcow2 "write -P 5 1m 64k" "write -z 3m 128k" \
         "write -P 6 200k 3k"
    all_match "$file.qcow2"
    matches "$file.qcow2" map --start-offset=100k --max-length=3M
    text_matches "$file.qcow2" map
    matches "$file.qcow2" measure -O qcow2 -o cluster_size=2M
done
mkdir sub
qemu-img create -q -f qcow2 -b ../top.qcow2 -F qcow2 sub/b.qcow2
matches sub/b.qcow2 info
text_matches sub/b.qcow2 info

# Names that are hard to write.
name=$'a "quote" \\ and \x01 and é.qcow2'
cp top.qcow2 "$name"
matches "$name" info

# Version 1, where backing files have no declared format.
qemu-img convert -O qcow sparse.raw plain.qcow
all_match plain.qcow
text_matches plain.qcow map
qemu-img convert -c -O qcow sparse.raw compressed.qcow \
    || qemu-img compare -q sparse.raw compressed.qcow # it did not fail
all_match compressed.qcow
qemu-img create -q -f qcow -b sparse.raw -F raw over.qcow 8M
content over.qcow qcow
all_match over.qcow
matches over.qcow info --backing-chain
text_matches over.qcow info --backing-chain
text_matches over.qcow map
qemu-img create -q -f qcow2 -b over.qcow -F qcow on-qcow.qcow2
all_match on-qcow.qcow2
text_matches on-qcow.qcow2 map
matches on-qcow.qcow2 info --backing-chain
qemu-img create -q --object secret,id=s,data=abc -f qcow \
    -o encrypt.format=aes,encrypt.key-secret=s aes.qcow 1M
matches aes.qcow info
text_matches aes.qcow info

# Images that we do not serve.
qemu-img create -q -f qcow2 -o data_file=data.raw data-file.qcow2 1M
matches data-file.qcow2 info
text_matches data-file.qcow2 info
qemu-img create -q -f qcow2 -o data_file=data.raw,data_file_raw=on \
    data-file.qcow2 1M
matches data-file.qcow2 info
qemu-img create -q -f qcow2 -o extended_l2=on extended.qcow2 1M
matches extended.qcow2 info
text_matches extended.qcow2 info
qemu-img create -q --object secret,id=s,data=abc -f qcow2 \
    -o encrypt.format=aes,encrypt.key-secret=s aes.qcow2 1M
matches aes.qcow2 info
text_matches aes.qcow2 info

# Bitmaps.
cp plain-1.1-64k.qcow2 bitmaps.qcow2
qemu-img bitmap --add bitmaps.qcow2 one
qemu-img bitmap --add --disable -g 32k bitmaps.qcow2 two
matches bitmaps.qcow2 info
text_matches bitmaps.qcow2 info
matches bitmaps.qcow2 measure -O qcow2
matches bitmaps.qcow2 check

# The dirty and the corrupt bit.
cp plain-1.1-64k.qcow2 dirty.qcow2
printf '\1' | dd of=dirty.qcow2 bs=1 seek=79 conv=notrunc status=none
# What a dirty image has is read from the disk, which may change its blocks.
sync dirty.qcow2
matches dirty.qcow2 info
text_matches dirty.qcow2 info
cp plain-1.1-64k.qcow2 corrupt.qcow2
printf '\2' | dd of=corrupt.qcow2 bs=1 seek=79 conv=notrunc status=none
matches corrupt.qcow2 info
text_matches corrupt.qcow2 info

# Not for large disks with clusters of 512 bytes: qemu-img leaves out the
# refcount tables that such an image outgrows (data/test-measure).
for size in 0 1 512 1G 100G; do
    small=("-O qcow2 -o cluster_size=512")
    [[ "$size" != *G ]] || small=()
    for options in "-O raw" "-O qcow2" "${small[@]}" \
                   "-O qcow2 -o compat=0.10" "-O qcow2 -o refcount_bits=64"
    do
        # shellcheck disable=SC2086  # several words
        matches "--size=$size" measure $options
    done
done

# All at once, as starting python takes longer than comparing.
python3 - "$nr" "$ours_alone" <<'END' || fail "they differ"
import difflib, json, sys

def without(value, keys):
    if isinstance(value, dict):
        return {k: without(v, keys) for k, v in value.items()
                if k not in keys}
    if isinstance(value, list):
        return [without(v, keys) for v in value]
    return value

# qemu-img sometimes looks for holes of the file below data clusters ("data"
# and "zero" both true); we never do.
def merge_data(entries):
    merged = []
    for e in entries:
        if e["data"]:
            e["zero"] = False
        last = merged[-1] if merged else None
        if last and all(last.get(k) == e.get(k)
                        for k in ("depth", "present", "zero", "data")) \
                and ("offset" in last) == ("offset" in e) \
                and ("offset" not in e
                     or last["offset"] + last["length"] == e["offset"]):
            last["length"] += e["length"]
        else:
            merged.append(e)
    return merged

def read(path):
    with open(path) as f:
        return json.load(f)

bad = 0
for nr in range(1, int(sys.argv[1]) + 1):
    what = open(f"json/{nr}.what").read().strip()
    theirs = read(f"json/{nr}.theirs")
    ours = without(read(f"json/{nr}.ours"), sys.argv[2].split())
    if what.startswith("map "):
        theirs = merge_data(theirs)
    if theirs != ours:
        print(what)
        print("\n".join(difflib.unified_diff(
            json.dumps(theirs, sort_keys=True, indent=1).split("\n"),
            json.dumps(ours, sort_keys=True, indent=1).split("\n"),
            "theirs", "ours", lineterm="")))
        bad = 1
print(sys.argv[1], "compared")
sys.exit(bad)
END
