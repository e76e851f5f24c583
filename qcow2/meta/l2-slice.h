/* SPDX-License-Identifier: BSD-3-Clause */
/* l2-slice.h: the entries of L2 slices, in the cache or just read. */
#ifndef QCOW2_L2_SLICE_H
#define QCOW2_L2_SLICE_H

#include "base/bytes.h"
#include "cache/cache.h"

static inline uint64_t
l2_load(const struct block *b, uint64_t idx)
{
    return be64toh(__atomic_load_n((const uint64_t *)b->data + idx,
                                   __ATOMIC_RELAXED));
}

static inline void
l2_store(struct block *b, uint64_t idx, uint64_t entry)
{
    __atomic_store_n((uint64_t *)b->data + idx, htobe64(entry),
                     __ATOMIC_RELAXED);
}

#endif /* QCOW2_L2_SLICE_H */
