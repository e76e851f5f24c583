# SPDX-License-Identifier: BSD-3-Clause
"""Random requests to a disk over NBD, checked against a model in memory.

A script for nbd_client (see nbd.sh). The environment says:
model   raw file with what the disk reads as; updated at the end
count   number of requests that change something
seed    for the random numbers (default: from the clock)
"""

import random
import time

seed = int(os.environ.get("seed") or time.time_ns() & 0xffffffff)
print(f"seed={seed}", flush=True)
rng = random.Random(seed)
count = int(os.environ["count"])

# Several connections: a flush on one of them is for all.
conns = [h] + [connect() for _ in range(3)]
size = h.get_size()
with open(os.environ["model"], "rb") as f:
    model = bytearray(f.read())
assert len(model) == size, "the model has the size of the disk"


def choose_range():
    length = rng.choice([512, 4096, 65536, rng.randint(1, 3 * 65536)])
    length = min(length, size)
    offset = rng.randint(0, size - length)
    if rng.random() < 0.7:
        offset -= offset % 512
    return offset, length


def check(c, offset, length):
    data = c.pread(length, offset)
    if data != model[offset:offset + length]:
        bad = next(i for i in range(length) if data[i] != model[offset + i])
        raise AssertionError(f"wrong byte at {offset + bad}, seed {seed}")


nr_flushes = 0
for i in range(count):
    c = rng.choice(conns)
    offset, length = choose_range()
    fua = nbd.CMD_FLAG_FUA if rng.random() < 0.01 else 0
    if rng.random() < 0.1:
        hole = rng.choice([0, nbd.CMD_FLAG_NO_HOLE])
        c.zero(length, offset, fua | hole)
        model[offset:offset + length] = bytes(length)
    else:
        data = rng.randbytes(length)
        c.pwrite(data, offset, fua)
        model[offset:offset + length] = data
    if rng.random() < 0.1:
        check(rng.choice(conns), *choose_range())
    if rng.random() < 0.02:
        rng.choice(conns).flush()
        nr_flushes += 1

h.flush()
for offset in range(0, size, 1 << 20):
    check(conns[-1], offset, min(1 << 20, size - offset))
with open(os.environ["model"], "wb") as f:
    f.write(model)
for c in conns:
    c.shutdown()
print(f"{count} requests, {nr_flushes + 1} flushes, {size} bytes compared")
