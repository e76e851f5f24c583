/* SPDX-License-Identifier: BSD-3-Clause */
/* resolve.h: remembers where in a chain guest bytes are, so that reading
 * through a deep chain does not cost in proportion to its depth. The layers
 * below the disk are immutable, hence so is the answer.
 */
#ifndef QCOW2_RESOLVE_H
#define QCOW2_RESOLVE_H

#include <stdint.h>

#include "cache/cache.h"
#include "layer/source.h"

struct resolver;

/* Answers are kept in `cache` (which must outlive the resolver), for granules
 * of 1 << granule_bits bytes: best the smallest cluster size of the layers.
 */
struct resolver *resolver_new(struct cache *cache, unsigned granule_bits,
                              struct qcow2_error *err);
void resolver_free(struct resolver *r); /* NULL is fine */

/* Maps guest_off, looking nr_bytes far, through the layers from 1 on, and
 * tells the layer that decides. False: that layer (nr_layers: none) is to be
 * asked, or it and those below it; m holds no more than for how many bytes
 * to ask.
 */
bool resolver_find(struct resolver *r, const struct source_chain *chain,
                   uint64_t guest_off, uint64_t nr_bytes, struct mapping *m,
                   unsigned *layer);

#endif /* QCOW2_RESOLVE_H */
