/* SPDX-License-Identifier: BSD-3-Clause */
/* repair-l2.c: moves L2 tables out of clusters that something else keeps.
 *
 * Guest data go elsewhere where they can (repair-unshare.c). What cannot is
 * compressed, or lies in a table that is not only a table, perhaps this one:
 * then the table gets another place. A copy of it is written, with entries
 * as a repair makes them; once new refcounts count it, L1 entries switch to
 * it; then the old place loses these references.
 */
#include <stdlib.h>

#include "base/checked.h"
#include "base/error.h"
#include "check/check-private.h"

/* May not be moved: an L1 table that refers to them cannot be written. */
static int
keep_tables(struct check *c, const be64 *piece, uint64_t nr, uint64_t at,
            void *opaque, struct qcow2_error *err)
{
    (void)opaque;
    for (uint64_t i = 0; i < nr; i++) {
        struct l1_entry e = entry_decode_l1(be64_get(piece[i]),
                                            c->cluster_bits);
        uint64_t table = e.host_off >> c->cluster_bits;
        uint64_t l1 = (at + i * sizeof *piece) >> c->cluster_bits;

        if (e.host_off != 0 && counters_get(&c->l2_moves, table) != 0
            && counters_get(&c->refs, l1) - counters_get(&c->moved, l1) > 1
            && counters_set(&c->l2_moves, table, 0, err) == -1)
            return -1;
    }
    return 0;
}

static int
keep_tables_of(struct check *c, uint64_t start, uint64_t end,
               uint64_t weight, struct qcow2_error *err)
{
    (void)weight;
    return check_pieces(c, start, end, keep_tables, NULL, err);
}

/* The L1 tables that stay where they are. */
int
repair_l2_sweep_l1(struct check *c, check_sweep_fn *fn,
                   struct qcow2_error *err)
{
    struct span *spans = calloc(c->nr_l1, sizeof *spans);
    size_t nr = 0;
    int r;

    if (!spans)
        return error_nomem(err);
    for (size_t i = 1; i < c->nr_l1; i++)
        if (!c->l1_moves || !c->l1_moves[i])
            spans[nr++] = c->l1[i];
    r = fn(c, c->l1[0].start, c->l1[0].end, 1, err);
    if (r == 0)
        r = check_sweep(c, spans, nr, fn, err);
    free(spans);
    return r;
}

static int
find_shared(struct check *c, uint64_t *nr, struct qcow2_error *err)
{
    for (uint64_t i = 0; counters_next(&c->l2, &i, UINT64_MAX); i++)
        if (counters_get(&c->refs, i) - counters_get(&c->moved, i)
            > counters_get(&c->l2, i)) {
            if (counters_set(&c->l2_moves, i, 1, err) == -1)
                return -1;
            ++*nr;
        }
    return counters_sort(&c->l2_moves, err);
}

int
repair_l2_plan(struct check *c, struct qcow2_error *err)
{
    uint64_t nr = 0;

    /* Copies need room at the end, and other refcounts. */
    if (c->nr[PROBLEM_METADATA_SHARED] == 0 || !c->io->can_grow
        || c->first_past_end != UINT64_MAX)
        return 0;
    if (find_shared(c, &nr, err) == -1)
        return -1;
    if (scale_up(nr, c->cluster_bits) > MAX_MOVED_TABLE_BYTES) {
        counters_free(&c->l2_moves);
        c->l2_moves = (struct counters){ .slots = NULL };
        return 0;
    }
    if (nr > 0 && repair_l2_sweep_l1(c, keep_tables_of, err) == -1)
        return -1;
    for (uint64_t i = 0; counters_next(&c->l2_moves, &i, UINT64_MAX); i++) {
        if (repair_unshare_count(c, i, err) == -1)
            return -1;
        c->rebuild = true;
    }
    return counters_sort(&c->moved, err);
}

int
repair_l2_reserve(struct check *c, uint64_t *first, struct qcow2_error *err)
{
    for (uint64_t i = 0; counters_next(&c->l2_moves, &i, UINT64_MAX); i++) {
        uint64_t weight = counters_get(&c->l2, i);
        uint64_t active = counters_get(&c->l2_active, i);

        if (counters_set(&c->l2_moves, i, *first, err) == -1
            || counters_set(&c->l2_origins, *first, i, err) == -1
            || counters_set(&c->refs, *first, weight, err) == -1
            || counters_set(&c->l2, *first, weight, err) == -1
            || (active && counters_set(&c->l2_active, *first, active, err)
                          == -1))
            return -1;
        ++*first;
    }
    c->file_size = max_u64(c->file_size, scale_up(*first, c->cluster_bits));
    return counters_sort(&c->refs, err) == -1
                   || counters_sort(&c->l2, err) == -1
                   || counters_sort(&c->l2_active, err) == -1
               ? -1 : 0;
}

int
repair_l2_write(struct check *c, struct qcow2_error *err)
{
    for (uint64_t i = 0; counters_next(&c->l2_moves, &i, UINT64_MAX); i++) {
        if (check_read(c, c->table, c->cluster_size,
                       scale_up(i, c->cluster_bits), NULL, err) == -1)
            return -1;
        repair_moved_l2_table(c, (be64 *)c->table);
        if (repair_write(c, "copy an L2 table", c->table, c->cluster_size,
                         scale_up(repair_l2_cluster(c, i), c->cluster_bits),
                         err) == -1)
            return -1;
    }
    return 0;
}

uint64_t
repair_l2_cluster(struct check *c, uint64_t table)
{
    return counters_get(&c->l2_moves, table);
}

uint64_t
repair_l2_origin(struct check *c, uint64_t cluster)
{
    return counters_get(&c->l2_origins, cluster);
}

bool
repair_l2_any(struct check *c)
{
    uint64_t i = 0;

    return counters_next(&c->l2_moves, &i, UINT64_MAX);
}

int
repair_l2_forget(struct check *c, struct qcow2_error *err)
{
    for (uint64_t i = 0; counters_next(&c->l2_moves, &i, UINT64_MAX); i++) {
        uint64_t refs = counters_get(&c->refs, i);

        if (counters_set(&c->refs, i, refs - counters_get(&c->l2, i), err)
                == -1
            || counters_set(&c->l2, i, 0, err) == -1
            || counters_set(&c->l2_active, i, 0, err) == -1
            || repair_rebuild_write_refcount(c, i, err) == -1)
            return -1;
    }
    return 0;
}
