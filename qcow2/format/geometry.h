/* SPDX-License-Identifier: BSD-3-Clause */
/* geometry.h: how large the parts of an image are, which all follows from a
 * few numbers in the header (specification, "Cluster mapping").
 */
#ifndef QCOW2_GEOMETRY_H
#define QCOW2_GEOMETRY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/checked.h"

/* Log2 of each size. */
struct geometry {
    unsigned cluster_bits;    /* bytes of a cluster */
    unsigned subcluster_bits; /* bytes that an L2 entry tells apart: a cluster,
                               * or 1/32 of one with extended L2 entries */
    unsigned l2_entry_bits;   /* bytes of an L2 entry */
    unsigned l2_bits;         /* entries of an L2 table */
    unsigned slice_bytes_bits; /* bytes of a cached slice of a table */
    unsigned slice_bits;      /* entries of an L2 slice */
    unsigned refblock_bits;   /* refcounts of a refcount block */
    unsigned l1_reach_bits;   /* guest bytes that an L1 entry maps */
    unsigned window_bits;     /* guest bytes that an L2 slice maps */
};

enum {
    MAX_SLICE_BITS = 12, /* 4096 bytes: a page, and cheap to copy */
    L1_ENTRY_BITS = 3,
    EXTENDED_L2_ENTRY_BITS = 4,
    SUBCLUSTERS_BITS = 5, /* 32 subclusters of a cluster */
};

/* cluster_bits and refcount_order were checked against their limits. */
static inline struct geometry
geometry_make(unsigned cluster_bits, unsigned refcount_order,
              bool extended_l2)
{
    struct geometry g = {
        .cluster_bits = cluster_bits,
        .subcluster_bits = cluster_bits - (extended_l2 ? SUBCLUSTERS_BITS : 0),
        .l2_entry_bits = extended_l2 ? EXTENDED_L2_ENTRY_BITS : 3,
        .slice_bytes_bits = min_u64(cluster_bits, MAX_SLICE_BITS),
        .refblock_bits = cluster_bits + 3 - refcount_order,
    };

    g.l2_bits = cluster_bits - g.l2_entry_bits;
    g.slice_bits = g.slice_bytes_bits - g.l2_entry_bits;
    g.l1_reach_bits = g.l2_bits + cluster_bits;
    g.window_bits = g.slice_bits + cluster_bits;
    return g;
}

/* Are L2 entries extended, and say more than one thing of a cluster? */
static inline bool
geometry_has_subclusters(const struct geometry *g)
{
    return g->l2_entry_bits == EXTENDED_L2_ENTRY_BITS;
}

/* Log2 of the guest bytes that an L1 entry maps, by its L2 table. */
static inline unsigned
geometry_l1_reach_bits(const struct geometry *g)
{
    return g->l1_reach_bits;
}

/* Slices of an L2 table. */
static inline uint64_t
geometry_table_slices(const struct geometry *g)
{
    return UINT64_C(1) << (g->l2_bits - g->slice_bits);
}

/* Log2 of the guest bytes that an L2 slice maps, its window. */
static inline unsigned
geometry_window_bits(const struct geometry *g)
{
    return g->window_bits;
}

/* The window of guest_off; windows are numbered from guest offset 0 on. */
static inline uint64_t
geometry_window(const struct geometry *g, uint64_t guest_off)
{
    return guest_off >> geometry_window_bits(g);
}

/* Where the slice of guest_off begins in its L2 table, in bytes. */
static inline uint64_t
geometry_slice_place(const struct geometry *g, uint64_t guest_off)
{
    uint64_t idx = geometry_window(g, guest_off)
                   & (geometry_table_slices(g) - 1);

    return idx << g->slice_bytes_bits;
}

/* The index of guest_off's entry in its slice. */
static inline uint64_t
geometry_slice_entry(const struct geometry *g, uint64_t guest_off)
{
    return guest_off >> g->cluster_bits
           & ((UINT64_C(1) << g->slice_bits) - 1);
}

/* How many L1 entries map nr_bytes? */
static inline uint64_t
geometry_l1_entries(const struct geometry *g, uint64_t nr_bytes)
{
    return div_round_up(nr_bytes,
                        UINT64_C(1) << geometry_l1_reach_bits(g));
}

#endif /* QCOW2_GEOMETRY_H */
