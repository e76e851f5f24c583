#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Parameters that make no sense are refused with a sentence that says so.

. ./functions.sh
requires qemu-img --version

cd "$tmp"
qemu-img create -q -f qcow2 disk.qcow2 1M
mkdir dir
: >file

# refused PATTERN [PARAMETER...]
refused ()
{
    local status=0
    nbdkit_qcow2 -U - "${@:2}" --run true 2>err || status=$?
    cat err
    [ "$status" -eq 1 ] || fail "'${*:2}': exit status $status"
    grep -Eq -- "$1" err || fail "no '$1' in what it says"
}

refused 'file=.*dir=.*fd='
refused 'file=.*dir=.*fd=' snapshot=x
refused 'only one' disk.qcow2 dir=dir
refused 'only one' dir=dir fd=7
refused 'only one' disk.qcow2 disk.qcow2
refused 'only one' disk.qcow2 fd=7
refused 'dir=' dir=dir snapshot=x
refused 'dir=' dir=dir backing=disk.qcow2
refused 'dir=' dir=dir backing=none
refused 'dir=' dir=dir backing-format=raw
refused "unknown.*'sanpshot'" disk.qcow2 sanpshot=x
# The message names the parameter.
refused 'dir=: ' dir=
refused 'allow=: ' disk.qcow2 allow=
refused 'file=: .*empty' file=
refused 'backing=: .*empty' disk.qcow2 backing=
refused 'dir=nowhere: ' dir=nowhere
refused 'dir=file: Not a directory' dir=file
refused 'dir=nowhere: No such file' dir=nowhere
refused 'allow=nowhere: ' disk.qcow2 allow=nowhere
refused 'allow=file: ' disk.qcow2 allow=file
refused 'fd' fd=zero
refused 'fd=1' fd=1
refused 'fd=-2' fd=-2
refused 'descriptor' fd=99
refused 'vmdk.*|backing-format=' disk.qcow2 backing-format=vmdk
refused 'discard=maybe: .*on or off' disk.qcow2 discard=maybe
refused 'lock=maybe: .*on or off' disk.qcow2 lock=maybe
refused 'detect-zeroes=maybe: .*unmap' disk.qcow2 detect-zeroes=maybe
refused 'sandbox=maybe: .*on or off' disk.qcow2 sandbox=maybe
refused 'cache-size=much: ' disk.qcow2 cache-size=much

# A raw disk is not for this plugin, and a broken image not for the other.
truncate -s 1M raw.img
refused 'raw.img: .*nbdkit file' raw.img
printf 'QFI\373\0\0\0\7%100s' x >broken.qcow2
refused 'broken.qcow2: .*version 7' broken.qcow2
! grep -q 'nbdkit file' err || fail "it advises a plugin for raw disks"

# These do.
for parameter in discard=off discard=1 discard=ON lock=yes detect-zeroes=on \
                 detect-zeroes=off sandbox=off detect-zeroes=unmap cache-size=0 \
                 cache-size=1 cache-size=1G backing=none backing-format=raw; do
    nbdkit_qcow2 -U - disk.qcow2 "$parameter" --run 'qemu-img info "$uri"'
done
nbdkit_qcow2 -U - dir=dir lock=off discard=off allow=/ --run true

nbdkit_qcow2 --dump-plugin disk.qcow2 >dump
grep -qx 'name=qcow2' dump
grep -qx 'thread_model=parallel' dump
grep -qx 'magic_config_key=file' dump
grep -qx 'errno_is_preserved=1' dump
grep -qx 'qcow2_zlib=yes' dump
grep -Eqx 'qcow2_zstd=(yes|no)' dump
grep -Eqx 'qcow2_libdeflate=(yes|no)' dump
