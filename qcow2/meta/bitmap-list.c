/* SPDX-License-Identifier: BSD-3-Clause */
/* bitmap-list.c: reads bitmaps; see bitmap-list.h. */
#include "meta/bitmap-list.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/escape.h"

static int
decode_entry(struct image *img, struct bitmap_list *list, uint64_t *pos,
             struct qcow2_error *err)
{
    struct bitmap_entry *e = &list->bitmaps[list->nr].entry;
    char escaped[ESCAPE_SIZE];
    const char *flaw;

    if (!bitmap_entry_next(list->directory, img->hdr.bitmap_directory_size,
                           pos, e))
        return error_set(err, EIO, "the directory of the bitmaps is cut "
                         "short");
    flaw = bitmap_entry_flaw(e, img->hdr.size, img->cluster_bits);
    if (flaw)
        return error_set(err, EIO, "bitmap '%s' cannot be used: %s",
                         escape_bytes(escaped, e->name, e->name_size), flaw);
    list->nr++;
    return 0;
}

static int
decode_directory(struct image *img, struct bitmap_list *list,
                 struct qcow2_error *err)
{
    const struct header *h = &img->hdr;
    uint64_t pos = 0;

    list->directory = malloc(h->bitmap_directory_size);
    list->bitmaps = calloc(h->nr_bitmaps, sizeof *list->bitmaps);
    if (!list->directory || !list->bitmaps)
        return error_nomem(err);
    if (io_pread(img->io, list->directory, h->bitmap_directory_size,
                 h->bitmap_directory_offset, err) == -1)
        return -1;
    while (list->nr < h->nr_bitmaps)
        if (decode_entry(img, list, &pos, err) == -1)
            return -1;
    return 0;
}

int
bitmap_list_read(struct image *img, struct bitmap_list *list,
                 struct qcow2_error *err)
{
    memset(list, 0, sizeof *list);
    if (img->hdr.bitmap_directory_size == 0)
        return 0;
    if (decode_directory(img, list, err) == 0)
        return 0;
    bitmap_list_free(list);
    return error_prefix(err, "%s", img->name);
}

void
bitmap_list_free(struct bitmap_list *list)
{
    for (uint32_t i = 0; i < list->nr_names; i++)
        free(list->names[i]);
    free(list->names);
    free(list->bitmaps);
    free(list->directory);
    memset(list, 0, sizeof *list);
}

long
bitmap_list_find(const struct bitmap_list *list, const char *name)
{
    size_t len = strlen(name);

    for (uint32_t i = 0; i < list->nr; i++) {
        const struct bitmap_entry *e = &list->bitmaps[i].entry;

        if (e->name_size == len && memcmp(e->name, name, len) == 0)
            return i;
    }
    return -1;
}

struct bitmap *
bitmap_list_add(struct bitmap_list *list, const char *name,
                struct qcow2_error *err)
{
    struct bitmap *b = realloc(list->bitmaps, (list->nr + 1) * sizeof *b);
    char **names = realloc(list->names,
                           (list->nr_names + 1) * sizeof *names);
    char *copy = strdup(name);

    if (b)
        list->bitmaps = b;
    if (names)
        list->names = names;
    if (!b || !names || !copy) {
        free(copy);
        error_nomem(err);
        return NULL;
    }
    list->names[list->nr_names++] = copy;
    b = &list->bitmaps[list->nr++];
    *b = (struct bitmap){ .entry = {
        .name = copy, .name_size = strlen(copy),
        .type = BITMAP_DIRTY_TRACKING,
    } };
    return b;
}

void
bitmap_list_remove(struct bitmap_list *list, uint32_t i)
{
    list->nr--;
    memmove(list->bitmaps + i, list->bitmaps + i + 1,
            (list->nr - i) * sizeof *list->bitmaps);
}

/* Checks entries as they are decoded. */
static int
decode_table(struct image *img, uint64_t *table, uint64_t nr,
             uint64_t file_size, struct qcow2_error *err)
{
    for (uint64_t i = 0; i < nr; i++) {
        uint64_t host_off;

        table[i] = be64toh(table[i]);
        if (!bitmap_entry_cluster(table[i], img->cluster_size, &host_off)
            || (host_off
                && !range_inside(host_off, img->cluster_size,
                                 round_up(file_size, img->cluster_size))))
            return error_set(err, EIO, "%s: the table of a bitmap is "
                             "damaged", img->name);
    }
    return 0;
}

