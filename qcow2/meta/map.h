/* SPDX-License-Identifier: BSD-3-Clause */
/* map.h: guest bytes to host bytes through L1 and L2. map-set.c alone changes
 * what L2 entries map.
 */
#ifndef QCOW2_MAP_H
#define QCOW2_MAP_H

#include "meta/image.h"

/* The vtable of struct view as a source. (map-source.c) */
extern const struct source_ops map_source_ops;

/* A place in the tables of a view, kept from one step of a request to the next:
 * looking up, preparing and changing what is in one slice looks for the slice
 * once. It belongs to one thread, which holds the range locks of what it does
 * with it from its first step to map_done.
 */
struct map_cursor {
    struct view *view;
    struct block *slice;    /* found last, pinned; NULL: none */
    bool is_prepared;       /* the slice may be changed: its table is ours */
    uint64_t window;        /* alone; and maps this window */
};

static inline struct map_cursor
map_cursor(struct view *v)
{
    return (struct map_cursor){ .view = v };
}

/* As source_ops.lookup, for the view. Of a writable image the caller holds the
 * range lock over the bytes asked for. A run may be shorter than it could be
 * (it ends with the slice).
 */
int map_find(struct map_cursor *c, uint64_t guest_off, uint64_t nr_bytes,
             struct mapping *m, struct qcow2_error *err);

/* The same, with a cursor of its own. */
int map_lookup(struct view *v, uint64_t guest_off, uint64_t nr_bytes,
               struct mapping *m, struct qcow2_error *err);

/* Before changes in the slice of guest_off: makes its L2 table, or a copy of
 * it when it is shared with a snapshot, unless that was done. The caller holds
 * the range exclusively.
 */
int map_prepare(struct map_cursor *c, uint64_t guest_off,
                struct qcow2_error *err);

/* Ends the use of a cursor; may come again. */
void map_done(struct map_cursor *c);

/* How many bytes from guest_off on lie in the same slice: requests are
 * processed, and ranges locked, in pieces of at most that.
 */
static inline uint64_t
map_piece(const struct view *v, uint64_t guest_off)
{
    uint64_t window = UINT64_C(1) << geometry_window_bits(&v->img->geo);

    return window - (guest_off & (window - 1));
}

/* What map_set makes of guest bytes. (map-set.c) */
enum map_change {
    MAP_TO_DATA,         /* at host_off on, contiguous, refcount 1 */
    MAP_TO_PLACE,        /* as they are, but with a place for data at host_off
                          * on (extended L2 entries, whole clusters) */
    MAP_TO_ZERO,         /* zero, without a place (v3) */
    MAP_TO_ZERO_KEEP,    /* zero, keeping the place it has, if any (v3) */
    MAP_TO_UNALLOCATED,
};

/* Changes nr_bytes from guest_off on, all in the prepared slice: whole
 * subclusters (without extended L2 entries clusters), whole clusters where they
 * are compressed. The rest of a cluster stays as it is; if it gets another
 * place, the caller has copied there all of it that is data. A cluster keeps
 * its place while any of it is data. Frees what nothing points to afterwards.
 * Cannot fail: damaged entries were met by map_find.
 */
void map_set(struct map_cursor *c, uint64_t guest_off, uint64_t nr_bytes,
             enum map_change change, uint64_t host_off);

/* Makes one cluster nr_bytes of compressed data at host_off, whose clusters
 * have been given one more reference for it. */
void map_set_compressed(struct map_cursor *c, uint64_t guest_off,
                        uint64_t host_off, uint32_t nr_bytes);

/* Is the L2 table that covers guest_off absent, and how far (bytes) does
 * its coverage reach? */
bool map_table_absent(const struct view *v, uint64_t guest_off,
                      uint64_t *nr_bytes);

#endif /* QCOW2_MAP_H */
