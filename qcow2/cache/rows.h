/* SPDX-License-Identifier: BSD-3-Clause */
/* rows.h: L2 slices of a view that are one row, in a word each.
 *
 * A slice is a row if each entry continues the one before: neighbours on the
 * host, or nothing at all. Its first entry tells the others. Large disks are
 * made of rows mostly, whose slices (256 MiB for a disk of 2 TiB) no cache
 * holds.
 *
 * A row is noted by who read the slice from disk, and only where nobody was
 * about to change it: once a slice may change, its row ends, and is not noted
 * again until all are forgotten. What ends before a change is published is
 * never seen after it. No locks.
 */
#ifndef QCOW2_ROWS_H
#define QCOW2_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#include "cache/cache.h"
#include "qcow2.h"

struct rows {
    uint64_t *words;    /* by window, the guest bytes of a slice; atomic */
    uint64_t nr;        /* windows behind these have no row */
    struct cache *beside; /* takes this memory */
};

enum {
    ROW_KNOWN = 1u << 1, /* bits that no valid L2 entry has set */
    ROW_ENDED = 1u << 2,
};

/* Where too much memory is taken beside the cache, nothing is ever noted. */
int rows_init(struct rows *rows, struct cache *cache, uint64_t nr_windows,
              struct qcow2_error *err);
void rows_destroy(struct rows *rows);

/* Finds the first entry of the row that the window's slice is. */
static inline bool
rows_find(const struct rows *rows, uint64_t window, uint64_t *first)
{
    uint64_t word = window < rows->nr
                        ? __atomic_load_n(&rows->words[window],
                                          __ATOMIC_ACQUIRE) : 0;

    *first = word & ~(uint64_t)ROW_KNOWN;
    return word & ROW_KNOWN;
}

/* Is anything known of nr windows, but for one of them? */
bool rows_any(const struct rows *rows, uint64_t window, uint64_t nr,
              uint64_t but);

/* The slice that was read from disk is a row; unless it has ended. */
void rows_note(struct rows *rows, uint64_t window, uint64_t first);

/* The slices of nr windows are about to change. */
void rows_end(struct rows *rows, uint64_t window, uint64_t nr);

/* Slices changed past all this, or not any more, while nobody was reading
 * (image.rwlock is held exclusively): the disk has them as they are now. */
void rows_forget(struct rows *rows);

#endif /* QCOW2_ROWS_H */
