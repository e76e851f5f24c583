/* SPDX-License-Identifier: BSD-3-Clause */
/* alloc.c: finds free host clusters, and raises refcounts; see alloc.h. */
#include "meta/alloc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "meta/refcount.h"
#include "meta/reftable.h"

enum {
    /* Slices that one allocation looks through for a free cluster before it
     * takes one from the end of the file: bounds its time. */
    SEARCH_SLICES = 4,
    /* Slices with clusters in use past what we take for the end. There are
     * none in a sane image. */
    APPEND_SLICES = 4096,
};

void
alloc_prepare(struct image *img)
{
    struct alloc *a = &img->alloc;

    pthread_mutex_init(&a->packing, NULL);
    pthread_mutex_init(&a->grow, NULL);
    pthread_mutex_init(&a->lock, NULL);
    pthread_mutex_init(&a->frees_lock, NULL);
    dirty_init(&a->refcounts);
}

void
alloc_destroy(struct image *img)
{
    struct alloc *a = &img->alloc;

    dirty_destroy(&a->refcounts);
    pthread_mutex_destroy(&a->frees_lock);
    pthread_mutex_destroy(&a->lock);
    pthread_mutex_destroy(&a->grow);
    pthread_mutex_destroy(&a->packing);
    free(a->frees.runs);
    free(a->table_frees.runs);
    free(a->reftable);
}

/* One past the last cluster with a refcount: of a block device the size
 * does not tell what is in use. A table may claim to count more clusters than
 * the device has; they would take for ever. */
static int
find_last_used(struct image *img, uint64_t *end, struct qcow2_error *err)
{
    uint64_t per_slice = refcount_slice_entries(img);
    uint64_t nr = min_u64((uint64_t)img->alloc.reftable_entries
                              << img->geo.refblock_bits, img->alloc.limit);
    uint64_t slice = div_round_up(nr, per_slice);

    while (slice-- > 0) {
        struct block *b;
        uint64_t i;
        uint64_t refblock = slice * per_slice >> img->geo.refblock_bits;

        if (img->alloc.reftable[refblock] == 0) {
            slice = (refblock << img->geo.refblock_bits) / per_slice;
            continue;
        }
        if (refcount_load(img, slice * per_slice, &b, err) == -1)
            return -1;
        for (i = min_u64(per_slice, nr - slice * per_slice); i > 0; i--)
            if (refcount_get(b->data, img->hdr.refcount_order, i - 1) != 0)
                break;
        cache_put(b);
        if (i > 0) {
            *end = slice * per_slice + i;
            return 0;
        }
    }
    *end = 1;
    return 0;
}

int
alloc_init(struct image *img, struct qcow2_error *err)
{
    struct alloc *a = &img->alloc;
    uint64_t size;

    if (img->readonly)
        return 0; /* refcounts are the writer's business */
    if (reftable_load(img, err) == -1)
        return -1;
    if (io_get_size(img->io, &size, err) == -1)
        return error_prefix(err, "%s", img->name);

    a->cursor = 0;
    a->packed_end = 0;
    a->end = div_round_up(size, img->cluster_size);
    a->limit = MAX_HOST_OFFSET >> img->cluster_bits;
    a->fresh_from = img->io->reads_zero_past_end ? a->end : UINT64_MAX;
    if (!img->io->can_grow) {
        a->limit = size >> img->cluster_bits;
        if (find_last_used(img, &a->end, err) == -1)
            return -1;
    }
    return 0;
}

/* What one look at refcounts, under the lock, came to. */
enum step {
    STEP_FOUND,
    STEP_NEXT,     /* all in use up to search.pos */
    STEP_LOAD,     /* the slice of search.pos must be loaded */
    STEP_REFBLOCK, /* search.pos has no refblock */
    STEP_WAIT,     /* for alloc.grow: the file's end is fixed */
    STEP_FAILED,
};

struct search {
    uint64_t pos;   /* host cluster */
    uint64_t want;
    unsigned nr_slices;
};

/* Makes clusters [first, first + nr), found free in b, ours. */
static enum step
take_run(struct image *img, struct block *b, uint64_t first, uint64_t nr,
         struct alloc_run *run, struct qcow2_error *err)
{
    struct alloc *a = &img->alloc;
    uint64_t per_slice = refcount_slice_entries(img);

