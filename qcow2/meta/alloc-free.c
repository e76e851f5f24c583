/* SPDX-License-Identifier: BSD-3-Clause */
/* alloc-free.c: takes clusters back, which rest in quarantine first (I3); see
 * alloc-free.h.
 */
#include "meta/alloc-free.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "meta/refcount.h"

/* Slices whose clusters are punched at once, if they are in a row. */
enum { PUNCH_SLICES = 16 };

static void
append_run(struct freed_list *l, uint64_t cluster, uint64_t nr)
{
    if (l->nr > 0
        && l->runs[l->nr - 1].cluster + l->runs[l->nr - 1].nr == cluster) {
        l->runs[l->nr - 1].nr += nr;
        l->nr_clusters += nr;
        return;
    }
    if (l->nr == l->capacity) {
        size_t capacity = l->capacity ? 2 * l->capacity : 64;
        struct freed_run *runs = realloc(l->runs, capacity * sizeof *runs);

        if (!runs)
            return;
        l->runs = runs;
        l->capacity = capacity;
    }
    l->runs[l->nr++] = (struct freed_run){ cluster, nr };
    l->nr_clusters += nr;
}

void
alloc_free(struct image *img, uint64_t host_off, uint64_t nr_clusters)
{
    LOCK_SCOPE(&img->alloc.frees_lock);

    append_run(&img->alloc.frees, host_off >> img->cluster_bits,
               nr_clusters);
}

void
alloc_free_table(struct image *img, uint64_t host_off)
{
    LOCK_SCOPE(&img->alloc.frees_lock);

    append_run(&img->alloc.table_frees, host_off >> img->cluster_bits, 1);
}

void
alloc_release_tables(struct image *img)
{
    struct freed_list *l = &img->alloc.table_frees;
    LOCK_SCOPE(&img->alloc.frees_lock);

    for (size_t i = 0; i < l->nr; i++)
        append_run(&img->alloc.frees, l->runs[i].cluster, l->runs[i].nr);
    l->nr = 0;
    l->nr_clusters = 0;
}

size_t
alloc_nr_frees(struct image *img)
{
    LOCK_SCOPE(&img->alloc.frees_lock);

    return img->alloc.frees.nr;
}

bool
alloc_has_many_frees(struct image *img)
{
    uint64_t bytes, end;

    pthread_mutex_lock(&img->alloc.frees_lock);
    bytes = img->alloc.frees.nr < MAX_QUARANTINE_RUNS
            ? img->alloc.frees.nr_clusters << img->cluster_bits
            : MAX_QUARANTINE_BYTES;
    pthread_mutex_unlock(&img->alloc.frees_lock);
    if (bytes < MIN_QUARANTINE_BYTES || bytes >= MAX_QUARANTINE_BYTES)
        return bytes >= MAX_QUARANTINE_BYTES;
    pthread_mutex_lock(&img->alloc.lock);
    end = img->alloc.end << img->cluster_bits;
    pthread_mutex_unlock(&img->alloc.lock);
    return bytes >= end / QUARANTINE_PART;
}

void
alloc_take_frees(struct image *img, struct freed_list *list)
{
    LOCK_SCOPE(&img->alloc.frees_lock);

    *list = img->alloc.frees;
    memset(&img->alloc.frees, 0, sizeof img->alloc.frees);
}

void
alloc_give_back_frees(struct image *img, struct freed_list *list)
{
    LOCK_SCOPE(&img->alloc.frees_lock);

    for (size_t i = 0; i < list->nr; i++)
        append_run(&img->alloc.frees, list->runs[i].cluster,
                   list->runs[i].nr);
    free(list->runs);
    memset(list, 0, sizeof *list);
}

/* The cluster loses its last reference: nothing more is packed into it. */
static void
end_packing(struct image *img, uint64_t cluster)
{
    if (img->alloc.packed_end >> img->cluster_bits == cluster)
        img->alloc.packed_end = 0;
}

/* Clusters to punch, in a row. */
struct hole {
    uint64_t cluster, nr;
};

/* Punching is a service to the file system: if it cannot be done the clusters
 * are as free as before. */
static void
punch(struct image *img, struct hole *h)
{
    if (h->nr > 0)
        io_punch(img->io, h->cluster << img->cluster_bits,
                 h->nr << img->cluster_bits, NULL);
    h->nr = 0;
}

/* Adds those of [cluster, cluster + nr), which lie in b, that lose their last
 * reference to the hole, or punches that and begins another. Nobody else
 * changes these refcounts: raising one takes image.rwlock exclusively, but
 * for packing, which is ended; and one flush runs at a time. */
