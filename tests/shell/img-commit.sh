#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# qcow2-img commit: what an overlay holds goes into the base, and the overlay
# reads the same before and after.

. ./functions.sh
. "$srcdir/shell/img.sh"
cd "$tmp"

# make BASE_FORMAT BASE_SIZE SIZE: base, overlay, and expected.raw, which is
# what the overlay reads as.
make ()
{
    rm -f base overlay.qcow2
    qemu-img create -q -f "$1" base "$2"
    fill base "$1" "write -P 1 0 $2"
    qemu-img create -q -f qcow2 -b base -F "$1" overlay.qcow2 "$3"
    fill overlay.qcow2 qcow2 "write -P 2 100k 300k" "write -z 1M 128k" \
         "write -P 3 1920k 128k"
    qemu-img convert -O raw overlay.qcow2 expected.raw
}

# reads_as_expected FILE
reads_as_expected ()
{
    qemu-img compare -q "$1" expected.raw || fail "$1 reads differently"
    case "$1" in
        *.raw) ;;
        *) qemu-img check -q "$1" || [ $? -eq 63 ] ;;
    esac
}

for base in "qcow2 4M" "raw 4M" "qcow2 1M" "raw 1M"; do
    # shellcheck disable=SC2086  # two words
    make $base 4M
    [ "$(qcow2_img commit overlay.qcow2)" = "Image committed." ]
    reads_as_expected base
    reads_as_expected overlay.qcow2
    qcow2_img map --output=json overlay.qcow2 >out.json
    [ "$(json_value out.json 0.depth)" = 1 ] || fail "it was not emptied"
done

# Kept.
make qcow2 4M 4M
cp overlay.qcow2 before.qcow2
[ -z "$(qcow2_img commit -q -d overlay.qcow2)" ]
cmp overlay.qcow2 before.qcow2
reads_as_expected base

# Snapshots of the overlay keep their content, as far as it is theirs.
make qcow2 4M 4M
qcow2_img snapshot -c one overlay.qcow2
fill overlay.qcow2 qcow2 "write -P 9 100k 300k"
qemu-img convert -O raw overlay.qcow2 expected.raw
qcow2_img commit -q overlay.qcow2
reads_as_expected base
reads_as_expected overlay.qcow2
qemu-img snapshot -a one overlay.qcow2
fill overlay.qcow2 qcow2 "read -P 2 100k 300k"

# What they leave to the base stays, too, or is changed if that is asked for;
# by the other name it is changed with a warning.
as_qemu_img ()
{
    (exec -a qemu-img "$abs_top_builddir/qcow2/tool/qcow2-img" "$@")
}
make_left ()
{
    make qcow2 4M 4M
    qcow2_img snapshot -c one overlay.qcow2
    fill overlay.qcow2 qcow2 "write -P 7 2M 64k"
    qemu-img convert -O raw overlay.qcow2 expected.raw
    cp overlay.qcow2 overlay.before
    cp base base.before
}
# shows PATTERN: what the snapshot has there.
shows ()
{
    reads_as_expected base
    reads_as_expected overlay.qcow2
    qemu-img snapshot -a one overlay.qcow2
    fill overlay.qcow2 qcow2 "read -P $1 2M 64k"
}
make_left
for options in "" "-d"; do
    # shellcheck disable=SC2086  # none, or one
    refuses "'one'.*--keep-snapshots.*--change-snapshots" \
        qcow2_img commit $options overlay.qcow2
    cmp overlay.qcow2 overlay.before
    cmp base base.before
done
qcow2_img commit -q -d --keep-snapshots overlay.qcow2
shows 1
make_left
qcow2_img commit -q --keep-snapshots overlay.qcow2
shows 1
make_left
qcow2_img commit -q --change-snapshots overlay.qcow2
shows 7
make_left
as_qemu_img commit -q overlay.qcow2 2>err
grep -q "warning:.*'one' would read differently" err
shows 7

# Into a layer further down; the image still reads the same.
make qcow2 4M 4M
qemu-img create -q -f qcow2 -b overlay.qcow2 -F qcow2 top.qcow2
fill top.qcow2 qcow2 "write -P 4 3M 64k" "write -P 5 200k 50k"
qemu-img convert -O raw top.qcow2 expected.raw
qcow2_img commit -q -b base top.qcow2
reads_as_expected base
reads_as_expected top.qcow2

# A base that is named is for those who want to keep the image, as it was.
make qcow2 4M 4M
cp overlay.qcow2 before.qcow2
qcow2_img commit -q -b base overlay.qcow2
reads_as_expected base
cmp overlay.qcow2 before.qcow2

# Progress, as others print it, to a file.
make qcow2 4M 4M
qcow2_img commit -p overlay.qcow2 | tr '\r' '\n' >out
expect_output '^    \(0\.00/100%\)$' cat out
expect_output '^    \(100\.00/100%\)$' cat out
expect_output '^Image committed\.$' cat out
make qcow2 4M 4M
qcow2_img commit -r 1G -q overlay.qcow2
reads_as_expected base

# What cannot be done leaves everything as it was.
make qcow2 4M 4M
cp overlay.qcow2 overlay.before
cp base base.before
unchanged ()
{
    cmp overlay.qcow2 overlay.before
    cmp base base.before
}
refuses 'backing' qcow2_img commit base
refuses 'not.*chain|chain' qcow2_img commit -b before.qcow2 overlay.qcow2
refuses 'chain|itself|base' qcow2_img commit -b overlay.qcow2 overlay.qcow2
refuses 'No such file' qcow2_img commit nowhere.qcow2
refuses 'No such file' qcow2_img commit -b nowhere overlay.qcow2
refuses 'one image' qcow2_img commit
refuses 'cache mode' qcow2_img commit -t fast overlay.qcow2
unchanged
hold_open base -r
refuses 'Failed to get (shared )?"write" lock' qcow2_img commit overlay.qcow2
release
unchanged

# A backing file elsewhere needs leave.
mkdir elsewhere
mv base elsewhere
qemu-img rebase -q -u -b "$tmp/elsewhere/base" -F qcow2 overlay.qcow2
mkdir sub
mv overlay.qcow2 sub
refuses '--allow=/' qcow2_img commit sub/overlay.qcow2
cmp elsewhere/base base.before
qcow2_img commit -q --allow elsewhere sub/overlay.qcow2
reads_as_expected elsewhere/base
