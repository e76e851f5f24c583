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
};

struct l1_entry {
    uint64_t host_off; /* of the L2 table; 0: none */
    bool copied;
    unsigned flaws;
};

struct l2_entry {
    enum map_kind kind;
    /* MAP_DATA: never 0. MAP_ZERO: of the preallocated cluster, 0 if there
     * is none. MAP_COMPRESSED: first byte of the compressed data, which may
     * lie anywhere up to 2^62. */
    uint64_t host_off;
    uint32_t compressed_len; /* MAP_COMPRESSED: bytes, at most; not 0 */
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
        if (version < 3)
            e.flaws |= ENTRY_ZERO_IN_V2;
    } else {
        e.kind = e.host_off ? MAP_DATA : MAP_UNALLOCATED;
    }
    if (entry & L2_RESERVED_MASK)
        e.flaws |= ENTRY_RESERVED_BITS;
    if (!is_aligned(e.host_off, UINT64_C(1) << cluster_bits))
        e.flaws |= ENTRY_MISALIGNED;
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

/* Works for L1 entries too. */
static inline uint64_t
entry_with_copied(uint64_t entry, bool copied)
{
    return copied ? entry | ENTRY_COPIED : entry & ~ENTRY_COPIED;
}

#endif /* QCOW2_ENTRY_H */
