/* SPDX-License-Identifier: BSD-3-Clause */
/* keep.c: copies what snapshots leave to a backing file; see keep.h.
 *
 * The tables of a snapshot are never changed: others may share them. A copy
 * of the L2 table gets the new clusters, a copy of the L1 table that, and the
 * snapshot table is switched to it (I2, I5). Then the old tables have lost a
 * reference (I3), and if the L2 table is the active disk's alone now, that
 * says so (I4). What it maps keeps its references: the snapshot maps it as
 * before, but for clusters that moved as only a part of them had data. So a
 * power cut leaves the old tables or the new ones, and at worst leaks.
 */
#include "edit/keep.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/blocks.h"
#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/escape.h"
#include "disk/open-disk.h"
#include "edit/snapshot.h"
#include "format/entry.h"
#include "meta/alloc.h"
#include "meta/flush.h"
#include "meta/l2-slice.h"
#include "meta/l2-table.h"
#include "meta/map.h"
#include "meta/overlap.h"
#include "meta/table.h"
#include "meta/tree.h"

enum {
    /* Guest bytes looked at, and copied, together. */
    WINDOW_BYTES = 16 << 20,
    /* Windows of a step in which nothing is to be copied. */
    MAX_WINDOWS = 64,
    MAX_WINDOW_UNITS = WINDOW_BYTES / 512,
};

/* A part of a snapshot's disk, which one L2 table maps. Its units are
 * subclusters; without extended L2 entries these are the clusters. */
struct window {
    uint64_t from, to;          /* whole clusters */
    unsigned char *old, *new;   /* contents, from `from` on */
    uint64_t nr_needed;         /* units that need a copy of the old one, */
    uint8_t needed[MAX_WINDOW_UNITS / 8]; /* a bit each */
};

static struct image *
image_of(const struct keep *k)
{
    return k->disk->file->image;
}

static uint64_t
window_unit(const struct keep *k, const struct window *w, uint64_t off)
{
    return (off - w->from) >> image_of(k)->geo.subcluster_bits;
}

static bool
is_needed(const struct window *w, uint64_t unit)
{
    return w->needed[unit / 8] & 1u << unit % 8;
}

/* Notes the units of [from, to) that will read differently. */
static int
compare(struct keep *k, struct window *w, uint64_t from, uint64_t to,
        struct qcow2_error *err)
{
    uint32_t size = image_of(k)->subcluster_size;
    uint64_t end = k->view->src.size;
    unsigned char *old = w->old + (from - w->from);
    unsigned char *new = w->new + (from - w->from);

    if (k->ops->read_old(k->opaque, old, to - from, from, err) == -1
        || k->ops->read_new(k->opaque, new, to - from, from, err) == -1)
        return -1;
    for (uint64_t at = 0; at < to - from; at += size) {
        uint64_t unit = window_unit(k, w, from + at);

        /* What lies past the snapshot's end does not matter. */
        if (memcmp(old + at, new + at, min_u64(size, end - from - at)) == 0)
            continue;
        w->needed[unit / 8] |= 1u << unit % 8;
        w->nr_needed++;
    }
    return 0;
}

/* The same of a range that the snapshot leaves to the backing file. */
static int
look_below(struct keep *k, struct window *w, uint64_t from, uint64_t to,
           struct qcow2_error *err)
{
    uint32_t size = image_of(k)->subcluster_size;

    while (from < to) {
        bool may_change;
        uint64_t len;

        if (k->ops->plan(k->opaque, from, to - from, &may_change, &len, err)
            == -1)
            return -1;
        /* Units that are of several kinds may change as a whole. */
        len = min_u64(to - from, may_change || len < size
                                 ? round_up(len, size)
                                 : round_down(len, size));
        if ((may_change || len == size)
            && compare(k, w, from, from + len, err) == -1)
            return -1;
        from += len;
    }
    return 0;
}

static int
look(struct keep *k, struct window *w, struct qcow2_error *err)
{
    uint64_t to = min_u64(w->to, k->view->src.size);

    for (uint64_t off = w->from; off < to;) {
        struct mapping m;
        uint64_t end;

        if (map_lookup(k->view, off, to - off, &m, err) == -1)
            return -1;
        end = min_u64(w->to, round_up(off + m.nr_bytes,
                                      image_of(k)->subcluster_size));
        if (m.kind == MAP_UNALLOCATED
            && look_below(k, w, off, end, err) == -1)
            return -1;
        off = end;
    }
    return 0;
}

