/* SPDX-License-Identifier: BSD-3-Clause */
/* refcount-growth.c: plans refcount structures; see refcount-growth.h. */
#include "format/refcount-growth.h"

#include "base/bytes.h"
#include "base/checked.h"
#include "format/format.h"

static uint64_t
entries_per_cluster(const struct geometry *geo)
{
    return (UINT64_C(1) << geo->cluster_bits) / sizeof(be64);
}

void
refcount_layout_plan(const struct geometry *geo, uint64_t l1_entries,
                     struct refcount_layout *at)
{
    uint64_t entries = entries_per_cluster(geo);
    uint64_t nr_refblocks = 1;

    at->nr_l1 = div_round_up(l1_entries, entries);
    do {
        at->nr_refblocks = nr_refblocks;
        at->nr_reftable = div_round_up(nr_refblocks, entries);
        at->reftable = 1;
        at->refblocks = at->reftable + at->nr_reftable;
        at->l1 = at->refblocks + at->nr_refblocks;
        at->end = at->l1 + at->nr_l1;
        nr_refblocks = div_round_up(at->end,
                                    UINT64_C(1) << geo->refblock_bits);
    } while (nr_refblocks > at->nr_refblocks);
}

/* How long the table must be to have an entry `index`: half as much again as
 * now, so that moving is rare. */
static bool
plan_table(const struct geometry *geo, uint64_t index,
           struct refcount_growth *g)
{
    uint64_t now = g->table_entries / entries_per_cluster(geo);
    uint64_t need = index / entries_per_cluster(geo) + 1;
    uint64_t most = MAX_REFTABLE_BYTES >> geo->cluster_bits;

    g->table_clusters = min_u64(max_u64(need, now + now / 2), most);
    return need <= most;
}

bool
refcount_growth_plan(const struct geometry *geo, struct refcount_growth *g)
{
    uint64_t index = g->first >> geo->refblock_bits;

    g->table_clusters = 0;
    g->nr_refblocks = 1;
    for (;;) {
        uint64_t last = (refcount_growth_end(g) - 1) >> geo->refblock_bits;

        if (last - index >= g->nr_refblocks) {
            g->nr_refblocks++;
        } else if (last >= g->table_entries
                   && last >= g->table_clusters * entries_per_cluster(geo)) {
            if (!plan_table(geo, last, g))
                return false;
        } else {
            return true;
        }
    }
}
