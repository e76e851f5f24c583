/* SPDX-License-Identifier: BSD-3-Clause */
/* amend.c: changes an image's version, refcount width and lazy refcounts.
 *
 * All that the new header needs is made beside what is there; one write of
 * the first sector switches to it (I5).
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
#include "format/header.h"
#include "meta/alloc.h"
#include "meta/data-file.h"
#include "meta/flush.h"
#include "meta/map.h"
#include "meta/overlap.h"
#include "meta/refcount.h"
#include "request/change.h"

/* Refcounts of another width, in new clusters at the end of the file: the
 * table, then the refblocks. The old ones stay until the switch. */
struct widths {
    unsigned order, block_bits;  /* of the new refcounts */
    uint64_t first;              /* host cluster of the new table */
    uint64_t table_clusters, nr_blocks;
    struct freed_list old;       /* clusters of the old table and blocks */
};

static uint64_t
new_end(const struct widths *w)
{
    return w->first + w->table_clusters + w->nr_blocks;
}

/* The table and the blocks count themselves too, so they make each other
 * grow until all is covered. */
static int
plan_widths(struct image *img, struct widths *w, struct qcow2_error *err)
{
    uint64_t per_block = (uint64_t)img->cluster_size * 8 >> w->order;

    w->block_bits = img->cluster_bits + 3 - w->order;
    w->first = img->alloc.end;
    for (;;) {
        uint64_t blocks = div_round_up(new_end(w), per_block);
        uint64_t table = div_round_up(blocks * 8, img->cluster_size);

        if (blocks == w->nr_blocks && table == w->table_clusters)
            break;
        w->nr_blocks = blocks;
        w->table_clusters = table;
    }
    if (w->table_clusters << img->cluster_bits > MAX_REFTABLE_BYTES)
        return error_set(err, ENOTSUP, "%s: a file of this size needs a "
                         "refcount table above the limit of %d bytes with "
                         "refcounts of %u bits", img->name,
                         (int)MAX_REFTABLE_BYTES, 1u << w->order);
    if (new_end(w) > img->alloc.limit)
        return error_set(err, ENOSPC, "%s: no space is left in the file for "
                         "new refcounts", img->name);
    /* Whatever comes of it, these clusters will not read as zeroes. */
    alloc_mark_written(img, new_end(w));
    return 0;
}

/* The refcount of a host cluster below new_end after the switch, old
 * refcounts still counted; and how many, at most *nr, have the same. */
static int
refcount_after(struct image *img, const struct widths *w, uint64_t cluster,
               uint64_t *nr, uint64_t *refcount, struct qcow2_error *err)
{
    if (cluster >= w->first) {
        *refcount = 1;
        return 0;
    }
    *nr = min_u64(*nr, w->first - cluster);
    if (refcount_read(img, cluster, nr, refcount, err) == -1)
        return -1;
    if (*refcount > refcount_max(w->order))
        return error_set(err, ENOTSUP, "%s: the cluster at 0x%" PRIx64 " has "
                         "%" PRIu64 " references, too many for refcounts of "
                         "%u bits", img->name, cluster << img->cluster_bits,
                         *refcount, 1u << w->order);
    return 0;
}

/* Fills the refblock that counts nr clusters from first on. */
static int
fill_block(struct image *img, const struct widths *w, unsigned char *block,
           uint64_t first, uint64_t nr, struct qcow2_error *err)
{
    memset(block, 0, img->cluster_size);
    for (uint64_t i = 0, n; i < nr; i += n) {
        uint64_t refcount;

        n = nr - i;
        if (refcount_after(img, w, first + i, &n, &refcount, err) == -1)
            return -1;
        if (refcount > 0)
            for (uint64_t j = i; j < i + n; j++)
                refcount_set(block, w->order, j, refcount);
    }
    return 0;
}

static int
write_blocks(struct image *img, const struct widths *w,
             struct qcow2_error *err)
{
    CLEANUP_FREE unsigned char *block = malloc(img->cluster_size);

    if (!block)
        return error_nomem(err);
    for (uint64_t i = 0; i < w->nr_blocks; i++) {
        uint64_t first = i << w->block_bits;
        uint64_t nr = min_u64(UINT64_C(1) << w->block_bits,
                              new_end(w) - first);

        if (fill_block(img, w, block, first, nr, err) == -1
            || io_pwrite(img->io, block, img->cluster_size,
                         (w->first + w->table_clusters + i)
                             << img->cluster_bits, err) == -1)
            return -1;
    }
    return 0;
}

