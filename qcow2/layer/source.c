/* SPDX-License-Identifier: BSD-3-Clause */
/* source.c: looks guest bytes up through a chain of layers. */
#include "layer/source.h"

#include <stdlib.h>

#include "base/checked.h"
#include "base/error.h"
#include "layer/resolve.h"

static void
map_nothing(struct mapping *m, uint64_t nr_bytes)
{
    *m = (struct mapping){ .kind = MAP_ZERO, .nr_bytes = nr_bytes };
}

int
source_chain_walk(const struct source_chain *chain, unsigned first,
                  uint64_t guest_off, uint64_t nr_bytes, struct mapping *m,
                  unsigned *depth, struct qcow2_error *err)
{
    unsigned i;

    for (i = first; i < chain->nr_layers; i++) {
        struct source *s = chain->layers[i];

        if (guest_off >= s->size) {
            /* A layer ends where it ends: what is below it does not show
             * through past that. */
            map_nothing(m, nr_bytes);
            break;
        }
        nr_bytes = min_u64(nr_bytes, s->size - guest_off);
        if (s->ops->lookup(s, guest_off, nr_bytes, m, err) == -1)
            return -1;
        nr_bytes = min_u64(nr_bytes, m->nr_bytes);
        m->nr_bytes = nr_bytes;
        if (m->kind != MAP_UNALLOCATED)
            break;
    }
    if (i == chain->nr_layers)
        map_nothing(m, nr_bytes);
    if (depth)
        *depth = i;
    return 0;
}

int
source_chain_lookup(const struct source_chain *chain, unsigned first,
                    uint64_t guest_off, uint64_t nr_bytes,
                    struct mapping *m, unsigned *depth,
                    struct qcow2_error *err)
{
    struct source *top = chain->layers[0];
    unsigned layer;

    if (!chain->resolver || first > 1 || guest_off >= top->size)
        return source_chain_walk(chain, first, guest_off, nr_bytes, m, depth,
                                 err);
    if (first == 0) {
        nr_bytes = min_u64(nr_bytes, top->size - guest_off);
        if (top->ops->lookup(top, guest_off, nr_bytes, m, err) == -1)
            return -1;
        if (m->kind != MAP_UNALLOCATED) {
            if (depth)
                *depth = 0;
            return 0;
        }
        nr_bytes = m->nr_bytes;
    }
    if (!resolver_find(chain->resolver, chain, guest_off, nr_bytes, m,
                       &layer))
        return source_chain_walk(chain, layer, guest_off, m->nr_bytes, m,
                                 depth, err);
    if (depth)
        *depth = layer;
    return 0;
}

int
source_chain_is_zero(const struct source_chain *chain, unsigned first,
                     uint64_t from, uint64_t to, bool *zero,
                     struct qcow2_error *err)
{
    *zero = true;
    while (from < to && *zero) {
        struct mapping m;

        if (source_chain_lookup(chain, first, from, to - from, &m, NULL, err)
            == -1)
            return -1;
        *zero = m.kind == MAP_ZERO;
        from += m.nr_bytes;
    }
    return 0;
}

static void
free_one_layer(struct source_chain *chain)
{
    free(chain);
}

struct source_chain *
source_chain_new(struct source *top, struct qcow2_error *err)
{
    struct source_chain *chain = malloc(sizeof *chain);
    struct source **layers = malloc(sizeof *layers);

    if (!chain || !layers) {
        free(chain);
        free(layers);
        error_nomem(err);
        return NULL;
    }
    layers[0] = top;
    *chain = (struct source_chain){
        .nr_layers = 1, .layers = layers, .nr_refs = 1,
        .free = free_one_layer,
    };
    return chain;
}

struct source_chain *
source_chain_get(struct source_chain *chain)
{
    __atomic_add_fetch(&chain->nr_refs, 1, __ATOMIC_RELAXED);
    return chain;
}

void
source_chain_put(struct source_chain *chain)
{
    struct source **layers;

    if (!chain || __atomic_sub_fetch(&chain->nr_refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    layers = chain->layers;
    resolver_free(chain->resolver);
    chain->free(chain);
    free(layers);
}
