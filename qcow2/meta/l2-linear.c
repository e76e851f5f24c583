/* SPDX-License-Identifier: BSD-3-Clause */
/* l2-linear.c: finds out which L2 slices are linear; see l2-linear.h. */
#include "meta/l2-linear.h"

#include "format/entry.h"

bool
l2_linear_note(struct view *v, uint64_t window, const be64 *slice)
{
    struct image *img = v->img;
    uint64_t first = be64_get(slice[0]), step = l2_linear_step(img, first);
    struct l2_entry e = entry_decode_l2(first, img->cluster_bits,
                                        v->version);

    if (e.kind == MAP_COMPRESSED || e.flaws)
        return false;
    /* At least 64 entries: 16 a step, so that the loop vectorizes. */
    for (uint64_t i = 0; i >> img->geo.slice_bits == 0; i += 16) {
        uint64_t differ = 0;

        for (uint64_t j = i; j < i + 16; j++)
            differ |= be64_get(slice[j]) ^ (first + j * step);
        if (differ)
            return false;
    }
    linear_note(&v->linear, window, first);
    return true;
}
