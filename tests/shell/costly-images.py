# SPDX-License-Identifier: BSD-3-Clause
# costly-images.py: makes small files in the current directory that claim as
# much work as the format's limits let them, and prints their names. Each has a
# few MiB at most; the rest of it is holes.

import struct, sys, zlib

COPIED, COMPRESSED = 1 << 63, 1 << 62

class Image:
    """A file of holes, to which tables are added; all refcounts are 1."""

    def __init__(self, name, size, bits=16, version=3, file_size=1 << 30):
        self.f = open(name, "w+b")
        self.f.truncate(file_size)
        self.c = 1 << bits
        self.next = self.c
        self.head = {"size": size, "bits": bits, "version": version,
                     "l1": (0, 0), "reftable": (0, 0), "snapshots": (0, 0),
                     "autoclear": 0, "extensions": b""}
        print(name)

    def add(self, data, nr_bytes=None):
        """Puts data at the next free cluster, in room for nr_bytes."""
        at = self.next
        self.f.seek(at)
        self.f.write(data)
        self.next = -(-(at + (nr_bytes or len(data))) // self.c) * self.c
        return at

    def table(self, entries):
        return self.add(struct.pack(f">{len(entries)}Q", *entries))

    def finish(self, blocks=None):
        """Refcounts of 1 for all clusters so far, and the header."""
        if blocks is None:
            n = self.next // self.c + 10
            per_block = self.c // 2
            nr = -(-n // per_block)
            block = b"\0\1" * per_block
            blocks = [self.add(block) for _ in range(nr)]
        at = self.table(blocks)
        clusters = -(-len(blocks) * 8 // self.c)
        h = self.head
        self.f.seek(0)
        self.f.write(struct.pack(
            ">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", h["version"], 0, 0, h["bits"],
            h["size"], 0, h["l1"][0], h["l1"][1], at, clusters,
            h["snapshots"][0], h["snapshots"][1], 0, 0, h["autoclear"], 4,
            104) + h["extensions"] + bytes(8))
        self.f.close()

    def l1(self, entries):
        self.head["l1"] = len(entries), self.table(entries)

    def snapshots(self, l1s):
        """One for each (offset, entries) of an L1 table."""
        out = []
        for i, (at, nr) in enumerate(l1s):
            name = b"%d" % i
            entry = struct.pack(">QIHHIIQII", at, nr, len(name), len(name),
                                0, 0, 0, 0, 16)
            entry += struct.pack(">QQ", 0, self.head["size"]) + name + name
            out.append(entry + bytes(-len(entry) % 8))
        self.head["snapshots"] = len(l1s), self.add(b"".join(out))

def l2_of(image, entry):
    return image.table([entry] * (image.c // 8))

# An L1 table of 1 MiB, all of it one L2 table, of which all is one cluster.
L1 = 128 << 10
i = Image("l1-names-one-table", 1 << 46)
l2 = l2_of(i, COPIED | i.add(b"x"))
i.l1([COPIED | l2] * L1)
i.finish()

# A GiB of tables that are not there.
i = Image("l1-names-holes", 1 << 43, file_size=1 << 31)
i.l1([COPIED | (n + 1000) << 16 for n in range(16 << 10)])
i.finish()

# As many snapshots as there may be, of one such table.
i = Image("snapshots-share-a-table", 1 << 46)
l2 = l2_of(i, i.add(b"x"))
i.l1([l2] * L1)
i.snapshots([(i.head["l1"][1], L1)] * 65536)
i.finish()

# The same with a table each, in holes.
i = Image("snapshots-with-a-table-each", 1 << 29, file_size=1 << 33)
i.l1([0])
at = i.add(b"", 65536 * i.c)
i.snapshots([(at + n * i.c, 1) for n in range(65536)])
i.finish()

# Refcount tables of 1 MiB: each entry the same block; and a block of its own.
i = Image("refcounts-are-one-block", 1 << 40)
i.l1([0] * 2048)
block = i.add(b"\0\1" * 32768)
i.finish([block] * L1)
i = Image("refcounts-are-holes", 1 << 40, file_size=1 << 43)
i.l1([0] * 2048)
block = i.add(b"\0\1" * 32768)
i.finish([block] + [(n + 1000) << 16 for n in range(L1 - 1)])

# Version 1: the largest table, in a hole; and tables that are each other.
def image_1(name, size, l1, file_size, words=()):
    with open(name, "w+b") as f:
        f.truncate(file_size)
        f.write(struct.pack(">4sIQIIQBBHIQ", b"QFI\xfb", 1, 0, 0, 0, size, 16,
                            13, 0, 0, l1))
        f.seek(l1)
        f.write(struct.pack(f">{len(words)}Q", *words))
    print(name)
image_1("version-1-of-holes", 1 << 51, 64, 1 << 31)
image_1("version-1-of-one-table", 1 << 46, 512, 4 << 20, [512] * L1)
image_1("version-1-of-compressed", 1 << 46, 512, 4 << 20,
        [512] + [1 << 63 | 0xffff << 47 | 512] * L1)

# A file that is nothing but a hole.
i = Image("file-is-a-hole", 1 << 40, file_size=(1 << 43) - 4096)
i.l1([0] * 2048)
i.finish()

# As many bitmaps as there may be, all with the same table.
i = Image("bitmaps-share-a-table", 1 << 40)
i.l1([0] * 2048)
table = i.table([i.add(b"x")] * 512)
entry = struct.pack(">QIIBBHI", table, 512, 2, 1, 16, 5, 0)
directory = b"".join(entry + b"%05d" % n + bytes(3) for n in range(65535))
i.head["extensions"] = struct.pack(">IIIIQQ", 0x23852875, 24, 65535, 0,
                                   len(directory), i.add(directory))
i.head["autoclear"] = 1
i.finish()

# Compressed data that unpack to the largest cluster, again and again; and
# that go on for ever.
packed = zlib.compressobj(9, zlib.DEFLATED, -12)
bomb = packed.compress(bytes(2 << 20)) + packed.flush()
i = Image("bombs", 1 << 39, bits=21)
at = i.add(bomb)
entry = COMPRESSED | (len(bomb) + 511) // 512 << (62 - 13) | at
i.l1([COPIED | l2_of(i, entry)])
i.finish()
packed = zlib.compressobj(9, zlib.DEFLATED, -12)
bomb = packed.compress(bytes(64 << 20))
i = Image("bombs-without-an-end", 1 << 30, bits=9)
entry = COMPRESSED | 1 << 61 | i.add(bomb)
l2 = l2_of(i, entry)
i.l1([COPIED | l2] * 32768)
i.finish()
