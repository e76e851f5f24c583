/* SPDX-License-Identifier: BSD-3-Clause */
/* bitmaps.h: removes persistent bitmaps, which we do not maintain, from an
 * image that is about to change.
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

/* Finds the bitmaps of an image that says it has some. Where there is any
 * doubt about what they occupy, so that it could be something else as well,
 * none of it is freed: as a leak it waits for a check. */
void bitmaps_find(struct image *img, struct bitmaps *b);

/* Once it is durable that nothing refers to them (I3): frees what they
 * occupy, and warns. */
void bitmaps_remove(struct image *img, struct bitmaps *b);

void bitmaps_end(struct bitmaps *b);

#endif /* QCOW2_BITMAPS_H */
