#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# qcow2-img info tells what an image says of itself, opens nothing that it
# names, and leaves running machines alone.

. ./functions.sh
. "$srcdir/shell/img.sh"
cd "$tmp"

# verdict KEY VALUE FILE [ARG...]
verdict ()
{
    local key="$1" value="$2"
    shift 2
    qcow2_img info --output=json "$@" >out.json
    [ "$(json_value out.json "verdict.$key")" = "$value" ] \
        || { cat out.json; fail "verdict.$key of $* is not $value"; }
}

qemu-img create -q -f qcow2 base.qcow2 10M
verdict names-backing-file false base.qcow2
verdict can-be-opened true base.qcow2
verdict can-be-opened true -f raw base.qcow2
head -c 4096 /dev/urandom >plain.raw
verdict can-be-opened true plain.raw

# Names, by their letters: whether there is such a file does not matter.
mkdir sub
# name_is_outside VALUE NAME
name_is_outside ()
{
    qemu-img create -q -f qcow2 -u -b "$2" -F raw sub/named.qcow2 1M
    verdict names-backing-file true sub/named.qcow2
    verdict names-file-outside-directory "$1" sub/named.qcow2
    verdict names-file-outside-directory "$1" "$PWD/sub/named.qcow2"
}
name_is_outside false beside.raw
name_is_outside false a/b/below.raw
name_is_outside false a..b
name_is_outside true ../base.qcow2
name_is_outside true a/../../base.qcow2
name_is_outside true /etc/passwd
name_is_outside true nbd://localhost/x
name_is_outside true 'json:{"driver":"raw"}'
name_is_outside true file:beside.raw

# No other file is opened: this one would keep us waiting.
mkfifo sub/pipe
qemu-img create -q -f qcow2 -u -b pipe -F qcow2 sub/on-pipe.qcow2 1M
expect_output 'backing file: pipe \(actual path: sub/pipe\)' \
    timeout 20 "$abs_top_builddir/qcow2/tool/qcow2-img" info sub/on-pipe.qcow2
refuses 'neither a regular file' qcow2_img info --backing-chain \
    sub/on-pipe.qcow2
[ -z "$(qcow2_img info --backing-chain sub/on-pipe.qcow2 2>/dev/null)" ] \
    || fail "half a chain is shown"

# The path policy decides on chains.
qemu-img create -q -f qcow2 -b ../base.qcow2 -F qcow2 sub/over.qcow2
refuses '--allow=/' qcow2_img info --backing-chain sub/over.qcow2
qcow2_img info --backing-chain --allow . --output=json sub/over.qcow2 >out.json
[ "$(json_value out.json 1.filename)" = sub/../base.qcow2 ] \
    || fail "the base is not shown"
qemu-img create -q -f qcow2 loop.qcow2 1M
qemu-img rebase -q -u -b loop.qcow2 -F qcow2 loop.qcow2
refuses 'loop' qcow2_img info --backing-chain loop.qcow2
qcow2_img info loop.qcow2 >/dev/null
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 over.qcow2
qemu-img rebase -q -u -b missing.qcow2 -F qcow2 over.qcow2
refuses 'missing.qcow2.*No such file' qcow2_img info --backing-chain over.qcow2
refuses "format 'vmdk' is not supported|vmdk" \
    qcow2_img info -f vmdk over.qcow2

# Features and defects that keep an image from being served.
cp base.qcow2 odd.qcow2
# poke OFFSET BYTES
poke ()
{
    printf '%b' "$2" | dd of=odd.qcow2 bs=1 seek="$1" conv=notrunc status=none
}
poke 72 '\x40'                # incompatible bit 62
verdict unknown-features true odd.qcow2
verdict can-be-opened false odd.qcow2
expect_output 'incompatible 62: without a name \(unknown\)' \
    qcow2_img info --verdict odd.qcow2
expect_output 'can be opened: no: needs an unknown feature' \
    qcow2_img info --verdict odd.qcow2
# Programs search the text for words: they are there only if it is so.
qcow2_img info odd.qcow2 >text
if grep -Ei 'backing|data file|dirty|corrupt: true|Verdict' text; then
    fail "the text has words that do not apply"
fi
poke 72 '\x00\x00\x00\x00\x00\x00\x00\x01'
verdict dirty true odd.qcow2
poke 79 '\x02'
verdict corrupt true odd.qcow2
poke 79 '\x00'
poke 35 '\x02'                # crypt_method
verdict encrypted true odd.qcow2
expect_output 'is encrypted \(LUKS\)' qcow2_img info --verdict odd.qcow2
poke 35 '\x00'
poke 60 '\x00\x00\x10\x00'    # snapshots that are not there
verdict can-be-opened false odd.qcow2
refuses 'snapshot table' qcow2_img snapshot -l odd.qcow2
poke 60 '\x00\x00\x00\x00'
poke 40 '\xff\xff\xff\xff'    # the L1 table's place
verdict can-be-opened false odd.qcow2
poke 40 '\x00\x00\x00\x00'
poke 99 '\xff'                # refcount_order
verdict can-be-opened false odd.qcow2
poke 99 '\x04'
verdict can-be-opened true odd.qcow2
poke 24 '\xff\xff\xff\xff\xff\xff\xff\xff'
verdict can-be-opened false odd.qcow2

# What is no image at all.
refuses 'No such file' qcow2_img info nowhere.qcow2
refuses 'a directory' qcow2_img info sub
refuses 'not a qcow2 image' qcow2_img info -f qcow2 plain.raw
: >empty
refuses 'empty' qcow2_img info -f qcow2 empty
qcow2_img info empty >/dev/null
qemu-img create -q -f vmdk other.vmdk 1M
refuses 'looks like vmdk' qcow2_img info other.vmdk
qemu-img create -q -f qcow old.qcow 1M
refuses 'version 1' qcow2_img info -f qcow2 old.qcow
refuses 'one image' qcow2_img info
refuses 'one image' qcow2_img info base.qcow2 over.qcow2
refuses 'must be human or json' qcow2_img info --output=xml base.qcow2

# Names cannot take over a terminal.
snapshot=$'\e[2Jclear \xff\xe2\x80\xae'
qemu-img snapshot -c "$snapshot" base.qcow2
expect_output '^1 +\\x1b\[2Jclear \\xff\\xe2\\x80\\xae' \
    qcow2_img info base.qcow2

# Snapshots have the size that they have.
qemu-img resize -q base.qcow2 20M
expect_output '^    1 \(.*\): 10 MiB \(10485760 bytes\)' \
    qcow2_img info --verdict base.qcow2

# A machine that has the image open is not disturbed, and disturbs only us.
hold_open base.qcow2
refuses 'open for writing.*qemu-io' qcow2_img info base.qcow2
qcow2_img info -U base.qcow2 >/dev/null
