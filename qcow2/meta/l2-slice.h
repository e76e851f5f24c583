/* SPDX-License-Identifier: BSD-3-Clause */
/* l2-slice.h: the entries of an L2 slice, or of a whole table, as values.
 *
 * An entry is one word of 64 bits, or two with extended L2 entries. A slice in
 * the cache is read without block.lock and changed with it. One word is loaded
 * and stored atomically, so a reader finds an entry as it was or as it is. Of
 * two words a reader that holds the range lock of the cluster does, as nobody
 * changes them meanwhile; block.sequence sees to it for everybody else: it is
 * odd during a change, and a reader that finds it odd, or another afterwards,
 * reads again with the lock.
 */
#ifndef QCOW2_L2_SLICE_H
#define QCOW2_L2_SLICE_H

#include <stdbool.h>

#include "base/bytes.h"
#include "cache/cache.h"
#include "format/entry.h"
#include "format/geometry.h"

struct l2_slice {
    be64 *words;                /* aligned as uint64_t is */
    struct block *block;        /* NULL: not in the cache, the caller's alone */
    const struct geometry *geo;
    unsigned version;           /* of the image */
};

static inline struct l2_slice
l2_slice_of(struct block *b, const struct geometry *geo, unsigned version)
{
    return (struct l2_slice){ (be64 *)b->data, b, geo, version };
}

/* A table, or a part of one, that was just read. */
static inline struct l2_slice
l2_slice_in_memory(be64 *words, const struct geometry *geo, unsigned version)
{
    return (struct l2_slice){ words, NULL, geo, version };
}

static inline bool
l2_is_extended(const struct l2_slice *s)
{
    return geometry_has_subclusters(s->geo);
}

/* For what follows. */
static inline uint64_t
l2_load_word(const struct l2_slice *s, uint64_t word)
{
    return be64toh(__atomic_load_n((const uint64_t *)s->words + word,
                                   __ATOMIC_RELAXED));
}

static inline void
l2_store_word(const struct l2_slice *s, uint64_t word, uint64_t value)
{
    __atomic_store_n((uint64_t *)s->words + word, htobe64(value),
                     __ATOMIC_RELAXED);
}

struct l2_entry l2_get_extended(const struct l2_slice *s, uint64_t idx,
                                unsigned subcluster);
uint64_t l2_row_extended(const struct l2_slice *s, uint64_t idx, uint64_t nr,
                         struct l2_entry *e);
uint64_t l2_run_extended(const struct l2_slice *s, uint64_t guest_off,
                         uint64_t nr_bytes, struct l2_entry *e);
bool l2_set_extended(const struct l2_slice *s, uint64_t idx,
                     const struct l2_entry *e);

/* Entry idx, for one of its subclusters (0 where there are none). */
static inline struct l2_entry
l2_get(const struct l2_slice *s, uint64_t idx, unsigned subcluster)
{
    if (l2_is_extended(s))
        return l2_get_extended(s, idx, subcluster);
    return entry_decode_l2(l2_load_word(s, idx), s->geo->cluster_bits,
                           s->version);
}

/* By how much, in a row, an entry of 64 bits exceeds the one before. */
static inline uint64_t
l2_step(const struct geometry *geo, uint64_t word)
{
    return word & L2_OFFSET_MASK ? UINT64_C(1) << geo->cluster_bits : 0;
}

/* Entry idx, for its first subcluster, and how many entries from there on, at
 * most nr, make a row: they say the same, and their places, if they have any,
 * are in a row on the host. A compressed cluster is a row of its own.
 */
static inline uint64_t
l2_row(const struct l2_slice *s, uint64_t idx, uint64_t nr,
       struct l2_entry *e)
{
    uint64_t word, step, n = 1;

    if (l2_is_extended(s))
        return l2_row_extended(s, idx, nr, e);
    word = l2_load_word(s, idx);
    step = l2_step(s->geo, word);
    *e = entry_decode_l2(word, s->geo->cluster_bits, s->version);
    if (e->kind == MAP_COMPRESSED)
        return 1;
    while (n < nr && l2_load_word(s, idx + n) == word + n * step)
        n++;
    return n;
}

/* Of a slice: the entry of guest_off, for its subcluster there, and how many
 * bytes from there on, at most nr_bytes (all in the slice), are of its kind
 * and in a row on the host.
 */
static inline uint64_t
l2_run(const struct l2_slice *s, uint64_t guest_off, uint64_t nr_bytes,
       struct l2_entry *e)
{
    unsigned bits = s->geo->cluster_bits;
    uint64_t in_cluster = guest_off & ((UINT64_C(1) << bits) - 1), nr;

    if (l2_is_extended(s))
        return l2_run_extended(s, guest_off, nr_bytes, e);
    nr = (in_cluster + nr_bytes + (UINT64_C(1) << bits) - 1) >> bits;
    nr = l2_row(s, geometry_slice_entry(s->geo, guest_off), nr, e);
    return min_u64(nr_bytes, (nr << bits) - in_cluster);
}

/* Changes entry idx into e, which has no flaws; returns whether it was
 * different. The caller holds the lock of a slice in the cache.
 */
static inline bool
l2_set(const struct l2_slice *s, uint64_t idx, const struct l2_entry *e)
{
    uint64_t word;

    if (l2_is_extended(s))
        return l2_set_extended(s, idx, e);
    word = entry_encode_l2(e, s->geo->cluster_bits);
    if (word == l2_load_word(s, idx))
        return false;
    l2_store_word(s, idx, word);
    return true;
}

/* Changes only the COPIED flag, of whatever entry it is. */
static inline bool
l2_set_copied(const struct l2_slice *s, uint64_t idx, bool copied)
{
    uint64_t at = idx << (s->geo->l2_entry_bits - 3);
    uint64_t old = l2_load_word(s, at), word = entry_with_copied(old, copied);

    if (word == old)
        return false;
    l2_store_word(s, at, word);
    return true;
}

/* Copies a whole slice from memory into the cache, where its lock is held.
 * Entries of it differ in nothing but COPIED flags, so each word by itself.
 */
void l2_copy_words(struct block *b, const be64 *words);

/* Entries for clusters whose refcount is 1, of which all subclusters are
 * alike. */
static inline struct l2_entry
l2_data(uint64_t host_off)
{
    return (struct l2_entry){
        .kind = MAP_DATA, .host_off = host_off, .copied = true,
        .alloc_mask = ALL_SUBCLUSTERS,
    };
}

/* nr_bytes (1 to a cluster's size) of compressed data. */
static inline struct l2_entry
l2_compressed(uint64_t host_off, uint32_t nr_bytes)
{
    return (struct l2_entry){
        .kind = MAP_COMPRESSED, .host_off = host_off,
        .compressed_len = nr_bytes,
    };
}

#endif /* QCOW2_L2_SLICE_H */
