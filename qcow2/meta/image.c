/* SPDX-License-Identifier: BSD-3-Clause */
/* image.c: opens one qcow2 file, and keeps its state; see image.h. */
#include "meta/image.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/escape.h"
#include "base/zeroed.h"
#include "base/rwlock.h"
#include "meta/alloc.h"
#include "meta/bitmaps.h"
#include "meta/map.h"
#include "meta/overlap.h"

enum { L1_PIECE_BYTES = 64 << 10 };

static void
set_geometry(struct image *img)
{
    img->geo = img->hdr.geo;
    img->cluster_bits = img->geo.cluster_bits;
    img->compression_type = img->hdr.compression_type;
    img->cluster_size = UINT32_C(1) << img->cluster_bits;
    img->slice_size = UINT32_C(1) << img->geo.slice_bytes_bits;
}

static uint64_t
nr_windows(const struct image *img, uint32_t l1_entries)
{
    return l1_entries * geometry_table_slices(&img->geo);
}

/* Reads an L1 table into v->l1, which has zeroes. What is a hole of the file,
 * or zeroes, takes no memory: a small file may claim the largest table. */
static int
read_l1(struct view *v, struct qcow2_error *err)
{
    struct io *io = v->img->io;
    uint64_t nr_bytes = v->l1_entries * sizeof(be64), at = 0, n;
    CLEANUP_FREE uint64_t *buf = malloc(min_u64(nr_bytes, L1_PIECE_BYTES) + 1);

    if (!buf)
        return error_nomem(err);
    for (; at < nr_bytes; at += n) {
        bool is_hole = false;

        n = nr_bytes - at;
        if (n > L1_PIECE_BYTES
            && io_extent(io, v->l1_off + at, &n, &is_hole, err) == -1)
            return -1;
        /* Entries are read whole. */
        n = is_hole ? round_down(n, sizeof *buf) : min_u64(n, L1_PIECE_BYTES);
        if (is_hole && n > 0)
            continue;
        n = min_u64(round_up(max_u64(n, 1), sizeof *buf), nr_bytes - at);
        if (io_pread(io, buf, n, v->l1_off + at, err) == -1)
            return -1;
        for (uint64_t i = 0; i < n / sizeof *buf; i++)
            buf[i] = be64toh(buf[i]);
        v->l1_memory += zeroed_copy((char *)v->l1 + at, buf, n);
    }
    return 0;
}

/* Loads an L1 table into v; header_read or snaptab_read checked its place
 * and size. */
static int
load_l1(struct view *v, struct image *img, uint64_t l1_off,
        uint32_t l1_entries, uint64_t size, struct qcow2_error *err)
{
    v->src.ops = &map_source_ops;
    v->src.io = img->io;
    v->src.data = img->data;
    v->src.size = size;
    v->img = img;
    v->version = img->hdr.version;
    v->l1_off = l1_off;
    v->l1_entries = l1_entries;
    v->l1 = zeroed_new(l1_entries * sizeof *v->l1);
    if (!v->l1)
        return error_nomem(err);
    if (read_l1(v, err) == -1)
        return error_prefix(err, "%s: L1 table", img->name);
    return linear_init(&v->linear, img->meta, nr_windows(img, l1_entries),
                     err);
}

/* What the flush needs to know of an L1 table of n entries that changes. */
static int
init_l1_dirty(uint32_t n, uint32_t **dirty, uint8_t **is_dirty,
              struct qcow2_error *err)
{
    *dirty = zeroed_new(n * sizeof **dirty);
    *is_dirty = zeroed_new(n / 8 + 1);
    if (*dirty && *is_dirty)
        return 0;
    zeroed_free(*dirty, n * sizeof **dirty);
    zeroed_free(*is_dirty, n / 8 + 1);
    *dirty = NULL;
    *is_dirty = NULL;
    return error_nomem(err);
}