/* --- Copying: with the image alone ---------------------------------------- */

struct copying {
    struct keep *k;
    const struct window *w;
    uint32_t l1_index;
    be64 *table;
    uint64_t l1_entry;      /* of the new table */
    struct freed_list made; /* clusters, in case of a failure */
    struct freed_list left; /* old places of clusters */
};

static int
remember(struct freed_list *l, uint64_t cluster, struct qcow2_error *err)
{
    if (l->nr == l->capacity) {
        size_t capacity = l->capacity ? 2 * l->capacity : 64;
        struct freed_run *runs = realloc(l->runs, capacity * sizeof *runs);

        if (!runs)
            return error_nomem(err);
        l->runs = runs;
        l->capacity = capacity;
    }
    l->runs[l->nr++] = (struct freed_run){ cluster, 1 };
    return 0;
}

static int
new_cluster(struct copying *c, uint64_t *host_off, struct qcow2_error *err)
{
    struct image *img = image_of(c->k);
    struct alloc_run run;

    if (alloc_clusters(img, 1, &run, err) == -1)
        return -1;
    *host_off = run.host_off;
    if (remember(&c->made, *host_off >> img->cluster_bits, err) == 0)
        return 0;
    alloc_free(img, *host_off, 1);
    return -1;
}

/* Subclusters of a cluster of the window, a bit each: the needed ones that
 * become data, and those that become zero. */
static void
sort_units(const struct copying *c, uint64_t first, uint32_t *data,
           uint32_t *zero)
{
    const struct image *img = image_of(c->k);
    unsigned bits = img->geo.subcluster_bits;
    uint64_t nr = UINT64_C(1) << (img->cluster_bits - bits);

    *data = *zero = 0;
    for (uint64_t i = 0; i < nr; i++) {
        const unsigned char *buf = c->w->old + ((first + i) << bits);
        uint32_t bit = nr == 1 ? ALL_SUBCLUSTERS : UINT32_C(1) << i;

        if (!is_needed(c->w, first + i))
            continue;
        if (img->hdr.version >= 3 && bytes_are_zero(buf, img->subcluster_size))
            *zero |= bit;
        else
            *data |= bit;
    }
}

/* Writes the subclusters of mask of a cluster, which is in buf. */
static int
write_units(const struct image *img, const unsigned char *buf, uint32_t mask,
            uint64_t guest_off, uint64_t host_off, struct qcow2_error *err)
{
    unsigned bits = img->geo.subcluster_bits;
    uint64_t nr = UINT64_C(1) << (img->cluster_bits - bits);

    for (uint64_t i = 0, n; i < nr; i += n) {
        n = 1;
        if (!(mask >> i & 1))
            continue;
        while (i + n < nr && mask >> (i + n) & 1)
            n++;
        if (store_write(img->data, buf + (i << bits), n << bits,
                        guest_off + (i << bits), host_off + (i << bits), err)
            == -1)
            return -1;
    }
    return 0;
}

/* Gives a cluster, of which a part has a place, another one with that part in
 * it: the old place may hold something else for another table that has it. */
static int
move_place(struct copying *c, struct l2_entry *e, uint64_t guest_off,
           struct qcow2_error *err)
{
    struct image *img = image_of(c->k);
    CLEANUP_FREE unsigned char *buf = NULL;
    uint64_t old = e->host_off;

    if (new_cluster(c, &e->host_off, err) == -1)
        return -1;
    if (old == 0)
        return 0;
    buf = malloc(img->cluster_size);
    if (!buf)
        return error_nomem(err);
    if (store_read(img->data, buf, img->cluster_size, guest_off, old, err)
            == -1
        || write_units(img, buf, e->alloc_mask, guest_off, e->host_off, err)
           == -1)
        return -1;
    return remember(&c->left, old >> img->cluster_bits, err);
}

/* A copy of what the backing file shows, for the cluster of the window whose
 * first unit is `first`. */
