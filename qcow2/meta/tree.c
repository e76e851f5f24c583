/* SPDX-License-Identifier: BSD-3-Clause */
/* tree.c: walks everything an L1 table reaches; see tree.h. */
#include "meta/tree.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "cache/counters.h"
#include "format/entry.h"
#include "meta/data.h"
#include "meta/flush.h"
#include "meta/l1.h"
#include "meta/l2-slice.h"
#include "meta/l2-table.h"
#include "meta/overlap.h"
#include "meta/refcount.h"

uint32_t
tree_l1_entries(const struct image *img, uint64_t nr_bytes)
{
    return geometry_l1_entries(&img->geo, nr_bytes);
}

int
tree_check_alone(struct image *img, const uint64_t *l1, uint32_t nr,
                 struct qcow2_error *err)
{
    struct cluster_set seen;
    int r = cluster_set_init(&seen, err);

    for (uint32_t i = 0; r == 0 && i < nr; i++) {
        struct l1_entry e = entry_decode_l1(l1[i], img->cluster_bits);
        uint64_t cluster = e.host_off >> img->cluster_bits;

        if (e.host_off == 0)
            continue;
        if (cluster_set_has(&seen, cluster, 1)) {
            error_set(err, EIO, "%s: two entries of one L1 table have the L2 "
                      "table at 0x%" PRIx64, img->name, e.host_off);
            r = error_hint(err, QCOW2_HINT_CONVERT);
        } else {
            r = cluster_set_add(&seen, cluster, 1, err);
        }
    }
    cluster_set_destroy(&seen);
    return r;
}

/* What is done to a run of clusters. Compressed clusters share host clusters,
 * so a walk may come to one of them several times. */
typedef int run_fn(struct image *img, uint64_t host_off, uint64_t nr_clusters,
                   void *opaque, struct qcow2_error *err);

/* A run that may go on with the next entry. */
struct run {
    struct image *img;
    run_fn *fn;
    void *opaque;
    bool clear;                     /* also clear the flags in L2 tables */
    bool release;                   /* give up data that are not counted */
    uint64_t host_off, nr_clusters; /* 0: none */
};

static int
run_end(struct run *r, struct qcow2_error *err)
{
    uint64_t nr = r->nr_clusters;

    r->nr_clusters = 0;
    return nr ? r->fn(r->img, r->host_off, nr, r->opaque, err) : 0;
}

static int
run_add(struct run *r, uint64_t host_off, uint64_t nr_clusters,
        struct qcow2_error *err)
{
    if (r->nr_clusters
        && r->host_off + (r->nr_clusters << r->img->cluster_bits)
               == host_off) {
        r->nr_clusters += nr_clusters;
        return 0;
    }
    if (run_end(r, err) == -1)
        return -1;
    r->host_off = host_off;
    r->nr_clusters = nr_clusters;
    return 0;
}

/* Data that no refcount counts. */
static void
walk_uncounted(const struct run *r, const struct l2_entry *e,
               uint64_t guest_off, uint64_t n)
{
    if (r->release && (e->host_off != 0 || data_is_at_0(r->img, e)))
        data_release(r->img, guest_off, e->host_off, e->host_off ? n : 1);
}

/* The entry of guest_off, and n - 1 more in a row with it (l2_row). */
static int
walk_entries(struct run *r, const struct l2_entry *e, uint64_t guest_off,
             uint64_t n, struct qcow2_error *err)
{
    struct image *img = r->img;
    uint64_t first, end;

    if (!img->data->counted && e->kind != MAP_COMPRESSED) {
        walk_uncounted(r, e, guest_off, n);
        return 0;
    }
    if (e->host_off == 0)
        return 0;
    first = round_down(e->host_off, img->cluster_size);
    end = e->kind == MAP_COMPRESSED
              ? round_up(e->host_off + e->compressed_len, img->cluster_size)
              : first + n * img->cluster_size;
    /* What is counted or given up here must be guest data. */
    if (overlap_check(img, first, end - first, err) == -1)
        return -1;
    return run_add(r, first, (end - first) >> img->cluster_bits, err);
}

/* Decodes l1[i]; *table_off is 0 if there is no table. */
static int
get_table(struct image *img, const uint64_t *l1, uint32_t i,
          uint64_t *table_off, struct qcow2_error *err)
{
    struct l1_entry e = entry_decode_l1(l1[i], img->cluster_bits);

    *table_off = e.host_off;
    if (e.flaws)
        return image_damaged(img, err, "L1 entry %u is invalid", i);
    return 0;
}

static uint32_t
entries_per_table(const struct image *img)
{
    return UINT32_C(1) << img->geo.l2_bits;
}

/* The entries of a table that was read whole. */
static struct l2_slice
entries_of(const struct image *img, be64 *table)
{
    return l2_slice_in_memory(table, &img->geo, img->hdr.version);
}

