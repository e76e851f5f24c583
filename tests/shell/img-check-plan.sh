#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# qcow2-img check -r all --plan: of a repair of very many writes JSON has the
# first 10,000, and how many more there are.

. ./functions.sh
. "$srcdir/shell/img.sh"
requires python3 --version
cd "$tmp"

# 10,240 L2 tables, each with an entry that has a reserved bit.
python3 - <<'END'
import struct
C, N = 512, 10240
L1, L2 = 1, 1 + N * 8 // C
PER_BLOCK = C // 2
blocks = -(-(L2 + N + 400) // PER_BLOCK)
end = L2 + N + 4 + blocks
refs = [1] * end
refs += [0] * (blocks * PER_BLOCK - end)
table, block = L2 + N, L2 + N + 4
with open("image", "wb") as f:
    head = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 0, 0, 9, N << 15, 0,
                       N, L1 * C, table * C, 4, 0, 0)
    f.write((head + struct.pack(">QQQII", 0, 0, 0, 4, 104)).ljust(C, b"\0"))
    for i in range(N):
        f.write(struct.pack(">Q", 1 << 63 | (L2 + i) * C))
    for i in range(N):
        f.write(struct.pack(">Q", 3).ljust(C, b"\0"))
    f.write(b"".join(struct.pack(">Q", (block + i) * C)
                     for i in range(blocks)).ljust(4 * C, b"\0"))
    f.write(struct.pack(">%dH" % len(refs), *refs))
END

qcow2_img check -r all --plan --output=json image >plan || true
python3 - plan <<'END' || fail "$(head -c 300 plan)"
import json, sys
plan = json.load(open(sys.argv[1]))
assert len(plan["plan"]) == 10000, len(plan["plan"])
assert plan["plan-left-out"] == 240, plan["plan-left-out"]
assert len(plan["problems"]) == 10000, len(plan["problems"])
assert plan["problems-left-out"] == 240, plan["problems-left-out"]
END
