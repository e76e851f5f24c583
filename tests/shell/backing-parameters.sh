#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Which backing file is used, and which may be: the image's own only if it
# lies beside it or below allow=; backing= and backing=none in its place.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires qemu-img --version
requires qemu-io --version

mkdir "$tmp/images" "$tmp/bases"
cd "$tmp/bases"
qemu-img create -q -f qcow2 base.qcow2 1M
qemu-io -c 'write -P 1 0 1M' base.qcow2 >/dev/null
printf '%65536s' r >base.raw
cp base.qcow2 ../images/near.qcow2
cd "$tmp/images"
# A guest's disk with an image in it.
cp near.qcow2 guest.raw

# overlay NAME BACKING FORMAT
overlay ()
{
    qemu-img create -q -u -f qcow2 -b "$2" -F "$3" "$1" 1M
}
overlay near.ovl near.qcow2 qcow2
overlay far.ovl "$tmp/bases/base.qcow2" qcow2
overlay up.ovl ../bases/base.qcow2 qcow2
overlay raw.ovl guest.raw raw
overlay missing.ovl gone.qcow2 qcow2
overlay vmdk.ovl near.qcow2 vmdk
overlay other.ovl self.ovl qcow2
mv other.ovl self.ovl
overlay link.ovl link.qcow2 qcow2
ln -s ../bases/base.qcow2 link.qcow2
overlay json.ovl 'json:{"driver":"file","filename":"near.qcow2"}' qcow2
overlay url.ovl nbd://localhost/x raw

# reads BYTE ARG...: the disk begins with it
reads ()
{
    nbdkit_qcow2 -r -U - "${@:2}" \
        --run "qemu-io -r -f raw -c 'read -P $1 0 1' \"\$uri\"" >out
    cat out
    expect_failure grep -q failed out
}
# refuses PATTERN ARG...: at start-up, in words that say what helps
refuses ()
{
    local status=0
    nbdkit_qcow2 -r -U - "${@:2}" --run true 2>err || status=$?
    cat err
    [ "$status" -eq 1 ] || fail "exit status $status"
    grep -Eq -- "$1" err || fail "no '$1' in what it says"
    [ "$(wc -l <err)" -eq 1 ] || fail "it is not one sentence"
}

reads 1 near.ovl
reads 0 near.ovl backing=none
reads 1 near.ovl backing="$tmp/bases/base.qcow2"
reads 1 near.ovl backing=../bases/base.qcow2
reads 32 near.ovl backing=../bases/base.raw backing-format=raw
reads 81 near.ovl backing=guest.raw backing-format=raw
reads 0 missing.ovl backing=none
reads 1 missing.ovl backing=near.qcow2 backing-format=qcow2
reads 81 raw.ovl
reads 1 vmdk.ovl backing-format=qcow2
refuses 'guest.raw.*raw.ovl.*backing-format=' raw.ovl backing=guest.raw

refuses 'base.qcow2.*far.ovl.*allow=' far.ovl
refuses 'base.qcow2.*up.ovl.*allow=' up.ovl
refuses 'link.qcow2.*link.ovl.*base.qcow2.*allow=' link.ovl
refuses 'allow=' far.ovl allow="$tmp/images"
reads 1 far.ovl allow="$tmp/bases"
reads 1 far.ovl allow="$tmp/images" allow=../bases
reads 1 up.ovl allow=/
reads 1 link.ovl allow=../bases

refuses 'gone.qcow2.*missing.ovl.*No such file' missing.ovl
refuses 'near.qcow2.*vmdk.ovl.*vmdk' vmdk.ovl
refuses 'self.ovl.*loop' self.ovl
refuses 'json.*json.ovl.*backing=' json.ovl allow=/
refuses 'nbd.*url.ovl.*backing=' url.ovl allow=/
refuses 'nothing.qcow2.*near.ovl.*No such file' near.ovl backing=nothing.qcow2
