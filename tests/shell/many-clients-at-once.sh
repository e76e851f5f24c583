#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Many clients that write, flush and copy at the same time, come and go, see
# their own data and leave a clean image.

. ./functions.sh
. "$srcdir/shell/nbd.sh"
requires nbdcopy --version
requires qemu-img --version

cd "$tmp"
qemu-img create -q -f qcow2 base.qcow2 32M
qemu-io -c 'write -P 1 0 32M' base.qcow2 >/dev/null
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 -o cluster_size=4k disk.qcow2
qemu-img snapshot -c snap disk.qcow2

start_nbdkit "$tmp/socket" disk.qcow2
seed=$RANDOM
echo "seed=$seed"
# Each has its own eighth of each 8 KiB: they meet in every cluster.
for client in 0 1 2 3 4 5 6 7; do
    nbd_client <<END &
import random
rng = random.Random($seed + $client)
at = [$client * 1024 + 8192 * i for i in range(4096)]
written = {}
for turn in range(5):
    if turn:
        h = connect()
    cookies = []
    for where in rng.sample(at, 400):
        data = rng.randbytes(1024)
        written[where] = data
        buffer = nbd.Buffer.from_bytearray(bytearray(data))
        cookies.append(h.aio_pwrite(buffer, where))
        while h.aio_in_flight() > 16:
            h.poll(-1)
    while h.aio_in_flight() > 0:
        h.poll(-1)
    for cookie in cookies:
        assert h.aio_command_completed(cookie)
    h.flush()
    for where in rng.sample(sorted(written), 100):
        assert h.pread(1024, where) == written[where]
    h.shutdown()
with open("written.$client", "wb") as f:
    for where in sorted(written):
        f.write(where.to_bytes(8, "big") + written[where])
END
    clients+=($!)
done
for _ in 1 2 3; do
    nbdcopy "$uri" null:
    nbd_client @snap <<<'assert h.pread(1 << 20, 5 << 20) == b"\1" * (1 << 20)'
done
for client in "${clients[@]}"; do
    wait "$client"
done
nbdcopy "$uri" copy.raw
stop_nbdkit
check_image disk.qcow2
qemu-img compare -f qcow2 -F raw disk.qcow2 copy.raw

"$nbd_python" - <<'END'
model = bytearray(b"\1" * (32 << 20))
for client in range(8):
    data = open(f"written.{client}", "rb").read()
    for i in range(0, len(data), 1032):
        where = int.from_bytes(data[i:i + 8], "big")
        model[where:where + 1024] = data[i + 8:i + 1032]
assert model == open("copy.raw", "rb").read()
END