    if (cluster_set_has(&img->overlap, first, nr)) {
        image_damaged(img, err, "metadata near host offset 0x%llx has a "
                      "refcount of 0",
                      (unsigned long long)first << img->cluster_bits);
        return STEP_FAILED;
    }
    for (uint64_t i = 0; i < nr; i++)
        refcount_set(b->data, img->hdr.refcount_order,
                     (first + i) % per_slice, 1);
    dirty_add(&a->refcounts, b);

    run->host_off = first << img->cluster_bits;
    run->nr_clusters = nr;
    run->reads_zero = first >= a->fresh_from;
    alloc_mark_used(img, first + nr);
    IMAGE_DEBUG(img, QCOW2_DEBUG_ALLOC, "allocate %llu clusters at 0x%llx",
                (unsigned long long)nr, (unsigned long long)run->host_off);
    return STEP_FOUND;
}

/* Looks for a free run in the slice of s->pos, below limit. */
static enum step
search_slice(struct image *img, struct search *s, uint64_t limit,
             struct alloc_run *run, struct qcow2_error *err)
{
    unsigned order = img->hdr.refcount_order;
    uint64_t per_slice = refcount_slice_entries(img);
    uint64_t base = s->pos - s->pos % per_slice;
    uint64_t to = min_u64(limit - base, per_slice), from, next;
    struct block *b;
    bool missing;
    enum step step = STEP_NEXT;

    if (refcount_peek(img, s->pos, &b, &missing, err) == -1)
        return STEP_FAILED;
    if (!b)
        return missing ? STEP_LOAD : STEP_REFBLOCK;

    from = refcount_find_zero(b->data, order, s->pos - base, to);
    if (from < to) {
        next = from + 1;
        while (next < to && next - from < s->want
               && refcount_get(b->data, order, next) == 0)
            next++;
        step = take_run(img, b, base + from, next - from, run, err);
        to = next;
    }
    s->pos = base + to;
    cache_put(b);
    return step;
}

/* One try under the lock. */
static enum step
try_alloc(struct image *img, struct search *s, struct alloc_run *run,
          struct qcow2_error *err)
{
    struct alloc *a = &img->alloc;
    enum step step;
    LOCK_SCOPE(&a->lock);

    while (a->cursor < a->end && s->nr_slices < SEARCH_SLICES) {
        s->pos = a->cursor;
        step = search_slice(img, s, a->end, run, err);
        if (step != STEP_FOUND && step != STEP_NEXT)
            return step;
        a->cursor = s->pos;
        if (step == STEP_FOUND)
            return step;
        s->nr_slices++;
    }
    if (a->end_is_fixed)
        return STEP_WAIT;
    while (a->end < a->limit && s->nr_slices < APPEND_SLICES) {
        bool caught_up = a->cursor >= a->end;

        s->pos = a->end;
        step = search_slice(img, s, a->limit, run, err);
        if (step != STEP_FOUND && step != STEP_NEXT)
            return step;
        a->end = s->pos;
        if (caught_up)
            a->cursor = a->end;
        if (step == STEP_FOUND)
            return step;
        s->nr_slices++;
    }
    /* Free clusters further on, that SEARCH_SLICES kept us from? */
    if (a->end >= a->limit && a->cursor < a->end) {
        s->nr_slices = 0;
        return STEP_NEXT;
    }
    error_set(err, ENOSPC, "%s: no free cluster is left in the file",
              img->name);
    return STEP_FAILED;
}

/* While clusters are cut off the file, or its last one is filled. */
static void
wait_for_end(struct image *img)
{
    LOCK_SCOPE(&img->alloc.grow);
}

int
alloc_clusters(struct image *img, uint64_t want, struct alloc_run *run,
               struct qcow2_error *err)
{
    struct search s = { .want = want };
    struct block *loaded = NULL; /* kept from being evicted until used */
    enum step step;

