/* SPDX-License-Identifier: BSD-3-Clause */
/* bitmap.h: copies bitmaps from one disk to another. */
#ifndef QCOW2_BITMAP_H
#define QCOW2_BITMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "qcow2.h"

/* Can the bitmaps of the source be copied? EBUSY: one is in use, and not to be
 * skipped. */
int bitmap_check_copy(struct qcow2_disk *source, bool skip_broken,
                      struct qcow2_error *err);

/* Copies the i-th bitmap, to a disk of the same size, or skips it with a
 * warning. 0: there is none of this number; 1: it was done. */
int bitmap_copy(struct qcow2_disk *target, struct qcow2_disk *source,
                uint32_t i, struct qcow2_error *err);

#endif /* QCOW2_BITMAP_H */
