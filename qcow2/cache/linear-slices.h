/* SPDX-License-Identifier: BSD-3-Clause */
/* linear-slices.h: L2 slices of a view that are linear, in a word each.
 *
 * A slice is linear if each of its entries continues the one before: the next
 * cluster on the host, or nothing at all. Its first entry then gives all of
 * them. Most slices of large disks are linear, and no cache would hold them
 * (256 MiB for a disk of 2 TiB).
 *
 * A slice is recorded as linear when it is read from disk, and only while
 * nothing is about to change it. Once it may change it is ended, and not
 * recorded again until all slices are forgotten. A slice is ended before a
 * change of it is published, so nobody sees it as linear afterwards. No locks.
 */
#ifndef QCOW2_LINEAR_SLICES_H
#define QCOW2_LINEAR_SLICES_H

#include <stdbool.h>
#include <stdint.h>

#include "cache/cache.h"
#include "qcow2.h"

struct linear_slices {
    uint64_t *words;    /* by window, the guest bytes of a slice; atomic */
    uint64_t nr;        /* windows past these are not recorded */
    struct cache *beside; /* takes this memory */
};

enum {
    LINEAR_KNOWN = 1u << 1, /* bits that are clear in every valid L2 entry */
    LINEAR_ENDED = 1u << 2,
};

/* If too much memory is taken beside the cache already, no slice is ever
 * recorded.
 */
int linear_init(struct linear_slices *linear, struct cache *cache,
                uint64_t nr_windows, struct qcow2_error *err);
void linear_destroy(struct linear_slices *linear);

/* Is the window's slice linear? *first is its first entry. */
static inline bool
linear_find(const struct linear_slices *linear, uint64_t window,
            uint64_t *first)
{
    uint64_t word = window < linear->nr
                        ? __atomic_load_n(&linear->words[window],
                                          __ATOMIC_ACQUIRE) : 0;

    *first = word & ~(uint64_t)LINEAR_KNOWN;
    return word & LINEAR_KNOWN;
}

/* Is anything known of nr windows, but for one of them? */
bool linear_any(const struct linear_slices *linear, uint64_t window,
                uint64_t nr, uint64_t but);

/* Records the slice, just read from disk, as linear, unless it was ended. */
void linear_note(struct linear_slices *linear, uint64_t window, uint64_t first);

/* The slices of nr windows are about to change. */
void linear_end(struct linear_slices *linear, uint64_t window, uint64_t nr);

/* Slices changed past all this, or not any more, while nobody was reading
 * (image.rwlock is held exclusively): the disk has them as they are now. */
void linear_forget(struct linear_slices *linear);

#endif /* QCOW2_LINEAR_SLICES_H */
