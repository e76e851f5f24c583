/* SPDX-License-Identifier: BSD-3-Clause */
/* l2-slice.c: extended L2 entries, of two words, and slices copied whole; see
 * l2-slice.h.
 */
#include "meta/l2-slice.h"

enum { NR_SUBCLUSTERS = 1 << SUBCLUSTERS_BITS };

/* An entry as it is on disk. */
struct words {
    uint64_t entry, bitmap;
};

/* Acquire, so that what is loaded afterwards is not older: a reader that finds
 * a word of a change finds the sequence of that change, too. */
static struct words
load(const struct l2_slice *s, uint64_t idx)
{
    const uint64_t *at = (const uint64_t *)s->words + 2 * idx;

    return (struct words){
        be64toh(__atomic_load_n(at, __ATOMIC_ACQUIRE)),
        be64toh(__atomic_load_n(at + 1, __ATOMIC_ACQUIRE)),
    };
}

static struct words
load_consistently(const struct l2_slice *s, uint64_t idx)
{
    struct block *b = s->block;
    struct words w;
    unsigned before;

    if (!b)
        return load(s, idx);
    before = __atomic_load_n(&b->sequence, __ATOMIC_ACQUIRE);
    w = load(s, idx);
    if (before % 2 == 0
        && before == __atomic_load_n(&b->sequence, __ATOMIC_RELAXED))
        return w;
    pthread_mutex_lock(&b->lock);
    w = load(s, idx);
    pthread_mutex_unlock(&b->lock);
    return w;
}

static struct l2_entry
decode(const struct l2_slice *s, struct words w, unsigned subcluster)
{
    return entry_decode_extended(w.entry, w.bitmap, s->geo->cluster_bits,
                                 subcluster);
}

struct l2_entry
l2_get_extended(const struct l2_slice *s, uint64_t idx, unsigned subcluster)
{
    return decode(s, load_consistently(s, idx), subcluster);
}

uint64_t
l2_row_extended(const struct l2_slice *s, uint64_t idx, uint64_t nr,
                struct l2_entry *e)
{
    struct words first = load_consistently(s, idx), w;
    uint64_t step = l2_step(s->geo, first.entry), n;

    *e = decode(s, first, 0);
    if (e->kind == MAP_COMPRESSED)
        return 1;
    for (n = 1; n < nr; n++) {
        w = load_consistently(s, idx + n);
        if (w.entry != first.entry + n * step || w.bitmap != first.bitmap)
            break;
    }
    return n;
}

/* How many subclusters from `first` on are of this kind? */
static unsigned
nr_alike(const struct l2_entry *e, unsigned first, enum map_kind kind)
{
    unsigned n = first;

    while (n < NR_SUBCLUSTERS
           && entry_subcluster_kind(e->alloc_mask, e->zero_mask, n) == kind)
        n++;
    return n - first;
}

/* Does next, n entries behind e, go on where e ends? */
static bool
continues(const struct l2_slice *s, const struct l2_entry *e,
          const struct l2_entry *next, uint64_t n)
{
    uint64_t step = e->host_off ? n << s->geo->cluster_bits : 0;

    return next->kind == e->kind && next->host_off == e->host_off + step
           && next->copied == e->copied && next->flaws == e->flaws;
}

uint64_t
l2_run_extended(const struct l2_slice *s, uint64_t guest_off,
                uint64_t nr_bytes, struct l2_entry *e)
{
    uint64_t idx = geometry_slice_entry(s->geo, guest_off), len;
    unsigned bits = s->geo->subcluster_bits, end;
    uint64_t cluster_start = round_down(guest_off,
                                        UINT64_C(1) << s->geo->cluster_bits);
    unsigned first = (guest_off - cluster_start) >> bits;

    *e = l2_get_extended(s, idx, first);
    end = e->kind == MAP_COMPRESSED ? NR_SUBCLUSTERS
                                    : first + nr_alike(e, first, e->kind);
    len = cluster_start + ((uint64_t)end << bits) - guest_off;
    for (uint64_t n = 1; len < nr_bytes && end == NR_SUBCLUSTERS
                         && e->kind != MAP_COMPRESSED; n++) {
        struct l2_entry next = l2_get_extended(s, idx + n, 0);

        if (!continues(s, e, &next, n))
            break;
        end = nr_alike(&next, 0, e->kind);
        len += (uint64_t)end << bits;
    }
    return min_u64(nr_bytes, len);
}

bool
l2_set_extended(const struct l2_slice *s, uint64_t idx,
                const struct l2_entry *e)
{
    uint64_t *at = (uint64_t *)s->words + 2 * idx;
    struct words old = load(s, idx), w;
    unsigned sequence = s->block ? s->block->sequence : 0;

    w.entry = entry_encode_extended(e, s->geo->cluster_bits, &w.bitmap);
    if (w.entry == old.entry && w.bitmap == old.bitmap)
        return false;
    if (s->block)
        __atomic_store_n(&s->block->sequence, sequence + 1, __ATOMIC_RELAXED);
    /* Release: not before the sequence is odd. */
    __atomic_store_n(at, htobe64(w.entry), __ATOMIC_RELEASE);
    __atomic_store_n(at + 1, htobe64(w.bitmap), __ATOMIC_RELEASE);
    if (s->block)
        __atomic_store_n(&s->block->sequence, sequence + 2, __ATOMIC_RELEASE);
    return true;
}

void
l2_copy_words(struct block *b, const be64 *words)
{
    uint64_t *to = (uint64_t *)b->data;

    for (uint32_t i = 0; i < b->size / sizeof *to; i++)
        __atomic_store_n(&to[i], htobe64(be64_get(words[i])),
                         __ATOMIC_RELAXED);
}
