/* SPDX-License-Identifier: BSD-3-Clause */
/* refcount.c: cached slices of refblocks. */
#include "meta/refcount.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"

uint64_t
refcount_slice_entries(const struct image *img)
{
    return (uint64_t)img->slice_size * 8 >> img->hdr.refcount_order;
}

/* Host offset of the slice with host_cluster's refcount; 0: none. Reads the
 * reftable, hence the lock is held. */
static int
slice_place(struct image *img, uint64_t host_cluster, uint64_t *host_off,
            struct qcow2_error *err)
{
    const struct alloc *a = &img->alloc;
    uint64_t idx = host_cluster >> img->geo.refblock_bits;
    uint64_t in_block = host_cluster
                        & ((UINT64_C(1) << img->geo.refblock_bits) - 1);
    uint64_t refblock;

    *host_off = 0;
    if (idx >= a->reftable_entries || (refblock = a->reftable[idx]) == 0)
        return 0;
    if (!is_aligned(refblock, img->cluster_size)
        || refblock >= MAX_HOST_OFFSET)
        return image_damaged(img, err,
                             "refcount table entry %llu is 0x%llx, not a "
                             "place of a refcount block",
                             (unsigned long long)idx,
                             (unsigned long long)refblock);
    *host_off = refblock
                + in_block / refcount_slice_entries(img) * img->slice_size;
    return 0;
}

static int
load_slice(void *opaque, uint64_t key, void *data, uint32_t size,
           struct qcow2_error *err)
{
    struct image *img = opaque;

    /* Where the file lost its end, what is in use must not look free. */
    if (image_check_inside(img, key, size, err) == -1
        || io_pread(img->io, data, size, key, err) == -1)
        return error_prefix(err, "refcount block");
    return 0;
}

int
refcount_peek(struct image *img, uint64_t host_cluster, struct block **b,
              bool *missing, struct qcow2_error *err)
{
    uint64_t host_off;

    *b = NULL;
    *missing = false;
    if (slice_place(img, host_cluster, &host_off, err) == -1)
        return -1;
    if (host_off != 0) {
        *b = cache_peek(img->meta, img, host_off);
        *missing = *b == NULL;
    }
    return 0;
}

int
refcount_load(struct image *img, uint64_t host_cluster, struct block **b,
              struct qcow2_error *err)
{
    uint64_t host_off;
    int r;

    *b = NULL;
    pthread_mutex_lock(&img->alloc.lock);
    r = slice_place(img, host_cluster, &host_off, err);
    pthread_mutex_unlock(&img->alloc.lock);
    if (r == -1 || host_off == 0)
        return r;
    *b = cache_get(img->meta, img, host_off, img->slice_size, load_slice,
                   img, err);
    return *b ? 0 : -1;
}

int
refcount_read(struct image *img, uint64_t host_cluster, uint64_t *nr,
              uint64_t *refcount, struct qcow2_error *err)
{
    uint64_t per_slice = refcount_slice_entries(img);
    uint64_t idx = host_cluster % per_slice;
    struct block *b;

    *refcount = 0;
    *nr = min_u64(*nr, per_slice - idx);
    if (refcount_load(img, host_cluster, &b, err) == -1)
        return -1;
    if (b) {
        pthread_mutex_lock(&img->alloc.lock);
        *refcount = refcount_get(b->data, img->hdr.refcount_order, idx);
        *nr = refcount_run(b->data, img->hdr.refcount_order, idx, *nr);
        pthread_mutex_unlock(&img->alloc.lock);
        cache_put(b);
    }
    return 0;
}

/* A refblock on its way into the cache. */
struct whole {
    struct image *img;
    uint64_t host_off;
    unsigned char *data; /* NULL: not read yet */
};

static int
load_from_whole(void *opaque, uint64_t key, void *data, uint32_t size,
                struct qcow2_error *err)
{
    struct whole *w = opaque;

    if (!w->data) {
        w->data = malloc(w->img->cluster_size);
        if (!w->data)
            return error_nomem(err);
        if (load_slice(w->img, w->host_off, w->data, w->img->cluster_size,
                       err) == -1) {
            free(w->data);
            w->data = NULL;
            return -1;
        }
    }
    memcpy(data, w->data + (key - w->host_off), size);
    return 0;
}

int
refcount_block_most(struct image *img, uint64_t idx, uint64_t *most,
                    struct qcow2_error *err)
{
    struct whole w = { .img = img };
    int r = slice_place(img, idx << img->geo.refblock_bits, &w.host_off, err);

    *most = 0;
    for (uint64_t at = 0; r == 0 && w.host_off && at < img->cluster_size;
         at += img->slice_size) {
        struct block *b = cache_get(img->meta, img, w.host_off + at,
                                    img->slice_size, load_from_whole, &w,
                                    err);
        uint64_t least, highest;

        r = b ? 0 : -1;
        if (b) {
            refcount_bounds(b->data, img->hdr.refcount_order, 0,
                            refcount_slice_entries(img), &least, &highest);
            *most = max_u64(*most, highest);
        }
        cache_put(b);
    }
    free(w.data);
    return r;
}