uint64_t *
bitmap_read_table(struct image *img, const struct bitmap_entry *e,
                  struct qcow2_error *err)
{
    uint64_t nr_bytes = e->table_entries * UINT64_C(8), file_size;
    uint64_t *table = malloc(nr_bytes + 1);

    if (!table) {
        error_nomem(err);
        return NULL;
    }
    if (io_get_size(img->io, &file_size, err) == -1
        || io_pread(img->io, table, nr_bytes, e->table_off, err) == -1
        || decode_table(img, table, e->table_entries, file_size, err) == -1) {
        free(table);
        return NULL;
    }
    return table;
}

uint64_t
bitmap_find_bit(const unsigned char *bits, uint64_t from, uint64_t end,
                bool value)
{
    unsigned char skipped = value ? 0 : 0xff;

    while (from < end) {
        if (from % 8 == 0 && bits[from / 8] == skipped)
            from += 8;
        else if ((bits[from / 8] >> from % 8 & 1) == value)
            return from;
        else
            from++;
    }
    return end;
}

/* Bits of the cluster that the entry names; none are loaded where all are
 * alike. */
static int
load_bits(struct bitmap_reader *r, uint64_t i, struct qcow2_error *err)
{
    uint64_t host_off = r->table[i] & BITMAP_OFFSET_MASK;

    if (host_off == 0 || r->loaded == i)
        return 0;
    r->loaded = UINT64_MAX;
    if (io_pread(r->img->io, r->bits, r->img->cluster_size, host_off, err)
        == -1)
        return -1;
    r->loaded = i;
    return 0;
}

/* The same for one entry, in bits of its cluster. */
static void
find_in_cluster(const struct bitmap_reader *r, uint64_t i, uint64_t *from,
                uint64_t *end)
{
    if (r->table[i] & BITMAP_OFFSET_MASK) {
        *from = bitmap_find_bit(r->bits, *from, *end, true);
        *end = bitmap_find_bit(r->bits, *from, *end, false);
    } else if (r->table[i] != BITMAP_ALL_ONES) {
        *from = *end;
    }
}

static int
next_range(struct dirty_ranges *ranges, uint64_t *guest_off, uint64_t end,
           uint64_t *nr_bytes, struct qcow2_error *err)
{
    struct bitmap_reader *r = (struct bitmap_reader *)ranges;
    unsigned g = r->granularity_bits;
    uint64_t per_cluster = r->img->cluster_size * UINT64_C(8);
    uint64_t bit = *guest_off >> g;
    uint64_t end_bit = div_round_up(end, UINT64_C(1) << g);

    *nr_bytes = 0;
    while (bit < end_bit && bit / per_cluster < r->nr_entries) {
        uint64_t i = bit / per_cluster, base = i * per_cluster;
        uint64_t from = bit - base;
        uint64_t to = min_u64(per_cluster, end_bit - base);

        if (load_bits(r, i, err) == -1)
            return -1;
        find_in_cluster(r, i, &from, &to);
        if (from < to) {
            uint64_t to_off = min_u64((base + to) << g, end);

            *guest_off = max_u64((base + from) << g, *guest_off);
            *nr_bytes = to_off - *guest_off;
            return 0;
        }
        bit = base + per_cluster;
    }
    return 0;
}

int
bitmap_reader_init(struct bitmap_reader *r, struct image *img,
                   const struct bitmap_entry *e, struct qcow2_error *err)
{
    *r = (struct bitmap_reader){
        .ranges.next = next_range, .img = img, .loaded = UINT64_MAX,
        .granularity_bits = e->granularity_bits,
        .nr_entries = e->table_entries,
    };
    r->bits = malloc(img->cluster_size);
    if (!r->bits)
        return error_nomem(err);
    r->table = bitmap_read_table(img, e, err);
    if (r->table)
        return 0;
    bitmap_reader_free(r);
    return -1;
}

void
bitmap_reader_free(struct bitmap_reader *r)
{
    free(r->table);
    free(r->bits);
}
