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

#endif /* STORES_H */
