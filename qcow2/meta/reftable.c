/* SPDX-License-Identifier: BSD-3-Clause */
/* reftable.c: the refcount table and the making of refblocks. */
#include "meta/reftable.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "format/refcount-growth.h"
#include "meta/alloc-end.h"
#include "meta/alloc-free.h"
#include "meta/refcount.h"
#include "meta/table.h"

int
reftable_load(struct image *img, struct qcow2_error *err)
{
    struct alloc *a = &img->alloc;
    uint64_t nr_bytes = scale_up(img->hdr.reftable_clusters,
                                 img->cluster_bits);
    CLEANUP_FREE be64 *disk = malloc(nr_bytes);

    free(a->reftable);
    a->reftable_entries = nr_bytes / sizeof *disk;
    a->reftable = malloc(nr_bytes);
    if (!disk || !a->reftable)
        return error_nomem(err);
    if (io_pread(img->io, disk, nr_bytes, img->hdr.reftable_offset, err)
        == -1)
        return error_prefix(err, "%s: refcount table", img->name);
    for (uint32_t i = 0; i < a->reftable_entries; i++)
        a->reftable[i] = be64_get(disk[i]);
    a->first_dirty = a->last_dirty = 0;
    a->moved_offset = 0;
    return 0;
}

/* New metadata at the place that needs it: first what somebody wants to put
 * there; then, when the table must move, the table; then the refblocks that
 * describe all of it and themselves. */
struct extension {
    uint64_t first;             /* host cluster */
    uint64_t payload_clusters;  /* 0: only refblocks are wanted */
    uint32_t table_clusters;    /* 0: the table stays */
    uint64_t index;             /* reftable index of the first refblock */
    uint32_t nr_refblocks;
    uint64_t *table;            /* the longer table */
    struct block **slices;      /* of the new refblocks, all pinned */
    uint64_t nr_slices;
};

static uint64_t
extension_end(const struct extension *x)
{
    return x->first + x->payload_clusters + x->table_clusters
           + x->nr_refblocks;
}

static uint64_t
table_place(const struct image *img, const struct extension *x)
{
    return (x->first + x->payload_clusters) << img->cluster_bits;
}

static uint64_t
refblock_place(const struct image *img, const struct extension *x,
               uint32_t i)
{
    return table_place(img, x)
           + ((uint64_t)(x->table_clusters + i) << img->cluster_bits);
}

static int
plan_extension(struct image *img, struct extension *x,
               struct qcow2_error *err)
{
    const struct alloc *a = &img->alloc;
    struct refcount_growth g = {
        .first = x->first,
        .payload_clusters = x->payload_clusters,
        .table_entries = a->reftable_entries,
    };

    if (!refcount_growth_plan(&img->geo, &g))
        return error_set(err, ENOSPC,
                         "%s: its refcount table has reached its limit of "
                         "%d bytes; larger clusters allow larger files",
                         img->name, (int)MAX_REFTABLE_BYTES);
    x->table_clusters = g.table_clusters;
    x->nr_refblocks = g.nr_refblocks;
    if (extension_end(x) > a->limit)
        return error_set(err, ENOSPC, "%s: no space is left in the file for "
                         "refcounts", img->name);
    if (cluster_set_has(&img->overlap, x->first,
                        extension_end(x) - x->first))
        return image_damaged(img, err, "metadata near host offset 0x%llx "
                             "has no refcount",
                             (unsigned long long)x->first
                                 << img->cluster_bits);
    return 0;
}

static int
load_zeroes(void *opaque, uint64_t key, void *data, uint32_t size,
            struct qcow2_error *err)
{
    (void)opaque;
    (void)key;
    (void)err;
    memset(data, 0, size);
    return 0;
}

/* All that can fail, and nothing that anybody can see. */
static int
make_extension(struct image *img, struct extension *x,
               struct qcow2_error *err)
{
    uint64_t per_slice = refcount_slice_entries(img);
    uint64_t slice = x->first / per_slice;

    if (x->table_clusters) {
        x->table = calloc(x->table_clusters, img->cluster_size);
        if (!x->table)
            return error_nomem(err);
    }
    x->slices = calloc((extension_end(x) - 1) / per_slice - slice + 1,
                       sizeof *x->slices);
    if (!x->slices)
        return error_nomem(err);
    /* The flush writes the table, for which there must be space by then. */
    if (io_zero(img->io, table_place(img, x),
                (uint64_t)x->table_clusters << img->cluster_bits, 0, err)
        == -1)
        return -1;
    for (uint32_t i = 0; i < x->nr_refblocks; i++)
        if (table_zero(img, refblock_place(img, x, i), err) == -1)
            return -1;
    for (; slice * per_slice < extension_end(x); slice++) {
        uint64_t in_all = slice * per_slice
                          - (x->index << img->geo.refblock_bits);
        uint32_t i = in_all >> img->geo.refblock_bits;
        uint64_t in_block = in_all
                            & ((UINT64_C(1) << img->geo.refblock_bits) - 1);
        struct block *b = cache_get(
            img->meta, img,
            refblock_place(img, x, i) + in_block / per_slice
                * img->slice_size,
            img->slice_size, load_zeroes, NULL, err);

        if (!b)
            return -1;
        x->slices[x->nr_slices++] = b;
    }
    return cluster_set_add(&img->overlap, x->first,
                           extension_end(x) - x->first, err);
}

