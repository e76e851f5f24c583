#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What qcow2-img answers to words that are almost right, and how it prints what
# does not fit.

. ./functions.sh
. "$srcdir/shell/img.sh"
cd "$tmp"
qemu-img create -q -f qcow2 disk.qcow2 1M

# --- Words that are almost right ---------------------------------------------

refuses "'--ouput=json'; did you mean --output\\?" \
    qcow2_img info --ouput=json disk.qcow2
refuses "'--backing-chains'; did you mean --backing-chain\\?" \
    qcow2_img info --backing-chains disk.qcow2
refuses "'-o'; did you mean --output\\?" qcow2_img info -output=json disk.qcow2
refuses "unknown option '-z'$" qcow2_img convert --salvage -zp disk.qcow2 x
refuses "unknown option '--nothing'$" qcow2_img info --nothing disk.qcow2
refuses "'--force-share' takes no value" qcow2_img info --force-share=1 x
refuses "'--start-offset' needs an argument" qcow2_img map --start-offset
refuses "'-s' needs an argument" qcow2_img map disk.qcow2 -s
refuses "-o cluster_sise; did you mean cluster_size\\?" \
    qcow2_img create -f qcow2 -o cluster_sise=4k x 1M
refuses "no format 'qcow3'; did you mean qcow2\\?" \
    qcow2_img create -f qcow3 x 1M
refuses "then 'qemu-img convert -f raw -O vmdk' makes one" \
    qcow2_img convert -O vmdk disk.qcow2 x
refuses "then 'qemu-img convert -f raw -O vdi' makes one" \
    qcow2_img create -f vdi x 1M
refuses "'qemu-img convert -f dmg -O qcow2' makes an image that is" \
    qcow2_img info -f dmg disk.qcow2
refuses "'dmg' is not supported, only qcow2 and raw are$" \
    qcow2_img convert -O dmg disk.qcow2 x
# The programs that are named take these formats.
qemu-img convert -f raw -O vmdk disk.qcow2 x.vmdk
qemu-img convert -f vmdk -O qcow2 x.vmdk x.qcow2

refuses "the name comes first.*'s3 disk.qcow2'" \
    qcow2_img snapshot create disk.qcow2 s3
refuses "the name comes first.*'s3 disk.qcow2'" \
    qcow2_img snapshot -d disk.qcow2 s3
refuses "nowhere: .*No such file" qcow2_img snapshot -d s3 nowhere

qemu-img create -q -f qcow2 -b disk.qcow2 -F qcow2 over.qcow2
ln -s over.qcow2 link.qcow2
cp over.qcow2 before.qcow2
for name in over.qcow2 ./over.qcow2 "$tmp/over.qcow2" link.qcow2; do
    refuses 'its own backing file' \
        qcow2_img rebase -u -b "$name" -F qcow2 over.qcow2
done
refuses 'its own backing chain' \
    qcow2_img rebase -b over.qcow2 -F qcow2 over.qcow2
cmp over.qcow2 before.qcow2
qcow2_img rebase -u -b not-there -F qcow2 over.qcow2

# --- A word with two meanings ------------------------------------------------

refuses "target's.*10\.1.* -B here.*source is.* --source-backing$" \
    qcow2_img convert --backing disk.qcow2 over.qcow2 x
refuses "target's.*10\.1.* -F here.* --source-backing-format$" \
    qcow2_img convert --backing-format=qcow2 over.qcow2 x
refuses "new backing.*10\.1.* -b here.*old.* --source-backing$" \
    qcow2_img rebase --backing=disk.qcow2 over.qcow2
for verb in amend bench chain commit dd map measure resize; do
    refuses '--backing is written --source-backing' \
        qcow2_img $verb --backing=none over.qcow2
    refuses '--backing-format is written --source-backing-format' \
        qcow2_img $verb --backing-format raw over.qcow2
    ! qcow2_img $verb --help | grep -e ' --backing' \
        || fail "the help of $verb has it"
done
[ ! -e x ] || fail "something was made"

# --- Names -------------------------------------------------------------------

# shows LOCALE TEXT COMMAND [ARG...]: prints it, and nothing that a terminal
# of this locale would obey.
shows ()
{
    LC_ALL="$1" qcow2_img "${@:3}" >out 2>&1 || :
    LC_ALL=C grep -qF -- "$2" out || fail "'${*:3}' in $1 prints: $(cat -v out)"
    ! LC_ALL=C grep -q $'\x1b\|\xc2\x9b\|\xe2\x80\xae\|\x9b' out \
        || fail "'${*:3}' in $1 prints controls: $(cat -v out)"
}
name=$'n\xc3\xa4me'
shows C.UTF-8 "$name: cannot open" info "$name"
shows C 'n\xc3\xa4me: cannot open' info "$name"
qemu-img create -q -f qcow2 "$name" 1M
qemu-img snapshot -c $'\xe3\x82\xa2' "$name"
shows C.UTF-8 "image: $name" info "$name"
shows C 'image: n\xc3\xa4me' info "$name"
shows C.UTF-8 $'\xe3\x82\xa2' snapshot -l "$name"
shows C '\xe3\x82\xa2' snapshot -l "$name"
shows C.UTF-8 "$name: cannot open" map "away/$name"
# What the engine and the program escape each comes out once.
shows C.UTF-8 'a\x5cb: cannot open' info 'a\b'
shows C.UTF-8 'a\x5cxc3\x5cxa4: cannot open' info 'a\xc3\xa4'
for name in $'a\x1b[31m' $'a\xc2\x9b31m' $'a\x9b31m' $'a\xe2\x80\xaeb' \
            $'a\xc3' $'a\xff\xc3\xa4' $'a\xed\xa0\x80'; do
    for locale in C C.UTF-8; do
        shows "$locale" 'cannot open' info "$name"
        shows "$locale" 'unknown option' info "--$name"
    done
done
shows C.UTF-8 $'a\\xff\xc3\xa4: cannot open' info $'a\xff\xc3\xa4'

# --- Columns -----------------------------------------------------------------

# poke FILE HOURS ICOUNT: gives its only snapshot this clock and count.
poke ()
{
    python3 - "$@" <<'END'
import struct, sys
with open(sys.argv[1], "r+b") as f:
    f.seek(64)
    at, = struct.unpack(">Q", f.read(8))
    f.seek(at + 24)
    f.write(struct.pack(">Q", int(sys.argv[2]) * 3600 * 10**9 + 45 * 10**6))
    f.seek(at + 36)
    extra, = struct.unpack(">I", f.read(4))
    assert extra == 24
    f.seek(at + 40 + 16)
    f.write(struct.pack(">Q", int(sys.argv[3])))
END
}
qemu-img snapshot -c one disk.qcow2
for hours in 1 99 100; do
    poke disk.qcow2 $hours 1000
    diff -u <(qemu-img snapshot -l disk.qcow2) \
        <(qcow2_img snapshot -l disk.qcow2) || [ $hours = 100 ]
done
poke disk.qcow2 5000000 18446744073709551614
qcow2_img snapshot -l disk.qcow2 >out
expect_output ':[0-9]{2} 5000000:00:00\.045 18446744073709551614$' cat out
[ "$(awk 'NR > 1 { print length }' out | sort -u | wc -l)" -eq 1 ] \
    || fail "the columns are not aligned: $(cat out)"
