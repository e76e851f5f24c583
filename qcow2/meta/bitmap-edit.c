/* SPDX-License-Identifier: BSD-3-Clause */
/* bitmap-edit.c: changes bitmaps; see bitmap-edit.h. */
#include "meta/bitmap-edit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "meta/alloc.h"
#include "meta/tree.h"

static int
remember(struct bitmap_edit *e, struct bitmap_clusters *c, uint64_t host_off,
         uint64_t nr_bytes, struct qcow2_error *err)
{
    const struct image *img = e->txn->img;

    if (nr_bytes == 0)
        return 0;
    if (c->nr == c->capacity) {
        size_t capacity = c->capacity ? 2 * c->capacity : 16;
        struct freed_run *runs = realloc(c->runs, capacity * sizeof *runs);

        if (!runs)
            return error_nomem(err);
        c->runs = runs;
        c->capacity = capacity;
    }
    c->runs[c->nr++] = (struct freed_run){
        host_off >> img->cluster_bits,
        div_round_up(nr_bytes, img->cluster_size),
    };
    return 0;
}

static void
free_clusters(struct image *img, const struct bitmap_clusters *c)
{
    for (size_t i = 0; i < c->nr; i++)
        alloc_free_metadata(img, c->runs[i].cluster << img->cluster_bits,
                            c->runs[i].nr << img->cluster_bits);
}

void
bitmap_edit_begin(struct bitmap_edit *e, struct txn *txn,
                  struct bitmap_list *list)
{
    *e = (struct bitmap_edit){ .txn = txn, .list = list };
}

/* What was made and does not count goes. */
void
bitmap_edit_end(struct bitmap_edit *e)
{
    free_clusters(e->txn->img, &e->made);
    free(e->made.runs);
    free(e->replaced.runs);
}

/* New clusters, which are forgotten as they came unless the switch is made. */
static int
make(struct bitmap_edit *e, uint64_t nr_bytes, uint64_t *host_off,
     struct qcow2_error *err)
{
    struct image *img = e->txn->img;

    if (alloc_table(img, nr_bytes, host_off, err) == -1)
        return -1;
    if (remember(e, &e->made, *host_off, nr_bytes, err) == 0)
        return 0;
    alloc_free_metadata(img, *host_off, nr_bytes);
    return -1;
}

/* A new table of a bitmap on its way. */
struct new_table {
    struct image *img;
    const struct bitmap_entry *entry;
    uint64_t disk_size;
    uint64_t *old;              /* table */
    uint64_t *table;
    bool *changed;              /* an entry's bits */
    uint64_t nr, nr_changed;
    unsigned char *bits;        /* of a cluster */
};

static void
free_table(struct new_table *t)
{
    free(t->old);
    free(t->table);
    free(t->changed);
    free(t->bits);
}

/* Guest bytes that the bits in a cluster speak of. */
static uint64_t
reach(const struct new_table *t)
{
    return (t->img->cluster_size * UINT64_C(8)) << t->entry->granularity_bits;
}

/* Takes over the entries that are to stay, and finds out which change. */
static int
plan(struct new_table *t, struct dirty_ranges *more, struct qcow2_error *err)
{
    uint64_t shared = min_u64(t->nr, t->entry->table_entries);

    memcpy(t->table, t->old, shared * sizeof *t->table);
    for (uint64_t i = 0; i < t->nr; i++) {
        uint64_t from = i * reach(t), nr_bytes = 0;
        bool cut = i == t->nr - 1 && i < shared
                   && t->nr != t->entry->table_entries;

        if (more && t->table[i] != BITMAP_ALL_ONES
            && more->next(more, &from, min_u64(t->disk_size,
                                               (i + 1) * reach(t)),
                          &nr_bytes, err) == -1)
            return -1;
        /* What was behind the end must not come back when the disk grows. */
        t->changed[i] = nr_bytes > 0
                        || (cut && t->table[i] & BITMAP_OFFSET_MASK);
        t->nr_changed += t->changed[i];
    }
    return 0;
}

static void
set_bits(unsigned char *bits, uint64_t from, uint64_t to)
{
    for (; from < to; from++)
        if (from % 8 == 0 && to - from >= 8) {
            bits[from / 8] = 0xff;
            from += 7;
        } else {
            bits[from / 8] |= 1 << from % 8;
        }
}

/* Bits of one cluster: those that there were, and the ranges. */
static int
merge_bits(struct new_table *t, uint64_t i, struct dirty_ranges *more,
           struct qcow2_error *err)
{
    uint64_t old_off = t->table[i] & BITMAP_OFFSET_MASK;
    uint64_t base = i * reach(t), at = base, n = 0;
    uint64_t end = min_u64(t->disk_size, base + reach(t));
    unsigned g = t->entry->granularity_bits;
    uint64_t end_bit = div_round_up(end - base, UINT64_C(1) << g);

