/* SPDX-License-Identifier: BSD-3-Clause */
/* alloc-packed.c: places for compressed data, one behind the other, so that
 * several share a cluster, and one may lie in two.
 *
 * What a cluster's refcount counts is its descriptors alone. So the cluster
 * with room left may be freed like any other; then alloc.packed_end is reset
 * under alloc.lock before anybody can be given the cluster.
 */
#include "meta/alloc.h"

#include <errno.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "format/entry.h"
#include "meta/refcount.h"

enum fit { FIT_YES, FIT_NO, FIT_LOAD };

/* With alloc.lock: behind what was packed last, if it fits into that cluster
 * or goes on into the new one at next_off (0: none). FIT_LOAD: the slice of
 * *cluster's refcount is needed. */
static enum fit
try_fit(struct image *img, uint32_t nr_bytes, uint64_t next_off,
        uint64_t *host_off, uint64_t *cluster, struct qcow2_error *err)
{
    struct alloc *a = &img->alloc;
    unsigned order = img->hdr.refcount_order;
    uint64_t idx, end = round_up(a->packed_end, img->cluster_size);
    struct block *b;
    bool missing;
    enum fit fit = FIT_NO;

    if (a->packed_end == 0
        || (a->packed_end + nr_bytes > end && next_off != end))
        return FIT_NO;
    *cluster = a->packed_end >> img->cluster_bits;
    if (refcount_peek(img, *cluster, &b, &missing, err) == -1)
        return FIT_NO;
    if (!b)
        return missing ? FIT_LOAD : FIT_NO;
    idx = *cluster % refcount_slice_entries(img);
    if (refcount_get(b->data, order, idx) < refcount_max(order)) {
        refcount_set(b->data, order, idx,
                     refcount_get(b->data, order, idx) + 1);
        dirty_add(&a->refcounts, b);
        *host_off = a->packed_end;
        fit = FIT_YES;
    }
    cache_put(b);
    return fit;
}

/* Remembers where there is room now. */
static void
set_packed_end(struct image *img, uint64_t end)
{
    img->alloc.packed_end = is_aligned(end, img->cluster_size) ? 0 : end;
}

/* 1: placed; 0: it does not fit there. */
static int
place_behind(struct image *img, uint32_t nr_bytes, uint64_t next_off,
             uint64_t *host_off, struct qcow2_error *err)
{
    struct block *loaded = NULL; /* kept from being evicted until used */
    enum fit fit;
    int r = 0;

    do {
        uint64_t cluster;

        pthread_mutex_lock(&img->alloc.lock);
        fit = try_fit(img, nr_bytes, next_off, host_off, &cluster, err);
        if (fit == FIT_YES)
            set_packed_end(img, *host_off + nr_bytes);
        pthread_mutex_unlock(&img->alloc.lock);
        cache_put(loaded);
        loaded = NULL;
        if (fit == FIT_LOAD)
            r = refcount_load(img, cluster, &loaded, err);
    } while (fit == FIT_LOAD && r == 0);
    return r == -1 ? -1 : fit == FIT_YES;
}

static int
check_place(struct image *img, uint64_t host_off, uint32_t nr_bytes,
            struct qcow2_error *err)
{
    unsigned bits = entry_compressed_offset_bits(img->cluster_bits);

    if (host_off + nr_bytes <= UINT64_C(1) << bits)
        return 0;
    return error_set(err, EFBIG, "%s: compressed data cannot lie past 2^%u "
                     "bytes of the file", img->name, bits);
}

int
alloc_packed(struct image *img, uint32_t nr_bytes, uint64_t *host_off,
             struct qcow2_error *err)
{
    struct alloc_run run;
    int r;
    LOCK_SCOPE(&img->alloc.packing);

    r = place_behind(img, nr_bytes, 0, host_off, err);
    if (r != 0)
        return r == 1 ? 0 : -1;
    if (alloc_clusters(img, 1, &run, err) == -1)
        return -1;
    r = check_place(img, run.host_off, img->cluster_size, err);
    if (r == 0)
        r = place_behind(img, nr_bytes, run.host_off, host_off, err);
    /* There may be room behind the last after all: a refcount that was at
     * its most has been lowered since. */
    if (r == -1 || (r == 1 && round_down(*host_off + nr_bytes - 1,
                                         img->cluster_size) != run.host_off))
        alloc_free(img, run.host_off, 1);
    if (r == -1)
        return -1;
    if (r == 0) {
        *host_off = run.host_off;
        pthread_mutex_lock(&img->alloc.lock);
        set_packed_end(img, run.host_off + nr_bytes);
        pthread_mutex_unlock(&img->alloc.lock);
    }
    return 0;
}
