/* SPDX-License-Identifier: BSD-3-Clause */
/* bitmaps.c: finds what persistent bitmaps occupy, and frees it when they are
 * removed; see bitmaps.h.
 */
#include "meta/bitmaps.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/cleanup.h"
#include "base/escape.h"
#include "format/bitmap-directory.h"
#include "meta/alloc.h"
#include "meta/refcount.h"
#include "meta/tree.h"

enum { TABLE_PIECE_ENTRIES = 8192 };

/* The whole clusters of [host_off, host_off + nr_bytes). */
static bool
add_run(struct image *img, struct bitmaps *b, uint64_t host_off,
        uint64_t nr_bytes, uint64_t file_size)
{
    uint64_t nr = div_round_up(nr_bytes, img->cluster_size);

    if (!is_aligned(host_off, img->cluster_size)
        || !range_inside(host_off, nr_bytes,
                         round_up(file_size, img->cluster_size))) {
        b->doubt = "they do not lie inside the file";
        return false;
    }
    if (nr > MAX_FREED_BITMAP_CLUSTERS - b->nr_clusters) {
        b->doubt = "that is too much to look through before a write";
        return false;
    }
    if (b->nr == b->capacity) {
        size_t capacity = b->capacity ? 2 * b->capacity : 64;
        struct freed_run *runs = realloc(b->runs, capacity * sizeof *runs);

        if (!runs) {
            b->doubt = "memory is lacking";
            return false;
        }
        b->runs = runs;
        b->capacity = capacity;
    }
    b->runs[b->nr++] = (struct freed_run){ host_off >> img->cluster_bits,
                                           nr };
    b->nr_clusters += nr;
    return true;
}

/* Adds the clusters of bits that the table names. */
static bool
add_table(struct image *img, struct bitmaps *b, const struct bitmap_entry *e,
          uint64_t file_size)
{
    uint64_t nr_bytes = e->table_entries * sizeof(be64), n;
    CLEANUP_FREE be64 *piece = NULL;

    if (nr_bytes == 0)
        return true;
    /* A table of 32 GiB can be a hole, and would be read all the same. */
    if (scale_up(e->table_entries, img->cluster_bits) > MAX_BITMAP_BYTES) {
        b->doubt = "their tables are too large";
        return false;
    }
    if (!add_run(img, b, e->table_off, nr_bytes, file_size))
        return false;
    piece = malloc(TABLE_PIECE_ENTRIES * sizeof *piece);
    for (uint64_t at = 0; at < nr_bytes; at += n) {
        n = min_u64(nr_bytes - at, TABLE_PIECE_ENTRIES * sizeof *piece);
        if (!piece
            || io_pread(img->io, piece, n, e->table_off + at, NULL) == -1) {
            b->doubt = "their tables cannot be read";
            return false;
        }
        for (uint64_t i = 0; i < n / sizeof *piece; i++) {
            uint64_t host_off;

            if (!bitmap_entry_cluster(be64_get(piece[i]), img->cluster_size,
                                      &host_off)) {
                b->doubt = "their tables make no sense";
                return false;
            }
            if (host_off
                && !add_run(img, b, host_off, img->cluster_size, file_size))
                return false;
        }
    }
    return true;
}

static void
add_name(struct bitmaps *b, const struct bitmap_entry *e)
{
    size_t len = strlen(b->names), room = sizeof b->names - len;
    char escaped[ESCAPE_SIZE];
    int n;

    /* Only the first ones are named. */
    if (b->nr_named < b->nr_bitmaps++)
        return;
    n = snprintf(b->names + len, room, "%s'%s'", len ? ", " : "",
                 escape_bytes(escaped, e->name, e->name_size));
    if ((size_t)n < room)
        b->nr_named++;
    else
        b->names[len] = '\0';
}

