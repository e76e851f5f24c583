/* SPDX-License-Identifier: BSD-3-Clause */
/* chain.h: opens the backing layers of a disk, through the gate that every
 * file name from an image must pass, and shares them between disks.
 */
#ifndef QCOW2_CHAIN_H
#define QCOW2_CHAIN_H

#include <pthread.h>

#include "cache.h"
#include "image.h"
#include "qcow2.h"
#include "source.h"

/* A read-only layer, opened once for all disks of a pool that stand on the
 * same file (device and inode) with the same format.
 */
struct layer {
    unsigned nr_users;      /* guarded by pool.lock */
    enum qcow2_format format;
    char *path;
    struct source *source;  /* raw, or the active view of image */
    struct image *image;    /* qcow2 only */
    struct layer *backing;  /* what it stands on; NULL: nothing */
    struct layer *next;     /* in the pool */
    uint64_t dev, ino;
};

struct qcow2_pool {
    pthread_mutex_t lock;   /* guards layers; held over opening them */
    struct layer *layers;
    struct cache *meta, *clusters;
};

/* Decides what the backing file of the image at `path` (opened with
 * options) is, passes its name through the gate, opens it and all below it.
 * *top is NULL if there is none. Iterative: depth costs no stack.
 */
int chain_open(struct qcow2_pool *pool, const char *path,
               const struct header *hdr,
               const struct qcow2_options *options,
               uint64_t dev, uint64_t ino,
               struct layer **top, struct qcow2_error *err);
void chain_close(struct qcow2_pool *pool, struct layer *top);

/* Fills chain with `top` as layer 0 and the layers below. */
int chain_fill(struct source_chain *chain, struct source *top,
               struct layer *below, struct qcow2_error *err);

/* The gate. Resolves a name found in an image (relative to the directory
 * of image_path) and says whether it may be opened: EPERM with the option
 * that would allow it otherwise. *resolved is the caller's to free.
 */
int chain_gate(const char *image_path, const char *name,
               const char *const *allow, size_t nr_allow,
               char **resolved, struct qcow2_error *err);

#endif /* QCOW2_CHAIN_H */
