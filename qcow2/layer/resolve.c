/* SPDX-License-Identifier: BSD-3-Clause */
/* resolve.c: the layer that decides about guest bytes; see resolve.h. */
#include "layer/resolve.h"

#include <stdlib.h>

#include "base/checked.h"
#include "base/error.h"

/* One cached block answers for a window of granules. */
enum { WINDOW_BITS = 9, WINDOW_GRANULES = 1 << WINDOW_BITS };

/* What is kept of a granule: the layer that decides, and, if all of it is
 * one run of data or zeroes, its place there. Else the layer must be asked:
 * about compressed data, or layer 1 where layers take turns.
 *
 *    bits 0-46   host offset in sectors
 *    bit 47      has a host offset
 *    bits 48-49  enum what
 *    bits 50-63  layer
 */
enum what { ASK, DATA, ZERO, UNDECIDED };
enum { SECTOR_BITS = 9, HOST_BITS = 47, WHAT_SHIFT = 48, LAYER_SHIFT = 50 };

static uint64_t
place_make(unsigned layer, enum what what)
{
    return (uint64_t)layer << LAYER_SHIFT | (uint64_t)what << WHAT_SHIFT;
}

static uint64_t
place_with_host(uint64_t place, uint64_t host_off)
{
    return place | UINT64_C(1) << HOST_BITS | host_off >> SECTOR_BITS;
}

static enum what
place_what(uint64_t place)
{
    return place >> WHAT_SHIFT & 3;
}

static bool
place_has_host(uint64_t place)
{
    return place >> HOST_BITS & 1;
}

static uint64_t
place_host(uint64_t place)
{
    return (place & ((UINT64_C(1) << HOST_BITS) - 1)) << SECTOR_BITS;
}

struct resolver {
    struct cache *cache;
    unsigned granule_bits;
};

struct resolver *
resolver_new(struct cache *cache, unsigned granule_bits,
             struct qcow2_error *err)
{
    struct resolver *r = malloc(sizeof *r);

    if (!r) {
        error_nomem(err);
        return NULL;
    }
    r->cache = cache;
    r->granule_bits = granule_bits;
    return r;
}

void
resolver_free(struct resolver *r)
{
    if (!r)
        return;
    cache_drop_owner(r->cache, r);
    free(r);
}

/* A window to fill. */
struct fill {
    const struct resolver *r;
    const struct source_chain *chain;
    uint64_t start, end;        /* guest bytes */
    uint64_t *places;           /* of its granules */
};

/* Of a granule `into` bytes into m. */
static uint64_t
place_of(unsigned layer, const struct mapping *m, uint64_t into)
{
    uint64_t host_off = m->host_off + into, place;

    if ((m->kind != MAP_DATA && m->kind != MAP_ZERO) || !m->source)
        return place_make(layer, ASK);
    place = place_make(layer, m->kind == MAP_DATA ? DATA : ZERO);
    if (!m->has_host)
        return place;
    if (!is_aligned(host_off, 1 << SECTOR_BITS)
        || host_off >> SECTOR_BITS >> HOST_BITS != 0)
        return place_make(layer, ASK);
    return place_with_host(place, host_off);
}

/* The layer decides about m, which begins at `from`, where no layer above
 * does. Layers take turns in granules that it covers in part. */
static void
decide(struct fill *f, unsigned layer, uint64_t from, const struct mapping *m)
{
    unsigned bits = f->r->granule_bits;
    uint64_t to = from + m->nr_bytes;

    for (uint64_t i = (from - f->start) >> bits;
         i << bits < to - f->start; i++) {
        uint64_t granule = f->start + (i << bits);

        if (place_what(f->places[i]) != UNDECIDED)
            continue;
        f->places[i] = from <= granule
                               && granule + (UINT64_C(1) << bits) <= to
                           ? place_of(layer, m, granule - from)
                           : place_make(1, ASK);
    }
}

