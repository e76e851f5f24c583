/* SPDX-License-Identifier: BSD-3-Clause */
/* l2-linear.c: finds out which L2 slices are linear; see l2-linear.h. */
#include "meta/l2-linear.h"

/* At least 64 entries: compare 16 per step so that the loop vectorizes. */
static bool
all_continue(const be64 *slice, uint64_t nr, uint64_t first, uint64_t step)
{
    for (uint64_t i = 0; i < nr; i += 16) {
        uint64_t differ = 0;

        for (uint64_t j = i; j < i + 16; j++)
            differ |= be64_get(slice[j]) ^ (first + j * step);
        if (differ)
            return false;
    }
    return true;
}

/* Can an entry of 64 bits say the same? */
static bool
is_whole(const struct l2_entry *e)
{
    switch (e->kind) {
    case MAP_UNALLOCATED:
        return e->alloc_mask == 0 && e->zero_mask == 0 && e->host_off == 0;
    case MAP_ZERO:
        return e->zero_mask == ALL_SUBCLUSTERS;
    case MAP_DATA:
        return e->alloc_mask == ALL_SUBCLUSTERS;
    case MAP_COMPRESSED:
        return false;
    }
    return false;
}

bool
l2_linear_note(struct view *v, uint64_t window, be64 *slice)
{
    const struct geometry *geo = &v->img->geo;
    uint64_t nr = UINT64_C(1) << geo->slice_bits, first;
    struct l2_slice s = l2_slice_in_memory(slice, geo, v->version);
    struct l2_entry e = l2_get(&s, 0, 0);

    if (e.flaws || !is_whole(&e))
        return false;
    first = entry_encode_l2(&e, geo->cluster_bits);
    if (l2_is_extended(&s) ? l2_row(&s, 0, nr, &e) < nr
                           : !all_continue(slice, nr, first,
                                           l2_step(geo, first)))
        return false;
    linear_note(&v->linear, window, first);
    return true;
}
