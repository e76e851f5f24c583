/* SPDX-License-Identifier: BSD-3-Clause */
/* whole-scenes.c: see whole-scenes.h. */
#include "whole-scenes.h"

/* Where the last cluster of the disk is not whole, tables are nearly full,
 * and all kinds of clusters are shared. */
const struct scene whole_scenes[] = {
    { "overlay with snapshot",
      "version 3; cluster 512; refcount-bits 64; size 41000;"
      "backing base.raw raw;"
      "data 0-3 1; zero 4; zero-alloc 5; compressed 6-7 2; data 8-9 3;"
      "snapshot 1 first; data 2 4; zero-alloc 3; compressed 12 5; gap 3",
      60000, 0 },
    { "two snapshots, tables shared",
      "version 3; cluster 512; refcount-bits 16; size 40960;"
      "data 0-3 1; zero-alloc 5; data 70-79 5; snapshot 1 first; data 2 3;"
      "snapshot 2 second", 0, 0 },
    { "nearly full refcount block",
      "version 3; cluster 512; refcount-bits 64; size 41000;"
      "data 0-3 1; compressed 6-7 2; snapshot 1 first; data 8-9 3;"
      "data 20-46 6", 0, 0 },
    { "version 2 overlay with snapshot",
      "version 2; cluster 512; size 41000; backing base.raw raw;"
      "data 0-3 1; compressed 6-7 2; snapshot 1 first; data 2 4", 9000, 0 },
    { "version 2 overlay",
      "version 2; cluster 512; size 41000; backing base.raw raw;"
      "data 0-3 1; compressed 6-7 2; data 79-80 5", 60000, 0 },
    { "version 2, one snapshot without a size",
      "version 2; cluster 512; size 41000; data 0-3 1;"
      "snapshot 1 first extra=24 size=20000; data 2 4; snapshot 2 second;"
      "data 5 6", 0, 0 },
    { "clusters of four sectors",
      "version 3; cluster 2K; refcount-bits 8; size 60000;"
      "backing base.raw raw;"
      "data 0-3 1; zero 4; zero-alloc 5; compressed 6-7 2; data 8-9 3;"
      "snapshot 1 first; data 2 4; zero-alloc 3", 70000, 0 },
    { "overlay with subclusters",
      "extended-l2; cluster 16K; refcount-bits 64; size 41000;"
      "backing base.raw raw;"
      "subclusters 0 ddzzpudduzzp 1; compressed 1 2; snapshot 1 first;"
      "subclusters 0 ppzdduzu 3; subclusters 2 uuzdp 4", 60000, 0 },
    { "tables past the end",
      "version 3; cluster 512; refcount-bits 16; size 33000; l1-entries 4;"
      "data 0-3 1; data 63-66 2; data 130 3; snapshot 1 first; data 200 4",
      0, 0 },
};
const unsigned nr_whole_scenes = sizeof whole_scenes / sizeof whole_scenes[0];

const struct whole_op whole_words[] = {
    { .kind = WHOLE_CREATE, .number = 7 },
    { .kind = WHOLE_CREATE, .number = 8, .vm_state_size = 40000 },
    { .kind = WHOLE_APPLY },
    { .kind = WHOLE_DELETE },
    { .kind = WHOLE_RESIZE, .size = 100000 },
    { .kind = WHOLE_RESIZE, .size = 41200 },
    { .kind = WHOLE_RESIZE, .size = 5300 },
    { .kind = WHOLE_RESIZE, .size = 1024 },
    { .kind = WHOLE_PREALLOCATE, .off = 4000, .nr_bytes = 18000,
      .mode = QCOW2_PREALLOC_METADATA },
    { .kind = WHOLE_AMEND, .amend = { .version = 3, .refcount_bits = 32 } },
    { .kind = WHOLE_AMEND, .amend = { .version = 2, .refcount_bits = 16 } },
};
const unsigned nr_whole_words = sizeof whole_words / sizeof whole_words[0];

bool
whole_possible(const struct contents *c, unsigned version,
               const struct whole_op *op)
{
    switch (op->kind) {
    case WHOLE_CREATE:
        return true;
    case WHOLE_APPLY:
    case WHOLE_DELETE:
        return op->i < c->nr;
    case WHOLE_RESIZE:
        return version > 2 || c->nr == 0;
    case WHOLE_PREALLOCATE:
        return op->off <= c->size && op->nr_bytes <= c->size - op->off;
    case WHOLE_AMEND:
        return op->amend.version > 2 || c->nr == 0;
    }
    return false;
}
