/* SPDX-License-Identifier: BSD-3-Clause */
/* resolve.c: the layer that decides about guest bytes; see resolve.h. */
#include "resolve.h"

#include <stdlib.h>

#include "checked.h"
#include "error.h"

/* One cached block answers for a window of granules. */
enum { WINDOW_BITS = 9, WINDOW_GRANULES = 1 << WINDOW_BITS, MIXED = 0 };

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
};

static int
fill_window(void *opaque, uint64_t window, void *data, uint32_t size,
            struct qcow2_error *err)
{
    const struct fill *f = opaque;
    unsigned bits = f->r->granule_bits;
    uint64_t start = window << (WINDOW_BITS + bits);
    uint64_t end = start + ((uint64_t)WINDOW_GRANULES << bits);
    uint64_t off = start;
    uint16_t *layers = data;

    (void)size;
    while (off < end) {
        unsigned i = (off - start) >> bits, layer;
        struct mapping m;

        if (source_chain_walk(f->chain, 1, off, end - off, &m, &layer, err)
            == -1)
            return -1;
        /* Granules that it covers in part are mixed. */
        if (!is_aligned(off, UINT64_C(1) << bits)) {
            layers[i] = MIXED;
            i++;
        }
        off += m.nr_bytes;
        while (i < (off - start) >> bits)
            layers[i++] = layer;
    }
    return 0;
}

unsigned
resolver_find(struct resolver *r, const struct source_chain *chain,
              uint64_t guest_off, uint64_t *nr_bytes)
{
    struct fill f = { r, chain };
    unsigned bits = r->granule_bits;
    unsigned i = guest_off >> bits & (WINDOW_GRANULES - 1), n;
    uint64_t into = guest_off & ((UINT64_C(1) << bits) - 1);
    struct block *b = cache_get(r->cache, r, guest_off >> (WINDOW_BITS + bits),
                                WINDOW_GRANULES * sizeof(uint16_t),
                                fill_window, &f, NULL);
    const uint16_t *layers;
    unsigned layer = MIXED;

    /* Damage anywhere in the window is the affair of who reads there. */
    if (b) {
        layers = (const uint16_t *)b->data;
        layer = layers[i];
        for (n = 1; i + n < WINDOW_GRANULES && layers[i + n] == layer
                    && ((uint64_t)n << bits) - into < *nr_bytes; n++)
            ;
        *nr_bytes = min_u64(*nr_bytes, ((uint64_t)n << bits) - into);
        cache_put(b);
    }
    return layer;
}
