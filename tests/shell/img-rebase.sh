#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# qcow2-img rebase: another backing file, the same content.

. ./functions.sh
. "$srcdir/shell/img.sh"
cd "$tmp"

qemu-img create -q -f qcow2 old.qcow2 4M
fill old.qcow2 qcow2 "write -P 1 0 4M"
qemu-img create -q -f raw same.raw 4M
fill same.raw raw "write -P 1 0 4M"
qemu-img create -q -f qcow2 -o cluster_size=4k other.qcow2 3M
fill other.qcow2 qcow2 "write -P 1 0 1M" "write -P 7 1M 1M"

make ()
{
    qemu-img create -q -f qcow2 -b old.qcow2 -F qcow2 "$@" overlay.qcow2 6M
    fill overlay.qcow2 qcow2 "write -P 2 100k 300k" "write -P 3 4M 64k"
    qemu-img convert -O raw overlay.qcow2 expected.raw
}

# stands_on NAME FORMAT, and reads as expected
stands_on ()
{
    qemu-img compare -q overlay.qcow2 expected.raw \
        || fail "it reads differently on '$1'"
    qemu-img check -q overlay.qcow2
    qcow2_img info --output=json overlay.qcow2 >out.json
    if [ -z "$1" ]; then
        [ "$(json_value out.json verdict.names-backing-file)" = false ] \
            || fail "it still has a backing file"
        return
    fi
    [ "$(json_value out.json backing-filename)" = "$1" ] \
        || fail "the name was not changed"
    [ "$(json_value out.json backing-filename-format)" = "$2" ] \
        || fail "the format was not stored"
}

for version in 0.10 1.1; do
    make -o "compat=$version"
    qcow2_img rebase -b other.qcow2 -F qcow2 overlay.qcow2
    stands_on other.qcow2 qcow2
    qcow2_img rebase -b same.raw -F raw overlay.qcow2
    stands_on same.raw raw
    qcow2_img rebase -b "$tmp/old.qcow2" -F qcow2 overlay.qcow2
    stands_on "$tmp/old.qcow2" qcow2
    qcow2_img rebase -p -b '' overlay.qcow2 | tr '\r' '\n' >out
    expect_output '^    \(100\.00/100%\)$' cat out
    stands_on ''
done

# What is the same in both is not copied.
make
before="$(stat -c %s overlay.qcow2)"
qcow2_img rebase -b same.raw -F raw overlay.qcow2
stands_on same.raw raw
[ "$(stat -c %s overlay.qcow2)" -eq "$before" ] || fail "it grew"

# The name alone.
make
qcow2_img rebase -u -b same.raw -F raw overlay.qcow2
stands_on same.raw raw
qcow2_img rebase -u -b missing.qcow2 -F qcow2 overlay.qcow2
qcow2_img rebase -u -b old.qcow2 -F qcow2 overlay.qcow2
stands_on old.qcow2 qcow2

# The old backing file was moved: this is where it is.
mkdir away
mv old.qcow2 away
refuses 'No such file' qcow2_img rebase -b same.raw -F raw overlay.qcow2
refuses 'backing file that it names' qcow2_img rebase \
    --source-backing away/old.qcow2 -b other.qcow2 -F qcow2 overlay.qcow2
qcow2_img rebase -u -b away/old.qcow2 -F qcow2 overlay.qcow2
qcow2_img rebase -b other.qcow2 -F qcow2 overlay.qcow2
stands_on other.qcow2 qcow2
mv away/old.qcow2 .

make
cp overlay.qcow2 before.qcow2
refuses '-F' qcow2_img rebase -b other.qcow2 overlay.qcow2
refuses 'say the new backing file' qcow2_img rebase overlay.qcow2
refuses 'No such file' qcow2_img rebase -b nowhere -F raw overlay.qcow2
refuses 'qcow2' qcow2_img rebase -b same.raw -F qcow2 overlay.qcow2
refuses 'own backing chain' \
    qcow2_img rebase -b overlay.qcow2 -F qcow2 overlay.qcow2
refuses 'raw' qcow2_img rebase -f raw -b old.qcow2 -F qcow2 same.raw
refuses '1023|too long|too large|fit' \
    qcow2_img rebase -u -b "$(printf '%2000s' x)" -F raw overlay.qcow2
cmp overlay.qcow2 before.qcow2

# What a snapshot leaves to the backing file stays, or is changed if that is
# asked for; -u asks for nothing.
make_left ()
{
    rm -f old new top
    qemu-img create -q -f qcow2 old 4M
    fill old qcow2 "write -P 1 0 4M"
    qemu-img create -q -f qcow2 new 4M
    fill new qcow2 "write -P 2 0 4M"
    qemu-img create -q -f qcow2 -b old -F qcow2 top
    qcow2_img snapshot -c one top
    fill top qcow2 "write -P 3 0 4M"
    cp top top.before
}
# shows PATTERN: what the snapshot has.
shows ()
{
    fill top qcow2 "read -P 3 0 4M"
    qemu-img check -q top
    qemu-img snapshot -a one top
    fill top qcow2 "read -P $1 0 4M"
}
make_left
refuses "'one'.*--keep-snapshots" qcow2_img rebase -b new -F qcow2 top
cmp top top.before
qcow2_img rebase --keep-snapshots -b new -F qcow2 top
shows 1
make_left
qcow2_img rebase --change-snapshots -b new -F qcow2 top
shows 2
make_left
qcow2_img rebase -u -b new -F qcow2 top
shows 2

# -U is for backing files that are in use, not for the image.
make
hold_open other.qcow2
refuses 'other.qcow2.*lock' qcow2_img rebase -b other.qcow2 -F qcow2 \
    overlay.qcow2
qcow2_img rebase -U -b other.qcow2 -F qcow2 overlay.qcow2
refuses 'other.qcow2.*lock' qcow2_img rebase -b '' overlay.qcow2
qcow2_img rebase --force-share -b '' overlay.qcow2
release
stands_on ''
hold_open overlay.qcow2
refuses 'overlay.qcow2.*lock' qcow2_img rebase -U -u -b x -F raw overlay.qcow2
! grep -e '-U' "$tmp/refusal" || fail "it advises what does not help"
release
