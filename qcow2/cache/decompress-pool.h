/* SPDX-License-Identifier: BSD-3-Clause */
/* decompress-pool.h: what the images of a pool share to decompress clusters: a
 * bounded cache of decompressed ones, spaces to work in, and a memory of
 * what was read lately.
 */
#ifndef QCOW2_CLUSTERS_H
#define QCOW2_CLUSTERS_H

#include <stddef.h>
#include <stdint.h>

#include "base/compress.h"
#include "cache/cache.h"

struct decompress_pool;

/* max_bytes bounds the cache alone. */
struct decompress_pool *decompress_pool_new(uint64_t max_bytes,
                                            struct qcow2_error *err);
void decompress_pool_free(struct decompress_pool *c); /* NULL is fine */

/* Owner of its blocks: an image; key: host offset of the compressed data. */
struct cache *decompress_pool_cache(struct decompress_pool *c);

/* For one thread at a time. Its buffers grow as they are asked for, and
 * hold nothing in between.
 */
struct workspace {
    struct compress_context *context;
    unsigned char *in, *out;

    /* Below: decompress-pool.c only. */
    size_t in_bytes, out_bytes;
    struct workspace *next;
};

/* out_bytes may be 0. */
struct workspace *decompress_pool_take_space(struct decompress_pool *c,
                                             size_t in_bytes, size_t out_bytes,
                                             struct qcow2_error *err);
void decompress_pool_put_space(struct decompress_pool *c, struct workspace *w);

enum cluster_use {
    CLUSTER_FIRST, /* not read lately, nor what lies before it */
    CLUSTER_AGAIN, /* read lately */
    CLUSTER_NEXT,  /* the one before it was read just now */
};

/* Part of the idx-th cluster of an owner (a view) is about to be read. Only
 * a guess, and cheap: other clusters may make it forget this one.
 */
enum cluster_use decompress_pool_note(struct decompress_pool *c,
                                      const void *owner, uint64_t idx);

#endif /* QCOW2_CLUSTERS_H */
