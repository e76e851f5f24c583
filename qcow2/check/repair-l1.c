/* SPDX-License-Identifier: BSD-3-Clause */
/* repair-l1.c: gives a snapshot an L1 table of its own, if the one it has
 * shares clusters with another table or with anything else.
 *
 * A snapshot can be pointed elsewhere, as its table is written anew beside new
 * refcounts: the header's switch makes both count (I5). What the L1 table
 * refers to was counted for each snapshot, so nothing else changes.
 */
#include <stdlib.h>

#include "base/checked.h"
#include "base/error.h"
#include "check/check-private.h"

static uint64_t
nr_clusters(const struct check *c, const struct span *l1)
{
    return div_round_up(l1->end - l1->start, c->cluster_size);
}

/* Is a cluster of the table used by more than it, once data have moved? */
static bool
is_shared(struct check *c, const struct span *l1)
{
    uint64_t first = l1->start >> c->cluster_bits;

    for (uint64_t i = first; i < first + nr_clusters(c, l1); i++)
        if (counters_get(&c->refs, i) - counters_get(&c->moved, i) > 1)
            return true;
    return false;
}

static int
drop_references(struct check *c, const struct span *l1,
                struct qcow2_error *err)
{
    uint64_t first = l1->start >> c->cluster_bits;

    for (uint64_t i = first; i < first + nr_clusters(c, l1); i++)
        if (counters_set(&c->refs, i, counters_get(&c->refs, i) - 1, err)
            == -1)
            return -1;
    return 0;
}

/* So much that the tables of a small file, which may claim to be large, are
 * not looked through for long, and the file at most doubles. */
static bool
is_little(const struct check *c)
{
    uint64_t most = min_u64(MAX_SNAPSHOT_L1_CLUSTERS,
                            c->file_size >> c->cluster_bits);
    uint64_t sum = 0;

    for (size_t i = 1; i < c->nr_l1 && sum <= most; i++)
        sum += nr_clusters(c, &c->l1[i]);
    return sum <= most;
}

int
repair_l1_plan(struct check *c, struct qcow2_error *err)
{
    /* Copies need room at the end, and another snapshot table. */
    if (c->nr[PROBLEM_METADATA_SHARED] == 0 || c->nr_l1 < 2
        || !c->io->can_grow || c->first_past_end != UINT64_MAX
        || !is_little(c))
        return 0;
    c->l1_moves = calloc(c->nr_l1, sizeof *c->l1_moves);
    if (!c->l1_moves)
        return error_nomem(err);
    /* One after the other: the last one that shares a table keeps it. */
    for (size_t i = 1; i < c->nr_l1; i++) {
        const struct snapshot *s = &c->snaptab->snapshots[i - 1];

        if ((s->flaw && !s->usable) || !is_shared(c, &c->l1[i]))
            continue;
        if (drop_references(c, &c->l1[i], err) == -1)
            return -1;
        c->l1_moves[i] = true;
        c->rebuild = c->mend_snapshots = true;
    }
    return 0;
}

/* As the pass over entries before would have it, which has not written it in
 * a plan. Snapshots have no use for COPIED. */
static int
write_copy(struct check *c, const struct span *l1, uint64_t to,
           struct qcow2_error *err)
{
    be64 *table = (be64 *)c->table;
    uint64_t n;

    for (uint64_t at = l1->start; at < l1->end; at += n, to += n) {
        n = min_u64(c->cluster_size, l1->end - at);
        if (check_read(c, table, n, at, NULL, err) == -1)
            return -1;
        for (uint64_t i = 0; i < n / sizeof *table; i++)
            table[i] = be64_make(repair_snapshot_l1_entry(
                                     c, be64_get(table[i])));
        if (repair_write(c, "copy the L1 table of a snapshot", table, n, to,
                         err) == -1)
            return -1;
    }
    return 0;
}

int
repair_l1_write(struct check *c, uint64_t *first, struct qcow2_error *err)
{
    uint64_t begin = *first;

    for (size_t i = 1; i < c->nr_l1 && c->l1_moves; i++) {
        struct span *l1 = &c->l1[i];
        uint64_t to = scale_up(*first, c->cluster_bits);
        uint64_t nr = nr_clusters(c, l1);

        if (!c->l1_moves[i])
            continue;
        if (write_copy(c, l1, to, err) == -1
            || counters_add_range(&c->refs, *first, nr, 1, err) == -1)
            return -1;
        *l1 = (struct span){ to, to + (l1->end - l1->start) };
        c->snaptab->snapshots[i - 1].l1_offset = to;
        *first += nr;
    }
    if (*first == begin)
        return 0;
    c->file_size = max_u64(c->file_size, scale_up(*first, c->cluster_bits));
    return counters_sort(&c->refs, err);
}
