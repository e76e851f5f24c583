/* SPDX-License-Identifier: BSD-3-Clause */
/* repair-unshare.c: takes guest data out of clusters that are metadata, too.
 *
 * Both read such a cluster as it is, but whoever writes the one damages the
 * other. All entries that point to it from tables that are only tables get
 * one copy, so there are no more copies than clusters of metadata. References
 * that cannot move, as of compressed data, stay.
 */
#include <stdlib.h>

#include "base/checked.h"
#include "base/error.h"
#include "check/check-private.h"

static int
count_moving(struct check *c, const be64 *piece, uint64_t nr, uint64_t at,
             void *opaque, struct qcow2_error *err)
{
    uint64_t weight = *(const uint64_t *)opaque;
    const struct l2_slice s = check_slice(c, piece);

    (void)at;
    nr = check_l2_entries(c, nr);
    for (uint64_t i = 0; i < nr; i++) {
        struct l2_entry e = l2_get(&s, i, 0);
        uint64_t cluster = e.host_off >> c->cluster_bits;

        if (check_is_empty(&s, i) || e.kind == MAP_COMPRESSED || e.host_off == 0
            || e.flaws & ENTRY_MISALIGNED || c->outside
            || counters_get(&c->shared, cluster) == 0)
            continue;
        if (counters_add(&c->moved, cluster, weight, err) == -1)
            return -1;
    }
    return 0;
}

int
repair_unshare_count(struct check *c, uint64_t table, struct qcow2_error *err)
{
    uint64_t at = scale_up(table, c->cluster_bits);
    uint64_t weight = counters_get(&c->l2, table);

    return check_pieces(c, at, at + c->cluster_size, count_moving, &weight,
                        err);
}

int
repair_unshare_plan(struct check *c, struct qcow2_error *err)
{
    /* Copies need room at the end, and other refcounts. */
    if (c->nr[PROBLEM_METADATA_SHARED] == 0 || !c->io->can_grow
        || c->first_past_end != UINT64_MAX)
        return 0;
    for (uint64_t i = 0; counters_next(&c->l2, &i, UINT64_MAX); i++)
        if (counters_get(&c->refs, i) <= counters_get(&c->l2, i)
            && repair_unshare_count(c, i, err) == -1)
            return -1;
    if (counters_sort(&c->moved, err) == -1)
        return -1;
    c->rebuild |= repair_unshare_nr(c) > 0;
    return 0;
}

uint64_t
repair_unshare_nr(struct check *c)
{
    uint64_t nr = 0;

    for (uint64_t i = 0; counters_next(&c->moved, &i, UINT64_MAX); i++)
        nr++;
    return nr;
}

int
repair_unshare_reserve(struct check *c, uint64_t first,
                       struct qcow2_error *err)
{
    uint64_t copy = first;

    for (uint64_t i = 0; counters_next(&c->moved, &i, UINT64_MAX); i++, copy++)
        if (counters_set(&c->refs, copy, counters_get(&c->moved, i), err) == -1
            || counters_set(&c->copies, i, copy, err) == -1)
            return -1;
    /* Nothing else points past the old end (repair_unshare_plan). */
    if (copy > first)
        c->file_size = max_u64(c->file_size, scale_up(copy, c->cluster_bits));
    return 0;
}

int
repair_unshare_write(struct check *c, struct qcow2_error *err)
{
    for (uint64_t i = 0; counters_next(&c->moved, &i, UINT64_MAX); i++)
        if (check_read(c, c->table, c->cluster_size,
                       scale_up(i, c->cluster_bits), NULL, err) == -1
            || repair_write(c, "copy data out of metadata", c->table,
                            c->cluster_size,
                            scale_up(repair_unshare_cluster(c, i),
                                     c->cluster_bits), err) == -1)
            return -1;
    return 0;
}

uint64_t
repair_unshare_cluster(struct check *c, uint64_t cluster)
{
    return counters_get(&c->copies, cluster);
}
