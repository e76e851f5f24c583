/* SPDX-License-Identifier: BSD-3-Clause */
/* tree.c: walks everything an L1 table reaches; see tree.h. */
#include "tree.h"

#include <errno.h>
#include <inttypes.h>

#include "alloc.h"
#include "checked.h"
#include "counts.h"
#include "entry.h"
#include "error.h"
#include "map.h"
#include "refcount.h"
#include "request.h"

uint32_t
tree_l1_entries(const struct image *img, uint64_t nr_bytes)
{
    return div_round_up(nr_bytes,
                        UINT64_C(1) << (img->l2_bits + img->cluster_bits));
}

int
tree_check_alone(struct image *img, const uint64_t *l1, uint32_t nr,
                 struct qcow2_error *err)
{
    struct overlap seen;
    int r = overlap_init(&seen, err);

    for (uint32_t i = 0; r == 0 && i < nr; i++) {
        struct l1_entry e = entry_decode_l1(l1[i], img->cluster_bits);
        uint64_t cluster = e.host_off >> img->cluster_bits;

        if (e.host_off == 0)
            continue;
        if (overlap_hit(&seen, cluster, 1))
            r = error_set(err, EIO, "%s: two entries of one L1 table have "
                          "the L2 table at 0x%" PRIx64 ": the disk can only "
                          "be copied to a new image, by qemu-img convert",
                          img->name, e.host_off);
        else
            r = overlap_add(&seen, cluster, 1, err);
    }
    overlap_destroy(&seen);
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

/* An entry, and n - 1 more that continue it (not of compressed data). */
static int
walk_entries(struct run *r, uint64_t entry, uint64_t n,
             struct qcow2_error *err)
{
    struct image *img = r->img;
    struct l2_entry e = entry_decode_l2(entry, img->cluster_bits,
                                        img->hdr.version);
    uint64_t first, end;

    if (e.flaws & ~ENTRY_COPIED_COMPRESSED)
        return image_damaged(img, err, "an L2 entry is invalid (0x%llx)",
                             (unsigned long long)entry);
    if (e.host_off == 0)
        return 0;
    first = round_down(e.host_off, img->cluster_size);
    end = e.kind == MAP_COMPRESSED
              ? round_up(e.host_off + e.compressed_len, img->cluster_size)
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

    if (e.flaws)
        return image_damaged(img, err, "L1 entry %u is invalid", i);
    *table_off = e.host_off;
    return 0;
}

static uint32_t
slices_per_table(const struct image *img)
{
    return UINT32_C(1) << (img->l2_bits - img->slice_bits);
}

static uint32_t
entries_per_slice(const struct image *img)
{
    return UINT32_C(1) << img->slice_bits;
}

/* How many entries from i on, with a place each, are in a row on the host? */
static uint32_t
row_length(const struct image *img, const be64 *entries, uint32_t i)
{
    uint64_t entry = be64_get(entries[i]);
    uint32_t n = 1;

    if ((entry & L2_COMPRESSED) || !(entry & L2_OFFSET_MASK))
        return 1;
    while (i + n < entries_per_slice(img)
           && be64_get(entries[i + n])
                  == entry + n * (uint64_t)img->cluster_size)
        n++;
    return n;
}

static int
walk_table(struct run *r, uint64_t table_off, struct qcow2_error *err)
{
    struct image *img = r->img;
    int ret = run_add(r, table_off, 1, err);

    for (uint32_t s = 0; ret == 0 && s < slices_per_table(img); s++) {
        struct block *b = map_slice_at(img, table_off, s, err);
        const be64 *entries;

        if (!b)
            return -1;
        entries = (const be64 *)b->data;
        for (uint32_t i = 0, n; ret == 0 && i < entries_per_slice(img);
             i += n) {
            n = row_length(img, entries, i);
            ret = walk_entries(r, be64_get(entries[i]), n, err);
        }
        cache_put(b);
    }
    return ret;
}

static int
walk(struct image *img, const uint64_t *l1, uint32_t nr, run_fn *fn,
     void *opaque, struct qcow2_error *err)
{
    struct run r = { .img = img, .fn = fn, .opaque = opaque };

    for (uint32_t i = 0; i < nr; i++) {
        uint64_t table_off;

        if (get_table(img, l1, i, &table_off, err) == -1
            || (table_off && walk_table(&r, table_off, err) == -1)
            || flush_make_room(img, err) == -1)
            return -1;
    }
    return run_end(&r, err);
}

static int
raise_run(struct image *img, uint64_t host_off, uint64_t nr_clusters,
          void *opaque, struct qcow2_error *err)
{
    (void)opaque;
    return alloc_raise(img, host_off, nr_clusters, err);
}

int
tree_raise(struct image *img, const uint64_t *l1, uint32_t nr,
           struct qcow2_error *err)
{
    return walk(img, l1, nr, raise_run, NULL, err);
}

static int
count_run(struct image *img, uint64_t host_off, uint64_t nr_clusters,
          void *opaque, struct qcow2_error *err)
{
    return alloc_can_raise(img, host_off, nr_clusters, opaque, err);
}

int
tree_can_raise(struct image *img, const uint64_t *l1, uint32_t nr,
               struct qcow2_error *err)
{
    struct counts more = { .nr_slots = 0 };
    int r = walk(img, l1, nr, count_run, &more, err);