    for (;;) {
        int r = 0;

        step = try_alloc(img, &s, run, err);
        if (step == STEP_FOUND || step == STEP_FAILED)
            break;
        cache_put(loaded);
        loaded = NULL;
        if (step == STEP_LOAD)
            r = refcount_load(img, s.pos, &loaded, err);
        else if (step == STEP_REFBLOCK)
            r = reftable_add_refblock(img, s.pos, 0, err);
        else if (step == STEP_WAIT)
            wait_for_end(img);
        if (r == -1) {
            step = STEP_FAILED;
            break;
        }
    }
    cache_put(loaded);
    return step == STEP_FOUND ? 0 : -1;
}

/* One past the last cluster that has a refblock. */
static uint64_t
counted_end(const struct image *img)
{
    const struct alloc *a = &img->alloc;
    uint64_t nr = a->reftable_entries;

    while (nr > 0 && a->reftable[nr - 1] == 0)
        nr--;
    return nr << img->geo.refblock_bits;
}

/* The first nr free clusters in a row before end; *found tells if there are
 * so many. */
static int
find_free(struct image *img, uint64_t nr, uint64_t end, uint64_t *first,
          bool *found, struct qcow2_error *err)
{
    uint64_t per_slice = refcount_slice_entries(img);
    uint64_t pos = img->alloc.cursor, run = 0;

    while (pos < end && run < nr) {
        uint64_t base = pos - pos % per_slice;
        uint64_t to = min_u64(end, base + per_slice);
        struct block *b;

        if (refcount_load(img, pos, &b, err) == -1)
            return -1;
        if (!b) {
            run = 0;
            pos = to;
            continue;
        }
        while (pos < to && run < nr) {
            uint64_t zero = base + refcount_find_zero(
                b->data, img->hdr.refcount_order, pos - base, to - base);

            run = zero == pos ? run + 1 : zero < to;
            pos = min_u64(zero + 1, to);
        }
        cache_put(b);
    }
    *found = run == nr;
    *first = pos - run;
    return 0;
}

/* Changes the refcounts of clusters that have refblocks, all by 1. */
static int
raise_run(struct image *img, uint64_t cluster, uint64_t nr, bool from_zero,
          struct qcow2_error *err)
{
    struct alloc *a = &img->alloc;
    unsigned order = img->hdr.refcount_order;
    uint64_t per_slice = refcount_slice_entries(img);

    while (nr > 0) {
        uint64_t idx = cluster % per_slice;
        uint64_t part = min_u64(nr, per_slice - idx), least, most;
        bool fits = false;
        struct block *b;

        if (refcount_load(img, cluster, &b, err) == -1)
            return -1;
        if (b) {
            pthread_mutex_lock(&a->lock);
            refcount_bounds(b->data, order, idx, part, &least, &most);
            fits = (from_zero ? most == 0 : least > 0)
                   && most < refcount_max(order);
            if (fits) {
                refcount_add(b->data, order, idx, part, 1);
                dirty_add(&a->refcounts, b);
            }
            pthread_mutex_unlock(&a->lock);
            cache_put(b);
        }
        if (!fits)
            return image_damaged(img, err, "the refcount of a cluster near "
                                 "0x%llx does not fit its use",
                                 (unsigned long long)cluster
                                     << img->cluster_bits);
        cluster += part;
        nr -= part;
    }
    return 0;
}

/* References that a tree makes are among those counted already, so at most
 * as many come: only past half of what fits must they be counted. */
static int
count_one_more(struct image *img, uint64_t cluster, uint64_t refcount,
               struct counters *more, struct qcow2_error *err)
{
    unsigned order = img->hdr.refcount_order;
    uint64_t most = refcount_max(order);

    if (refcount == 0)
        return image_damaged(img, err, "the refcount of a cluster in use at "
                             "0x%llx is 0",
                             (unsigned long long)cluster
                                 << img->cluster_bits);
    if (refcount <= most / 2)
        return 0;
    if (counters_add(more, cluster, 1, err) == -1)
        return -1;
    if (counters_get(more, cluster) <= most - refcount)
        return 0;
    return error_set(err, ENOTSUP, "%s: refcounts of %u bits cannot count one "
                     "more reference to every cluster; delete snapshots, or "
                     "use wider refcounts", img->name, 1u << order);
}