static void
free_l1(struct view *v)
{
    uint64_t n = v->l1_entries;

    linear_destroy(&v->linear);
    zeroed_free(v->l1, n * sizeof *v->l1);
    zeroed_free(v->l1_dirty, n * sizeof *v->l1_dirty);
    zeroed_free(v->l1_is_dirty, n / 8 + 1);
}

static int
init_active(struct image *img, struct qcow2_error *err)
{
    struct view *v = &img->active;
    uint32_t n = img->hdr.l1_size;

    if (load_l1(v, img, img->hdr.l1_offset, n, img->hdr.size, err) == -1
        || (!img->readonly
            && init_l1_dirty(n, &v->l1_dirty, &v->l1_is_dirty, err) == -1))
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
    free_l1(&img->active);
    snaptab_free(&img->snaptab);
    header_free(&img->hdr);
    store_close(img->data);
    io_close(img->io);
    free(img->name);
    free(img);
}

/* Finds the open view of a snapshot, and uses it once more; views_lock is
 * held. NULL: there is none. */
static struct view *
find_view(struct image *img, const struct snapshot *sn)
{
    for (struct view *v = img->snapshot_views; v; v = v->next)
        if (v->l1_off == sn->l1_offset && v->l1_entries == sn->l1_size
            && v->src.size == sn->disk_size
            && v->vm_state_size == sn->vm_state_size
            && v->version == img->hdr.version) {
            v->nr_users++;
            return v;
        }
    return NULL;
}

static void
free_view(struct view *v)
{
    free_l1(v);
    free(v);
}

/* A view that was just loaded joins the others, unless somebody else was
 * faster, whose view is returned then. */
static struct view *
add_view(struct image *img, const struct snapshot *sn, struct view *v,
         struct qcow2_error *err)
{
    struct view *other;
    LOCK_SCOPE(&img->views_lock);

    other = find_view(img, sn);
    if (!other && img->snapshot_memory + v->l1_memory
                  <= MAX_OPEN_SNAPSHOT_L1_BYTES) {
        v->nr_users = 1;
        v->next = img->snapshot_views;
        img->snapshot_views = v;
        img->snapshot_memory += v->l1_memory;
        return v;
    }
    free_view(v);
    if (!other)
        error_set(err, ENOMEM, "%s: the L1 tables of the snapshots that are "
                  "open take more than %d bytes", img->name,
                  MAX_OPEN_SNAPSHOT_L1_BYTES);
    return other;
}

struct view *
image_open_snapshot(struct image *img, uint32_t i, struct qcow2_error *err)
{
    const struct snapshot *sn = &img->snaptab.snapshots[i];
    struct view *v;

    if (sn->flaw && !sn->usable) {
        error_set(err, EIO, "%s: snapshot '%s' is damaged: %s", img->name,
                  ESCAPED(sn->name), sn->flaw);
        return NULL;
    }
    pthread_mutex_lock(&img->views_lock);
    v = find_view(img, sn);
    pthread_mutex_unlock(&img->views_lock);
    if (v)
        return v;
    v = calloc(1, sizeof *v);
    if (!v) {
        error_nomem(err);
        return NULL;
    }
    if (load_l1(v, img, sn->l1_offset, sn->l1_size, sn->disk_size, err)
        == -1) {
        free_view(v);
        return NULL;
    }
    v->vm_state_size = sn->vm_state_size;
    return add_view(img, sn, v, err);
}

void
image_free_snapshot(struct view *v)
{
    struct image *img;
    struct view **p;

    if (!v)
        return;
    img = v->img;
    pthread_mutex_lock(&img->views_lock);
    if (--v->nr_users > 0) {
        pthread_mutex_unlock(&img->views_lock);
        return;
    }
    for (p = &img->snapshot_views; *p != v; p = &(*p)->next)
        ;
    *p = v->next;
    img->snapshot_memory -= v->l1_memory;
    pthread_mutex_unlock(&img->views_lock);
    free_view(v);
}