    counts_free(&more);
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
tree_free(struct image *img, const uint64_t *l1, uint32_t nr,
          struct qcow2_error *err)
{
    return walk(img, l1, nr, free_run, NULL, err);
}

/* The refblock slice looked at last: neighbours are mostly in it too. */
struct refcounts {
    struct image *img;
    struct block *block;
    uint64_t base; /* first host cluster in it */
};

static int
is_refcount_1(struct refcounts *rc, uint64_t host_off, bool *is_1,
              struct qcow2_error *err)
{
    struct image *img = rc->img;
    uint64_t cluster = host_off >> img->cluster_bits;
    uint64_t per_slice = refcount_slice_entries(img);

    if (!rc->block || cluster - rc->base >= per_slice) {
        cache_put(rc->block);
        rc->base = cluster - cluster % per_slice;
        if (refcount_load(img, cluster, &rc->block, err) == -1)
            return -1;
    }
    *is_1 = rc->block
            && refcount_get(rc->block->data, img->hdr.refcount_order,
                            cluster - rc->base) == 1;
    return 0;
}

/* Sets the flags in one slice, or (rc NULL) clears them. */
static int
update_slice(struct image *img, struct block *b, struct refcounts *rc,
             struct qcow2_error *err)
{
    uint64_t entries[MAX_SLICE_ENTRIES];
    bool changed = false;

    for (uint32_t i = 0; i < entries_per_slice(img); i++) {
        struct l2_entry e;
        bool copied = false;

        entries[i] = be64_get(((const be64 *)b->data)[i]);
        if (entries[i] == 0)
            continue;
        e = entry_decode_l2(entries[i], img->cluster_bits,
                            img->hdr.version);
        if (e.kind == MAP_COMPRESSED || e.host_off == 0)
            continue;
        if (rc && is_refcount_1(rc, e.host_off, &copied, err) == -1)
            return -1;
        changed |= copied != e.copied;
        entries[i] = entry_with_copied(entries[i], copied);
    }
    if (changed)
        map_store_slice(img, b, entries);
    return 0;
}

static int
update_table(struct image *img, uint64_t table_off, struct refcounts *rc,
             struct qcow2_error *err)
{
    int r = 0;

    for (uint32_t s = 0; r == 0 && s < slices_per_table(img); s++) {
        struct block *b = map_slice_at(img, table_off, s, err);

        if (!b)
            return -1;
        r = update_slice(img, b, rc, err);
        cache_put(b);
    }
    return r;
}

int
tree_clear_copied(struct image *img, uint64_t *l1, uint32_t nr,
                  struct qcow2_error *err)
{
    for (uint32_t i = 0; i < nr; i++) {
        uint64_t table_off;

        if (get_table(img, l1, i, &table_off, err) == -1
            || (table_off && update_table(img, table_off, NULL, err) == -1)
            || flush_make_room(img, err) == -1)
            return -1;
        l1[i] = entry_with_copied(l1[i], false);
    }
    return 0;
}

int
tree_set_copied(struct image *img, struct qcow2_error *err)
{
    struct view *v = &img->active;
    struct refcounts rc = { .img = img };
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < v->l1_entries; i++) {
        uint64_t table_off;
        bool copied;

        r = get_table(img, v->l1, i, &table_off, err);
        if (r == -1 || table_off == 0)
            continue;
        r = is_refcount_1(&rc, table_off, &copied, err);
        if (r == 0)
            map_set_l1(v, i, entry_with_copied(v->l1[i], copied));
        /* A shared table has no flags to set, and is not ours to change. */
        if (r == 0 && copied)
            r = update_table(img, table_off, &rc, err);
        if (r == 0)
            r = flush_make_room(img, err);
    }
    cache_put(rc.block);
    return r;
}
