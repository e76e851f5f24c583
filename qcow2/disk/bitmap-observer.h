/* SPDX-License-Identifier: BSD-3-Clause */
/* bitmap-observer.h: has the persistent bitmaps of an image see what changes
 * its disk.
 */
#ifndef QCOW2_BITMAP_OBSERVER_H
#define QCOW2_BITMAP_OBSERVER_H

#include "meta/image.h"
#include "request/change.h"

struct bitmap_observer {
    struct write_observer observer; /* first */
    struct image *img;          /* NULL: it observes nothing */
};

/* Observes changes of the image; again, it does nothing. Before the first
 * change, or with image.rwlock held exclusively. */
void bitmap_observe(struct bitmap_observer *o, struct image *img);

#endif /* QCOW2_BITMAP_OBSERVER_H */
