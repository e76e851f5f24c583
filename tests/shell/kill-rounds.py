#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Kills nbdkit in the middle of random requests on several connections, again
and again, on the same image, and looks at what is left.

Each block of 4 KiB belongs to one connection, which numbers what it writes:
so what may be found is what the block held when the last flush that was
answered began (or a later answered FUA), or any later content sent to it. A
flush on any connection counts for all. Of a request that was under way, or not
flushed, each sector may be old or new. qemu-img, not the engine, reads the
image and checks it: clean, or leaks only; with lazy refcounts, what it can
mend, if the image is marked dirty.

kill-rounds.py DIRECTORY ROUNDS SEED NBDKIT [ARG...]
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import nbd

BLOCK = 4096
SECTOR = 512
NR_CONNECTIONS = 4
SIZE = 16 << 20
NR_BLOCKS = SIZE // BLOCK
PER_IMAGE = 4           # kills that one image goes through
GEOMETRIES = [
    "cluster_size=64k",
    "lazy_refcounts=on,cluster_size=4k",
    "cluster_size=4k",
    "cluster_size=512,refcount_bits=64",
    "compat=0.10,cluster_size=16k",
]


def content(number, block):
    """What request `number` writes to a block: tells both, all over."""
    if number == 0:
        return bytes(BLOCK)
    return (b"%15d,%15d\n" % (number, block)) * (BLOCK // 32)


class Sent:
    """A request, as one of the contents that its blocks may have."""

    def __init__(self, number, may_keep):
        self.number = number        # 0: zeroes
        self.may_keep = may_keep    # a trim, which may do nothing
        self.answered = None        # when; None: not yet
        self.durable = False        # answered, with FUA


class Disk:
    """What each block may hold: the contents since the last sure one."""

    def __init__(self):
        self.changed = threading.Condition()
        self.sent = [None] * NR_BLOCKS
        self.clock = 0
        self.number = 0
        self.nr_requests = self.nr_flushes = 0
        for b in range(NR_BLOCKS):
            self.found(b, [0])

    def found(self, block, numbers):
        """Its sectors hold any of these from now on, until it is written."""
        self.sent[block] = [Sent(n, i > 0) for i, n in enumerate(numbers)]
        for s in self.sent[block]:
            s.answered = 0
            s.durable = True

    def send(self, blocks, zero, may_keep):
        with self.changed:
            self.number += 1
            self.nr_requests += 1
            s = Sent(0 if zero else self.number, may_keep)
            for b in blocks:
                self.sent[b].append(s)
            self.changed.notify_all()
            return s

    def answered(self, s, fua):
        with self.changed:
            self.clock += 1
            s.answered = self.clock
            s.durable = fua

    def flush_sent(self):
        with self.changed:
            return self.clock

    def flush_answered(self, sent):
        """All that was answered before the flush was sent is durable."""
        with self.changed:
            self.nr_flushes += 1
            for marks in self.sent:
                for m in reversed(marks):
                    if m.durable:
                        break
                    if m.answered is not None and m.answered <= sent:
                        m.durable = True
                        break

    def allowed(self, block):
        marks = self.sent[block]
        first = max(i for i, m in enumerate(marks) if m.durable)
        while marks[first].may_keep:
            first -= 1
        return [m.number for m in marks[first:]]


class Client(threading.Thread):
    """One connection, with several requests in flight until it is cut."""

    def __init__(self, disk, socket, index, seed):
        super().__init__()
        self.disk = disk
        self.index = index
        self.rng = random.Random(seed * NR_CONNECTIONS + index)
        self.error = None
        self.h = nbd.NBD()
        self.h.connect_unix(socket)
        assert self.h.can_multi_conn() and self.h.can_fua()
        assert self.h.get_size() == SIZE

    def run(self):
        try:
            while True:
                self.batch()
        except Exception as e:
            # The kill shows as a connection that is lost, and no other way.
            if not (self.h.aio_is_dead() or self.h.aio_is_closed()):
                self.error = repr(e)
        finally:
            with self.disk.changed:
                self.disk.changed.notify_all()

    def batch(self):
        """A few requests at a time, on different blocks."""
        busy = set()
        flying = []
        for _ in range(self.rng.randint(1, 6)):
            if self.rng.random() < 0.06:
                flying.append(self.flush())
            else:
                flying += self.change(busy)
        while flying:
            for cookie, done in list(flying):
                if self.h.aio_command_completed(cookie):
                    flying.remove((cookie, done))
                    done()
            if flying:
                self.h.poll(-1)

    def flush(self):
        sent = self.disk.flush_sent()
        return (self.h.aio_flush(), lambda: self.disk.flush_answered(sent))

    def change(self, busy):
        """Blocks in runs of 16, of which the connections own every fourth."""
        nr = self.rng.choice([1, 1, 1, 2, 5, 16])
        run = self.rng.randrange(NR_BLOCKS // 16 // NR_CONNECTIONS)
        first = (run * NR_CONNECTIONS + self.index) * 16
        first += self.rng.randint(0, 16 - nr)
        blocks = range(first, first + nr)
        if busy.intersection(blocks):
            return []
        busy.update(blocks)
        dice = self.rng.random()
        fua = self.rng.random() < 0.05
        flags = nbd.CMD_FLAG_FUA if fua else 0
        off, length = first * BLOCK, nr * BLOCK
        s = self.disk.send(blocks, dice < 0.35, dice < 0.15)
        data = None
        if dice < 0.15:
            cookie = self.h.aio_trim(length, off, flags=flags)
        elif dice < 0.35:
            hole = self.rng.choice([0, nbd.CMD_FLAG_NO_HOLE])
            cookie = self.h.aio_zero(length, off, flags=flags | hole)
        else:
            data = nbd.Buffer.from_bytearray(bytearray(
                b"".join(content(s.number, b) for b in blocks)))
            cookie = self.h.aio_pwrite(data, off, flags=flags)
        # The buffer lives until then.
        return [(cookie, lambda data=data: self.disk.answered(s, fua))]


def qemu_img(*args):
    return subprocess.run(["qemu-img", *args], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)


def start_server(nbdkit, directory):
    socket = os.path.join(directory, "socket")
    pid = os.path.join(directory, "pid")
    for f in (socket, pid):
        if os.path.exists(f):
            os.unlink(f)
    server = subprocess.Popen([*nbdkit, "-f", "-U", socket, "-P", pid,
                               os.path.join(directory, "disk.qcow2")])
    while not (os.path.exists(pid) and os.path.getsize(pid)):
        assert server.poll() is None, "nbdkit did not start"
        time.sleep(0.01)
    with open(pid) as f:
        return server, int(f.read()), socket


def found_by_sector(got, allowed, block, what):
    """A kill may leave a block of which some sectors are old and some new."""
    found = set()
    for at in range(0, BLOCK, SECTOR):
        part = slice(at, at + SECTOR)
        made = [n for n in allowed if got[part] == content(n, block)[part]]
        assert made, (f"{what}: block {block} holds {got[part][:32]} at {at}, "
                      f"and not what one of {allowed} made it (0: zeroes)")
        found.update(made)
    return sorted(found)


def is_marked(image):
    """Do lazy refcounts and the dirty bit say that refcounts may be wrong?"""
    with open(image, "rb") as f:
        header = f.read(104)
    return header[79] & 1 and header[87] & 1


def verify(disk, directory, what):
    image = os.path.join(directory, "disk.qcow2")
    raw = os.path.join(directory, "disk.raw")
    check = qemu_img("check", image)
    if check.returncode == 2 and is_marked(image):
        # The image itself is left to our next opening, three times of four.
        if random.randrange(4) > 0:
            image = os.path.join(directory, "copy.qcow2")
            shutil.copyfile(os.path.join(directory, "disk.qcow2"), image)
        repair = qemu_img("check", "-r", "all", image)
        assert repair.returncode == 0, f"{what}: {repair.stdout}"
    else:
        # 0: clean, 3: leaks only
        assert check.returncode in (0, 3), f"{what}: {check.stdout}"
    convert = qemu_img("convert", "-O", "raw", image, raw)
    assert convert.returncode == 0, f"{what}: {convert.stdout}"
    with open(raw, "rb") as f:
        data = f.read()
    assert len(data) == SIZE
    for b in range(NR_BLOCKS):
        got = data[b * BLOCK:(b + 1) * BLOCK]
        allowed = disk.allowed(b)
        found = [n for n in allowed if got == content(n, b)][-1:]
        disk.found(b, found or found_by_sector(got, allowed, b, what))
    return check.returncode == 3


def one_round(nbdkit, directory, disk, seed):
    rng = random.Random(seed)
    server, pid, socket = start_server(nbdkit, directory)
    clients = [Client(disk, socket, i, seed) for i in range(NR_CONNECTIONS)]
    # Where it is cut is not the seed's alone: threads have their part.
    enough = disk.nr_requests + rng.randint(20, 400)
    for c in clients:
        c.start()
    with disk.changed:
        disk.changed.wait_for(lambda: disk.nr_requests >= enough
                              or any(c.error for c in clients))
    os.kill(pid, signal.SIGKILL)
    server.wait()
    for c in clients:
        c.join()
        assert not c.error, c.error


def main():
    directory, rounds, seed = sys.argv[1:4]
    nbdkit = sys.argv[4:]
    rounds, seed = int(rounds), int(seed)
    print(f"seed={seed}", flush=True)
    requests = flushes = leaky = 0
    for i in range(rounds):
        if i % PER_IMAGE == 0:
            image = os.path.join(directory, "disk.qcow2")
            geometry = GEOMETRIES[i // PER_IMAGE % len(GEOMETRIES)]
            created = qemu_img("create", "-q", "-f", "qcow2", "-o", geometry,
                               image, str(SIZE))
            assert created.returncode == 0, created.stdout
            disk = Disk()
        disk.nr_requests = disk.nr_flushes = 0
        one_round(nbdkit, directory, disk, seed + i)
        requests += disk.nr_requests
        flushes += disk.nr_flushes
        leaky += verify(disk, directory,
                        f"seed {seed}, round {i}, {geometry}")
    print(f"{rounds} kills amid {requests} requests and {flushes} answered "
          f"flushes on {NR_CONNECTIONS} connections: {leaky} images with "
          "leaks, none corrupt, nothing lost")


main()
