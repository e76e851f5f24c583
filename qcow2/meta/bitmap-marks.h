/* SPDX-License-Identifier: BSD-3-Clause */
/* bitmap-marks.h: what changed of a disk since its bitmaps were loaded, one
 * set of marks for all of them.
 *
 * The marks have the granularity of the finest bitmap, or a coarser one where
 * that would take more than MAX_BITMAP_MARKS_BYTES: then more is marked than
 * changed, never less. Memory is taken where something was marked.
 */
#ifndef QCOW2_BITMAP_MARKS_H
#define QCOW2_BITMAP_MARKS_H

#include "meta/bitmap-list.h"

struct bitmap_marks {
    struct dirty_ranges ranges; /* first: marks are a source of ranges */
    unsigned granularity_bits;
    uint64_t nr_words;
    uint64_t *words;            /* atomic */
};

int bitmap_marks_init(struct bitmap_marks *m, uint64_t disk_size,
                      unsigned granularity_bits, struct qcow2_error *err);
void bitmap_marks_free(struct bitmap_marks *m);

/* Has room for a disk of this size, and keeps what is marked. Nobody else is
 * in the marks. */
int bitmap_marks_grow(struct bitmap_marks *m, uint64_t disk_size,
                      struct qcow2_error *err);

/* Inside the size that there is room for; any number of threads. */
void bitmap_marks_set(struct bitmap_marks *m, uint64_t guest_off,
                      uint64_t nr_bytes);

#endif /* QCOW2_BITMAP_MARKS_H */