static void
mark_dirty(struct alloc *a, uint32_t first, uint32_t nr)
{
    if (a->first_dirty == a->last_dirty)
        a->first_dirty = a->last_dirty = first;
    a->first_dirty = min_u64(a->first_dirty, first);
    a->last_dirty = max_u64(a->last_dirty, first + nr);
}

/* Gives up a place that the table was to move to, but has outgrown; or none,
 * where host_off is 0. */
static void
drop_table(struct image *img, uint64_t host_off, uint32_t nr_clusters)
{
    if (host_off == 0)
        return;
    cluster_set_remove(&img->overlap, host_off >> img->cluster_bits,
                       nr_clusters);
    alloc_free(img, host_off, nr_clusters);
}

/* Makes the extension part of the refcounts in memory; cannot fail. */
static void
publish_extension(struct image *img, struct extension *x)
{
    struct alloc *a = &img->alloc;
    uint64_t per_slice = refcount_slice_entries(img);
    uint64_t superseded = 0;
    uint32_t superseded_clusters = 0;

    pthread_mutex_lock(&a->lock);
    if (x->table) {
        memcpy(x->table, a->reftable, a->reftable_entries * 8);
        free(a->reftable);
        a->reftable = x->table;
        x->table = NULL;
        a->reftable_entries = ((uint64_t)x->table_clusters
                               << img->cluster_bits) / 8;
        superseded = a->moved_offset;
        superseded_clusters = a->moved_clusters;
        a->moved_offset = table_place(img, x);
        a->moved_clusters = x->table_clusters;
    }
    mark_dirty(a, x->index, x->nr_refblocks);
    for (uint32_t i = 0; i < x->nr_refblocks; i++)
        a->reftable[x->index + i] = refblock_place(img, x, i);
    for (uint64_t c = x->first; c < extension_end(x); c++) {
        struct block *b = x->slices[c / per_slice - x->first / per_slice];

        refcount_set(b->data, img->hdr.refcount_order, c % per_slice, 1);
        dirty_add(&a->refcounts, b);
    }
    alloc_mark_used(img, extension_end(x));
    pthread_mutex_unlock(&a->lock);

    drop_table(img, superseded, superseded_clusters);
}

int
reftable_add_refblock(struct image *img, uint64_t host_cluster,
                      uint64_t payload_clusters, struct qcow2_error *err)
{
    struct alloc *a = &img->alloc;
    struct extension x = {
        .first = host_cluster,
        .payload_clusters = payload_clusters,
        .index = host_cluster >> img->geo.refblock_bits,
    };
    bool exists;
    int r;
    /* Clusters without a refblock are handed out by nobody else while we
     * hold this: all that follows happens to clusters that are ours. */
    LOCK_SCOPE(&a->grow);

    pthread_mutex_lock(&a->lock);
    exists = x.index < a->reftable_entries && a->reftable[x.index] != 0;
    pthread_mutex_unlock(&a->lock);
    if (exists)
        return 0;

    if (plan_extension(img, &x, err) == -1)
        return -1;
    r = make_extension(img, &x, err);
    if (r == 0)
        publish_extension(img, &x);
    for (uint64_t i = 0; i < x.nr_slices; i++)
        cache_put(x.slices[i]);
    free(x.slices);
    free(x.table);
    return r;
}

bool
reftable_is_dirty(struct image *img)
{
    struct alloc *a = &img->alloc;
    LOCK_SCOPE(&a->lock);

    return a->moved_offset != 0 || a->first_dirty != a->last_dirty;
}

int
reftable_take(struct image *img, struct dirty_batch *refcounts,
              struct reftable_change *change, struct qcow2_error *err)
{
    struct alloc *a = &img->alloc;
    LOCK_SCOPE(&a->lock);

    memset(change, 0, sizeof *change);
    memset(refcounts, 0, sizeof *refcounts);
    change->moved_offset = a->moved_offset;
    change->moved_clusters = a->moved_clusters;
    change->first = a->moved_offset ? 0 : a->first_dirty;
    change->nr = a->moved_offset ? a->reftable_entries
                                 : a->last_dirty - a->first_dirty;
    if (change->nr) {
        change->entries = malloc(change->nr * sizeof *change->entries);
        if (!change->entries) {
            reftable_change_free(change);
            return error_nomem(err);
        }
        for (uint32_t i = 0; i < change->nr; i++)
            change->entries[i] = be64_make(a->reftable[change->first + i]);
    }
    if (dirty_take(&a->refcounts, refcounts, err) == -1) {
        reftable_change_free(change);
        return -1;
    }
    a->first_dirty = a->last_dirty = 0;
    a->moved_offset = 0;
    return 0;
}

void
reftable_give_back(struct image *img, struct dirty_batch *refcounts,
                   struct reftable_change *change)
{
    struct alloc *a = &img->alloc;
    uint64_t superseded = 0;

    pthread_mutex_lock(&a->lock);
    dirty_give_back(&a->refcounts, refcounts);
    if (change->moved_offset && a->moved_offset) {
        superseded = change->moved_offset; /* it has moved on meanwhile */
    } else if (change->moved_offset) {
        a->moved_offset = change->moved_offset;
        a->moved_clusters = change->moved_clusters;
    } else if (change->nr) {
        mark_dirty(a, change->first, change->nr);
    }
    pthread_mutex_unlock(&a->lock);
    drop_table(img, superseded, change->moved_clusters);
    reftable_change_free(change);
}

void
reftable_change_free(struct reftable_change *change)
{
    free(change->entries);
    memset(change, 0, sizeof *change);
}