    memset(t->bits, 0, t->img->cluster_size);
    if (old_off && io_pread(t->img->io, t->bits,
                            div_round_up(end_bit, 8), old_off, err) == -1)
        return -1;
    if (end_bit % 8)
        t->bits[end_bit / 8] &= (1 << end_bit % 8) - 1;
    for (; more && at < end; at += n) {
        if (more->next(more, &at, end, &n, err) == -1)
            return -1;
        if (n == 0)
            break;
        set_bits(t->bits, (at - base) >> g,
                 div_round_up(at - base + n, UINT64_C(1) << g));
    }
    return 0;
}

/* Writes the bits that change, to new clusters, and names these in the new
 * table. */
static int
write_bits(struct bitmap_edit *e, struct new_table *t,
           struct dirty_ranges *more, struct qcow2_error *err)
{
    struct image *img = t->img;
    uint64_t host_off;

    if (make(e, t->nr_changed << img->cluster_bits, &host_off, err) == -1)
        return -1;
    for (uint64_t i = 0; i < t->nr; i++) {
        uint64_t old_off = t->table[i] & BITMAP_OFFSET_MASK;

        if (!t->changed[i])
            continue;
        if (merge_bits(t, i, more, err) == -1
            || io_pwrite(img->io, t->bits, img->cluster_size, host_off, err)
               == -1
            || (old_off && remember(e, &e->replaced, old_off,
                                    img->cluster_size, err) == -1))
            return -1;
        t->table[i] = host_off;
        host_off += img->cluster_size;
    }
    return 0;
}

static int
write_table(struct bitmap_edit *e, struct new_table *t, uint64_t *table_off,
            struct qcow2_error *err)
{
    struct image *img = t->img;
    uint64_t nr_bytes = t->nr * sizeof(be64);

    if (make(e, nr_bytes, table_off, err) == -1)
        return -1;
    for (uint64_t i = 0; i < t->nr; i++)
        t->table[i] = htobe64(t->table[i]);
    return io_pwrite(img->io, t->table, round_up(nr_bytes, img->cluster_size),
                     *table_off, err);
}

/* Entries behind the new end, and the old table. */
static int
replace_rest(struct bitmap_edit *e, const struct new_table *t,
             struct qcow2_error *err)
{
    struct image *img = t->img;

    for (uint64_t i = t->nr; i < t->entry->table_entries; i++) {
        uint64_t host_off = t->old[i] & BITMAP_OFFSET_MASK;

        if (host_off && remember(e, &e->replaced, host_off,
                                 img->cluster_size, err) == -1)
            return -1;
    }
    return remember(e, &e->replaced, t->entry->table_off,
                    t->entry->table_entries * sizeof(be64), err);
}

static int
init_table(struct new_table *t, struct image *img,
           const struct bitmap_entry *entry, struct qcow2_error *err)
{
    uint64_t nr_bytes;

    *t = (struct new_table){
        .img = img, .entry = entry, .disk_size = img->hdr.size,
        .nr = bitmap_table_entries(img->hdr.size, entry->granularity_bits,
                                   img->cluster_bits),
    };
    if (t->nr == 0)
        return error_set(err, EINVAL, "%s: a disk without bytes has no "
                         "bitmaps", img->name);
    if (t->nr << img->cluster_bits > MAX_BITMAP_BYTES)
        return error_set(err, EINVAL, "%s: with this granularity the disk's "
                         "bitmap would have more than %d MiB", img->name,
                         MAX_BITMAP_BYTES >> 20);
    nr_bytes = round_up(t->nr * sizeof *t->table, img->cluster_size);
    t->table = calloc(1, nr_bytes + 1);
    t->changed = calloc(t->nr + 1, sizeof *t->changed);
    t->bits = malloc(img->cluster_size);
    if (!t->table || !t->changed || !t->bits)
        return error_nomem(err);
    t->old = bitmap_read_table(img, entry, err);
    return t->old ? 0 : -1;
}

int
bitmap_edit_bits(struct bitmap_edit *e, struct bitmap *b,
                 struct dirty_ranges *more, struct qcow2_error *err)
{
    uint64_t table_off = 0;
    struct new_table t;
    int r = init_table(&t, e->txn->img, &b->entry, err);

    if (r == 0)
        r = plan(&t, more, err);
    if (r == 0 && (t.nr_changed > 0 || t.nr != b->entry.table_entries)) {
        r = write_bits(e, &t, more, err) == -1
                    || write_table(e, &t, &table_off, err) == -1
                    || replace_rest(e, &t, err) == -1
                ? -1 : 0;
        if (r == 0) {
            b->entry.table_off = table_off;
            b->entry.table_entries = t.nr;
        }
    }
    free_table(&t);
    return r;
}

