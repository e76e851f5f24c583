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
