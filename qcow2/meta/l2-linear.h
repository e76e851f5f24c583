/* SPDX-License-Identifier: BSD-3-Clause */
/* l2-linear.h: which slices of L2 tables are linear (cache/linear-slices.h). */
#ifndef QCOW2_L2_LINEAR_H
#define QCOW2_L2_LINEAR_H

#include "base/bytes.h"
#include "meta/image.h"

/* By how much each entry of a linear slice exceeds the one before. */
static inline uint64_t
l2_linear_step(const struct image *img, uint64_t entry)
{
    return entry & L2_OFFSET_MASK ? img->cluster_size : 0;
}

/* Records the slice of a window, just read, if it is linear; returns whether it
 * is. */
bool l2_linear_note(struct view *v, uint64_t window, const be64 *slice);

#endif /* QCOW2_L2_LINEAR_H */
