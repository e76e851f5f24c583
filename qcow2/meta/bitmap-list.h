/* SPDX-License-Identifier: BSD-3-Clause */
/* bitmap-list.h: the persistent bitmaps of an image, and what their bits say,
 * in ranges of guest bytes.
 */
#ifndef QCOW2_BITMAP_LIST_H
#define QCOW2_BITMAP_LIST_H

#include "format/bitmap-directory.h"
#include "meta/image.h"

struct bitmap {
    struct bitmap_entry entry;  /* as the directory has it, with names and
                                 * extra data that are the list's */
    bool claimed;               /* in use by us: what it misses is marked */
};

struct bitmap_list {
    struct bitmap *bitmaps;
    uint32_t nr;
    unsigned char *directory;   /* names and extra data point into it */
    char **names;               /* and into these, of what was added */
    uint32_t nr_names;
};

/* Reads the directory; no bitmaps give an empty list. EIO, which says of which
 * bitmap: one cannot be understood. Works for an image that is read only, too.
 * Under rwlock.
 */
int bitmap_list_read(struct image *img, struct bitmap_list *list,
                     struct qcow2_error *err);
void bitmap_list_free(struct bitmap_list *list);

/* Which one has the name; -1: none. */
long bitmap_list_find(const struct bitmap_list *list, const char *name);

/* A bitmap without bits, at the end of the list: its entry, with a name that
 * is copied. NULL with ENOMEM. */
struct bitmap *bitmap_list_add(struct bitmap_list *list, const char *name,
                               struct qcow2_error *err);
void bitmap_list_remove(struct bitmap_list *list, uint32_t i);

/* Ranges of guest bytes in ascending order. next finds the first one that
 * touches [*guest_off, end): sets *guest_off to where it begins there, and
 * *nr_bytes to how far it goes, at most to end; 0: there is none. A range may
 * be given in several parts.
 */
struct dirty_ranges {
    int (*next)(struct dirty_ranges *r, uint64_t *guest_off, uint64_t end,
                uint64_t *nr_bytes, struct qcow2_error *err);
};

/* The table of a bitmap, in CPU order and each entry checked: to make sense,
 * and to lie inside the file (EIO). The caller frees it. */
uint64_t *bitmap_read_table(struct image *img, const struct bitmap_entry *e,
                            struct qcow2_error *err);

/* What the bits of a bitmap say: a source of ranges, until it is freed. */
struct bitmap_reader {
    struct dirty_ranges ranges; /* first */
    struct image *img;
    unsigned granularity_bits;
    uint64_t nr_entries;
    uint64_t *table;
    unsigned char *bits;        /* of one cluster: */
    uint64_t loaded;            /* that of this entry; UINT64_MAX: none */
};
int bitmap_reader_init(struct bitmap_reader *r, struct image *img,
                       const struct bitmap_entry *e, struct qcow2_error *err);
void bitmap_reader_free(struct bitmap_reader *r);

/* The first bit from `from` on, before `end`, that is `value`, in bits as the
 * format has them; end: none. */
uint64_t bitmap_find_bit(const unsigned char *bits, uint64_t from,
                         uint64_t end, bool value);

#endif /* QCOW2_BITMAP_LIST_H */
