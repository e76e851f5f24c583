/* SPDX-License-Identifier: BSD-3-Clause */
/* stores.h: stores of guest data that differ from the one in the image's own
 * file in all that a store may (layer/store.h). They assert that they are
 * called as its contract says.
 */
#ifndef STORES_H
#define STORES_H

#include "layer/store.h"

/* As encryption: wraps a store, and keeps each byte of it under a key that
 * depends on guest and host offset. What is new does not read as zeroes, and
 * nothing can be zeroed. Threads get in each other's way when they can.
 */
struct store *store_scrambled_new(struct store *below, uint32_t align);

/* As a data file: in a file of its own, which it takes over, each cluster at
 * its guest offset, without refcounts; what is new holds garbage. The state
 * outlives the store.
 */
enum { MAX_BESIDE_CLUSTERS = 512 };
struct beside_state {
    bool placed[MAX_BESIDE_CLUSTERS];    /* clusters that have a place */
    bool unflushed[MAX_BESIDE_CLUSTERS]; /* changed; the test clears it */
};
struct store *store_beside_new(struct io *io, uint32_t align,
                               uint32_t cluster_size,
                               struct beside_state *state);

#endif /* STORES_H */
