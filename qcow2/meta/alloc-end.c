/* SPDX-License-Identifier: BSD-3-Clause */
/* alloc-end.c: keeps the file's end at a whole cluster, and gives back free
 * clusters there.
 *
 * ftruncate must not cut off what another thread has just been given. So
 * alloc.end stays where it is while end_is_fixed: clusters below it may be
 * allocated and written, and those who need more wait for alloc.grow, which
 * is held here throughout. Whoever makes a refblock holds it as well.
 */
#include "meta/alloc-end.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "format/refcount-array.h"
#include "meta/refcount.h"

enum {
    /* Slices of refcounts read in one go to find the end: bounds its time. */
    MAX_LOADS = 256,
    /* A flush cuts off no less than this part of the file. */
    CUT_PART = 16,
    /* What is written ahead at once: so many clusters, but at least and at
     * most so many bytes, and only if that is enough for some flushes. With
     * 64 KiB clusters less has the barriers cost more, and more keeps the one
     * that makes it durable waiting. */
    AHEAD_CLUSTERS = 16,
    MIN_AHEAD_BYTES = 1 << 20,
    MAX_AHEAD_BYTES = 2 << 20,
    FLUSHES_AHEAD = 4,
    /* Flushes in a row that need little before that is done. */
    SMALL_FLUSHES = 8,
};

static void
fix_end(struct image *img, bool fixed)
{
    LOCK_SCOPE(&img->alloc.lock);

    img->alloc.end_is_fixed = fixed;
}

static uint64_t
end_bytes(struct image *img)
{
    LOCK_SCOPE(&img->alloc.lock);

    return img->alloc.end << img->cluster_bits;
}

void
alloc_fill_last_cluster(struct image *img)
{
    uint64_t size, end;

    if (!img->io->can_grow || io_get_size(img->io, &size, NULL) == -1
        || size >= end_bytes(img))
        return;
    LOCK_SCOPE(&img->alloc.grow);
    fix_end(img, true);
    end = end_bytes(img);
    /* A service to other programs: a file may end anywhere in its last
     * cluster. */
    if (io_get_size(img->io, &size, NULL) == 0 && size < end)
        io_truncate(img->io, end, NULL);
    fix_end(img, false);
}

static uint64_t
bytes_ahead(const struct image *img)
{
    uint64_t nr_bytes = scale_up(AHEAD_CLUSTERS, img->cluster_bits);

    return min_u64(max_u64(nr_bytes, MIN_AHEAD_BYTES), MAX_AHEAD_BYTES);
}

/* Writes zeroes, where io_zero would merely allocate. Behind all that the file
 * has, so nobody's bytes are there. Where space is lacking for all of it none
 * is kept from others. */
static int
write_zeroes_at_end(struct image *img, uint64_t nr_bytes)
{
    CLEANUP_FREE void *zeroes = calloc(1, nr_bytes);
    uint64_t size;

    if (!zeroes || io_get_size(img->io, &size, NULL) == -1
        || size < end_bytes(img)
        || !range_inside(size, nr_bytes,
                         scale_up(img->alloc.limit, img->cluster_bits)))
        return -1;
    if (io_pwrite(img->io, zeroes, nr_bytes, size, NULL) == 0)
        return 0;
    io_truncate(img->io, size, NULL);
    image_file_was_cut(img, size);
    return -1;
}

void
alloc_write_ahead(struct image *img)
{
    struct alloc *a = &img->alloc;
    uint64_t end = end_bytes(img), grown = end - a->flushed_end, size;
    uint64_t nr_bytes = bytes_ahead(img);

    if (!img->io->can_grow || end <= a->flushed_end) {
        a->flushed_end = end;
        return;
    }
    a->flushed_end = end;
    if (grown > nr_bytes / FLUSHES_AHEAD)
        a->nr_small_flushes = 0;
    else if (a->nr_small_flushes < SMALL_FLUSHES)
        a->nr_small_flushes++;
    if (a->nr_small_flushes < SMALL_FLUSHES
        || io_get_size(img->io, &size, NULL) == -1 || size - end >= grown)
        return;
    LOCK_SCOPE(&a->grow);
    fix_end(img, true);
    if (write_zeroes_at_end(img, nr_bytes) == -1)
        a->nr_small_flushes = 0;
    fix_end(img, false);
}