bool
image_snapshot_in_use(struct image *img, uint32_t i)
{
    LOCK_SCOPE(&img->views_lock);

    for (struct view *v = img->snapshot_views; v; v = v->next)
        if (v->l1_off == img->snaptab.snapshots[i].l1_offset)
            return true;
    return false;
}

int
image_replace_active(struct image *img, uint64_t *l1, uint32_t l1_entries,
                     uint64_t l1_off, uint64_t size, struct qcow2_error *err)
{
    struct view *v = &img->active, with = { .l1_entries = l1_entries };

    with.l1 = zeroed_new(l1_entries * sizeof *l1);
    if (!with.l1
        || init_l1_dirty(l1_entries, &with.l1_dirty, &with.l1_is_dirty, err)
           == -1
        || linear_init(&with.linear, img->meta, nr_windows(img, l1_entries),
                       err) == -1) {
        free_l1(&with);
        free(l1);
        return error_nomem(err);
    }
    zeroed_copy(with.l1, l1, l1_entries * sizeof *l1);
    free(l1);
    free_l1(v);
    v->linear = with.linear;
    v->l1 = with.l1;
    v->l1_dirty = with.l1_dirty;
    v->l1_is_dirty = with.l1_is_dirty;
    v->nr_l1_dirty = 0;
    v->l1_entries = l1_entries;
    v->l1_off = l1_off;
    v->src.size = size;
    return overlap_fill(img, err);
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

int
image_check_own_view(const struct image *img, struct qcow2_error *err)
{
    if (!img->overridden)
        return 0;
    return error_set(err, EINVAL, "%s: it does not stand on the backing file "
                     "that it names, and this would write what it reads as "
                     "on another one; give it that by a rebase of its header "
                     "alone first", img->name);
}

int
image_check_state(struct image *img, struct qcow2_error *err)
{
    switch ((enum image_state)__atomic_load_n(&img->state,
                                              __ATOMIC_ACQUIRE)) {
    case IMAGE_OK:
        return 0;
    case IMAGE_DAMAGED:
        error_set(err, EIO, "%s: the image is damaged and takes no more "
                  "writes", img->name);
        return error_hint(err, QCOW2_HINT_REPAIR);
    case IMAGE_FAILED:
        if (io_flush_has_failed(img->io))
            return error_set(err, EIO, "%s: " IO_FLUSH_FAILED, img->name);
        return error_set(err, EIO,
                         "%s: writing failed before, so it takes no more "
                         "writes until it is opened again",
                         img->name);
    }
    return -1;
}

/* One write, of the header's first sector at most (I5). */
static int
write_autoclear(struct image *img, struct qcow2_error *err)
{
    static const struct header_update none = { .parts = HEADER_SET_AUTOCLEAR };
    int r;

    if (!(img->hdr.autoclear & AUTOCLEAR_BITMAPS))
        r = header_write_fields(img->io, &img->hdr, &none, err);
    else {
        LOCK_SCOPE(&img->feature_lock);

        r = header_drop_bitmaps(img->io, &img->hdr, err);
    }
    return r == 0 ? 0 : error_prefix(err, "%s: clearing autoclear features",
                                     img->name);
}

/* Clears, durably, what only programs that maintain it may leave set. */
static int
clear_autoclear(struct image *img, struct qcow2_error *err)
{
    struct bitmaps bitmaps = { .runs = NULL };
    bool any = img->hdr.autoclear & AUTOCLEAR_BITMAPS;
    int r;

    if (img->hdr.version < 3 || img->hdr.autoclear == 0)
        return 0;
    if (any)
        bitmaps_find(img, &bitmaps);
    r = write_autoclear(img, err);
    if (r == 0)
        r = io_flush(img->io, err);
    if (r == -1 && io_flush_has_failed(img->io))
        image_fail(img);
    if (r == 0 && any)
        bitmaps_remove(img, &bitmaps);
    bitmaps_end(&bitmaps);
    return r;
}

int
image_begin_write(struct image *img, struct qcow2_error *err)
{
    if (image_check_state(img, err) == -1)
        return -1;
    if (__atomic_load_n(&img->begun, __ATOMIC_ACQUIRE))
        return 0;

    LOCK_SCOPE(&img->begin);
    if (!img->begun) {
        if (clear_autoclear(img, err) == -1)
            return -1;
        __atomic_store_n(&img->begun, true, __ATOMIC_RELEASE);
    }
    return 0;
}

uint64_t
image_incompatible(struct image *img)
{
    LOCK_SCOPE(&img->feature_lock);

    return img->hdr.incompatible;
}

/* Moves from IMAGE_OK to `state`; says whether this call did it. */
static bool
leave_ok(struct image *img, enum image_state state)
{
    int ok = IMAGE_OK;

    return __atomic_compare_exchange_n(&img->state, &ok, state, false,
                                       __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/* The image takes no more writes anyway: a failure here changes nothing. */
static void
set_incompatible(struct image *img, uint64_t bit)
{
    const struct header_update u = {
        .parts = HEADER_SET_INCOMPATIBLE, .incompatible_set = bit,
    };
    LOCK_SCOPE(&img->feature_lock);

    if (img->hdr.version >= 3 && !img->readonly)
        header_write_fields(img->io, &img->hdr, &u, NULL);
}

int
image_damaged(struct image *img, struct qcow2_error *err, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (!img->readonly && leave_ok(img, IMAGE_DAMAGED))
        set_incompatible(img, INCOMPAT_CORRUPT);
    error_set(err, EIO, "%s: %s: the image is damaged", img->name, text);
    return error_hint(err, QCOW2_HINT_CHECK);
}

/* A size found before the file was cut must not stay known. */
static int
learn_end(struct image *img, uint64_t *end, struct qcow2_error *err)
{
    unsigned nr_cuts;

    do {
        nr_cuts = __atomic_load_n(&img->nr_cuts, __ATOMIC_SEQ_CST);
        if (io_get_size(img->io, end, err) == -1)
            return -1;
        *end = round_up(min_u64(*end, MAX_HOST_OFFSET), img->cluster_size);
        __atomic_store_n(&img->known_end, *end, __ATOMIC_SEQ_CST);
    } while (nr_cuts != __atomic_load_n(&img->nr_cuts, __ATOMIC_SEQ_CST));
    return 0;
}

void
image_file_was_cut(struct image *img, uint64_t end)
{
    __atomic_add_fetch(&img->nr_cuts, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&img->known_end, end, __ATOMIC_SEQ_CST);
}

int
image_check_inside(struct image *img, uint64_t host_off, uint64_t nr_bytes,
                   struct qcow2_error *err)
{
    uint64_t end = __atomic_load_n(&img->known_end, __ATOMIC_RELAXED);

    if (range_inside(host_off, nr_bytes, end))
        return 0;
    /* It may have grown since. */
    if (learn_end(img, &end, err) == -1)
        return -1;
    if (range_inside(host_off, nr_bytes, end))
        return 0;
    return image_damaged(img, err, "a table points to 0x%llx, past the end "
                         "of the file", (unsigned long long)host_off);
}

void
image_fail(struct image *img)
{
    /* Whether what was written is there is unknown: the dirty bit has the
     * next writable open count all references. */
    if (leave_ok(img, IMAGE_FAILED))
        set_incompatible(img, INCOMPAT_DIRTY);
    __atomic_store_n(&img->state, IMAGE_FAILED, __ATOMIC_RELEASE);
}

void
image_warn(struct image *img, const char *fmt, ...)
{
    qcow2_warn_fn *fn = img->warn;
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    escape_controls(text, sizeof text);
    if (fn)
        fn(img->warn_opaque, text);
}

void
image_debug(struct image *img, unsigned topic, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (img->debug)
        img->debug(img->debug_opaque, topic, text);
}
