# SPDX-License-Identifier: BSD-3-Clause
"""workloads.py: what is measured; a class for each kind, a line for each row.

A workload makes its image, does something to a server (the part that is
timed), and then proves that what was read or written is right.
"""

import json
import os
import time
from dataclasses import dataclass

from images import BLOCK, CLUSTER, crc_of, run

PATTERN = bytes.fromhex("c0ffee42")


@dataclass
class Result:
    value: float     # in the workload's unit
    operations: int  # for CPU per operation; 0: CPU of all of it


class Workload:
    unit = "IOPS"
    less_is_better = False
    readonly = True

    def __init__(self, name):
        self.name = name

    def image(self, images, kind):
        """The path to serve; None: not for this kind of image."""
        raise NotImplementedError

    def act(self, server, images):
        raise NotImplementedError

    def prove_reads(self, server, images):
        """In the first run of each contender, while it serves."""

    def prove_writes(self, images, kind, path, result):
        """In the first run of each contender, when it has ended."""


def fio(server, rw, connections=1, depth=1, **options):
    """Random or sequential requests of 4 KiB; every connection has a part
    of the disk to itself. Returns (requests, seconds)."""
    command = ["fio", "--name=bench", "--ioengine=nbd",
               "--uri=" + server.uri(), f"--rw={rw}", "--bs=4k",
               f"--iodepth={depth}", f"--numjobs={connections}",
               "--group_reporting", "--randseed=1", "--output-format=json",
               "--buffer_pattern=0x" + PATTERN.hex()]
    command += [f"--{k}={v}" for k, v in options.items()]
    out = run(*command).decode()
    job = json.loads(out[out.index("{"):])["jobs"][0]
    side = job["read" if "read" in rw else "write"]
    return side["total_ios"], side["runtime"] / 1000


class Requests(Workload):
    """4 KiB requests from fio."""

    def __init__(self, name, rw, count, image, connections=1, depth=1,
                 sync=False, dense=True):
        super().__init__(name)
        self.rw, self.count, self.make = rw, count, image
        self.connections, self.depth = connections, depth
        self.sync, self.dense = sync, dense
        self.readonly = "read" in rw

    def image(self, images, kind):
        return self.make(images, kind)

    def act(self, server, images):
        each = self.count // self.connections
        part = 100 // self.connections
        options = {"size": f"{part}%", "offset_increment": f"{part}%",
                   "number_ios": each}
        if self.sync:
            options["fsync"] = 1
        elif not self.readonly:
            options["end_fsync"] = 1
        if not self.dense:
            options["norandommap"] = 1
            options["random_generator"] = "tausworthe64"
        n, seconds = fio(server, self.rw, self.connections, self.depth,
                         **options)
        return Result(n / seconds, n)

    def prove_reads(self, server, images):
        if self.readonly and self.dense:
            expect_read(server, images, self.make(images, "raw"))

    def prove_writes(self, images, kind, path, result):
        if not self.readonly:
            expect_written(images, kind, path, result.operations)


def expect_read(server, images, raw):
    """The server's disk holds what the raw file does."""
    out = images.path("read.raw")
    if os.path.exists(out):
        os.unlink(out)
    run("nbdcopy", server.uri(), out)
    if crc_of(out) != images.crc(raw):
        raise RuntimeError("what was read is not what the disk holds")


