/* SPDX-License-Identifier: BSD-3-Clause */
/* entry.h: L1 and L2 entries taken apart and put together, for meta/, which
 * serves from them, and for the check, which judges them.
 *
 * Decoding never fails: it returns what is wrong with an entry as flaws. The
 * data path refuses an entry with any flaw (I7), the check reports them. The
 * caller sees to it that host offsets lie inside the file.
 */
#ifndef QCOW2_ENTRY_H
#define QCOW2_ENTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/checked.h"
#include "format/format.h"

/* What a layer has for a range of guest bytes. */
enum map_kind {
    MAP_UNALLOCATED, /* not here: ask the next layer */
    MAP_ZERO,        /* reads as zeroes */
    MAP_DATA,        /* at a host offset */
    MAP_COMPRESSED,  /* one cluster, compressed_len bytes at host_off */
};

/* Bits of `flaws`. */
enum entry_flaw {
    ENTRY_RESERVED_BITS = 1,     /* bits set that must be 0 */
    ENTRY_MISALIGNED = 2,        /* host_off is not a cluster's start */
    ENTRY_ZERO_IN_V2 = 4,        /* zero flag, which version 2 has not */
    ENTRY_COPIED_COMPRESSED = 8, /* COPIED on a compressed cluster */
    /* Of the bitmap of an extended L2 entry: */
    ENTRY_ALLOCATED_ZERO = 16,     /* a subcluster is allocated and zero */
    ENTRY_ALLOCATED_NOWHERE = 32,  /* one is allocated, without a place */
    ENTRY_COMPRESSED_BITMAP = 64,  /* not 0 in a compressed cluster */
};

struct l1_entry {
    uint64_t host_off; /* of the L2 table; 0: none */
    bool copied;
    unsigned flaws;
};

/* Every subcluster; without extended L2 entries a cluster is one. */
#define ALL_SUBCLUSTERS UINT32_MAX

struct l2_entry {
    enum map_kind kind; /* of the subcluster it was asked for */
    /* MAP_DATA: never 0. MAP_ZERO: of the preallocated cluster, 0 if there
     * is none. MAP_COMPRESSED: first byte of the compressed data, which may
     * lie anywhere up to 2^62. MAP_UNALLOCATED: 0, or of the cluster in which
     * other subclusters are not. */
    uint64_t host_off;
    uint32_t compressed_len; /* MAP_COMPRESSED: bytes, at most; not 0 */
    uint32_t alloc_mask;     /* a bit a subcluster, the first one's is bit 0: */
    uint32_t zero_mask;      /* its data is at host_off; it reads as zeroes.
                              * MAP_COMPRESSED: both are 0 */
    bool copied;
    unsigned flaws;
};

static inline struct l1_entry
entry_decode_l1(uint64_t entry, unsigned cluster_bits)
{
    struct l1_entry e = {
        .host_off = entry & L1_OFFSET_MASK,
        .copied = (entry & ENTRY_COPIED) != 0,
    };

    if (entry & L1_RESERVED_MASK)
        e.flaws |= ENTRY_RESERVED_BITS;
    if (!is_aligned(e.host_off, UINT64_C(1) << cluster_bits))
        e.flaws |= ENTRY_MISALIGNED;
    return e;
}

/* Offset and count of additional sectors share the low 62 bits; the smaller
 * the clusters, the more of them are offset. */
static inline unsigned
entry_compressed_offset_bits(unsigned cluster_bits)
{
    return 62 - (cluster_bits - 8);
}

static inline void
entry_decode_compressed(uint64_t entry, unsigned cluster_bits,
                        struct l2_entry *e)
{
    unsigned offset_bits = entry_compressed_offset_bits(cluster_bits);
    uint64_t descriptor = entry & ~(ENTRY_COPIED | L2_COMPRESSED);
    uint64_t sectors = (descriptor >> offset_bits) + 1;

    e->kind = MAP_COMPRESSED;
    e->host_off = descriptor & ((UINT64_C(1) << offset_bits) - 1);
    e->compressed_len = sectors * 512 - (e->host_off & 511);
    if (e->copied)
        e->flaws |= ENTRY_COPIED_COMPRESSED;
}

/* An entry of 64 bits. */

static inline struct l2_entry
entry_decode_l2(uint64_t entry, unsigned cluster_bits, unsigned version)
{
    struct l2_entry e = { .copied = (entry & ENTRY_COPIED) != 0 };

    /* First, because a descriptor has data where others have flags. */
    if (entry & L2_COMPRESSED) {
        entry_decode_compressed(entry, cluster_bits, &e);
        return e;
    }
    e.host_off = entry & L2_OFFSET_MASK;
    if (entry & L2_ZERO) {
        e.kind = MAP_ZERO;
        e.zero_mask = ALL_SUBCLUSTERS;
        if (version < 3)
            e.flaws |= ENTRY_ZERO_IN_V2;
    } else if (e.host_off) {
        e.kind = MAP_DATA;
        e.alloc_mask = ALL_SUBCLUSTERS;
    }
    if (entry & L2_RESERVED_MASK)
        e.flaws |= ENTRY_RESERVED_BITS;
    if (!is_aligned(e.host_off, UINT64_C(1) << cluster_bits))
        e.flaws |= ENTRY_MISALIGNED;
    return e;
}