static void
collect_last(struct image *img, struct block *b, uint64_t cluster,
             uint64_t nr, struct hole *h)
{
    unsigned order = img->hdr.refcount_order;
    uint64_t idx = cluster % refcount_slice_entries(img), i = 0, least, most;

    refcount_bounds(b->data, order, idx, nr, &least, &most);
    while (least <= 1 && i < nr) {
        uint64_t first = i;

        pthread_mutex_lock(&img->alloc.lock);
        while (i < nr && refcount_get(b->data, order, idx + i) == 1)
            end_packing(img, cluster + i++);
        pthread_mutex_unlock(&img->alloc.lock);
        if (i == first) {
            i++;
            continue;
        }
        if (h->cluster + h->nr != cluster + first) {
            punch(img, h);
            h->cluster = cluster + first;
        }
        h->nr += i - first;
    }
}

/* The cluster lost its last reference. If it was an L2 table it is none any
 * more: whoever is given it must not take it for damage. */
static void
become_free(struct image *img, uint64_t cluster, bool was_table)
{
    end_packing(img, cluster);
    if (was_table)
        cluster_set_remove(&img->overlap, cluster, 1);
    img->alloc.cursor = min_u64(img->alloc.cursor, cluster);
}

/* Lowers the refcounts of [cluster, cluster + nr), which lie in b. */
static int
lower_run(struct image *img, struct block *b, uint64_t cluster, uint64_t nr,
          struct qcow2_error *err)
{
    struct alloc *a = &img->alloc;
    unsigned order = img->hdr.refcount_order;
    uint64_t idx = cluster % refcount_slice_entries(img), least, most;
    bool tables = cluster_set_has(&img->overlap, cluster, nr);
    LOCK_SCOPE(&a->lock);

    refcount_bounds(b->data, order, idx, nr, &least, &most);
    if (least == 0)
        return image_damaged(img, err, "the refcount of a cluster in use "
                             "near 0x%llx is 0",
                             (unsigned long long)cluster
                                 << img->cluster_bits);
    refcount_add(b->data, order, idx, nr, -1);
    for (uint64_t i = 0; least == 1 && i < nr; i++)
        if (refcount_get(b->data, order, idx + i) == 0)
            become_free(img, cluster + i, tables);
    dirty_add(&a->refcounts, b);
    return 0;
}

static int
compare_runs(const void *a, const void *b)
{
    const struct freed_run *x = a, *y = b;

    return x->cluster < y->cluster ? -1 : x->cluster > y->cluster;
}

/* Requests that ran side by side freed their parts in turns. A cluster may
 * well be in the list twice. */
static void
join_runs(struct freed_list *l)
{
    size_t n = 0;

    if (l->nr > 1)
        qsort(l->runs, l->nr, sizeof *l->runs, compare_runs);
    for (size_t i = 1; i < l->nr; i++) {
        if (l->runs[n].cluster + l->runs[n].nr == l->runs[i].cluster)
            l->runs[n].nr += l->runs[i].nr;
        else
            l->runs[++n] = l->runs[i];
    }
    l->nr = l->nr ? n + 1 : 0;
}

/* Punches or lowers [cluster, cluster + nr). */
static int
apply_run(struct image *img, uint64_t cluster, uint64_t nr, bool lower,
          struct qcow2_error *err)
{
    uint64_t per_slice = refcount_slice_entries(img), part;
    struct hole h = { 0, 0 };
    int r = 0;

    for (; r == 0 && nr > 0; cluster += part, nr -= part) {
        struct block *b;

        part = min_u64(nr, per_slice - cluster % per_slice);
        r = refcount_load(img, cluster, &b, err);
        if (r == -1)
            break;
        if (!b)
            r = image_damaged(img, err, "a cluster in use at 0x%llx has no "
                              "refcount",
                              (unsigned long long)cluster
                                  << img->cluster_bits);
        else if (lower)
            r = lower_run(img, b, cluster, part, err);
        else
            collect_last(img, b, cluster, part, &h);
        cache_put(b);
    }
    punch(img, &h);
    return r;
}

int
alloc_apply_frees(struct image *img, struct freed_list *list,
                  struct qcow2_error *err)
{
    /* What is punched at once; all of it before its refcounts are lowered,
     * as then others may have it (I3). */
    uint64_t window = PUNCH_SLICES * refcount_slice_entries(img), part;
    int r = 0;

    join_runs(list);
    for (size_t i = 0; i < list->nr; i++) {
        uint64_t cluster = list->runs[i].cluster, nr = list->runs[i].nr;

        IMAGE_DEBUG(img, QCOW2_DEBUG_ALLOC, "free %llu clusters at 0x%llx",
                    (unsigned long long)nr,
                    (unsigned long long)cluster << img->cluster_bits);
        for (; r == 0 && nr > 0; cluster += part, nr -= part) {
            part = min_u64(nr, window - cluster % window);
            if (!img->no_discard)
                r = apply_run(img, cluster, part, false, err);
            if (r == 0)
                r = apply_run(img, cluster, part, true, err);
        }
    }
    free(list->runs);
    memset(list, 0, sizeof *list);
    return r;
}
