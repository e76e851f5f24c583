/* SPDX-License-Identifier: BSD-3-Clause */
/* fakes.h: layers that are nothing but a map, one kind a block, which counts
 * who asks and can fail.
 */
#ifndef FAKES_H
#define FAKES_H

#include "layer/source.h"

enum { FAKE_BLOCK = 512, FAKE_BLOCKS = 4096 };

struct fake {
    struct source src; /* first */
    unsigned block_bytes;
    uint64_t host_off;   /* of guest offset 0, where there are data */
    enum map_kind kinds[FAKE_BLOCKS];
    bool fails[FAKE_BLOCKS];
    unsigned nr_lookups; /* atomic */
};

/* Everything unallocated, in blocks of that many bytes. */
void fake_init(struct fake *f, uint64_t size, unsigned block_bytes);

/* [from, to) of its blocks. */
void fake_fill(struct fake *f, unsigned from, unsigned to,
               enum map_kind kind);

#endif /* FAKES_H */
