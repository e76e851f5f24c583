/* SPDX-License-Identifier: BSD-3-Clause */
/* resize.c: changes the virtual size, and gives clusters a place in advance.
 *
 * Growing: what tables map past the old end goes, a longer L1 table is made,
 * zeroes cover what a backing file or the last cluster hides there; then the
 * size. Shrinking: first the size, then what lies beyond it goes.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/open-disk.h"
#include "edit/snapshot.h"
#include "format/entry.h"
#include "meta/data-file.h"
#include "meta/data.h"
#include "meta/flush.h"
#include "meta/l1.h"
#include "meta/map.h"
#include "meta/overlap.h"
#include "meta/tree.h"
#include "request/change.h"

static uint64_t
table_reach(const struct image *img)
{
    return UINT64_C(1) << geometry_l1_reach_bits(&img->geo);
}

static int
check_size(struct image *img, uint64_t size, bool may_shrink,
           struct qcow2_error *err)
{
    uint64_t most = (uint64_t)(MAX_L1_BYTES / 8) * table_reach(img);

    if (size > most)
        return error_set(err, EINVAL, "%s: with clusters of %" PRIu32 " bytes "
                         "a disk has at most %" PRIu64 " bytes", img->name,
                         img->cluster_size, most);
    if (size > MAX_HOST_OFFSET && data_file_is_used(img))
        return error_set(err, EINVAL, "%s: with a data file a disk has at most "
                         "%" PRIu64 " bytes", img->name, MAX_HOST_OFFSET);
    if (size < img->hdr.size && !may_shrink) {
        error_set(err, EINVAL, "%s: the new size is smaller, which would "
                  "lose what lies beyond it", img->name);
        return error_hint(err, QCOW2_HINT_SHRINK);
    }
    if (img->hdr.version < 3 && img->snaptab.nr > 0) {
        error_set(err, ENOTSUP, "%s: snapshots of version 2 do not record "
                  "their size, so an image that has any cannot be resized",
                  img->name);
        return error_hint(err, QCOW2_HINT_VERSION_3);
    }
    return 0;
}

/* Moves the L1 table to where it has room for nr entries. */
static int
grow_l1(struct txn *t, uint32_t nr, struct qcow2_error *err)
{
    struct image *img = t->img;
    struct view *v = &img->active;
    struct snapshot_disk to = { .size = img->hdr.size, .l1_size = nr };
    uint64_t old_off = v->l1_off;
    uint64_t old_bytes = (uint64_t)v->l1_entries * sizeof(be64);
    uint64_t *l1 = calloc(nr, sizeof *l1);

    if (!l1)
        return error_nomem(err);
    memcpy(l1, v->l1, v->l1_entries * sizeof *l1);
    if (snapshot_write_l1(img, l1, nr, false, &to.l1_off, err) == -1
        || snapshot_switch_disk(t, &to, err) == -1) {
        free(l1);
        return -1;
    }
    if (image_replace_active(img, l1, nr, to.l1_off, to.size, err) == -1) {
        image_fail(img); /* memory still shows the old table */
        return -1;
    }
    alloc_free(img, old_off, div_round_up(old_bytes, img->cluster_size));
    return 0;
}

/* Unmaps the clusters of [from, to), which lie in one slice. */
static int
drop_piece(struct image *img, uint64_t from, uint64_t to,
           struct qcow2_error *err)
{
    struct map_cursor c = map_cursor(&img->active);
    int r = flush_make_room(img, err);

    while (r == 0 && from < to) {
        struct mapping m;

        r = map_find(&c, from, to - from, &m, err);
        if (r == 0 && (m.kind != MAP_UNALLOCATED || m.has_host)) {
            r = map_prepare(&c, from, err);
            if (r == 0)
                map_set(&c, from, m.nr_bytes, MAP_TO_UNALLOCATED, 0);
        }
        from += m.nr_bytes;
    }
    map_done(&c);
    return r;
}

