/* SPDX-License-Identifier: BSD-3-Clause */
/* map.h: guest bytes to host bytes through L1 and L2. map-set.c alone changes
 * what L2 entries map.
 */
#ifndef QCOW2_MAP_H
#define QCOW2_MAP_H

#include "meta/image.h"

/* The vtable of struct view as a source. (map-source.c) */
extern const struct source_ops map_source_ops;

/* As source_ops.lookup, for a view. The caller of a writable image holds
 * its range lock over the bytes asked for. A run may be shorter than it
 * could be (it ends with the slice).
 */
int map_lookup(struct view *v, uint64_t guest_off, uint64_t nr_bytes,
               struct mapping *m, struct qcow2_error *err);

/* How many bytes from guest_off on lie in the same slice: requests are
 * processed, and ranges locked, in pieces of at most that.
 */
uint64_t map_piece(const struct view *v, uint64_t guest_off);

/* A slice prepared for change: its L2 table exists and is ours alone. */
struct map_slice {
    struct block *block; /* pinned; NULL: not prepared */
};

/* Makes the L2 table of guest_off, or a copy of it when it is shared with a
 * snapshot. The caller holds the range exclusively.
 */
int map_prepare(struct view *v, uint64_t guest_off, struct map_slice *s,
                struct qcow2_error *err);
void map_done(struct map_slice *s);

/* What map_set makes of clusters. (map-set.c) */
enum map_change {
    MAP_TO_DATA,         /* at host_off on, contiguous, refcount 1 */
    MAP_TO_ZERO,         /* zero, without a place (v3) */
    MAP_TO_ZERO_KEEP,    /* zero, keeping the place it has, if any (v3) */
    MAP_TO_UNALLOCATED,
};

/* Changes nr_clusters from guest_off on (a cluster's start; all in the
 * slice), and frees what they pointed to, unless that is kept or is what
 * they point to now. Cannot fail: damaged entries were met by lookup.
 */
void map_set(struct view *v, struct map_slice *s, uint64_t guest_off,
             uint64_t nr_clusters, enum map_change change,
             uint64_t host_off);

/* Makes one cluster nr_bytes of compressed data at host_off, whose clusters
 * have been given one more reference for it. */
void map_set_compressed(struct view *v, struct map_slice *s,
                        uint64_t guest_off, uint64_t host_off,
                        uint32_t nr_bytes);

enum { MAX_SLICE_ENTRIES = 512 };

/* Is the L2 table that covers guest_off absent, and how far (bytes) does
 * its coverage reach? */
bool map_table_absent(const struct view *v, uint64_t guest_off,
                      uint64_t *nr_bytes);

#endif /* QCOW2_MAP_H */
