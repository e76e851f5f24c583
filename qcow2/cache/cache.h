/* SPDX-License-Identifier: BSD-3-Clause */
/* cache.h: a bounded cache of blocks, each found by (owner, key), loaded
 * once however many ask, and pinned while in use.
 *
 * It holds slices of metadata tables (key: host offset) and, in a second
 * instance, decompressed clusters. It knows neither L2 nor refcounts.
 *
 * A dirty block is pinned by the dirty set it stands in, so it can never be
 * evicted before it is written. To change a block, hold its lock while
 * changing it and calling dirty_add; who takes the set copies it under the
 * same lock, so a copy never holds half of a change.
 */
#ifndef QCOW2_CACHE_H
#define QCOW2_CACHE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/shared.h"
#include "qcow2.h"

struct cache;
struct dirty_set;

struct block {
    const void *owner;
    uint64_t key;
    uint32_t size;
    unsigned char *data;

    pthread_mutex_t lock;       /* guards changes of data, and is_dirty */
    bool is_dirty;              /* stands in a dirty set */
    unsigned sequence;          /* atomic; raised before and after a change of
                                 * more than one word (meta/l2-slice.h) */
    struct block *dirty_next;   /* guarded by the set's lock */

    /* Below: cache.c only. */
    int state;
    bool referenced;            /* for the clock */
    int pins;                   /* atomic; raised from 0 under the shard's
                                 * lock only, so 0 under it means free */
    struct block *hash_next;    /* or the next free one of its chunk */
    struct block *clock_next, *clock_prev;
    struct chunk *chunk;        /* that it is part of; NULL: of none */
} __attribute__((aligned(8)));  /* and so is data, behind it (shared.h) */

/* Fills data[0, size). Called without any lock of the cache. */
typedef int cache_load_fn(void *opaque, uint64_t key, void *data,
                          uint32_t size, struct qcow2_error *err);

/* max_bytes bounds the memory of all blocks, but for pinned ones. */
struct cache *cache_new(uint64_t max_bytes, struct qcow2_error *err);

/* No block may be pinned. */
void cache_free(struct cache *c);

uint64_t cache_max_bytes(const struct cache *c);

/* Notes that a user of the cache takes memory of its own for the same
 * purpose. False: all of them together would take more than they may, and
 * nothing was noted. Giving back ends it.
 */
enum { CACHE_MAX_BESIDE_BYTES = 64 << 20 };
bool cache_take_beside(struct cache *c, uint64_t nr_bytes);
void cache_give_back_beside(struct cache *c, uint64_t nr_bytes);
uint64_t cache_used_bytes(struct cache *c);

/* The block (owner, key), pinned; loads it on a miss, and where several
 * miss at once one loads and the others wait for it. A failed load is not
 * remembered: threads that waited for it try again. All users of one
 * (owner, key) give the same size. load NULL: NULL if it is not there, or
 * another thread that is loading it fails.
 */
struct block *cache_get(struct cache *c, const void *owner, uint64_t key,
                        uint32_t size, cache_load_fn *load, void *opaque,
                        struct qcow2_error *err);

/* Loads those of the nr blocks (owner, key + i * size) that are not there,
 * neighbours with one call of load. A block that could not be loaded gives its
 * error to the cache_get that needs it.
 */
enum { CACHE_MAX_PRELOAD = 16 };
typedef int cache_load_many_fn(void *opaque, uint64_t key,
                               const struct iovec *vec, int nr);
void cache_preload(struct cache *c, const void *owner, uint64_t key,
                   uint32_t size, unsigned nr, cache_load_many_fn *load,
                   void *opaque);

/* The block if it is there and loaded, pinned; otherwise NULL. No I/O. */
struct block *cache_peek(struct cache *c, const void *owner, uint64_t key);

/* Is it there, or being loaded? No I/O, and no pin. */
bool cache_has(struct cache *c, const void *owner, uint64_t key);

void cache_pin(struct block *b);    /* the caller has a pin already */
void cache_put(struct block *b);    /* unpins; NULL is fine */

/* Forgets (owner, key), or all of owner's blocks, but for pinned ones: what
 * they cached is no longer there.
 */
void cache_drop(struct cache *c, const void *owner, uint64_t key);
void cache_drop_owner(struct cache *c, const void *owner);

/* The dirty blocks of one image and kind. */
struct dirty_set {
    pthread_mutex_t lock;
    struct block *first, *last; /* in the order they became dirty */
    unsigned nr_blocks;
    shared_u64 nr_bytes;        /* atomic */
};

void dirty_init(struct dirty_set *set);
void dirty_destroy(struct dirty_set *set); /* forgets what is in it */

uint64_t dirty_bytes(const struct dirty_set *set);

/* Marks b dirty; the set pins it. The caller holds b->lock (or whatever
 * else guards every change of the set's blocks) and a pin.
 */
void dirty_add(struct dirty_set *set, struct block *b);

/* One dirty block as it stood when it was taken. */
struct dirty_copy {
    struct block *block;        /* still pinned: not evicted before written */
    unsigned char *data;        /* copy of size block->size */
};

struct dirty_batch {
    struct dirty_copy *copies;  /* in ascending order of key */
    unsigned nr;
    unsigned char *arena;
};

/* Moves what stands in the set into *batch: copies every block under its
 * lock and marks it clean. Blocks changed later stand in the set again. One
 * taker at a time. On failure (ENOMEM) the set is unchanged.
 */
int dirty_take(struct dirty_set *set, struct dirty_batch *batch,
               struct qcow2_error *err);

/* Unpins what dirty_take took and frees the copies. */
void dirty_batch_end(struct dirty_batch *batch);

/* As dirty_batch_end, but what was taken is dirty again. */
void dirty_give_back(struct dirty_set *set, struct dirty_batch *batch);

#endif /* QCOW2_CACHE_H */
