/* SPDX-License-Identifier: BSD-3-Clause */
/* l2-linear.h: which slices of L2 tables are linear (cache/linear-slices.h). */
#ifndef QCOW2_L2_LINEAR_H
#define QCOW2_L2_LINEAR_H

#include "base/bytes.h"
#include "meta/image.h"
#include "meta/l2-slice.h"

/* Records the slice of a window, just read, if it is linear, in the form of an
 * entry of 64 bits; returns whether it is. */
bool l2_linear_note(struct view *v, uint64_t window, be64 *slice);

/* Of a linear slice with this first entry (linear_find): the entry of
 * guest_off, which all that follow in the slice continue. */
static inline struct l2_entry
l2_linear_entry(const struct view *v, uint64_t first, uint64_t guest_off)
{
    const struct geometry *geo = &v->img->geo;
    uint64_t idx = geometry_slice_entry(geo, guest_off);

    return entry_decode_l2(first + idx * l2_step(geo, first),
                           geo->cluster_bits, v->version);
}

#endif /* QCOW2_L2_LINEAR_H */
