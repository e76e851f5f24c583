/* SPDX-License-Identifier: BSD-3-Clause */
/* overlap.c: the set of host clusters that hold metadata; see overlap.h. */
#include "meta/overlap.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/shared.h"
#include "format/entry.h"
#include "meta/image.h"

/* Open addressing with linear probing. A slot holds a host cluster index
 * plus one; 0 is empty, TOMBSTONE was removed. Beside the clusters stand the
 * regions that had one of them ever: most runs of data meet none. */
struct overlap_table {
    struct overlap_table *next;
    uint64_t mask;
    uint64_t nr_used;           /* tombstones included */
    shared_u64 slots[];         /* atomic */
};
#define TOMBSTONE UINT64_MAX
#define REGION_BITS 6

static uint64_t
region_of(uint64_t host_cluster)
{
    return UINT64_C(1) << 63 | host_cluster >> REGION_BITS;
}

static struct overlap_table *
table_new(uint64_t nr_slots)
{
    struct overlap_table *t = calloc(1, sizeof *t
                                            + nr_slots * sizeof t->slots[0]);

    if (t)
        t->mask = nr_slots - 1;
    return t;
}

/* The address keeps whoever made the image from choosing values that meet in
 * one slot. */
static uint64_t
slot_of(const struct overlap_table *t, uint64_t value)
{
    uint64_t h = (value ^ (uintptr_t)t) * UINT64_C(0x9e3779b97f4a7c15);

    h ^= h >> 32;
    return (h * UINT64_C(0x9e3779b97f4a7c15) >> 20) & t->mask;
}

int
overlap_init(struct overlap *o, struct qcow2_error *err)
{
    memset(o, 0, sizeof *o);
    pthread_mutex_init(&o->lock, NULL);
    o->table = table_new(64);
    return o->table ? 0 : error_nomem(err);
}

void
overlap_destroy(struct overlap *o)
{
    while (o->retired) {
        struct overlap_table *next = o->retired->next;

        free(o->retired);
        o->retired = next;
    }
    free(o->table);
    pthread_mutex_destroy(&o->lock);
}

static bool
table_has(const struct overlap_table *t, uint64_t value)
{
    for (uint64_t i = slot_of(t, value);; i = (i + 1) & t->mask) {
        uint64_t slot = __atomic_load_n(&t->slots[i], __ATOMIC_RELAXED);

        if (slot == value)
            return true;
        if (slot == 0)
            return false;
    }
}

static void
table_insert(struct overlap_table *t, uint64_t value)
{
    uint64_t i = slot_of(t, value);

    while (t->slots[i] != 0)
        i = (i + 1) & t->mask;
    __atomic_store_n(&t->slots[i], value, __ATOMIC_RELAXED);
    t->nr_used++;
}

/* Makes room for nr more, at most half full. Readers may be in the old table,
 * so it stays until the end: all retired tables together are smaller than the
 * newest. */
static int
reserve(struct overlap *o, uint64_t nr, struct qcow2_error *err)
{
    struct overlap_table *old = o->table, *t;
    uint64_t nr_slots = old->mask + 1;

    while (2 * (old->nr_used + nr) >= nr_slots)
        nr_slots *= 2;
    if (nr_slots == old->mask + 1)
        return 0;
    t = table_new(nr_slots);
    if (!t)
        return error_nomem(err);
    for (uint64_t i = 0; i <= old->mask; i++)
        if (old->slots[i] != 0 && old->slots[i] != TOMBSTONE)
            table_insert(t, old->slots[i]);
    old->next = o->retired;
    o->retired = old;
    __atomic_store_n(&o->table, t, __ATOMIC_RELEASE);
    return 0;
}

int
overlap_add(struct overlap *o, uint64_t host_cluster, uint64_t nr,
            struct qcow2_error *err)
{
    LOCK_SCOPE(&o->lock);

    /* First, so that all of it is added or nothing: what stayed behind would
     * be taken for damage later. */
    if (reserve(o, nr + (nr >> REGION_BITS) + 2, err) == -1)
        return -1;
    for (uint64_t i = host_cluster; i < host_cluster + nr; i++) {
        if (!table_has(o->table, region_of(i)))
            table_insert(o->table, region_of(i));
        if (!table_has(o->table, i + 1))
            table_insert(o->table, i + 1);
    }
    return 0;
}

void
overlap_remove(struct overlap *o, uint64_t host_cluster, uint64_t nr)
{
    LOCK_SCOPE(&o->lock);
    struct overlap_table *t = o->table;

    for (uint64_t n = 0; n < nr; n++) {
        uint64_t value = host_cluster + n + 1;

        for (uint64_t i = slot_of(t, value); t->slots[i] != 0;
             i = (i + 1) & t->mask)
            if (t->slots[i] == value) {
                __atomic_store_n(&t->slots[i], TOMBSTONE, __ATOMIC_RELAXED);
                break;
            }
    }
}

bool
overlap_hit(const struct overlap *o, uint64_t host_cluster, uint64_t nr)
{
    const struct overlap_table *t = __atomic_load_n(&o->table,
                                                    __ATOMIC_ACQUIRE);

    uint64_t i = host_cluster, end = host_cluster + nr;

    while (i < end) {
        uint64_t next = min_u64(end, (i | ((1 << REGION_BITS) - 1)) + 1);

        if (next - i > 1 && !table_has(t, region_of(i)))
            i = next;
        for (; i < next; i++)
            if (table_has(t, i + 1))
                return true;
    }
    return false;
}