/* What an entry with these masks says of a subcluster. */
static inline enum map_kind
entry_subcluster_kind(uint32_t alloc_mask, uint32_t zero_mask,
                      unsigned subcluster)
{
    if (zero_mask >> subcluster & 1)
        return MAP_ZERO;
    return alloc_mask >> subcluster & 1 ? MAP_DATA : MAP_UNALLOCATED;
}

/* An entry of 128 bits (specification, "Extended L2 Entries"), for one of its
 * subclusters. bitmap is the second word.
 */
static inline struct l2_entry
entry_decode_extended(uint64_t entry, uint64_t bitmap, unsigned cluster_bits,
                      unsigned subcluster)
{
    struct l2_entry e = { .copied = (entry & ENTRY_COPIED) != 0 };

    if (entry & L2_COMPRESSED) {
        entry_decode_compressed(entry, cluster_bits, &e);
        if (bitmap)
            e.flaws |= ENTRY_COMPRESSED_BITMAP;
        return e;
    }
    e.host_off = entry & L2_OFFSET_MASK;
    e.alloc_mask = bitmap;
    e.zero_mask = bitmap >> 32;
    e.kind = entry_subcluster_kind(e.alloc_mask, e.zero_mask, subcluster);
    if (entry & (L2_RESERVED_MASK | L2_ZERO))
        e.flaws |= ENTRY_RESERVED_BITS;
    if (!is_aligned(e.host_off, UINT64_C(1) << cluster_bits))
        e.flaws |= ENTRY_MISALIGNED;
    if (e.alloc_mask & e.zero_mask)
        e.flaws |= ENTRY_ALLOCATED_ZERO;
    if (e.alloc_mask && !e.host_off)
        e.flaws |= ENTRY_ALLOCATED_NOWHERE;
    return e;
}

/* Entries for clusters and tables whose refcount is 1. */
static inline uint64_t
entry_make_l1(uint64_t host_off)
{
    return host_off | ENTRY_COPIED;
}

static inline uint64_t
entry_make_data(uint64_t host_off)
{
    return host_off | ENTRY_COPIED;
}

/* nr_bytes (1 to a cluster's size) of compressed data, which end below
 * 1 << entry_compressed_offset_bits. Never COPIED: others share the place.
 */
static inline uint64_t
entry_make_compressed(uint64_t host_off, uint32_t nr_bytes,
                      unsigned cluster_bits)
{
    uint64_t sectors = ((host_off & 511) + nr_bytes - 1) / 512;

    return L2_COMPRESSED
           | sectors << entry_compressed_offset_bits(cluster_bits)
           | host_off;
}

/* host_off 0: a zero cluster without a place. */
static inline uint64_t
entry_make_zero(uint64_t host_off)
{
    return L2_ZERO | (host_off ? host_off | ENTRY_COPIED : 0);
}

/* An entry of 64 bits that decodes to e, which has no flaws but
 * ENTRY_COPIED_COMPRESSED. */
static inline uint64_t
entry_encode_l2(const struct l2_entry *e, unsigned cluster_bits)
{
    uint64_t flag = e->copied ? ENTRY_COPIED : 0;

    switch (e->kind) {
    case MAP_UNALLOCATED:
        return flag;
    case MAP_ZERO:
        return flag | L2_ZERO | e->host_off;
    case MAP_DATA:
        return flag | e->host_off;
    case MAP_COMPRESSED:
        return flag | entry_make_compressed(e->host_off, e->compressed_len,
                                            cluster_bits);
    }
    __builtin_unreachable();
}

/* The two words of one of 128 bits; the masks count, not the kind of one
 * subcluster. */
static inline uint64_t
entry_encode_extended(const struct l2_entry *e, unsigned cluster_bits,
                      uint64_t *bitmap)
{
    uint64_t flag = e->copied ? ENTRY_COPIED : 0;

    *bitmap = 0;
    if (e->kind == MAP_COMPRESSED)
        return flag | entry_make_compressed(e->host_off, e->compressed_len,
                                            cluster_bits);
    *bitmap = e->alloc_mask | (uint64_t)e->zero_mask << 32;
    return flag | e->host_off;
}

/* Works for L1 entries too. */
static inline uint64_t
entry_with_copied(uint64_t entry, bool copied)
{
    return copied ? entry | ENTRY_COPIED : entry & ~ENTRY_COPIED;
}

#endif /* QCOW2_ENTRY_H */
