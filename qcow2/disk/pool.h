/* SPDX-License-Identifier: BSD-3-Clause */
/* pool.h: what disks of one process share: caches, and read-only backing
 * layers, each opened once.
 *
 * No lock is held while a layer is opened or closed. A thread that needs a
 * layer which another one is opening waits for that layer alone; opening
 * ends, as waiting for servers is limited (nbd-client.h).
 */
#ifndef QCOW2_POOL_H
#define QCOW2_POOL_H

#include <pthread.h>

#include "cache/cache.h"
#include "cache/decompress-pool.h"
#include "layer/source.h"
#include "qcow2.h"
#include "storage/path-policy.h"

enum layer_state { LAYER_OPENING, LAYER_READY, LAYER_FAILED };

/* A read-only layer, opened once for all disks of a pool that stand on the
 * same file (device and inode, found in the same directory, as that is where
 * its own backing file's name starts) with the same format and lock.
 */
struct layer {
    /* Constant. */
    enum qcow2_format format;
    bool locked;
    char *path;             /* as policy_file.path */
    struct policy_place place; /* where names in it start, and must stay */
    uint64_t dev, ino;

    /* Guarded by pool.lock. */
    enum layer_state state;
    unsigned nr_users;      /* disks, layers above, threads that wait */
    struct layer *next;     /* in the pool */
    struct layer *backing;  /* its backing file, once it was opened, too;
                             * does not change any more then */

    /* Constant once it is LAYER_READY. */
    struct source *source;
    struct qcow2_error error; /* of one that is LAYER_FAILED */
};

struct qcow2_pool {
    pthread_mutex_t lock;   /* never held over I/O */
    pthread_cond_t opened;  /* a layer is no longer LAYER_OPENING */
    struct layer *layers;
    struct cache *meta;
    struct decompress_pool *decompress;
};

/* Is the layer this file? */
bool pool_is_file(const struct layer *l, const struct policy_file *file);

/* Opens what a new layer consists of besides its file. */
struct layer_opener {
    int (*open)(const struct layer_opener *o, struct source *source,
                const struct policy_place *place, struct qcow2_error *err);
};

/* A layer that is an open file, which is taken over, also on failure: the one
 * that the pool has, or a new one, which rest completes. A use of it is the
 * caller's.
 */
struct layer *pool_get(struct qcow2_pool *pool, struct io *io,
                       const struct policy_file *file, enum qcow2_format format,
                       bool locked, const struct layer_opener *rest,
                       struct qcow2_error *err);

/* The layer of an NBD export that the pool has, without connecting to the
 * server. format AUTO: of any. NULL: there is none.
 */
struct layer *pool_find(struct qcow2_pool *pool, const struct policy_file *file,
                        enum qcow2_format format, bool locked);

/* Begins one more use of a layer that the caller uses. NULL is fine. */
struct layer *pool_use(struct qcow2_pool *pool, struct layer *l);

/* Ends one use of a layer, and of those below that only it used. NULL is
 * fine.
 */
void pool_put(struct qcow2_pool *pool, struct layer *l);

/* The layer at *link, which leads from one layer to the next; NULL: nobody
 * opened it yet. Still the user's of the layer above.
 */
struct layer *pool_follow(struct qcow2_pool *pool, struct layer *const *link);

/* Makes l the layer at *link, the link of `above` (NULL: of a disk), which
 * takes over the use of it, unless another thread linked one there before:
 * then that is returned. NULL if l stands on `above`: two threads that walk
 * along a loop from different ends may each find the other's half, and a pool
 * with a loop in it could never be walked nor freed. l is put then.
 */
struct layer *pool_link(struct qcow2_pool *pool, struct layer *above,
                        struct layer **link, struct layer *l);

#endif /* QCOW2_POOL_H */
