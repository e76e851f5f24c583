/* SPDX-License-Identifier: BSD-3-Clause */
/* overlap.c: which host clusters hold metadata; see overlap.h. */
#include "meta/overlap.h"

#include <errno.h>
#include <inttypes.h>

#include "base/checked.h"
#include "base/error.h"
#include "format/entry.h"

/* Adds what lies in [host_off, host_off + nr_bytes) and must have its clusters
 * for itself: who changes one of two structures in a cluster damages the
 * other, and the cache takes slices of tables of two kinds for one. */
static int
add_alone(const struct image *img, struct cluster_set *o, const char *what,
          uint64_t host_off, uint64_t nr_bytes, struct qcow2_error *err)
{
    uint64_t first = host_off >> img->cluster_bits, nr;

    if (nr_bytes == 0)
        return 0;
    nr = ((host_off + nr_bytes - 1) >> img->cluster_bits) - first + 1;
    if (cluster_set_has(o, first, nr)) {
        error_set(err, EIO, "%s: the %s at host offset 0x%" PRIx64
                  " overlaps other metadata: the image is damaged and cannot "
                  "be written", img->name, what, host_off);
        return error_hint(err, QCOW2_HINT_READONLY | QCOW2_HINT_CHECK);
    }
    return cluster_set_add(o, first, nr, err);
}

/* L1 tables of snapshots. Two may have the same: nobody changes it. */
static int
add_snapshots(const struct image *img, struct cluster_set *o,
              struct qcow2_error *err)
{
    const struct snapshot_table *t = &img->snaptab;
    struct cluster_set starts;
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
    r = cluster_set_init(&starts, err);
    for (uint32_t i = 0; r == 0 && i < t->nr; i++) {
        const struct snapshot *s = &t->snapshots[i];
        uint64_t start = s->l1_offset >> img->cluster_bits;

        if (s->l1_size == 0 || cluster_set_has(&starts, start, 1))
            continue;
        r = add_alone(img, o, "L1 table of a snapshot", s->l1_offset,
                      (uint64_t)s->l1_size * 8, err);
        if (r == 0)
            r = cluster_set_add(&starts, start, 1, err);
    }
    cluster_set_destroy(&starts);
    return r;
}

/* L2 tables of the active disk. Entries without COPIED may name one table
 * several times: none of them changes it before it made a copy. */
static int
add_l2_tables(const struct image *img, struct cluster_set *o, bool copied,
              struct qcow2_error *err)
{
    for (uint32_t i = 0; i < img->active.l1_entries; i++) {
        struct l1_entry e = entry_decode_l1(img->active.l1[i],
                                            img->cluster_bits);

        if (e.host_off && e.copied == copied
            && (copied ? add_alone(img, o, "L2 table", e.host_off, 1, err)
                       : cluster_set_add(o, e.host_off >> img->cluster_bits,
                                         1, err)) == -1)
            return -1;
    }
    return 0;
}

/* Bitmaps that are kept right; whether they are alone was found out before. */
static int
add_bitmaps(const struct image *img, struct cluster_set *o,
            struct qcow2_error *err)
{
    const struct freed_list *b = img->bitmap_clusters;

    for (size_t i = 0; b && i < b->nr; i++)
        if (cluster_set_add(o, b->runs[i].cluster, b->runs[i].nr, err) == -1)
            return -1;
    return 0;
}

/* Tables that may have several names come first. */
static int
add_all(const struct image *img, struct cluster_set *o,
        struct qcow2_error *err)
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
        || add_l2_tables(img, o, true, err) == -1
        || add_bitmaps(img, o, err) == -1)
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
    struct cluster_set now;

    if (cluster_set_init(&now, err) == -1)
        return -1;
    if (add_all(img, &now, err) == -1) {
        cluster_set_destroy(&now);
        return -1;
    }
    cluster_set_exchange(&img->overlap, &now);
    cluster_set_destroy(&now);
    return 0;
}

int
overlap_check(struct image *img, uint64_t host_off, uint64_t nr_bytes,
              struct qcow2_error *err)
{
    uint64_t first = host_off >> img->cluster_bits;
    uint64_t last = (host_off + nr_bytes - 1) >> img->cluster_bits;

    if (!cluster_set_has(&img->overlap, first, last - first + 1))
        return 0;
    return image_damaged(img, err, "a write of data to host offset 0x%llx "
                         "would overwrite metadata",
                         (unsigned long long)host_off);
}
