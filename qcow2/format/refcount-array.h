/* SPDX-License-Identifier: BSD-3-Clause */
/* refcount-array.h: arrays of refcounts of any width, as refcount blocks hold
 * them.
 */
#ifndef QCOW2_REFCOUNT_ARRAY_H
#define QCOW2_REFCOUNT_ARRAY_H

#include <stdint.h>

#include "base/bytes.h"

/* The idx-th refcount of 1 << order bits in a refblock or part of one.
 * Widths below 8 bits fill a byte from its low bits up.
 */
static inline uint64_t
refcount_get(const void *table, unsigned order, uint64_t idx)
{
    const uint8_t *t = table;

    switch (order) {
    case 0:
    case 1:
    case 2: {
        unsigned in_byte = (idx & ((8u >> order) - 1)) << order;

        return t[idx >> (3 - order)] >> in_byte & ((1u << (1 << order)) - 1);
    }
    case 3:
        return t[idx];
    case 4:
        return be16_get(((const be16 *)table)[idx]);
    case 5:
        return be32_get(((const be32 *)table)[idx]);
    case 6:
        return be64_get(((const be64 *)table)[idx]);
    }
    __builtin_unreachable();
}

static inline void
refcount_set(void *table, unsigned order, uint64_t idx, uint64_t refcount)
{
    uint8_t *t = table;

    switch (order) {
    case 0:
    case 1:
    case 2: {
        unsigned in_byte = (idx & ((8u >> order) - 1)) << order;
        uint8_t mask = ((1u << (1 << order)) - 1) << in_byte;
        uint8_t *byte = &t[idx >> (3 - order)];

        *byte = (*byte & ~mask) | (refcount << in_byte & mask);
        break;
    }
    case 3:
        t[idx] = refcount;
        break;
    case 4:
        ((be16 *)table)[idx] = be16_make(refcount);
        break;
    case 5:
        ((be32 *)table)[idx] = be32_make(refcount);
        break;
    case 6:
        ((be64 *)table)[idx] = be64_make(refcount);
        break;
    }
}

uint64_t refcount_max(unsigned order);

/* The least and the greatest of nr > 0 refcounts; and a change of all of
 * them, which must fit. */
void refcount_bounds(const void *table, unsigned order, uint64_t idx,
                     uint64_t nr, uint64_t *least, uint64_t *most);
void refcount_add(void *table, unsigned order, uint64_t idx, uint64_t nr,
                  int delta);

/* How many of nr > 0 refcounts are the same as the first, up to another? */
uint64_t refcount_run(const void *table, unsigned order, uint64_t idx,
                      uint64_t nr);

/* First index >= from, < to, whose refcount is 0; `to` if there is none. */
uint64_t refcount_find_zero(const void *table, unsigned order,
                            uint64_t from, uint64_t to);

#endif /* QCOW2_REFCOUNT_ARRAY_H */
