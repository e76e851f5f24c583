/* SPDX-License-Identifier: BSD-3-Clause */
/* l2-cache.h: slices of L2 tables, through the metadata cache. */
#ifndef QCOW2_L2_CACHE_H
#define QCOW2_L2_CACHE_H

#include "meta/image.h"

/* The key, in the cache, of guest_off's slice of the table at table_off. */
static inline uint64_t
l2_cache_key(const struct image *img, uint64_t table_off, uint64_t guest_off)
{
    return table_off + geometry_slice_place(&img->geo, guest_off);
}

/* The slice of guest_off, pinned. One that had to be read is recorded in
 * v->linear if it is linear, with its neighbours.
 */
struct block *l2_cache_get(struct view *v, uint64_t table_off,
                           uint64_t guest_off, struct qcow2_error *err);

/* Reads slices of the L2 table of `from` that lookups up to `to` will need,
 * at most CACHE_MAX_PRELOAD of them; returns how far they reach. */
uint64_t l2_cache_preload(struct view *v, uint64_t from, uint64_t to);

/* Drops from the cache the clean slices that map nothing outside of
 * [from, to). */
void l2_cache_forget(struct view *v, uint64_t from, uint64_t to);

#endif /* QCOW2_L2_CACHE_H */