static int
walk_table(struct run *r, be64 *table, uint64_t table_off,
           uint64_t guest_off, struct qcow2_error *err)
{
    struct image *img = r->img;
    struct l2_slice s = entries_of(img, table);
    int ret = run_add(r, table_off, 1, err);

    for (uint32_t i = 0, n; ret == 0 && i < entries_per_table(img); i += n) {
        struct l2_entry e;

        n = l2_row(&s, i, entries_per_table(img) - i, &e);
        if (data_entry_flaws(img, &e))
            return image_damaged(img, err, "entry %u of the L2 table at "
                                 "0x%llx is invalid", i,
                                 (unsigned long long)table_off);
        ret = walk_entries(r, &e,
                           guest_off + (uint64_t)i * img->cluster_size, n,
                           err);
    }
    return ret;
}

/* Clears the COPIED flags; returns whether there were any. */
static bool
clear_flags(const struct image *img, be64 *table)
{
    struct l2_slice s = entries_of(img, table);
    bool changed = false;

    for (uint32_t i = 0; i < entries_per_table(img); i++)
        changed |= l2_set_copied(&s, i, false);
    return changed;
}

/* A table of which nothing but flags changed. */
static int
write_flags(struct image *img, const be64 *table, uint64_t table_off,
            struct qcow2_error *err)
{
    if (flush_flags(img, table, table_off, img->cluster_size, err) == -1)
        return -1;
    l2_table_refresh(img, table_off, table);
    return 0;
}

/* The same of the active disk's L1 table; table is space for a part. */
static int
write_l1_flags(struct image *img, be64 *table, struct qcow2_error *err)
{
    const struct view *v = &img->active;

    for (uint32_t i = 0, n; i < v->l1_entries; i += n) {
        n = min_u64(v->l1_entries - i, entries_per_table(img));
        for (uint32_t j = 0; j < n; j++)
            table[j] = be64_make(v->l1[i + j]);
        if (flush_flags(img, table, v->l1_off + i * UINT64_C(8),
                        n * sizeof *table, err) == -1)
            return -1;
    }
    return 0;
}

/* The file has all of the tables, so they are read whole, past the cache: it
 * would be filled with what is needed once. */
static int
begin_walk(struct image *img, be64 **table, struct qcow2_error *err)
{
    *table = malloc(img->cluster_size);
    if (!*table)
        return error_nomem(err);
    return dirty_bytes(&img->l2_dirty) > 0 ? flush_run(img, err) : 0;
}

/* l1[0] is entry `first` of a table. */
static int
walk(struct run *r, const uint64_t *l1, uint32_t first, uint32_t nr,
     struct qcow2_error *err)
{
    struct image *img = r->img;
    unsigned reach_bits = geometry_l1_reach_bits(&img->geo);
    CLEANUP_FREE be64 *table = NULL;

    if (begin_walk(img, &table, err) == -1)
        return -1;
    for (uint32_t i = 0; i < nr; i++) {
        uint64_t table_off;

        if (get_table(img, l1, i, &table_off, err) == -1)
            return -1;
        if (table_off == 0)
            continue;
        if (l2_table_read(img, table_off, table, err) == -1
            || walk_table(r, table, table_off,
                          (uint64_t)(first + i) << reach_bits, err) == -1
            || (r->clear && clear_flags(img, table)
                && write_flags(img, table, table_off, err) == -1)
            || flush_make_room(img, err) == -1)
            return -1;
    }
    return run_end(r, err);
}

static int
raise_run(struct image *img, uint64_t host_off, uint64_t nr_clusters,
          void *opaque, struct qcow2_error *err)
{
    (void)opaque;
    return alloc_raise(img, host_off, nr_clusters, err);
}

int
tree_share(struct image *img, uint64_t *l1, uint32_t nr,
           struct qcow2_error *err)
{
    struct run r = { .img = img, .fn = raise_run, .clear = true };

    if (walk(&r, l1, 0, nr, err) == -1)
        return -1;
    for (uint32_t i = 0; i < nr; i++)
        l1[i] = entry_with_copied(l1[i], false);
    return 0;
}

static int
count_run(struct image *img, uint64_t host_off, uint64_t nr_clusters,
          void *opaque, struct qcow2_error *err)
{
    return alloc_can_raise(img, host_off, nr_clusters, opaque, err);
}

int
tree_clear_l1_flags(struct image *img, uint32_t nr, struct qcow2_error *err)
{
    CLEANUP_FREE be64 *table = malloc(img->cluster_size);
    bool changed = false;

    if (!table)
        return error_nomem(err);
    for (uint32_t i = 0; i < nr; i++)
        changed |= l1_set_copied(&img->active, i, false);
    return changed ? write_l1_flags(img, table, err) : 0;
}

static uint64_t
nr_tables(const uint64_t *l1, uint32_t nr)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < nr; i++)
        n += l1[i] != 0;
    return n;
}

int
tree_can_raise(struct image *img, const uint64_t *l1, uint32_t nr,
               struct qcow2_error *err)
{
    struct counters more = { .nr_slots = 0 };
    struct run run = { .img = img, .fn = count_run, .opaque = &more };
    bool can = false;
    int r = 0;