/* Unmaps the clusters of one table from guest_off to its end. */
static int
drop_part_of_table(struct image *img, uint64_t guest_off,
                   struct qcow2_error *err)
{
    uint64_t end = round_up(guest_off + 1, table_reach(img));

    while (guest_off < end) {
        uint64_t to = min_u64(end, guest_off
                                       + map_piece(&img->active, guest_off));

        if (drop_piece(img, guest_off, to, err) == -1)
            return -1;
        guest_off = to;
    }
    return 0;
}

/* Gives up all clusters from guest_off, the start of one, on. */
static int
drop_rest(struct image *img, uint64_t guest_off, struct qcow2_error *err)
{
    struct view *v = &img->active;
    uint64_t reach = table_reach(img), absent;

    if (!is_aligned(guest_off, reach)) {
        if (!map_table_absent(v, guest_off, &absent)
            && drop_part_of_table(img, guest_off, err) == -1)
            return -1;
        guest_off = round_up(guest_off, reach);
    }
    for (uint32_t i = tree_l1_entries(img, guest_off); i < v->l1_entries;
         i++) {
        uint64_t entry = v->l1[i];

        if (entry == 0)
            continue;
        /* Change first, free after: a flush may come between (I3). */
        l1_set(v, i, 0);
        if (tree_free(img, &entry, i, 1, err) == -1)
            return -1;
    }
    return overlap_fill(img, err);
}

/* How far data lies behind the old end that must not show after growing. */
static uint64_t
hidden_end(const struct image *img, uint64_t size)
{
    uint64_t end = round_up(img->hdr.size, img->cluster_size);

    if (img->chain->nr_layers > 1)
        end = max_u64(end, img->chain->layers[1]->size);
    return min_u64(end, size);
}

static int
zero(struct image *img, uint64_t from, uint64_t to, struct qcow2_error *err)
{
    const struct guest_change c = {
        .kind = CHANGE_ZERO, .guest_off = from, .nr_bytes = to - from,
    };

    return change_guest(img, &c, err);
}

static int
grow(struct txn *t, uint64_t size, struct qcow2_error *err)
{
    struct image *img = t->img;
    struct view *v = &img->active;
    uint64_t old = img->hdr.size, hidden = hidden_end(img, size);
    uint32_t nr = tree_l1_entries(img, size);
    struct snapshot_disk to = { .size = size };
    int r = 0;

    /* Tables may reach past the end: a VM state that was loaded, or what a
     * power cut kept shrinking from. */
    if (drop_rest(img, round_up(old, img->cluster_size), err) == -1
        || (nr > v->l1_entries && grow_l1(t, nr, err) == -1))
        return -1;
    to.l1_off = v->l1_off;
    to.l1_size = v->l1_entries;
    if (data_file_is_used(img))
        r = data_file_grow(img, size, err);
    v->src.size = size; /* so that requests reach past the old end */
    if (r == 0 && hidden > old)
        r = zero(img, old, hidden, err);
    if (r == 0)
        r = snapshot_switch_disk(t, &to, err);
    if (r == -1)
        v->src.size = old;
    /* After a failed switch the header may have the new size. */
    if (r == -1 && data_file_is_used(img)
        && image_check_state(img, NULL) == 0)
        data_file_cut(img, img->hdr.size);
    return r;
}

static int
shrink(struct txn *t, uint64_t size, struct qcow2_error *err)
{
    struct image *img = t->img;
    struct view *v = &img->active;
    struct snapshot_disk to = { size, v->l1_off, v->l1_entries };
    uint64_t end = round_up(size, img->cluster_size);
    int r = snapshot_switch_disk(t, &to, err);

    if (r == -1)
        return -1;
    /* Growing again must not show what was cut off. */
    end = min_u64(end, v->src.size);
    if (end > size)
        r = zero(img, size, end, err);
    v->src.size = size;
    if (r == 0)
        r = drop_rest(img, round_up(size, img->cluster_size), err);
    if (r == 0 && data_file_is_used(img))
        data_file_cut(img, size);
    return r;
}

/* A resize that is refused must not cost the image bitmaps that cannot be
 * kept. */