static int
write_table(struct image *img, const struct widths *w,
            struct qcow2_error *err)
{
    uint64_t nr_bytes = w->table_clusters << img->cluster_bits;
    CLEANUP_FREE be64 *table = calloc(1, nr_bytes);

    if (!table)
        return error_nomem(err);
    for (uint64_t i = 0; i < w->nr_blocks; i++)
        table[i] = be64_make((w->first + w->table_clusters + i)
                             << img->cluster_bits);
    return io_pwrite(img->io, table, nr_bytes, w->first << img->cluster_bits,
                     err);
}

/* Notes what the old refcounts occupy, to be freed after the switch. */
static int
note_old(struct image *img, struct widths *w, struct qcow2_error *err)
{
    const struct alloc *a = &img->alloc;

    w->old.runs = malloc((a->reftable_entries + 1) * sizeof *w->old.runs);
    if (!w->old.runs)
        return error_nomem(err);
    w->old.runs[w->old.nr++] = (struct freed_run){
        img->hdr.reftable_offset >> img->cluster_bits,
        img->hdr.reftable_clusters,
    };
    for (uint32_t i = 0; i < a->reftable_entries; i++)
        if (a->reftable[i])
            w->old.runs[w->old.nr++] = (struct freed_run){
                a->reftable[i] >> img->cluster_bits, 1,
            };
    return 0;
}

/* Memory is about the old refcounts still: reads them anew. */
static int
settle_widths(struct image *img, struct widths *w, struct qcow2_error *err)
{
    img->geo.refblock_bits = w->block_bits;
    cache_drop_owner(img->meta, img);
    if (alloc_init(img, err) == -1 || overlap_fill(img, err) == -1) {
        image_fail(img);
        return -1;
    }
    for (size_t i = 0; i < w->old.nr; i++)
        alloc_free(img, w->old.runs[i].cluster << img->cluster_bits,
                   w->old.runs[i].nr);
    return 0;
}

static int
change_widths(struct txn *t, struct header_update *u, struct qcow2_error *err)
{
    struct widths w = { .order = u->refcount_order };
    struct image *img = t->img;
    int r = -1;

    if (plan_widths(img, &w, err) == 0 && note_old(img, &w, err) == 0
        && write_blocks(img, &w, err) == 0
        && write_table(img, &w, err) == 0) {
        u->parts |= HEADER_SET_REFTABLE;
        u->reftable_offset = w.first << img->cluster_bits;
        u->reftable_clusters = w.table_clusters;
        r = txn_switch(t, u, err);
        if (r == 0)
            r = settle_widths(img, &w, err);
    }
    free(w.old.runs);
    return r;
}

/* Must the mapping of zeroes at off be written in version 2? */
static bool
needs_zeroes(const struct image *img, uint64_t off, const struct mapping *m)
{
    return off < img->active.src.size
           && (img->chain->nr_layers > 1 || m->has_host);
}

/* A small file may have any number of zero clusters, which take their size of
 * space and time each. */
static int
check_zeroes(struct image *img, struct qcow2_error *err)
{
    struct view *v = &img->active;
    uint64_t nr_bytes = 0;
    struct mapping m;

    for (uint64_t off = 0; off < v->src.size; off += m.nr_bytes) {
        if (map_lookup(v, off, v->src.size - off, &m, err) == -1)
            return -1;
        if (m.kind == MAP_ZERO && needs_zeroes(img, off, &m))
            nr_bytes += m.nr_bytes;
        if (nr_bytes > QCOW2_AMEND_MAX_ZEROES) {
            error_set(err, EFBIG, "%s: version 2 has no zero clusters, so more "
                      "than %" PRIu64 " bytes of zeroes would be written",
                      img->name, QCOW2_AMEND_MAX_ZEROES);
            return error_hint(err, QCOW2_HINT_MUCH);
        }
    }
    return 0;
}

/* Version 2 has no zero clusters: those of the disk become unallocated where
 * nothing shows through, or clusters of zeroes. Tables may have some past its
 * end as well: QEMU leaves them where a VM state was. */