int
bitmap_edit_drop_bits(struct bitmap_edit *e, struct bitmap *b,
                      struct qcow2_error *err)
{
    struct image *img = e->txn->img;
    CLEANUP_FREE uint64_t *table = bitmap_read_table(img, &b->entry, err);
    const struct new_table t = { .img = img, .entry = &b->entry,
                                 .old = table };

    if (!table || replace_rest(e, &t, err) == -1)
        return -1;
    b->entry.table_off = 0;
    b->entry.table_entries = 0;
    return 0;
}

static int
write_directory(struct bitmap_edit *e, struct disk_bitmaps_extension *d,
                struct qcow2_error *err)
{
    const struct bitmap_list *list = e->list;
    struct image *img = e->txn->img;
    CLEANUP_FREE unsigned char *buf = NULL;
    uint64_t nr_bytes = 0, padded, at = 0, host_off;

    for (uint32_t i = 0; i < list->nr; i++)
        nr_bytes += bitmap_entry_bytes(&list->bitmaps[i].entry);
    if (nr_bytes > MAX_BITMAP_DIRECTORY_BYTES || list->nr > MAX_BITMAPS)
        return error_set(err, ENOSPC, "%s: there are too many bitmaps",
                         img->name);
    padded = round_up(nr_bytes, img->cluster_size);
    buf = calloc(1, padded);
    if (!buf)
        return error_nomem(err);
    for (uint32_t i = 0; i < list->nr; i++) {
        bitmap_entry_put(buf + at, &list->bitmaps[i].entry);
        at += bitmap_entry_bytes(&list->bitmaps[i].entry);
    }
    *d = (struct disk_bitmaps_extension){
        .nb_bitmaps = be32_make(list->nr),
        .directory_size = be64_make(nr_bytes),
    };
    if (make(e, nr_bytes, &host_off, err) == -1)
        return -1;
    d->directory_offset = be64_make(host_off);
    return io_pwrite(img->io, buf, padded, host_off, err);
}

static int
compare_runs(const void *a, const void *b)
{
    const struct freed_run *x = a, *y = b;

    return x->cluster < y->cluster ? -1 : x->cluster > y->cluster;
}

/* Refcounts may be wrong, and what guests wrote is worth more than space: what
 * is data as well leaks, for a check to find. Where the tables are too many to
 * look through, the refcount of 1 that was seen counts. */
static void
free_replaced(struct bitmap_edit *e, bool shared)
{
    struct image *img = e->txn->img;

    if (shared)
        image_warn(img, "%s: clusters that its bitmaps used are data of the "
                   "disk or of a snapshot, too: they stay allocated",
                   img->name);
    else
        free_clusters(img, &e->replaced);
}

static bool
is_shared(struct bitmap_edit *e)
{
    struct bitmap_clusters *c = &e->replaced;

    if (c->nr == 0)
        return false;
    qsort(c->runs, c->nr, sizeof *c->runs, compare_runs);
    return tree_search(e->txn->img, c->runs, c->nr, NULL) == 1;
}

/* What was made is the image's. Bitmaps are protected like other metadata while
 * a session keeps them, and found anew by the next one; the directory is
 * always. */
static void
let_go(struct bitmap_edit *e)
{
    struct image *img = e->txn->img;
    uint64_t directory = img->hdr.bitmap_directory_offset
                         >> img->cluster_bits;

    for (size_t i = 0; i < e->made.nr; i++)
        if (e->made.runs[i].cluster != directory)
            cluster_set_remove(&img->overlap, e->made.runs[i].cluster,
                               e->made.runs[i].nr);
    e->made.nr = 0;
}

int
bitmap_edit_switch(struct bitmap_edit *e, struct qcow2_error *err)
{
    struct image *img = e->txn->img;
    struct disk_bitmaps_extension d;
    struct header_extension extension = {
        .type = EXT_BITMAPS, .length = sizeof d, .data = (unsigned char *)&d,
    };
    struct header_update u = {
        .parts = HEADER_SET_AUTOCLEAR | HEADER_SET_EXTENSIONS,
        .autoclear = AUTOCLEAR_BITMAPS | header_kept_autoclear(&img->hdr),
        .extensions = &extension, .nr_extensions = 1,
    };
    bool shared;

    if (remember(e, &e->replaced, img->hdr.bitmap_directory_offset,
                 img->hdr.bitmap_directory_size, err) == -1)
        return -1;
    if (e->list->nr == 0) {
        extension.data = NULL;
        u.autoclear = header_kept_autoclear(&img->hdr);
    } else if (write_directory(e, &d, err) == -1) {
        return -1;
    }
    shared = is_shared(e);
    if (txn_switch(e->txn, &u, err) == -1)
        return -1;
    let_go(e);
    free_replaced(e, shared);
    return 0;
}