static int
copy_cluster(struct copying *c, const struct l2_slice *table, uint64_t idx,
             uint64_t first, struct qcow2_error *err)
{
    struct image *img = image_of(c->k);
    uint64_t at = first << img->geo.subcluster_bits;
    struct l2_entry e = l2_get(table, idx, 0);
    uint32_t data, zero;

    sort_units(c, first, &data, &zero);
    if (data != 0
        && (move_place(c, &e, c->w->from + at, err) == -1
            || write_units(img, c->w->old + at, data, c->w->from + at,
                           e.host_off, err) == -1))
        return -1;
    if ((data | zero) == 0)
        return 0;
    e.alloc_mask |= data;
    e.zero_mask |= zero;
    e.kind = entry_subcluster_kind(e.alloc_mask, e.zero_mask, 0);
    e.copied = false;
    l2_set(table, idx, &e);
    c->k->nr_copied += data == ALL_SUBCLUSTERS
                       ? img->cluster_size
                       : (uint64_t)__builtin_popcount(data)
                         << img->geo.subcluster_bits;
    return 0;
}

/* A table with the copies, in a new cluster. */
static int
make_table(struct copying *c, struct qcow2_error *err)
{
    struct image *img = image_of(c->k);
    uint64_t entries = UINT64_C(1) << img->geo.l2_bits;
    uint64_t first = c->w->from >> img->cluster_bits & (entries - 1);
    uint64_t nr = (c->w->to - c->w->from) >> img->cluster_bits;
    unsigned units_bits = img->cluster_bits - img->geo.subcluster_bits;
    struct l2_slice table = l2_slice_in_memory(c->table, &img->geo,
                                               img->hdr.version);
    uint64_t host_off;

    for (uint64_t i = 0; i < nr; i++)
        if (copy_cluster(c, &table, first + i, i << units_bits, err) == -1)
            return -1;
    if (new_cluster(c, &host_off, err) == -1)
        return -1;
    table_forget(img, host_off);
    c->l1_entry = host_off;
    return io_pwrite(img->io, c->table, img->cluster_size, host_off, err);
}

/* The new table in a copy of the L1 table. */
static int
make_l1(struct copying *c, uint64_t *l1_off, struct qcow2_error *err)
{
    struct view *v = c->k->view;

    v->l1[c->l1_index] = c->l1_entry; /* it is not read through any more */
    if (snapshot_write_l1(image_of(c->k), v->l1, v->l1_entries, true, l1_off,
                          err) == 0)
        return 0;
    *l1_off = 0; /* given back already */
    return -1;
}

/* The old tables, which the snapshot no longer has. */
static int
drop_tables(struct copying *c, uint64_t table_off, struct qcow2_error *err)
{
    struct image *img = image_of(c->k);
    const struct view *v = c->k->view;

    alloc_free(img, v->l1_off,
               div_round_up(v->l1_entries * sizeof(be64),
                            img->cluster_size));
    if (table_off != 0)
        alloc_free(img, table_off, 1);
    for (size_t i = 0; i < c->left.nr; i++)
        alloc_free(img, c->left.runs[i].cluster << img->cluster_bits,
                   c->left.runs[i].nr);
    return overlap_fill(img, err) == -1 || flush_all(img, err) == -1
           || tree_set_copied(img, c->l1_index, 1, err) == -1 ? -1 : 0;
}

/* Gives up what was made for nothing. */
static void
undo(struct copying *c, uint64_t l1_off)
{
    struct image *img = image_of(c->k);

    for (size_t i = 0; i < c->made.nr; i++)
        alloc_free(img, c->made.runs[i].cluster << img->cluster_bits,
                   c->made.runs[i].nr);
    if (l1_off != 0)
        alloc_free_metadata(img, l1_off,
                            c->k->view->l1_entries * sizeof(be64));
}

static int
copy(struct txn *t, struct copying *c, struct qcow2_error *err)
{
    struct image *img = t->img;
    uint64_t old = entry_decode_l1(c->k->view->l1[c->l1_index],
                                   img->cluster_bits).host_off;
    uint64_t l1_off = 0;

    if (old != 0 && l2_table_read(img, old, c->table, err) == -1)
        return -1;
    if (make_table(c, err) == -1 || make_l1(c, &l1_off, err) == -1
        || snapshot_move_l1(t, c->k->snapshot, l1_off, err) == -1) {
        t->unsettled = image_check_state(img, NULL) == -1;
        undo(c, l1_off);
        return -1;
    }
    t->unsettled = true;
    return drop_tables(c, old, err);
}