enum look { LOOK_FREE, LOOK_USED, LOOK_LOAD, LOOK_FAILED };

/* With alloc.lock: where the last refblock ends that has clusters before this
 * one, which has none; at most there. The file may be as long as it likes. */
static uint64_t
counted_end(const struct image *img, uint64_t cluster)
{
    const struct alloc *a = &img->alloc;
    unsigned bits = img->geo.refblock_bits;
    uint64_t i = min_u64(cluster >> bits, a->reftable_entries);

    while (i > 0 && a->reftable[i - 1] == 0)
        i--;
    return min_u64(cluster, i << bits);
}

/* With alloc.lock: lowers alloc.end to behind the last cluster in use of the
 * slice that it ends in, or to where clusters are counted again. LOOK_FREE:
 * there is none. */
static enum look
lower_end(struct image *img)
{
    struct alloc *a = &img->alloc;
    uint64_t base = round_down(a->end - 1, refcount_slice_entries(img));
    uint64_t n = a->end - base;
    struct block *b;
    bool missing;

    if (refcount_peek(img, base, &b, &missing, NULL) == -1)
        return LOOK_FAILED;
    if (!b && missing)
        return LOOK_LOAD;
    while (b && n > 0
           && refcount_get(b->data, img->hdr.refcount_order, n - 1) == 0)
        n--;
    cache_put(b);
    if (!b) { /* no refblock: all are free */
        base = base > 0 ? counted_end(img, base) : 0;
        n = 0;
    }
    a->end = max_u64(base + n, 1); /* the header's cluster stays */
    a->cursor = min_u64(a->cursor, a->end);
    return a->end > base ? LOOK_USED : LOOK_FREE;
}

/* Lowers alloc.end to behind the last cluster in use, or as far as can be
 * seen with MAX_LOADS. */
static void
find_end(struct image *img)
{
    struct block *loaded = NULL; /* kept from being evicted until used */
    unsigned nr_loads = 0;
    enum look look;

    do {
        uint64_t last;

        pthread_mutex_lock(&img->alloc.lock);
        last = img->alloc.end - 1;
        look = lower_end(img);
        pthread_mutex_unlock(&img->alloc.lock);
        cache_put(loaded);
        loaded = NULL;
        if (look == LOOK_LOAD
            && (++nr_loads > MAX_LOADS
                || refcount_load(img, last, &loaded, NULL) == -1))
            break;
    } while (look == LOOK_FREE || look == LOOK_LOAD);
    cache_put(loaded);
}

int
alloc_cut_file(struct image *img, bool any, struct qcow2_error *err)
{
    struct alloc *a = &img->alloc;
    uint64_t ahead = any || a->nr_small_flushes < SMALL_FLUSHES
                     ? 0 : bytes_ahead(img);
    uint64_t size, end;
    int r;

    if (!img->io->can_grow || img->no_discard)
        return 0;
    LOCK_SCOPE(&a->grow);
    fix_end(img, true);
    find_end(img);
    end = end_bytes(img);
    r = io_get_size(img->io, &size, err);
    /* Metadata without a refcount is damage, to be left as it is. */
    if (r == 0 && size > end && (any || size - end >= size / CUT_PART + ahead)
        && !cluster_set_has(&img->overlap, end >> img->cluster_bits,
                            div_round_up(size - end, img->cluster_size))) {
        r = io_truncate(img->io, end, err);
        image_file_was_cut(img, end);
        pthread_mutex_lock(&a->lock);
        if (r == 0 && img->io->reads_zero_past_end)
            a->fresh_from = end >> img->cluster_bits;
        pthread_mutex_unlock(&a->lock);
    }
    fix_end(img, false);
    return r;
}

void
alloc_mark_written(struct image *img, uint64_t end)
{
    struct alloc *a = &img->alloc;

    if (a->fresh_from != UINT64_MAX)
        a->fresh_from = max_u64(a->fresh_from, end);
}

void
alloc_mark_used(struct image *img, uint64_t end)
{
    img->alloc.end = max_u64(img->alloc.end, end);
    alloc_mark_written(img, end);
}
