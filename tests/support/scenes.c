/* SPDX-License-Identifier: BSD-3-Clause */
/* scenes.c: see scenes.h. */
#include "scenes.h"

const struct scene scenes[] = {
    /* 64 clusters fill an L2 table, or a refcount block. */
    { "overlay with snapshot",
      "version 3; cluster 512; refcount-bits 64; size 41000;"
      "backing base.raw raw;"
      "data 0-3 1; zero 4; zero-alloc 5; compressed 6-7 2; data 8-9 3;"
      "snapshot 1 first; data 2 4; zero-alloc 3; gap 3", 9000, 0 },
    { "table shared with snapshot",
      "version 3; cluster 512; refcount-bits 64; size 41000;"
      "data 0-3 1; zero 4; zero-alloc 5; compressed 6-7 2; data 8-11 3;"
      "data 70 5; snapshot 1 first", 0, 0 },
    { "nearly full refcount block",
      "version 3; cluster 512; refcount-bits 64; size 41000;"
      "data 0-3 1; zero 4; zero-alloc 5; compressed 6-7 2; data 8-9 3;"
      "data 20-57 6", 0, 0 },
    { "version 2 overlay",
      "version 2; cluster 512; size 41000; backing base.raw raw;"
      "data 0-3 1; compressed 6-7 2; snapshot 1 first; data 2 4", 9000, 0 },
    { "clusters of four sectors",
      "version 3; cluster 2K; refcount-bits 16; size 60000;"
      "backing base.raw raw;"
      "data 0-3 1; zero 4; zero-alloc 5; compressed 6-7 2; data 8-9 3;"
      "snapshot 1 first; data 2 4; zero-alloc 3", 30000, 0 },
    { "device",
      "version 3; cluster 1K; refcount-bits 16; size 41000;"
      "data 0-3 1; zero 4; zero-alloc 5; compressed 6-7 2; data 8-9 3;"
      "snapshot 1 first; data 2 4; gap 3", 0, 160 << 10 },
    /* 32 subclusters of 512 bytes: all that others do with the first clusters
     * is done inside two of these. */
    { "overlay with subclusters",
      "version 3; extended-l2; cluster 16K; refcount-bits 64; size 60000;"
      "backing base.raw raw;"
      "subclusters 0 ddddzpddduuuuuuuuuuudzdzdzpp 1; compressed 1 2;"
      "subclusters 2 duzu 3", 50000, 0 },
    { "subclusters shared with snapshot",
      "version 3; extended-l2; cluster 16K; refcount-bits 64; size 60000;"
      "subclusters 0 ddddzpddduuuuuuuuuuudzdzdzpp 1;"
      "subclusters 1 uuuuuzzzzd 2; snapshot 1 first;"
      "subclusters 0 pddzpduuuud 4", 0, 0 },
};

const unsigned nr_scenes = sizeof scenes / sizeof scenes[0];

const struct letter letters[] = {
    { "write in place", OP_WRITE, 0, 8, 0 },
    { "write part in place", OP_WRITE, 10, 4, 0 },
    { "write part of what the snapshot shares", OP_WRITE, 64, 4, 0 },
    { "write over several kinds", OP_WRITE, 20, 40, 0 },
    { "write part of what is not allocated", OP_WRITE, 84, 6, 0 },
    { "write what needs an L2 table", OP_WRITE, 560, 12, 0 },
    { "write many clusters", OP_WRITE, 96, 200, 0 },
    { "write FUA", OP_WRITE, 16, 8, QCOW2_FUA },
    { "zero", OP_ZERO, 8, 8, 0 },
    { "zero, over several kinds", OP_ZERO, 20, 56, QCOW2_MAY_TRIM },
    { "trim", OP_TRIM, 0, 40, 0 },
    { "trim FUA", OP_TRIM, 48, 32, QCOW2_FUA },
    { "flush", OP_FLUSH, 0, 0, 0 },
    { "zero FUA", OP_ZERO, 8, 24, QCOW2_FUA | QCOW2_MAY_TRIM },
};

const unsigned nr_letters = sizeof letters / sizeof letters[0];

struct op
letter_op(const struct letter *l, uint32_t unit_bytes, uint64_t disk_size,
          uint64_t seed)
{
    struct op op = {
        .kind = l->kind, .flags = l->flags, .seed = seed,
        .off = (uint64_t)l->off * (unit_bytes / 8),
        .nr_bytes = (uint64_t)l->len * (unit_bytes / 8),
    };

    if (op.off > disk_size)
        op.off = 0;
    if (op.nr_bytes > disk_size - op.off)
        op.nr_bytes = disk_size - op.off;
    return op;
}