    /* Refcounts are mostly small, and quicker to look at than tables. */
    if (alloc_nr_refblocks(img) <= nr_tables(l1, nr))
        r = alloc_can_raise_all(img, &can, err);
    if (r == 0 && !can)
        r = walk(&run, l1, 0, nr, err);
    counters_free(&more);
    return r;
}

static int
free_run(struct image *img, uint64_t host_off, uint64_t nr_clusters,
         void *opaque, struct qcow2_error *err)
{
    (void)opaque, (void)err;
    alloc_free(img, host_off, nr_clusters);
    return 0;
}

int
tree_free(struct image *img, const uint64_t *l1, uint32_t first,
          uint32_t nr, struct qcow2_error *err)
{
    struct run r = { .img = img, .fn = free_run, .release = true };

    return walk(&r, l1, first, nr, err);
}

/* The refblock slice looked at last: neighbours are mostly in it too. */
struct refcounts {
    struct image *img;
    struct block *block;
    uint64_t base; /* first host cluster in it */
};

/* Is the refcount at host_off 1? Shortens *nr to the clusters from there on
 * of which that is as true. */
static int
is_refcount_1(struct refcounts *rc, uint64_t host_off, uint32_t *nr,
              bool *is_1, struct qcow2_error *err)
{
    struct image *img = rc->img;
    unsigned order = img->hdr.refcount_order;
    uint64_t cluster = host_off >> img->cluster_bits, idx;
    uint64_t per_slice = refcount_slice_entries(img);

    if (!rc->block || cluster - rc->base >= per_slice) {
        cache_put(rc->block);
        rc->base = cluster - cluster % per_slice;
        if (refcount_load(img, cluster, &rc->block, err) == -1)
            return -1;
    }
    idx = cluster - rc->base;
    *nr = min_u64(*nr, per_slice - idx);
    *is_1 = false;
    if (rc->block) {
        *nr = refcount_run(rc->block->data, order, idx, *nr);
        *is_1 = refcount_get(rc->block->data, order, idx) == 1;
    }
    return 0;
}

/* Sets the flags of n entries from idx on, in a row that begins at host_off;
 * *changed: some were different. */
static int
set_row(struct refcounts *rc, const struct l2_slice *s, uint32_t idx,
        uint32_t n, uint64_t host_off, bool *changed, struct qcow2_error *err)
{
    for (uint32_t i = 0, part; i < n; i += part) {
        bool copied;

        part = n - i;
        if (is_refcount_1(rc, host_off + i * (uint64_t)rc->img->cluster_size,
                          &part, &copied, err) == -1)
            return -1;
        for (uint32_t j = i; j < i + part; j++)
            *changed |= l2_set_copied(s, idx + j, copied);
    }
    return 0;
}

static int
set_flags(struct refcounts *rc, be64 *table, bool *changed,
          struct qcow2_error *err)
{
    struct l2_slice s = entries_of(rc->img, table);
    uint32_t end = entries_per_table(rc->img);

    *changed = false;
    for (uint32_t i = 0, n; i < end; i += n) {
        struct l2_entry e;

        n = l2_row(&s, i, end - i, &e);
        if (e.kind != MAP_COMPRESSED && e.host_off != 0
            && set_row(rc, &s, i, n, e.host_off, changed, err) == -1)
            return -1;
    }
    return 0;
}

static int
set_table_flags(struct refcounts *rc, be64 *table, uint64_t table_off,
                struct qcow2_error *err)
{
    bool changed;

    if (l2_table_read(rc->img, table_off, table, err) == -1
        || set_flags(rc, table, &changed, err) == -1)
        return -1;
    return changed ? write_flags(rc->img, table, table_off, err) : 0;
}

static int
set_all_flags(struct refcounts *rc, uint32_t first, uint32_t nr, be64 *table,
              struct qcow2_error *err)
{
    struct view *v = &rc->img->active;
    uint64_t end = min_u64(v->l1_entries, (uint64_t)first + nr);
    bool changed = false;

    for (uint32_t i = first; i < end; i++) {
        uint64_t table_off;
        uint32_t one = 1;
        bool copied;

        if (get_table(rc->img, v->l1, i, &table_off, err) == -1)
            return -1;
        if (table_off == 0)
            continue;
        if (is_refcount_1(rc, table_off, &one, &copied, err) == -1)
            return -1;
        changed |= l1_set_copied(v, i, copied);
        /* A shared table has no flags to set, and is not ours to change. */
        if (copied && set_table_flags(rc, table, table_off, err) == -1)
            return -1;
    }
    return changed ? write_l1_flags(rc->img, table, err) : 0;
}

int
tree_set_copied(struct image *img, uint32_t first, uint32_t nr,
                struct qcow2_error *err)
{
    struct refcounts rc = { .img = img };
    CLEANUP_FREE be64 *table = NULL;
    int r = begin_walk(img, &table, err);

    if (r == 0)
        r = set_all_flags(&rc, first, nr, table, err);
    cache_put(rc.block);
    return r;
}
