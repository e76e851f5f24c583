#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# qcow2-img takes NBD URIs where it takes raw files.

. ./functions.sh
. "$srcdir/shell/img.sh"
requires nbdkit memory --version
cd "$tmp"

head -c 4M /dev/urandom >source.raw
qemu-img create -q -f qcow2 source.qcow2 4M
fill source.qcow2 qcow2 "write -s source.raw 1M 2M"

# with_server COMMAND: run where $uri is an empty disk.
with_server ()
{
    nbdkit -U - memory 4M --run "$(declare -f expect_status fail); \
        tool='$abs_top_builddir/qcow2/tool/qcow2-img'; set -ex; $1"
}
"$abs_top_builddir/qcow2/tool/qcow2-img" info nbd://localhost:1/ 2>err || :
! grep -q 'not built in' err || skip "NBD is not built in"

with_server '
    "$tool" info "$uri" | grep -x "virtual size: 4 MiB (4194304 bytes)"
    "$tool" info "$uri" | grep -x "disk size: unavailable"
    "$tool" convert -n -O raw source.qcow2 "$uri"
    "$tool" compare source.qcow2 "$uri"
    "$tool" convert -O qcow2 "$uri" copy.qcow2
    "$tool" map --output=json "$uri"
    "$tool" measure -O qcow2 "$uri"'
qemu-img compare source.qcow2 copy.qcow2

# As a target it is there already: all that makes images writes into it.
head -c 3M source.raw >small.raw
with_server '
    name="nbd:unix:${uri#*socket=}"
    "$tool" convert -f raw -O raw small.raw "$name"
    "$tool" compare -f raw -F raw small.raw "$uri"
    "$tool" convert -O raw source.qcow2 "$uri"
    "$tool" compare -F raw source.qcow2 "$uri"
    "$tool" convert -f raw -O qcow2 small.raw "$uri"
    qemu-img compare -f raw -F qcow2 small.raw "$uri"
    qemu-img check "$uri"
    "$tool" check "$name"
    "$tool" create -q -f qcow2 "$uri" 1G
    "$tool" check -f qcow2 "$uri"
    expect_status 1 "$tool" create --no-clobber -f qcow2 "$uri" 1M 2>err
    grep "File exists" err
    "$tool" dd -f raw -O raw if=source.raw of="$uri" bs=1M count=2
    nbdcopy "$uri" got.raw
    cmp -n 2097152 source.raw got.raw
    # Nothing makes it look like an image any more.
    "$tool" create -q -f qcow2 "$uri" 1G
    "$tool" create -q -f raw "$uri" 4M
    "$tool" info "$uri" | grep -x "file format: raw"
    expect_status 63 "$tool" check "$uri"'

# Its size is checked before anything is written.
with_server '
    "$tool" convert -n -O raw source.raw "$uri"
    expect_status 1 "$tool" create -f raw "$uri" 5M 2>err
    grep "4194304 bytes.*5242880" err
    expect_status 1 "$tool" create -f qcow2 -o cluster_size=2M "$uri" 1M 2>err
    grep "4194304 bytes.*needs 8388608" err
    truncate -s 5M long.raw
    expect_status 1 "$tool" convert -f raw -O raw long.raw "$uri" 2>err
    "$tool" compare source.raw "$uri"'

# It is not what is read, nor its own backing file.
with_server '
    for args in "-n" "" "-O qcow2"; do
        expect_status 1 "$tool" convert $args "$uri" "$uri" 2>err
        grep "it is read from" err
    done
    expect_status 1 "$tool" create -u -f qcow2 -b "$uri" -F raw "$uri" 1M \
        2>err
    grep "its own backing chain" err'

# Leaks of an image on an export are repaired there.
with_server '
    "$tool" create -q -f qcow2 "$uri" 1M
    qemu-io -f qcow2 -c "write 0 128k" "$uri"
    # The L2 table is cut off: it and its data are leaked.
    l1=$(python3 -c "import struct, subprocess, sys
image = subprocess.run([\"nbdcopy\", sys.argv[1], \"-\"],
                       stdout=subprocess.PIPE, check=True).stdout
print(struct.unpack_from(\">Q\", image, 40)[0])" "$uri")
    qemu-io -f raw -c "write -z $l1 512" "$uri"
    expect_status 3 "$tool" check "$uri"
    "$tool" check -r leaks "$uri"
    "$tool" check "$uri"'

# As a backing file it needs leave.
with_server '
    "$tool" convert -n -O raw source.qcow2 "$uri"
    "$tool" create -q -u -f qcow2 -b "$uri" -F raw over.qcow2 4M
    ! "$tool" map over.qcow2 2>err
    "$tool" compare --allow "${uri%%\?*}" over.qcow2 source.qcow2'
expect_output '--allow=' cat err

refuses 'nbd' qcow2_img info nbd+unix:///x?socket=/nowhere/socket

# libnbd is loaded for NBD alone: without it all else works.
mkdir broken
echo 'no library' >broken/libnbd.so.0
expect_output 'virtual size: 4 MiB' \
    env LD_LIBRARY_PATH="$PWD/broken" \
    "$abs_top_builddir/qcow2/tool/qcow2-img" info source.qcow2
refuses 'NBD needs libnbd' env LD_LIBRARY_PATH="$PWD/broken" \
    "$abs_top_builddir/qcow2/tool/qcow2-img" info nbd://localhost:1/
