/* SPDX-License-Identifier: BSD-3-Clause */
/* resolve.h: remembers which layer of a chain decides about guest bytes, so
 * that reading through a deep chain does not cost in proportion to its
 * depth. The layers below the disk are immutable, hence so is the answer.
 */
#ifndef QCOW2_RESOLVE_H
#define QCOW2_RESOLVE_H

#include <stdint.h>

#include "cache.h"
#include "source.h"

struct resolver;

/* Answers are kept in `cache` (which must outlive the resolver), for granules
 * of 1 << granule_bits bytes: best the smallest cluster size of the layers.
 */
struct resolver *resolver_new(struct cache *cache, unsigned granule_bits,
                              struct qcow2_error *err);
void resolver_free(struct resolver *r); /* NULL is fine */

/* The layer, from 1 on, that decides about guest_off (nr_layers: none), or
 * 0 if that is to be found by a walk: layers take turns inside the granule,
 * or something could not be read. *nr_bytes, in: how far the caller looks;
 * out: how far the answer holds.
 */
unsigned resolver_find(struct resolver *r, const struct source_chain *chain,
                       uint64_t guest_off, uint64_t *nr_bytes);

#endif /* QCOW2_RESOLVE_H */