/* Names all bitmaps, and finds what they occupy. */
static void
walk_directory(struct image *img, struct bitmaps *b,
               const unsigned char *directory, uint64_t file_size)
{
    const struct header *h = &img->hdr;
    struct bitmap_entry e;
    uint64_t pos = 0;

    while (b->nr_bitmaps < h->nr_bitmaps
           && bitmap_entry_next(directory, h->bitmap_directory_size, &pos,
                                &e)) {
        add_name(b, &e);
        if (!b->doubt)
            add_table(img, b, &e, file_size);
    }
    if (b->nr_bitmaps < h->nr_bitmaps)
        b->doubt = "their directory makes no sense";
}

static int
compare_runs(const void *a, const void *b)
{
    const struct freed_run *x = a, *y = b;

    return x->cluster < y->cluster ? -1 : x->cluster > y->cluster;
}

/* Is nothing of it used twice? What is metadata, or counted more than once,
 * is somebody else's, too. */
static bool
is_theirs_alone(struct image *img, struct bitmaps *b)
{
    uint64_t directory = img->hdr.bitmap_directory_offset
                         >> img->cluster_bits;

    if (b->nr > 1)
        qsort(b->runs, b->nr, sizeof *b->runs, compare_runs);
    for (size_t i = 0; i < b->nr; i++) {
        uint64_t at = b->runs[i].cluster, end = at + b->runs[i].nr, n, count;

        if ((i + 1 < b->nr && b->runs[i + 1].cluster < end)
            || (at != directory
                && cluster_set_has(&img->overlap, at, end - at)))
            return false;
        for (; at < end; at += n) {
            n = end - at;
            if (refcount_read(img, at, &n, &count, NULL) == -1 || count != 1)
                return false;
        }
    }
    return true;
}

/* Refcounts may be wrong, and what guests wrote is worth more than space. */
static void
search_tables(struct image *img, struct bitmaps *b)
{
    struct qcow2_error err;

    switch (tree_search(img, b->runs, b->nr, &err)) {
    case 0:
        break;
    case 1:
        b->doubt = "some of it is data of the disk or of a snapshot, too";
        break;
    default:
        b->doubt = err.errnum == E2BIG
                   ? "the disk's tables are too many to look through "
                     "before a write"
                   : "the disk's tables cannot be read";
    }
}

void
bitmaps_find(struct image *img, struct bitmaps *b)
{
    const struct header *h = &img->hdr;
    CLEANUP_FREE unsigned char *directory = malloc(h->bitmap_directory_size);
    uint64_t file_size;

    memset(b, 0, sizeof *b);
    if (!directory || io_get_size(img->io, &file_size, NULL) == -1
        || io_pread(img->io, directory, h->bitmap_directory_size,
                    h->bitmap_directory_offset, NULL) == -1) {
        b->doubt = "their directory cannot be read";
        return;
    }
    add_run(img, b, h->bitmap_directory_offset, h->bitmap_directory_size,
            file_size);
    walk_directory(img, b, directory, file_size);
    if (!b->doubt && !is_theirs_alone(img, b))
        b->doubt = "not all of it is counted as theirs alone";
}

void
bitmaps_search(struct image *img, struct bitmaps *b)
{
    if (!b->doubt)
        search_tables(img, b);
}

void
bitmaps_remove(struct image *img, struct bitmaps *b, const char *why)
{
    char more[32] = "", leak[160] = "";

    for (size_t i = 0; !b->doubt && i < b->nr; i++)
        alloc_free(img, b->runs[i].cluster << img->cluster_bits,
                   b->runs[i].nr);
    if (b->nr_named < b->nr_bitmaps)
        snprintf(more, sizeof more, " and %" PRIu32 " more",
                 b->nr_bitmaps - b->nr_named);
    if (b->doubt)
        snprintf(leak, sizeof leak, "; what they occupy stays allocated, as "
                 "%s: a repair of leaks finds out what of it is free",
                 b->doubt);
    image_warn(img, "%s: its persistent bitmaps cannot be kept right, so they "
               "were removed: %s%s (%s)%s", img->name,
               b->nr_bitmaps ? b->names : "(unreadable)", more, why, leak);
}

void
bitmaps_end(struct bitmaps *b)
{
    free(b->runs);
}
