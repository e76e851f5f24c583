/* SPDX-License-Identifier: BSD-3-Clause */
/* bitmaps.h: what persistent bitmaps occupy; and removes those from an image
 * that is about to change which cannot be kept right.
 */
#ifndef QCOW2_BITMAPS_H
#define QCOW2_BITMAPS_H

#include "meta/image.h"

/* What an image's bitmaps are called, and occupy. */
struct bitmaps {
    struct freed_run *runs;     /* directory, tables, and bits */
    size_t nr, capacity;
    uint64_t nr_clusters;
    uint32_t nr_bitmaps;
    uint32_t nr_named;          /* in names, which has room for some */
    char names[512];
    const char *doubt;          /* why nothing of it may be freed, or NULL */
};

/* Finds the bitmaps of an image that says it has some, and whether what they
 * occupy is counted as theirs alone. */
void bitmaps_find(struct image *img, struct bitmaps *b);

/* Before they are removed: looks for what else refers to that. Where there is
 * any doubt, none of it is freed: as a leak it waits for a check. */
void bitmaps_search(struct image *img, struct bitmaps *b);

/* Once it is durable that nothing refers to them (I3): frees what they
 * occupy, and warns, with the reason. */
void bitmaps_remove(struct image *img, struct bitmaps *b, const char *why);

void bitmaps_end(struct bitmaps *b);

#endif /* QCOW2_BITMAPS_H */