static int
copy_window(struct keep *k, const struct window *w, struct qcow2_error *err)
{
    struct image *img = image_of(k);
    CLEANUP_FREE be64 *table = calloc(1, img->cluster_size);
    struct copying c = { .k = k, .w = w, .table = table };
    struct txn t;
    int r;

    if (!table)
        return error_nomem(err);
    c.l1_index = w->from >> geometry_l1_reach_bits(&img->geo);
    if (txn_begin(&t, img, TXN_TABLES | TXN_DIRTY | TXN_ANY_VIEW, err) == -1)
        return -1;
    r = copy(&t, &c, err);
    free(c.made.runs);
    free(c.left.runs);
    return txn_end(&t, r, err);
}

/* --- Steps ---------------------------------------------------------------- */

static void
close_view(struct keep *k)
{
    image_free_snapshot(k->view);
    k->view = NULL;
}

static int
open_view(struct keep *k, struct qcow2_error *err)
{
    const struct snapshot *s = &image_of(k)->snaptab.snapshots[k->snapshot];

    if (image_snapshot_in_use(image_of(k), k->snapshot))
        return error_set(err, EBUSY, "%s: the snapshot '%s' is being read",
                         image_of(k)->name, ESCAPED(s->name));
    k->view = image_open_snapshot(image_of(k), k->snapshot, err);
    if (!k->view)
        return -1;
    return tree_check_alone(image_of(k), k->view->l1, k->view->l1_entries, err);
}

static int
refuse(struct keep *k, const struct window *w, struct qcow2_error *err)
{
    const struct snapshot *s = &image_of(k)->snaptab.snapshots[k->snapshot];
    uint64_t i = 0;

    while (!is_needed(w, i))
        i++;
    error_set(err, ENOTEMPTY, "%s: the snapshot '%s' would read differently, "
              "from guest offset 0x%llx on: it leaves ranges to the backing "
              "file", image_of(k)->name, ESCAPED(s->name),
              (unsigned long long)(w->from
                                   + (i << image_of(k)->geo.subcluster_bits)));
    return error_hint(err, QCOW2_HINT_SNAPSHOTS);
}

/* One window of the snapshot at hand: 1, or 0 if nothing was to be done. */
static int
run_window(struct keep *k, struct window *w, struct qcow2_error *err)
{
    struct image *img = image_of(k);
    uint64_t reach = UINT64_C(1) << geometry_l1_reach_bits(&img->geo);
    uint64_t end = round_up(k->view->src.size, img->cluster_size);

    w->from = k->pos;
    w->to = min_u64(end, round_down(k->pos, reach) + reach);
    w->to = min_u64(w->to, k->pos + WINDOW_BYTES);
    w->nr_needed = 0;
    memset(w->needed, 0, sizeof w->needed);
    if (look(k, w, err) == -1)
        return -1;
    if (w->nr_needed > 0 && k->check_only)
        return refuse(k, w, err);
    if (w->nr_needed > 0) {
        if (copy_window(k, w, err) == -1)
            return -1;
        close_view(k); /* it has the old table */
    }
    k->pos = w->to;
    return w->nr_needed > 0;
}

static int
run_snapshot(struct keep *k, struct window *w, struct qcow2_error *err)
{
    int r = 0;

    if (!k->view && open_view(k, err) == -1)
        return -1;
    for (unsigned i = 0; r == 0 && i < MAX_WINDOWS; i++) {
        if (k->pos >= k->view->src.size) {
            close_view(k);
            k->pos = 0;
            k->snapshot++;
            return 0;
        }
        r = run_window(k, w, err);
    }
    return r;
}

int
keep_step(struct keep *k, struct qcow2_error *err)
{
    CLEANUP_FREE struct window *w = NULL;

    if (k->snapshot >= image_of(k)->snaptab.nr)
        return 0;
    if (!k->buffers)
        k->buffers = malloc(2 * WINDOW_BYTES);
    w = malloc(sizeof *w);
    if (!k->buffers || !w)
        return error_nomem(err);
    w->old = k->buffers;
    w->new = k->buffers + WINDOW_BYTES;
    return run_snapshot(k, w, err) == -1 ? -1 : 1;
}

void
keep_end(struct keep *k)
{
    close_view(k);
    free(k->buffers);
    k->buffers = NULL;
}