/* Adds what lies in [host_off, host_off + nr_bytes) and must have its clusters
 * for itself: who changes one of two structures in a cluster damages the
 * other, and the cache takes slices of tables of two kinds for one. */
static int
add_alone(const struct image *img, struct overlap *o, const char *what,
          uint64_t host_off, uint64_t nr_bytes, struct qcow2_error *err)
{
    uint64_t first = host_off >> img->cluster_bits, nr;

    if (nr_bytes == 0)
        return 0;
    nr = ((host_off + nr_bytes - 1) >> img->cluster_bits) - first + 1;
    if (overlap_hit(o, first, nr)) {
        error_set(err, EIO, "%s: the %s at host offset 0x%" PRIx64
                  " overlaps other metadata: the image is damaged and cannot "
                  "be written", img->name, what, host_off);
        return error_hint(err, QCOW2_HINT_READONLY | QCOW2_HINT_CHECK);
    }
    return overlap_add(o, first, nr, err);
}

/* L1 tables of snapshots. Two may have the same: nobody changes it. */
static int
add_snapshots(const struct image *img, struct overlap *o,
              struct qcow2_error *err)
{
    const struct snapshot_table *t = &img->snaptab;
    struct overlap starts;
    uint64_t nr = 0;
    int r;

    for (uint32_t i = 0; i < t->nr; i++)
        nr += div_round_up((uint64_t)t->snapshots[i].l1_size * 8,
                           img->cluster_size);
    if (nr > MAX_SNAPSHOT_L1_CLUSTERS) {
        error_set(err, EIO, "%s: the L1 tables of its snapshots take %" PRIu64
                  " clusters, more than the limit of %d: it cannot be written",
                  img->name, nr, (int)MAX_SNAPSHOT_L1_CLUSTERS);
        return error_hint(err, QCOW2_HINT_READONLY | QCOW2_HINT_CONVERT);
    }
    r = overlap_init(&starts, err);
    for (uint32_t i = 0; r == 0 && i < t->nr; i++) {
        const struct snapshot *s = &t->snapshots[i];
        uint64_t start = s->l1_offset >> img->cluster_bits;

        if (s->l1_size == 0 || overlap_hit(&starts, start, 1))
            continue;
        r = add_alone(img, o, "L1 table of a snapshot", s->l1_offset,
                      (uint64_t)s->l1_size * 8, err);
        if (r == 0)
            r = overlap_add(&starts, start, 1, err);
    }
    overlap_destroy(&starts);
    return r;
}

/* L2 tables of the active disk. Entries without COPIED may name one table
 * several times: none of them changes it before it made a copy. */
static int
add_l2_tables(const struct image *img, struct overlap *o, bool copied,
              struct qcow2_error *err)
{
    for (uint32_t i = 0; i < img->active.l1_entries; i++) {
        struct l1_entry e = entry_decode_l1(img->active.l1[i],
                                            img->cluster_bits);

        if (e.host_off && e.copied == copied
            && (copied ? add_alone(img, o, "L2 table", e.host_off, 1, err)
                       : overlap_add(o, e.host_off >> img->cluster_bits, 1,
                                     err)) == -1)
            return -1;
    }
    return 0;
}

/* Tables that may have several names come first. */
static int
add_all(const struct image *img, struct overlap *o, struct qcow2_error *err)
{
    const struct header *h = &img->hdr;
    const struct alloc *a = &img->alloc;

    if (add_l2_tables(img, o, false, err) == -1
        || add_snapshots(img, o, err) == -1
        || add_alone(img, o, "header", 0, 1, err) == -1
        || add_alone(img, o, "L1 table", h->l1_offset,
                     (uint64_t)h->l1_size * 8, err) == -1
        || add_alone(img, o, "refcount table", h->reftable_offset,
                     scale_up(h->reftable_clusters, img->cluster_bits),
                     err) == -1
        || add_alone(img, o, "new refcount table", a->moved_offset,
                     a->moved_offset ? (uint64_t)a->moved_clusters
                                           << img->cluster_bits : 0,
                     err) == -1
        || add_alone(img, o, "bitmap directory", h->bitmap_directory_offset,
                     h->bitmap_directory_size, err) == -1
        || add_alone(img, o, "snapshot table", h->snapshots_offset,
                     img->snaptab.nr_bytes, err) == -1
        || add_l2_tables(img, o, true, err) == -1)
        return -1;
    for (uint32_t i = 0; i < a->reftable_entries; i++)
        if (a->reftable[i]
            && add_alone(img, o, "refcount block", a->reftable[i], 1, err)
               == -1)
            return -1;
    return 0;
}

int
overlap_fill(struct image *img, struct qcow2_error *err)
{
    struct overlap *o = &img->overlap, now;
    struct overlap_table *table, *retired;

    if (overlap_init(&now, err) == -1)
        return -1;
    if (add_all(img, &now, err) == -1) {
        overlap_destroy(&now);
        return -1;
    }
    table = o->table;
    retired = o->retired;
    o->table = now.table;
    o->retired = now.retired;
    now.table = table;
    now.retired = retired;
    overlap_destroy(&now);
    return 0;
}

int
overlap_check(struct image *img, uint64_t host_off, uint64_t nr_bytes,
              struct qcow2_error *err)
{
    uint64_t first = host_off >> img->cluster_bits;
    uint64_t last = (host_off + nr_bytes - 1) >> img->cluster_bits;

    if (!overlap_hit(&img->overlap, first, last - first + 1))
        return 0;
    return image_damaged(img, err, "a write of data to host offset 0x%llx "
                         "would overwrite metadata",
                         (unsigned long long)host_off);
}
