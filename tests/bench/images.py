# SPDX-License-Identifier: BSD-3-Clause
"""images.py: the disks that are served; made once, by qemu-img and qemu-io."""

import os
import random
import subprocess
import zlib

CLUSTER = 65536
BLOCK = 4096


def run(*command, **more):
    """Runs a program; what it says is told when it fails."""
    r = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL,
                       capture_output=True, **more)
    if r.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: "
                           f"{r.stderr.decode(errors='replace')}")
    return r.stdout


def crc_of(path):
    crc = 0
    with open(path, "rb") as f:
        while chunk := f.read(1 << 20):
            crc = zlib.crc32(chunk, crc)
    return crc


class Images:
    """Images under one directory, each made when first asked for."""

    def __init__(self, directory, size):
        self.dir = directory
        self.size = size
        self.crcs = {}

    def path(self, name):
        return os.path.join(self.dir, name)

    def crc(self, path):
        """Of the disk in a raw file that stays as it is."""
        if path not in self.crcs:
            self.crcs[path] = crc_of(path)
        return self.crcs[path]

    def _once(self, name, make):
        path = self.path(name)
        if not os.path.exists(path):
            make(path)
        return path

    def _seeded_raw(self, path):
        """Blocks of noise and text: half of it can be compressed away."""
        rng = random.Random(1)
        words = b" ".join(b"%x" % rng.getrandbits(24) for _ in range(999))
        with open(path, "wb") as f:
            for _ in range(self.size // BLOCK):
                at = rng.randrange(1000)
                f.write((rng.randbytes(1536) + words[at:at + 2560])
                        .ljust(BLOCK, b"."))

    def full(self, kind="qcow2"):
        """A disk with all clusters allocated."""
        raw = self._once("full.raw", self._seeded_raw)
        if kind == "raw":
            return raw
        return self._once("full.qcow2", lambda path: run(
            "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path))

    def compressed(self, method, kind="qcow2"):
        if kind == "raw":
            return self.full("raw")
        return self._once(method + ".qcow2", lambda path: run(
            "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o",
            "compression_type=" + method, self.full("raw"), path))

    def overlay(self, path, base, **options):
        run("qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", base,
            "-F", "qcow2", path, options.get("size", self.size))
        return path

    def write_clusters(self, path, clusters, pattern):
        """Through the top layer alone: its backing file is not opened."""
        script = "".join(f"write -q -P {pattern} {c * CLUSTER} {CLUSTER}\n"
                         for c in clusters)
        subprocess.run(
            ["qemu-io", "-t", "unsafe",
             "json:" + '{"driver":"qcow2","backing":null,"file":'
             '{"driver":"file","filename":"%s"}}' % path],
            input=script.encode(), stdout=subprocess.DEVNULL, check=True)

    def chain(self, depth, clusters_each, kind="qcow2"):
        """`depth` overlays on the full disk, each with clusters anywhere."""
        name = f"chain{depth}"
        rng = random.Random(depth)

        def make(path):
            below = self.full()
            for i in range(1, depth + 1):
                layer = path if i == depth else self.path(f"{name}-{i}.qcow2")
                self.overlay(layer, below)
                self.write_clusters(
                    layer, rng.sample(range(self.size // CLUSTER),
                                      clusters_each), i % 255)
                below = layer

        top = self._once(name + ".qcow2", make)
        if kind == "qcow2":
            return top
        return self._once(name + ".raw", lambda path: run(
            "qemu-img", "convert", "-O", "raw", top, path))

    def mapped(self, size_gib, kind="qcow2"):
        """Every cluster has an L2 entry, and there are no data."""
        if kind == "raw":
            return self._once(f"mapped{size_gib}.raw", lambda path: run(
                "truncate", "-s", f"{size_gib}G", path))
        return self._once(f"mapped{size_gib}.qcow2", lambda path: run(
            "qemu-img", "create", "-q", "-f", "qcow2", "-o",
            "preallocation=metadata", path, f"{size_gib}G"))

    def scattered(self, size_gib, nr, layers=1, kind="qcow2"):
        """nr clusters in each of the layers, far apart."""
        if kind == "raw":
            return None
        name = f"scattered{size_gib}-{layers}"
        rng = random.Random(size_gib + layers)
        nr_clusters = (size_gib << 30) // CLUSTER

        def make(path):
            below = None
            for i in range(1, layers + 1):
                layer = path if i == layers else self.path(
                    f"{name}-{i}.qcow2")
                if below:
                    self.overlay(layer, below, size=size_gib << 30)
                else:
                    run("qemu-img", "create", "-q", "-f", "qcow2", layer,
                        f"{size_gib}G")
                self.write_clusters(
                    layer, sorted(rng.sample(range(nr_clusters), nr)), i)
                below = layer

        return self._once(name + ".qcow2", make)

    def fresh(self, kind, make):
        """A new image for one run, made by make(path); `scratch` is free."""
        path = self.path("scratch." + kind)
        if os.path.exists(path):
            os.unlink(path)
        make(path)
        return path

    def copy(self, source, path):
        run("cp", "--sparse=always", "--reflink=auto", source, path)
        return path
