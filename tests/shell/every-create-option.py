# SPDX-License-Identifier: BSD-3-Clause
"""Images of every combination of options that qemu-img create takes.

Each is made by one program, played on by random requests through the plugin
and by QEMU in turn, and compared with a model; both checkers find nothing.

    every-create-option.py QCOW2_IMG SERVER STRIDE [NR_REQUESTS]

SERVER is nbdkit with the plugin. Every STRIDE-th combination is tried.
"""

import itertools
import os
import random
import subprocess
import sys

import nbd

OURS, SERVER, STRIDE = sys.argv[1], sys.argv[2], int(sys.argv[3])
NR_REQUESTS = int(sys.argv[4]) if len(sys.argv) > 4 else 1000
SIZE = 3 * 1024 * 1024 + 512

OPTIONS = {
    "compat": ["0.10", "1.1"],
    "cluster_size": ["512", "4k", "16k", "64k", "2M"],
    "refcount_bits": ["1", "16", "64"],
    "compression_type": ["zlib", "zstd"],
    "lazy_refcounts": ["off", "on"],
    "extended_l2": ["off", "on"],
    "preallocation": ["off", "metadata"],
    "data": ["", "data_file=data", "data_file=data,data_file_raw=on"],
    "backing": ["", "raw", "qcow2"],
}


def run(*args):
    return subprocess.run(args, capture_output=True, text=True)


def must(*args):
    r = run(*args)
    if r.returncode != 0:
        raise AssertionError(f"{' '.join(args)}: {r.stdout}{r.stderr}")
    return r.stdout


def combinations():
    for values in itertools.product(*OPTIONS.values()):
        yield dict(zip(OPTIONS, values))


def is_possible(c):
    """What no qemu-img makes, so that it need not be asked."""
    old = c["compat"] == "0.10"
    if old and (c["lazy_refcounts"] == "on" or c["extended_l2"] == "on"
                or c["compression_type"] == "zstd" or c["data"]
                or c["refcount_bits"] != "16"):
        return False
    if c["extended_l2"] == "on" and c["cluster_size"] in ("512", "4k"):
        return False
    if c["backing"] and (c["data"].endswith("raw=on")
                         or (c["preallocation"] != "off"
                             and c["extended_l2"] == "off")):
        return False
    return True


def create_args(c):
    options = [f"{k}={v}" for k, v in c.items() if k not in ("data", "backing")]
    options += [c["data"]] if c["data"] else []
    backing = {"": [], "raw": ["-b", "base.raw", "-F", "raw"],
               "qcow2": ["-b", "base.qcow2", "-F", "qcow2"]}[c["backing"]]
    return ["create", "-q", "-f", "qcow2", "-o", ",".join(options), *backing,
            "image", str(SIZE)]


def remove_old():
    for name in "image", "data":
        if os.path.exists(name):
            os.unlink(name)


class Trial:
    def __init__(self, c, rng, base):
        self.c, self.rng = c, rng
        self.model = bytearray(SIZE)
        if c["backing"]:
            n = min(len(base), SIZE)
            self.model[:n] = base[:n]
        self.cluster = {"512": 512, "4k": 4096, "16k": 16384, "64k": 65536,
                        "2M": 1 << 21}[c["cluster_size"]]

    def range(self):
        unit = self.rng.choice([1, 512, 4096, self.cluster])
        length = self.rng.choice([512, 4096, self.rng.randint(1, 70000),
                                  min(self.cluster, 65536)])
        offset = self.rng.randrange(SIZE) // unit * unit
        return offset, min(length, SIZE - offset)

    def play(self, nr):
        """Requests through the plugin."""
        h = nbd.NBD()
        h.connect_command([SERVER, "-s", "--exit-with-parent", "file=image"])
        assert h.get_size() == SIZE
        for _ in range(nr):
            offset, length = self.range()
            what = self.rng.choice(["write"] * 6 + ["zero", "trim", "read",
                                                    "flush"])
            if what == "write":
                data = self.rng.randbytes(length)
                h.pwrite(data, offset)
                self.model[offset:offset + length] = data
            elif what == "zero":
                h.zero(length, offset, self.rng.choice([0,
                                                        nbd.CMD_FLAG_NO_HOLE]))
                self.model[offset:offset + length] = bytes(length)
            elif what == "trim":
                h.trim(length, offset)
                data = h.pread(length, offset)
                old = self.model[offset:offset + length]
                assert all(d in (0, o) for d, o in zip(data, old)), "trim"
                self.model[offset:offset + length] = data
            elif what == "read":
                self.expect(h.pread(length, offset), offset)
            else:
                h.flush()
        self.expect(h.pread(SIZE, 0), 0)
        h.shutdown()

    def expect(self, data, offset):
        if data != self.model[offset:offset + len(data)]:
            bad = next(i for i, b in enumerate(data)
                       if b != self.model[offset + i])
            raise AssertionError(f"wrong byte at {offset + bad}")

    def play_in_qemu(self, nr):
        commands = []
        for _ in range(nr):
            offset, length = self.range()
            if self.rng.random() < .3:
                commands += ["-c", f"write -z -u {offset} {length}"]
                self.model[offset:offset + length] = bytes(length)
            else:
                p = self.rng.randrange(256)
                commands += ["-c", f"write -P {p} {offset} {length}"]
                self.model[offset:offset + length] = bytes([p]) * length
        out = must("qemu-io", "-f", "qcow2", *commands, "image")
        assert "rror" not in out, out

    def check(self):
        must("qemu-img", "check", "-q", "-f", "qcow2", "image")
        must(OURS, "check", "-q", "-f", "qcow2", "image")
        must("qemu-img", "convert", "-f", "qcow2", "-O", "raw", "image", "out")
        with open("out", "rb") as f:
            self.expect(f.read(), 0)
        must(OURS, "convert", "-f", "qcow2", "-O", "raw", "image", "out")
        with open("out", "rb") as f:
            self.expect(f.read(), 0)


def try_one(c, maker, rng, base):
    remove_old()
    must(maker, *create_args(c))
    t = Trial(c, rng, base)
    t.play(NR_REQUESTS // 2)
    t.check()
    t.play_in_qemu(30)
    t.play(NR_REQUESTS - NR_REQUESTS // 2)
    t.check()


def main():
    seed = int(os.environ.get("TEST_SEED", "1"))
    base = bytearray(random.Random(0).randbytes(SIZE))
    base[100000:600000] = bytes(500000)
    with open("base.raw", "wb") as f:
        f.write(base)
    must("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "base.raw",
         "base.qcow2")
    nr = nr_refused = 0
    for i, c in enumerate(filter(is_possible, combinations())):
        if i % STRIDE:
            continue
        remove_old()
        if run("qemu-img", *create_args(c)).returncode != 0:
            nr_refused += 1
            remove_old()
            if run(OURS, *create_args(c)).returncode == 0:
                raise AssertionError(f"not refused: {create_args(c)}")
            continue
        for maker in "qemu-img", OURS:
            try:
                try_one(c, maker, random.Random(f"{seed} {i}"), base)
            except Exception as e:
                print(f"TEST_SEED={seed}: {maker} {' '.join(create_args(c))}",
                      flush=True)
                print(e)
                raise
            nr += 1
    print(f"{nr} images of {nr // 2} combinations of options, "
          f"{nr_refused} refused by both")


main()