static int
check_first(struct qcow2_disk *disk, uint64_t size, bool may_shrink,
            struct qcow2_error *err)
{
    struct image *img = disk_image_to_edit(disk, err);

    if (!img || disk_check_own_view(disk, err) == -1)
        return -1;
    RDLOCK_SCOPE(&img->rwlock);
    return check_size(img, size, may_shrink, err);
}

/* size is not that of the disk. */
static int
resize(struct txn *t, uint64_t size, struct qcow2_error *err)
{
    struct image *img = t->img;
    uint64_t old = img->hdr.size;
    const struct guest_change c = {
        .kind = CHANGE_REPLACE, .guest_off = min_u64(old, size),
        .nr_bytes = max_u64(old, size) - min_u64(old, size),
    };
    int r;

    if (snapshot_keep_sizes(t, err) == -1
        || change_announce(img->observers, &c, err) == -1)
        return -1;
    r = size > old ? grow(t, size, err) : shrink(t, size, err);
    change_finish(img->observers, &c, r);
    return r;
}

int
qcow2_resize(struct qcow2_disk *disk, uint64_t size, bool may_shrink,
             struct qcow2_error *err)
{
    struct image *img;
    struct txn t;
    int r;

    if (disk->file->raw)
        return raw_disk_resize(disk->file->raw, size, may_shrink, err);
    if (check_first(disk, size, may_shrink, err) == -1)
        return -1;
    img = disk->file->image;
    if (txn_begin(&t, img, TXN_TABLES | TXN_DIRTY, err) == -1)
        return -1;
    r = check_size(img, size, may_shrink, err);
    if (r == 0 && size != img->hdr.size)
        r = resize(&t, size, err);
    return txn_end(&t, r, err);
}

/* Makes the clusters of a new run, those from guest_off on, read as zeroes,
 * taking space as told. */
static int
fill_run(struct image *img, uint64_t guest_off, const struct alloc_run *run,
         enum qcow2_preallocation mode, struct qcow2_error *err)
{
    static const unsigned char zeroes[65536];
    struct store *s = img->data;
    uint64_t nr_bytes = run->nr_clusters << img->cluster_bits, at;

    if (!s->can_zero && mode != QCOW2_PREALLOC_OFF)
        mode = QCOW2_PREALLOC_FULL;

    switch (mode) {
    case QCOW2_PREALLOC_OFF:
        return 0;
    case QCOW2_PREALLOC_METADATA:
        if (!run->reads_zero)
            return store_zero(s, guest_off, run->host_off, nr_bytes,
                              IO_ZERO_PUNCH, err);
        /* Its end must lie inside the file. */
        at = nr_bytes - 512;
        return store_write(s, zeroes, 512, guest_off + at, run->host_off + at,
                           err);
    case QCOW2_PREALLOC_FALLOC:
        return store_zero(s, guest_off, run->host_off, nr_bytes, 0, err);
    case QCOW2_PREALLOC_FULL:
        for (at = 0; at < nr_bytes; at += sizeof zeroes)
            if (store_write(s, zeroes, min_u64(sizeof zeroes, nr_bytes - at),
                            guest_off + at, run->host_off + at, err) == -1)
                return -1;
        return 0;
    }
    __builtin_unreachable();
}

/* Places the clusters of m, which have no place and read as zeroes. */
static int
place_clusters(struct image *img, struct map_cursor *c, uint64_t guest_off,
               uint64_t nr_clusters, enum qcow2_preallocation mode,
               struct qcow2_error *err)
{
    while (nr_clusters > 0) {
        struct alloc_run run;

        if (data_place(img, guest_off, nr_clusters, &run, err) == -1)
            return -1;
        if (fill_run(img, guest_off, &run, mode, err) == -1) {
            data_release(img, guest_off, run.host_off, run.nr_clusters);
            return -1;
        }
        map_set(c, guest_off, run.nr_clusters << img->cluster_bits,
                geometry_has_subclusters(&img->geo) ? MAP_TO_PLACE
                                                    : MAP_TO_DATA,
                run.host_off);
        guest_off += run.nr_clusters << img->cluster_bits;
        nr_clusters -= run.nr_clusters;
    }
    return 0;
}