/* The same for clusters [cluster, end), which are all in b or have no
 * refblock. */
static int
count_run(struct image *img, const struct block *b, uint64_t cluster,
          uint64_t end, struct counters *more, struct qcow2_error *err)
{
    unsigned order = img->hdr.refcount_order;
    uint64_t idx = cluster % refcount_slice_entries(img), least, most;
    int r = 0;

    if (b) {
        refcount_bounds(b->data, order, idx, end - cluster, &least, &most);
        if (least > 0 && most <= refcount_max(order) / 2)
            return 0;
    }
    for (uint64_t i = 0; r == 0 && cluster + i < end; i++)
        r = count_one_more(img, cluster + i,
                           b ? refcount_get(b->data, order, idx + i) : 0,
                           more, err);
    return r;
}

int
alloc_can_raise(struct image *img, uint64_t host_off, uint64_t nr_clusters,
                struct counters *more, struct qcow2_error *err)
{
    uint64_t per_slice = refcount_slice_entries(img);
    uint64_t cluster = host_off >> img->cluster_bits;
    uint64_t end = cluster + nr_clusters;

    while (cluster < end) {
        uint64_t next = min_u64(end, round_down(cluster, per_slice)
                                         + per_slice);
        struct block *b;
        int r = refcount_load(img, cluster, &b, err);

        if (r == 0)
            r = count_run(img, b, cluster, next, more, err);
        cache_put(b);
        if (r == -1)
            return -1;
        cluster = next;
    }
    return 0;
}

uint64_t
alloc_nr_refblocks(const struct image *img)
{
    uint64_t nr = 0;

    for (uint32_t i = 0; i < img->alloc.reftable_entries; i++)
        nr += img->alloc.reftable[i] != 0;
    return nr;
}

/* As in count_one_more: a tree makes at most as many references as there
 * are. */
int
alloc_can_raise_all(struct image *img, bool *can, struct qcow2_error *err)
{
    uint64_t half = refcount_max(img->hdr.refcount_order) / 2, most;

    *can = half > 0;
    for (uint32_t i = 0; *can && i < img->alloc.reftable_entries; i++) {
        if (refcount_block_most(img, i, &most, err) == -1)
            return -1;
        *can = most <= half;
    }
    return 0;
}

int
alloc_raise(struct image *img, uint64_t host_off, uint64_t nr_clusters,
            struct qcow2_error *err)
{
    return raise_run(img, host_off >> img->cluster_bits, nr_clusters, false,
                     err);
}

/* Makes free clusters a table's. */
static int
take_table(struct image *img, uint64_t first, uint64_t nr,
           struct qcow2_error *err)
{
    if (cluster_set_has(&img->overlap, first, nr))
        return image_damaged(img, err, "metadata near host offset 0x%llx has "
                             "a refcount of 0",
                             (unsigned long long)first << img->cluster_bits);
    if (cluster_set_add(&img->overlap, first, nr, err) == -1)
        return -1;
    if (raise_run(img, first, nr, true, err) == -1) {
        cluster_set_remove(&img->overlap, first, nr);
        return -1;
    }
    alloc_mark_used(img, first + nr);
    return 0;
}

int
alloc_table(struct image *img, uint64_t nr_bytes, uint64_t *host_off,
            struct qcow2_error *err)
{
    uint64_t nr = div_round_up(nr_bytes, img->cluster_size), first;
    uint64_t end = counted_end(img);
    bool found;

    *host_off = 0;
    if (nr == 0)
        return 0;
    if (find_free(img, nr, min_u64(end, img->alloc.limit), &first, &found,
                  err) == -1)
        return -1;
    if (!found)
        first = end;
    if ((found ? take_table(img, first, nr, err)
               : reftable_add_refblock(img, first, nr, err)) == -1)
        return -1;
    *host_off = first << img->cluster_bits;
    return 0;
}

void
alloc_free_metadata(struct image *img, uint64_t host_off, uint64_t nr_bytes)
{
    uint64_t nr = div_round_up(nr_bytes, img->cluster_size);

    if (nr == 0)
        return;
    cluster_set_remove(&img->overlap, host_off >> img->cluster_bits, nr);
    alloc_free(img, host_off, nr);
}
