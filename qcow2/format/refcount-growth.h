/* SPDX-License-Identifier: BSD-3-Clause */
/* refcount-growth.h: which refcount structures a file gets as it grows. The
 * allocator makes them, and measure counts them, by the same plan.
 */
#ifndef QCOW2_REFCOUNT_GROWTH_H
#define QCOW2_REFCOUNT_GROWTH_H

#include <stdbool.h>
#include <stdint.h>

#include "format/geometry.h"

/* Where the parts of a new, empty image are, in clusters: the header, the
 * refcount table, refblocks, the L1 table. All are counted by those
 * refblocks.
 */
struct refcount_layout {
    uint64_t reftable, nr_reftable;
    uint64_t refblocks, nr_refblocks;
    uint64_t l1, nr_l1;
    uint64_t end;
};

void refcount_layout_plan(const struct geometry *geo, uint64_t l1_entries,
                          struct refcount_layout *layout);

/* New metadata at host cluster `first`, the first without a refcount: the
 * payload, then the refcount table if it must move, then refblocks that
 * describe all of it and themselves.
 */
struct refcount_growth {
    uint64_t first;
    uint64_t payload_clusters;  /* 0: only refblocks are wanted */
    uint64_t table_entries;     /* of the table as it is */
    uint32_t table_clusters;    /* planned; 0: the table stays */
    uint32_t nr_refblocks;      /* planned */
};

/* Fills in what is planned. False: the table would be longer than
 * MAX_REFTABLE_BYTES. */
bool refcount_growth_plan(const struct geometry *geo,
                          struct refcount_growth *growth);

/* One past the last of the new clusters. */
static inline uint64_t
refcount_growth_end(const struct refcount_growth *g)
{
    return g->first + g->payload_clusters + g->table_clusters
           + g->nr_refblocks;
}

#endif /* QCOW2_REFCOUNT_GROWTH_H */