static int
expand_zeroes(struct image *img, struct qcow2_error *err)
{
    struct view *v = &img->active;
    uint64_t off = 0, end = (uint64_t)v->l1_entries
                            << geometry_l1_reach_bits(&img->geo);
    CLEANUP_FREE void *zeroes = calloc(1, img->cluster_size);

    if (!zeroes)
        return error_nomem(err);
    while (off < end) {
        struct map_cursor c = map_cursor(v);
        struct mapping m;

        if (map_lookup(v, off, end - off, &m, err) == -1)
            return -1;
        if (m.kind != MAP_ZERO) {
            off += m.nr_bytes;
            continue;
        }
        if (flush_make_room(img, err) == -1)
            return -1;
        if (needs_zeroes(img, off, &m)) {
            const struct guest_change change = {
                .kind = CHANGE_WRITE, .buf = zeroes, .guest_off = off,
                .nr_bytes = min_u64(img->cluster_size, v->src.size - off),
            };

            if (change_guest(img, &change, err) == -1)
                return -1;
            off += img->cluster_size;
            continue;
        }
        if (map_prepare(&c, off, err) == -1)
            return -1;
        map_set(&c, off, m.nr_bytes, MAP_TO_UNALLOCATED, 0);
        map_done(&c);
        off += m.nr_bytes;
    }
    return 0;
}

static int
check_downgrade(struct image *img, const struct header_update *to,
                struct qcow2_error *err)
{
    uint64_t incompatible = image_incompatible(img);
    const char *why = NULL;

    if (to->refcount_order != 4)
        why = "refcounts must be 16 bits wide (refcount_bits=16)";
    else if (incompatible & INCOMPAT_EXTENDED_L2)
        why = "it has extended L2 entries (subclusters)";
    else if (incompatible & ~INCOMPAT_DIRTY)
        why = "it uses features that version 2 does not have";
    else if (img->snaptab.nr > 0)
        why = "its snapshots may need features of version 3: delete them "
              "first";
    if (why)
        return error_set(err, ENOTSUP, "%s: cannot become version 2: %s",
                         img->name, why);
    return 0;
}

static int
plan_form(struct image *img, const struct qcow2_amend_options *o,
          struct header_update *to, struct qcow2_error *err)
{
    const struct header *h = &img->hdr;

    *to = (struct header_update){
        .parts = HEADER_SET_FORM,
        .version = o->version ? o->version : h->version,
        .compatible = h->compatible,
        .refcount_order = h->refcount_order,
    };
    if (o->refcount_bits)
        to->refcount_order = __builtin_ctz(o->refcount_bits);
    if (o->lazy_refcounts == QCOW2_AMEND_ON)
        to->compatible |= COMPAT_LAZY_REFCOUNTS;
    else if (o->lazy_refcounts == QCOW2_AMEND_OFF || to->version < 3)
        to->compatible &= ~COMPAT_LAZY_REFCOUNTS;
    if (to->version < 3 && o->lazy_refcounts == QCOW2_AMEND_ON)
        return error_set(err, EINVAL, "lazy refcounts need version 3 "
                         "(compat=1.1)");
    if (to->version < 3 && h->nr_bitmaps > 0)
        return error_set(err, ENOTSUP, "%s: version 2 has no persistent "
                         "bitmaps: remove them first", img->name);
    if (to->version < 3)
        return check_downgrade(img, to, err);
    return 0;
}

/* A name leads nowhere, and nothing is raw, without a data file. */
static int
check_data_file(const struct image *img, const struct qcow2_amend_options *o,
                struct qcow2_error *err)
{
    if (o->data_file && !data_file_is_used(img))
        return error_set(err, EINVAL, "%s: it has no external data file, and "
                         "convert alone makes an image that has", img->name);
    if (o->data_file
        && (!o->data_file[0]
            || strlen(o->data_file) > MAX_DATA_FILE_NAME_BYTES))
        return error_set(err, EINVAL, "the data file name must have 1 to %d "
                         "bytes", MAX_DATA_FILE_NAME_BYTES);
    if (o->data_file_raw == QCOW2_AMEND_ON && !header_has_raw_data(&img->hdr))
        return error_set(err, EINVAL, "%s: a data file can be raw from the "
                         "start only: convert makes such an image", img->name);
    return 0;
}

/* The name of the data file, and whether it is raw: one write of the header.
 */
