/* SPDX-License-Identifier: BSD-3-Clause */
/* view.c: loads L1 tables as views, and keeps the views of snapshots; see
 * view.h and image.h.
 */
#include "meta/view.h"

#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/escape.h"
#include "base/zeroed.h"
#include "meta/map.h"
#include "meta/overlap.h"

enum { L1_PIECE_BYTES = 64 << 10 };

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

int
view_load(struct view *v, struct image *img, uint64_t l1_off,
          uint32_t l1_entries, uint64_t size, struct qcow2_error *err)
{
    v->src.ops = &map_source_ops;
    v->src.io = img->io;
    v->src.data = img->data;
    v->src.size = size;
    v->src.unit_bits = img->geo.subcluster_bits;
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

int
view_init_dirty(uint32_t n, uint32_t **dirty, uint8_t **is_dirty,
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

void
view_unload(struct view *v)
{
    uint64_t n = v->l1_entries;

    linear_destroy(&v->linear);
    zeroed_free(v->l1, n * sizeof *v->l1);
    zeroed_free(v->l1_dirty, n * sizeof *v->l1_dirty);
    zeroed_free(v->l1_is_dirty, n / 8 + 1);
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
    view_unload(v);
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
    if (view_load(v, img, sn->l1_offset, sn->l1_size, sn->disk_size, err)
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
        || view_init_dirty(l1_entries, &with.l1_dirty, &with.l1_is_dirty, err)
           == -1
        || linear_init(&with.linear, img->meta, nr_windows(img, l1_entries),
                       err) == -1) {
        view_unload(&with);
        free(l1);
        return error_nomem(err);
    }
    zeroed_copy(with.l1, l1, l1_entries * sizeof *l1);
    free(l1);
    view_unload(v);
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
