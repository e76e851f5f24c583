#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What NBD clients learn about holes and zeroes is what QEMU says of the same
# chain; a hole is where no layer has anything.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires qemu-img --version

cd "$tmp"
# same IMAGE: compares with 'qemu-img map', whose "data" is our not zero, and
# whose "present" our not hole.
same ()
{
    qemu-img map --output=json "$1" >map.json
    start_nbdkit "$tmp/socket" -r "$1"
    nbd_client <<'END'
import json

def merged(extents):
    out = []
    for length, what in extents:
        if out and out[-1][1] == what:
            out[-1][0] += length
        else:
            out.append([length, what])
    return out

theirs = merged((e["length"], e["zero"]) for e in json.load(open("map.json")))

def block_status(at, length, flags=0):
    found = []
    def callback(context, offset, entries, error):
        for i in range(0, len(entries), 2):
            found.append((entries[i], entries[i + 1]))
    h.block_status(length, at, callback, flags)
    assert found
    return found

def walk(flags):
    at, ours = 0, []
    while at < h.get_size():
        found = block_status(at, min(h.get_size() - at, 0xffff0000), flags)
        assert not flags or len(found) == 1
        ours += found
        at += sum(length for length, _ in found)
    assert at == h.get_size()
    return merged(ours)

ours = walk(0)
assert ours == walk(nbd.CMD_FLAG_REQ_ONE)
zeroes = merged((n, bool(what & nbd.STATE_ZERO)) for n, what in ours)
assert zeroes == theirs, (zeroes, theirs)
# A hole reads as zeroes, and zeroes really are there.
at = 0
for length, what in ours:
    if what & nbd.STATE_HOLE:
        assert what & nbd.STATE_ZERO
    if what & nbd.STATE_ZERO:
        for i in range(at, at + min(length, 8 << 20), 65536):
            assert not any(h.pread(min(65536, at + length - i), i))
    at += length
# From any place on.
for at in range(0, min(h.get_size(), 8 << 20), 333333):
    length, what = block_status(at, 1)[0]
    assert length >= 1
END
    stop_nbdkit
}

qemu-img create -q -f qcow2 -o cluster_size=4k one.qcow2 8M
qemu-io -c 'write -P 1 0 100k' -c 'write -P 1 1M 1M' -c 'write -z 3M 10k' \
        -c 'write -zu 4M 1M' -c 'write -P 1 7M 1M' one.qcow2 >/dev/null
same one.qcow2
qemu-img create -q -f qcow2 -b one.qcow2 -F qcow2 two.qcow2 10M
qemu-io -c 'write -P 2 64k 64k' -c 'write -zu 1M 128k' \
        -c 'write -z 1200k 128k' -c 'write -P 2 9M 64k' two.qcow2 >/dev/null
same two.qcow2
qemu-img create -q -f qcow2 -o compat=0.10,cluster_size=512 -b two.qcow2 \
         -F qcow2 three.qcow2 6M
qemu-io -c 'write -P 3 5M 1k' three.qcow2 >/dev/null
same three.qcow2
qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=32k -b two.qcow2 \
         -F qcow2 subclusters.qcow2 9M
qemu-io -c 'write -P 4 61k 5k' -c 'write -z 90k 3k' -c 'write -P 4 992k 512k' \
        -c 'write -z 1M 2k' -c 'write -zu 4M 1M' -c 'write -P 4 5M 1M' \
        -c 'discard 5125k 7k' subclusters.qcow2 >/dev/null
same subclusters.qcow2
qemu-img convert -c -O qcow2 one.qcow2 compressed.qcow2
same compressed.qcow2
qemu-img create -q -f qcow2 empty.qcow2 1T
same empty.qcow2