def expect_written(images, kind, path, count):
    """The disk is the full one, but for that many blocks of the pattern;
    and QEMU finds nothing wrong with the image."""
    out = path
    if kind == "qcow2":
        run("qemu-img", "check", "-q", path)
        out = images.path("written.raw")
        run("qemu-img", "convert", "-O", "raw", path, out)
    written = PATTERN * (BLOCK // len(PATTERN))
    found = 0
    with open(out, "rb") as new, open(images.full("raw"), "rb") as old:
        while block := old.read(BLOCK):
            got = new.read(BLOCK)
            found += got == written
            if got not in (written, block):
                raise RuntimeError("a block holds neither what it held nor "
                                   "what was written")
    if found != count:
        raise RuntimeError(f"{count} blocks were written, {found} are there")


class SequentialRead(Workload):
    """All of the disk, by nbdcopy."""

    unit = "MB/s"

    def __init__(self, name, image):
        super().__init__(name)
        self.make = image

    def image(self, images, kind):
        return self.make(images, kind)

    def act(self, server, images):
        start = time.monotonic()
        run("nbdcopy", server.uri(), "null:")
        seconds = time.monotonic() - start
        return Result(images.size / 1e6 / seconds, images.size >> 20)

    def prove_reads(self, server, images):
        expect_read(server, images, self.make(images, "raw"))


class SequentialWrite(Workload):
    """All of the disk into a new thin image, and a flush, by nbdcopy."""

    unit = "MB/s"
    readonly = False

    def image(self, images, kind):
        def make(path):
            if kind == "raw":
                run("truncate", "-s", images.size, path)
            else:
                run("qemu-img", "create", "-q", "-f", "qcow2", path,
                    images.size)
        return images.fresh(kind, make)

    def act(self, server, images):
        start = time.monotonic()
        run("nbdcopy", "--flush", images.full("raw"), server.uri())
        seconds = time.monotonic() - start
        return Result(images.size / 1e6 / seconds, images.size >> 20)

    def prove_writes(self, images, kind, path, result):
        expect_written(images, kind, path, 0)


class Zeroes(Workload):
    """Write-zeroes or trim of all of an allocated disk, and a flush."""

    unit = "s"
    less_is_better = True
    readonly = False

    def __init__(self, name, request, step):
        super().__init__(name)
        self.request, self.step = request, step

    def image(self, images, kind):
        return images.fresh(
            kind, lambda path: images.copy(images.full(kind), path))

    def act(self, server, images):
        import nbd  # of libnbd
        h = nbd.NBD()
        h.connect_uri(server.uri())
        request = getattr(h, "aio_" + self.request)
        start = time.monotonic()
        flying = []
        for off in range(0, images.size, self.step):
            flying.append(request(min(self.step, images.size - off), off))
            while len(flying) >= 4:
                if h.aio_command_completed(flying[0]):
                    flying.pop(0)
                else:
                    h.poll(-1)
        while flying:
            if h.aio_command_completed(flying[0]):
                flying.pop(0)
            else:
                h.poll(-1)
        h.flush()
        seconds = time.monotonic() - start
        for off in range(0, images.size, images.size // 8):
            if any(h.pread(BLOCK, off)):
                raise RuntimeError("what was zeroed is not zero")
        h.shutdown()
        return Result(seconds, images.size // self.step)

    def prove_writes(self, images, kind, path, result):
        if kind == "qcow2":
            run("qemu-img", "check", "-q", path)


class Extents(Workload):
    """nbdinfo --map, twice: the second time tables may be cached."""

    unit = "s"
    less_is_better = True

    def __init__(self, name, image, least):
        super().__init__(name)
        self.make, self.least = image, least

    def image(self, images, kind):
        return self.make(images, kind)

    def act(self, server, images):
        start = time.monotonic()
        lines = 0
        for _ in range(2):
            lines += run("nbdinfo", "--map", server.uri()).count(b"\n")
        if lines < 2 * self.least:
            raise RuntimeError(f"{lines} extents are too few")
        return Result(time.monotonic() - start, lines)


class PeakMemory(Requests):
    """The most memory that a server took while it answered requests."""

    unit = "MiB"
    less_is_better = True

    def act(self, server, images):
        result = super().act(server, images)
        return Result(server.peak_mib(), result.operations)


class Clones(Workload):
    """Many overlays of one base, read at random at the same time; ours are
    exports of one process, as a server of templates would have them."""

    def __init__(self, name, what, nr):
        super().__init__(name)
        self.what, self.nr = what, nr
        self.unit = {"time": "s", "memory": "MiB"}[what]
        self.less_is_better = True

    def image(self, images, kind):
        if kind == "raw":
            return None
        directory = images.path("clones")
        if not os.path.exists(directory):
            os.mkdir(directory)
            base = os.path.join(directory, "base.qcow2")
            os.link(images.full(), base)
            for i in range(self.nr):
                images.overlay(os.path.join(directory, f"{i}.qcow2"), base)
        return directory

    def act(self, server, images):
        jobs = "".join(f"[{i}]\nuri={uri}\n"
                       for i, uri in enumerate(server.uris))
        path = images.path("clones.fio")
        with open(path, "w") as f:
            f.write("[global]\nioengine=nbd\nrw=randread\nbs=16k\n"
                    "iodepth=4\nnumber_ios=1000\nrandseed=1\nthread\n"
                    "group_reporting\n" + jobs)
        out = run("fio", "--output-format=json", path).decode()
        side = json.loads(out[out.index("{"):])["jobs"][0]["read"]
        return Result(side["runtime"] / 1000 if self.what == "time"
                      else server.pss_mib(), side["total_ios"])


def fresh_overlay(images, kind):
    if kind == "raw":
        return fresh_copy(images, kind)
    return images.fresh(
        kind, lambda path: images.overlay(path, images.full()))


def fresh_copy(images, kind):
    return images.fresh(
        kind, lambda path: images.copy(images.full(kind), path))


def after_snapshot(images, kind):
    def make(path):
        images.copy(images.full(kind), path)
        if kind == "qcow2":
            run("qemu-img", "snapshot", "-c", "before", path)
    return images.fresh(kind, make)


def all_workloads(quick):
    """The rows, in the order of the table."""
    n = 4000 if quick else 20000
    few = n // 4

    def full(images, kind):
        return images.full(kind)

    def chain(depth):
        return lambda images, kind: images.chain(
            depth, 8 if depth > 100 else images.size // CLUSTER // 16, kind)

    def packed(method):
        return lambda images, kind: images.compressed(method, kind)

    def mapped(images, kind):
        return images.mapped(2048, kind)

    def scattered(layers, nr):
        return lambda images, kind: images.scattered(
            1024 if layers == 1 else 64, nr, layers, kind)

    rows = [
        SequentialRead("sequential read", full),
        SequentialRead("sequential read, chain of 16", chain(16)),
        Requests("random read, qd 32", "randread", n, full, depth=32),
        Requests("random read, 4 x qd 16", "randread", n, full, 4, 16),
        Requests("random read, chain of 8", "randread", n, chain(8), 4, 16),
        Requests("random read, chain of 500", "randread", n, chain(500), 4,
                 16),
        PeakMemory("memory, chain of 500", "randread", n, chain(500), 4, 16),
        Requests("overwrite, qd 32", "randwrite", n, fresh_copy, depth=32),
        Requests("copy-on-write, qd 1", "randwrite", few, fresh_overlay),
        Requests("copy-on-write, qd 32", "randwrite", few, fresh_overlay,
                 depth=32),
        Requests("copy-on-write, sequential, qd 4", "write", n,
                 fresh_overlay, depth=4),
        Requests("after a snapshot, qd 1", "randwrite", few, after_snapshot),
        Requests("after a snapshot, qd 32", "randwrite", few, after_snapshot,
                 depth=32),
        Requests("write and flush, allocated", "randwrite", few, fresh_copy,
                 sync=True),
        Requests("write and flush, overlay", "randwrite", few,
                 fresh_overlay, sync=True),
        Requests("write and flush, overlay, 16 connections", "randwrite",
                 few, fresh_overlay, 16, sync=True),
        SequentialWrite("sequential thin write, flush"),
    ]
    for method in "zlib", "zstd":
        rows += [
            SequentialRead(f"{method}, sequential", packed(method)),
            Requests(f"{method}, random read, qd 1", "randread", few,
                     packed(method)),
            Requests(f"{method}, sequential 4k, qd 4", "read", n,
                     packed(method), depth=4),
        ]
    return rows + [
        Zeroes("zero at once", "zero", 1 << 30),
        Zeroes("trim at once", "trim", 1 << 30),
        Zeroes("trim by 1 MiB", "trim", 1 << 20),
        Extents("extents, 1 TiB, scattered", scattered(1, few), few),
        Extents("extents, chain of 4", scattered(4, few // 4), few),
        Requests("2 TiB, random read, qd 32", "randread", n, mapped,
                 depth=32, dense=False),
        PeakMemory("2 TiB, memory", "randread", n, mapped, depth=32,
                   dense=False),
        Clones("32 clones, time", "time", 32),
        Clones("32 clones, memory (PSS)", "memory", 32),
    ]
