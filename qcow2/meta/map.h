/* SPDX-License-Identifier: BSD-3-Clause */
/* map.h: guest bytes to host bytes through L1 and L2. map.c is the only
 * place that builds or takes apart an L2 entry.
 */
#ifndef QCOW2_MAP_H
#define QCOW2_MAP_H

#include "base/bytes.h"
#include "meta/image.h"

/* The vtable of struct view as a source. */
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

/* What map_set makes of clusters. */
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

/* For tree.c (exclusive operations, with no slice dirty): an L2 table, read
 * whole past the cache; and after it was written what the cache has of it.
 */
int map_read_table(struct image *img, uint64_t table_off, be64 *table,
                   struct qcow2_error *err);
void map_refresh_table(struct image *img, uint64_t table_off,
                       const be64 *table);

/* Changes the COPIED flag of an L1 entry of the active disk, which the caller
 * writes; says whether it was different. */
bool map_set_l1_flag(struct view *v, uint32_t idx, bool copied);

/* Changes an L1 entry of the active disk, unless it is so already. */
void map_set_l1(struct view *v, uint32_t idx, uint64_t entry);

/* For flush.c: L1 entries that changed since they were last taken. Taking
 * leaves none; on failure (ENOMEM) nothing is taken. Giving back makes them
 * changed again.
 */
struct l1_change {
    uint32_t nr;
    uint32_t *indexes;  /* ascending */
    be64 *entries;
};
int map_take_l1(struct view *v, struct l1_change *change,
                struct qcow2_error *err);
void map_give_back_l1(struct view *v, struct l1_change *change);
void l1_change_free(struct l1_change *change);

/* Reads slices of the L2 table of `from` that lookups up to `to` will need,
 * at most CACHE_MAX_PRELOAD of them; returns how far they reach. */
uint64_t map_preload(struct view *v, uint64_t from, uint64_t to);

/* Drops from the cache the clean slices that map nothing outside of
 * [from, to). */
void map_forget(struct view *v, uint64_t from, uint64_t to);

/* Is the L2 table that covers guest_off absent, and how far (bytes) does
 * its coverage reach? */
bool map_table_absent(const struct view *v, uint64_t guest_off,
                      uint64_t *nr_bytes);

#endif /* QCOW2_MAP_H */
