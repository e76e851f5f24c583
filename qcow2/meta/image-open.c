/* SPDX-License-Identifier: BSD-3-Clause */
/* image-open.c: opens one qcow2 file; see image.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/rwlock.h"
#include "meta/alloc.h"
#include "meta/bitmap-session.h"
#include "meta/image.h"
#include "meta/overlap.h"
#include "meta/view.h"
#include "storage/io-window.h"

static void
set_geometry(struct image *img)
{
    img->geo = img->hdr.geo;
    img->cluster_bits = img->geo.cluster_bits;
    img->compression_type = img->hdr.compression_type;
    img->cluster_size = UINT32_C(1) << img->cluster_bits;
    img->subcluster_size = UINT32_C(1) << img->geo.subcluster_bits;
    img->slice_size = UINT32_C(1) << img->geo.slice_bytes_bits;
}

static int
init_active(struct image *img, struct qcow2_error *err)
{
    struct view *v = &img->active;
    uint32_t n = img->hdr.l1_size;

    if (view_load(v, img, img->hdr.l1_offset, n, img->hdr.size, err) == -1
        || (!img->readonly
            && view_init_dirty(n, &v->l1_dirty, &v->l1_is_dirty, err) == -1))
        return -1;
    img->chain = source_chain_new(&v->src, err);
    return img->chain ? 0 : -1;
}

static void
init_locks(struct image *img)
{
    rwlock_init_prefer_writers(&img->rwlock);
    pthread_mutex_init(&img->feature_lock, NULL);
    pthread_mutex_init(&img->begin, NULL);
    pthread_mutex_init(&img->views_lock, NULL);
    pthread_mutex_init(&img->active.l1_lock, NULL);
    dirty_init(&img->l2_dirty);
    pthread_mutex_init(&img->flush.lock, NULL);
    pthread_cond_init(&img->flush.done[0], NULL);
    pthread_cond_init(&img->flush.done[1], NULL);
}

/* What is wrong with a snapshot need not keep anybody from reading the active
 * disk. A writer must know all that the file holds. */
static int
load_snapshots(struct image *img, struct qcow2_error *err)
{
    struct qcow2_error why;
    uint32_t nr_lost;

    if (!img->readonly)
        return snaptab_read(img->io, &img->hdr, &img->snaptab, err);
    return snaptab_read_loosely(img->io, &img->hdr, &img->snaptab, &nr_lost,
                                &why, err);
}

/* What is only read is not locked by ranges, which take 8 KiB. */
static int
init_ranges(struct image *img, struct qcow2_error *err)
{
    if (img->readonly)
        return 0;
    return range_lock_init(&img->ranges,
                           img->geo.slice_bits + img->cluster_bits, err)
               == -1 || range_lock_init(&img->tables, 0, err) == -1
           ? -1 : 0;
}

static int
load_tables(struct image *img, bool is_layer, struct qcow2_error *err)
{
    if (!img->readonly && io_window_check_end(img->io, err) == -1)
        return -1;
    if (is_layer)
        header_forget_extensions(&img->hdr);
    else if (load_snapshots(img, err) == -1)
        return -1;
    if (init_ranges(img, err) == -1
        || init_active(img, err) == -1
        || alloc_init(img, err) == -1)
        return -1;
    /* With the dirty bit COPIED flags mean nothing: the repair that has to
     * come before any write makes the set. */
    if (!img->readonly && !(img->hdr.incompatible & INCOMPAT_DIRTY)
        && overlap_fill(img, err) == -1)
        return -1;
    return 0;
}

static struct image *
open_image(struct io *io, bool readonly, bool is_layer, struct cache *meta,
           struct decompress_pool *decompress, struct qcow2_error *err)
{
    struct image *img = calloc(1, sizeof *img);

    if (!img || !(img->name = strdup(io->name))) {
        free(img);
        io_close(io);
        error_nomem(err);
        return NULL;
    }
    img->io = io;
    img->own = store_in_image(io);
    img->data = &img->own;
    img->readonly = readonly;
    img->meta = meta;
    img->decompress = decompress;
    if (cluster_set_init(&img->overlap, err) == -1
        || (readonly ? header_read_disk(io, &img->hdr, err)
                     : header_read(io, &img->hdr, err)) == -1) {
        cluster_set_destroy(&img->overlap);
        io_close(io);
        free(img->name);
        free(img);
        return NULL;
    }
    set_geometry(img);
    init_locks(img);
    alloc_prepare(img);
    if (load_tables(img, is_layer, err) == -1) {
        image_free(img);
        return NULL;
    }
    return img;
}

struct image *
image_open(struct io *io, bool readonly, struct cache *meta,
           struct decompress_pool *decompress, struct qcow2_error *err)
{
    return open_image(io, readonly, false, meta, decompress, err);
}

struct image *
image_open_layer(struct io *io, struct cache *meta,
                 struct decompress_pool *decompress, struct qcow2_error *err)
{
    return open_image(io, true, true, meta, decompress, err);
}

void
image_free(struct image *img)
{
    if (!img)
        return;
    bitmap_session_free(img);
    pthread_cond_destroy(&img->flush.done[0]);
    pthread_cond_destroy(&img->flush.done[1]);
    pthread_mutex_destroy(&img->flush.lock);
    alloc_destroy(img);
    dirty_destroy(&img->l2_dirty);
    cache_drop_owner(img->meta, img);
    cache_drop_owner(decompress_pool_cache(img->decompress), img);
    range_lock_destroy(&img->tables);
    range_lock_destroy(&img->ranges);
    cluster_set_destroy(&img->overlap);
    pthread_mutex_destroy(&img->active.l1_lock);
    pthread_mutex_destroy(&img->views_lock);
    pthread_mutex_destroy(&img->begin);
    pthread_mutex_destroy(&img->feature_lock);
    pthread_rwlock_destroy(&img->rwlock);
    source_chain_put(img->chain);
    view_unload(&img->active);
    snaptab_free(&img->snaptab);
    header_free(&img->hdr);
    store_close(img->data);
    io_close(img->io);
    free(img->name);
    free(img);
}

int
image_reload(struct image *img, struct qcow2_error *err)
{
    struct view *v = &img->active;
    uint64_t nr_bytes = (uint64_t)v->l1_entries * sizeof(be64);
    CLEANUP_FREE be64 *l1 = malloc(nr_bytes ? nr_bytes : 1);

    if (!l1)
        return error_nomem(err);
    if (io_pread(img->io, l1, nr_bytes, v->l1_off, err) == -1)
        return -1;
    for (uint32_t i = 0; i < v->l1_entries; i++)
        v->l1[i] = be64_get(l1[i]);
    linear_forget(&v->linear);
    cache_drop_owner(img->meta, img);
    if (alloc_init(img, err) == -1)
        return -1;
    cluster_set_destroy(&img->overlap);
    if (cluster_set_init(&img->overlap, err) == -1)
        return -1;
    return overlap_fill(img, err);
}