static int
change_data_file(struct txn *t, const struct qcow2_amend_options *o,
                 struct qcow2_error *err)
{
    struct header_extension name = {
        .type = EXT_DATA_FILE_NAME, .data = (unsigned char *)o->data_file,
    };
    struct header_update u = {
        .parts = HEADER_SET_AUTOCLEAR, .autoclear = t->img->hdr.autoclear,
        .extensions = &name, .nr_extensions = 1,
    };

    if (o->data_file) {
        u.parts |= HEADER_SET_EXTENSIONS;
        name.length = strlen(o->data_file);
    }
    if (o->data_file_raw == QCOW2_AMEND_OFF)
        u.autoclear &= ~AUTOCLEAR_RAW_DATA;
    if (!o->data_file && u.autoclear == t->img->hdr.autoclear)
        return 0;
    return txn_switch(t, &u, err);
}

static int
check_options(const struct qcow2_amend_options *o, struct qcow2_error *err)
{
    if (o->version != 0 && o->version != 2 && o->version != 3)
        return error_set(err, EINVAL, "the version can be 2 or 3");
    if (o->refcount_bits
        && (!is_power_of_2(o->refcount_bits) || o->refcount_bits > 64))
        return error_set(err, EINVAL, "refcounts can be 1, 2, 4, 8, 16, 32 "
                         "or 64 bits wide");
    return 0;
}

/* Version 2 refcounts are 16 bits wide, so the width changes while the
 * version is 3. */
static int
change_form(struct txn *t, unsigned version, unsigned refcount_order,
            uint64_t compatible, struct qcow2_error *err)
{
    struct header_update u = {
        .parts = HEADER_SET_FORM,
        .version = version,
        .compatible = compatible,
        .refcount_order = refcount_order,
    };

    return refcount_order == t->img->hdr.refcount_order
               ? txn_switch(t, &u, err) : change_widths(t, &u, err);
}

/* With everything on disk and the image for itself. */
static int
amend(struct txn *t, const struct qcow2_amend_options *o,
      struct qcow2_error *err)
{
    struct image *img = t->img;
    unsigned order = img->hdr.refcount_order;
    struct header_update to;

    if (check_data_file(img, o, err) == -1
        || plan_form(img, o, &to, err) == -1)
        return -1;
    if (to.version == 2 && img->hdr.version > 2
        && ((!o->may_write_much && check_zeroes(img, err) == -1)
            || expand_zeroes(img, err) == -1
            || flush_all(img, err) == -1))
        return -1;
    /* Version 3 wants every snapshot to tell its size. */
    if (img->hdr.version == 2 && to.version > 2
        && (snapshot_keep_sizes(t, err) == -1
            || change_form(t, to.version, order, to.compatible, err) == -1))
        return -1;
    if (order != to.refcount_order
        && change_form(t, img->hdr.version, to.refcount_order,
                       to.compatible, err) == -1)
        return -1;
    /* Lowered refcounts are only in memory yet. */
    if (flush_all(img, err) == -1)
        return -1;
    return change_form(t, to.version, to.refcount_order, to.compatible, err)
                   == -1 ? -1 : change_data_file(t, o, err);
}

/* What is refused must not cost the image bitmaps that cannot be kept. */
static int
check_first(struct qcow2_disk *disk, const struct qcow2_amend_options *o,
            struct qcow2_error *err)
{
    struct image *img = disk_image_to_edit(disk, err);
    struct header_update to;

    if (!img || check_options(o, err) == -1
        || disk_check_own_view(disk, err) == -1)
        return -1;
    RDLOCK_SCOPE(&img->rwlock);
    return check_data_file(img, o, err) == -1 ? -1
                                              : plan_form(img, o, &to, err);
}

int
qcow2_amend(struct qcow2_disk *disk, const struct qcow2_amend_options *options,
            struct qcow2_error *err)
{
    struct image *img;
    struct txn t;

    if (disk->file->raw)
        return error_set(err, ENOTSUP, "a raw disk has nothing to amend");
    if (check_first(disk, options, err) == -1)
        return -1;
    img = disk->file->image;
    /* No step leaves what a checker would object to, and a version 2
     * header has no place for the dirty bit. */
    if (txn_begin(&t, img, TXN_TABLES, err) == -1)
        return -1;
    t.unsettled = true;
    return txn_end(&t, amend(&t, options, err), err);
}
