#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# An overlay whose backing file is an NBD URI is served if allow= names it,
# and refused, saying so, if it does not.

. ./functions.sh
requires nbdcopy --version
requires qemu-img --version
cd "$tmp"

qemu-img create -q -f qcow2 base.qcow2 8M
qemu-io -f qcow2 -c "write -P 5 1M 3M" base.qcow2 >/dev/null
qemu-img convert -O raw base.qcow2 base.raw
start_nbdkit "$tmp/base" -r base.qcow2
base="nbd+unix:///?socket=$tmp/base"
qemu-img create -q -f qcow2 -u -b "$base" -F raw overlay.qcow2 8M

if nbdkit_qcow2 --dump-plugin | grep -qx 'qcow2_nbd=no'; then
    echo "no NBD here: not built in"
    exit 77
fi
expect_output 'refused: .*allow=.nbd' nbdkit_qcow2 overlay.qcow2 --run true
expect_output 'refused: .*allow=.nbd' \
    nbdkit_qcow2 overlay.qcow2 allow=/ allow=nbd://elsewhere --run true
nbdkit_qcow2 -U - overlay.qcow2 allow="$base" \
    --run 'nbdcopy "$uri" copy.raw'
cmp copy.raw base.raw