/* Shortens *nr_bytes, of whole clusters from guest_off on that have no place
 * themselves, to those that also read as zeroes; 0: the first does not. */
static int
zero_clusters(struct image *img, uint64_t guest_off, uint64_t *nr_bytes,
              struct qcow2_error *err)
{
    struct mapping m;
    bool zero;

    if (source_chain_lookup(img->chain, 0, guest_off, *nr_bytes, &m, NULL,
                            err) == -1)
        return -1;
    *nr_bytes = m.kind == MAP_ZERO ? round_down(m.nr_bytes,
                                                img->cluster_size)
                                   : 0;
    if (*nr_bytes > 0)
        return 0;
    if (source_chain_is_zero(img->chain, 0, guest_off,
                             guest_off + img->cluster_size, &zero, err) == -1)
        return -1;
    *nr_bytes = zero ? img->cluster_size : 0;
    return 0;
}

static int
preallocate_piece(struct image *img, uint64_t from, uint64_t to,
                  enum qcow2_preallocation mode, struct qcow2_error *err)
{
    struct map_cursor c = map_cursor(&img->active);
    struct mapping m;
    int r = 0;

    if (flush_make_room(img, err) == -1
        || map_prepare(&c, from, err) == -1)
        return -1;
    while (r == 0 && from < to) {
        uint64_t nr_bytes;

        r = map_find(&c, from, to - from, &m, err);
        nr_bytes = m.nr_bytes;
        if (r == 0 && (m.kind == MAP_UNALLOCATED || m.kind == MAP_ZERO)
            && !m.has_host) {
            /* Places alone hide nothing. */
            nr_bytes = round_up(nr_bytes, img->cluster_size);
            if (!geometry_has_subclusters(&img->geo))
                r = zero_clusters(img, from, &nr_bytes, err);
            if (r == 0 && nr_bytes > 0)
                r = place_clusters(img, &c, from,
                                   nr_bytes >> img->cluster_bits, mode, err);
            else
                nr_bytes = img->cluster_size;
        }
        from += nr_bytes;
    }
    map_done(&c);
    return r;
}

/* Other programs expect the tables to know all of a raw data file. */
static bool
needs_places(const struct qcow2_disk *disk)
{
    return disk->file->image && disk->file->image->data->zeroes_are_data;
}

int
qcow2_preallocate(struct qcow2_disk *disk, uint64_t nr_bytes,
                  uint64_t guest_off, enum qcow2_preallocation mode,
                  struct qcow2_error *err)
{
    struct image *img;
    uint64_t to = guest_off + nr_bytes;
    struct txn t;
    int r = 0;

    if (!range_inside(guest_off, nr_bytes, qcow2_get_size(disk)))
        return error_set(err, EINVAL, "the range lies outside of the disk");
    if (mode == QCOW2_PREALLOC_OFF && needs_places(disk))
        mode = QCOW2_PREALLOC_METADATA;
    if (mode == QCOW2_PREALLOC_OFF)
        return 0;
    if (disk->file->raw)
        return raw_disk_preallocate(disk->file->raw, nr_bytes, guest_off,
                                    mode, err);
    img = disk_image_to_edit(disk, err);
    if (!img || txn_begin(&t, img, TXN_TABLES | TXN_DIRTY, err) == -1)
        return -1;
    /* The size may have changed since. */
    to = min_u64(to, img->hdr.size);
    guest_off = round_down(guest_off, img->cluster_size);
    to = round_up(to, img->cluster_size);
    while (r == 0 && guest_off < to) {
        uint64_t piece = min_u64(to - guest_off,
                                 map_piece(&img->active, guest_off));

        r = preallocate_piece(img, guest_off, guest_off + piece, mode, err);
        guest_off += piece;
    }
    return txn_end(&t, r, err);
}