/* One pass over a layer: how much it costs depends on how many pieces it is
 * in there, not on how many granules are undecided. */
static int
fill_from_layer(struct fill *f, unsigned layer, struct qcow2_error *err)
{
    struct source *s = f->chain->layers[layer];
    unsigned bits = f->r->granule_bits;
    bool needed = false;

    for (uint64_t off = f->start; off < f->end;) {
        uint64_t i = (off - f->start) >> bits;
        struct mapping m = { .kind = MAP_ZERO, .nr_bytes = f->end - off };

        if (place_what(f->places[i]) != UNDECIDED) {
            off = f->start + ((i + 1) << bits);
            continue;
        }
        if (off < s->size
            && s->ops->lookup(s, off, min_u64(f->end, s->size) - off, &m,
                              err) == -1)
            return -1;
        if (m.kind != MAP_UNALLOCATED)
            decide(f, layer, off, &m);
        needed |= m.kind == MAP_COMPRESSED;
        off += m.nr_bytes;
    }
    if (!needed && s->ops->forget)
        s->ops->forget(s, f->start, f->end);
    return 0;
}

static int
fill_window(void *opaque, uint64_t window, void *data, uint32_t size,
            struct qcow2_error *err)
{
    struct fill *f = opaque;
    unsigned nr_layers = f->chain->nr_layers;

    (void)size;
    f->places = data;
    f->start = window << (WINDOW_BITS + f->r->granule_bits);
    f->end = f->start + ((uint64_t)WINDOW_GRANULES << f->r->granule_bits);
    for (unsigned i = 0; i < WINDOW_GRANULES; i++)
        f->places[i] = place_make(0, UNDECIDED);
    for (unsigned layer = 1; layer < nr_layers; layer++)
        if (fill_from_layer(f, layer, err) == -1)
            return -1;
    for (unsigned i = 0; i < WINDOW_GRANULES; i++)
        if (place_what(f->places[i]) == UNDECIDED)
            f->places[i] = place_make(nr_layers, ASK);
    return 0;
}

/* How far, in granules from i on, looking nr far, does place hold? */
static unsigned
run_length(const uint64_t *places, unsigned i, uint64_t nr, uint64_t step)
{
    unsigned n = 1;

    while (n < nr && i + n < WINDOW_GRANULES
           && places[i + n] == places[i] + n * step)
        n++;
    return n;
}

bool
resolver_find(struct resolver *r, const struct source_chain *chain,
              uint64_t guest_off, uint64_t nr_bytes, struct mapping *m,
              unsigned *layer)
{
    struct fill f = { .r = r, .chain = chain };
    unsigned bits = r->granule_bits;
    unsigned i = guest_off >> bits & (WINDOW_GRANULES - 1), n;
    uint64_t into = guest_off & ((UINT64_C(1) << bits) - 1), place;
    struct block *b = cache_get(r->cache, r, guest_off >> (WINDOW_BITS + bits),
                                WINDOW_GRANULES * sizeof *f.places,
                                fill_window, &f, NULL);
    const uint64_t *places;

    *m = (struct mapping){ .nr_bytes = nr_bytes };
    *layer = 1;
    /* Leave the error to the reader of that range. */
    if (!b)
        return false;
    places = (const uint64_t *)b->data;
    place = places[i];
    m->has_host = place_has_host(place);
    n = run_length(places, i, ((into + nr_bytes - 1) >> bits) + 1,
                   m->has_host ? UINT64_C(1) << (bits - SECTOR_BITS) : 0);
    m->nr_bytes = min_u64(nr_bytes, ((uint64_t)n << bits) - into);
    cache_put(b);

    *layer = place >> LAYER_SHIFT;
    if (place_what(place) == ASK)
        return false;
    m->kind = place_what(place) == DATA ? MAP_DATA : MAP_ZERO;
    m->source = chain->layers[*layer];
    m->host_off = m->has_host ? place_host(place) + into : 0;
    return true;
}
