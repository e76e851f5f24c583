/* SPDX-License-Identifier: BSD-3-Clause */
/* pool.c: shares caches and backing layers between disks; see pool.h. */
#include "disk/pool.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/format-driver.h"

enum {
    DEFAULT_CACHE_BYTES = 32 << 20,
    MIN_CACHE_BYTES = 1 << 20,
};

struct qcow2_pool *
qcow2_pool_new(uint64_t cache_bytes, struct qcow2_error *err)
{
    struct qcow2_pool *pool = calloc(1, sizeof *pool);

    if (!pool) {
        error_nomem(err);
        return NULL;
    }
    if (cache_bytes == 0)
        cache_bytes = DEFAULT_CACHE_BYTES;
    cache_bytes = max_u64(cache_bytes, MIN_CACHE_BYTES);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->opened, NULL);
    pool->meta = cache_new(cache_bytes, err);
    if (pool->meta)
        pool->decompress = decompress_pool_new(cache_bytes / 2, err);
    if (!pool->decompress) {
        qcow2_pool_free(pool);
        return NULL;
    }
    return pool;
}

void
qcow2_pool_free(struct qcow2_pool *pool)
{
    if (!pool)
        return;
    assert(!pool->layers);
    cache_free(pool->meta);
    decompress_pool_free(pool->decompress);
    pthread_cond_destroy(&pool->opened);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

static void
layer_free(struct layer *l)
{
    if (l->source)
        l->source->ops->free(l->source);
    free(l->path);
    policy_place_free(&l->place);
    free(l);
}

/* Ends one use of a layer. Those that have no users any more are taken out of
 * the pool, and returned to be freed, linked by next. The lock is held.
 */
static struct layer *
take_out(struct qcow2_pool *pool, struct layer *l)
{
    struct layer *unused = NULL;

    while (l && --l->nr_users == 0) {
        struct layer **p = &pool->layers;

        while (*p != l)
            p = &(*p)->next;
        *p = l->next;
        l->next = unused;
        unused = l;
        l = l->backing;
    }
    return unused;
}

static void
free_all(struct layer *unused)
{
    struct layer *l;

    while ((l = unused)) {
        unused = l->next;
        layer_free(l);
    }
}

struct layer *
pool_use(struct qcow2_pool *pool, struct layer *l)
{
    LOCK_SCOPE(&pool->lock);

    if (l)
        l->nr_users++;
    return l;
}

void
pool_put(struct qcow2_pool *pool, struct layer *l)
{
    struct layer *unused;

    pthread_mutex_lock(&pool->lock);
    unused = take_out(pool, l);
    pthread_mutex_unlock(&pool->lock);
    free_all(unused);
}

bool
pool_is_file(const struct layer *l, const struct policy_file *file)
{
    if (file->ino == 0)
        return l->ino == 0 && strcmp(l->path, file->path) == 0;
    return l->dev == file->dev && l->ino == file->ino;
}

/* May names in images at both places lead to the same files? */
static bool
same_place(const struct policy_place *a, const struct policy_place *b)
{
    return a->kind == b->kind
           && (a->start == b->start || dir_is_same(a->start, b->start))
           && (a->home == b->home || dir_is_same(a->home, b->home));
}

/* Is it of use to more disks? Not one that could not be opened, nor what
 * is backed by an export that is lost.
 */
static bool
is_usable(const struct layer *l)
{
    if (l->state == LAYER_FAILED)
        return false;
    for (; l; l = l->backing)
        if (l->state == LAYER_READY && io_is_lost(l->source->io))
            return false;
    return true;
}

/* The lock is held. format AUTO: of any. */
static struct layer *
find(struct qcow2_pool *pool, const struct policy_file *file,
     enum qcow2_format format, bool locked)
{
    struct layer *l;

    for (l = pool->layers; l; l = l->next)
        if (pool_is_file(l, file) && l->locked == locked
            && (format == QCOW2_FORMAT_AUTO || l->format == format)
            && same_place(&l->place, &file->place) && is_usable(l))
            break;
    return l;
}

/* A layer that is still to be opened, used once. The lock is held. */
static struct layer *
add(struct qcow2_pool *pool, const struct policy_file *file,
    enum qcow2_format format, bool locked, struct qcow2_error *err)
{
    struct layer *l = calloc(1, sizeof *l);

    if (!l || !(l->path = strdup(file->path))) {
        free(l);
        error_nomem(err);
        return NULL;
    }
    l->format = format;
    l->locked = locked;
    l->dev = file->dev;
    l->ino = file->ino;
    policy_place_copy(&l->place, &file->place);
    l->state = LAYER_OPENING;
    l->nr_users = 1;
    l->next = pool->layers;
    pool->layers = l;
    return l;
}

/* Opens a layer for all threads that wait for it. Takes over io. */
static void
open_layer(struct qcow2_pool *pool, struct layer *l, struct io *io,
           const struct layer_opener *rest)
{
    struct source *source =
        format_driver(l->format)->open_layer(pool, io, &l->error);

    if (source && rest->open(rest, source, &l->place, &l->error) == -1) {
        source->ops->free(source);
        source = NULL;
    }
    LOCK_SCOPE(&pool->lock);
    l->source = source;
    l->state = source ? LAYER_READY : LAYER_FAILED;
    pthread_cond_broadcast(&pool->opened);
}

/* One more use of a layer, once it was opened. The lock is held. */
static void
await(struct qcow2_pool *pool, struct layer *l)
{
    l->nr_users++;
    while (l->state == LAYER_OPENING)
        pthread_cond_wait(&pool->opened, &pool->lock);
}

struct layer *
pool_get(struct qcow2_pool *pool, struct io *io,
         const struct policy_file *file, enum qcow2_format format, bool locked,
         const struct layer_opener *rest, struct qcow2_error *err)
{
    struct layer *l;
    bool found;

    pthread_mutex_lock(&pool->lock);
    l = find(pool, file, format, locked);
    found = l != NULL;
    if (found)
        await(pool, l);
    else
        l = add(pool, file, format, locked, err);
    pthread_mutex_unlock(&pool->lock);
    if (found || !l)
        io_close(io);
    else
        open_layer(pool, l, io, rest);
    /* The state changes no more. */
    if (l && l->state == LAYER_FAILED) {
        if (err)
            *err = l->error;
        pool_put(pool, l);
        l = NULL;
    }
    return l;
}

struct layer *
pool_find(struct qcow2_pool *pool, const struct policy_file *file,
          enum qcow2_format format, bool locked)
{
    struct layer *l, *unused = NULL;

    pthread_mutex_lock(&pool->lock);
    l = find(pool, file, format, locked);
    if (l)
        await(pool, l);
    if (l && l->state == LAYER_FAILED) {
        unused = take_out(pool, l);
        l = NULL;
    }
    pthread_mutex_unlock(&pool->lock);
    free_all(unused);
    return l;
}

struct layer *
pool_follow(struct qcow2_pool *pool, struct layer *const *link)
{
    LOCK_SCOPE(&pool->lock);

    return *link;
}

/* Does the chain that begins with l lead to `above`? The lock is held. */
static bool
leads_to(const struct layer *l, const struct layer *above)
{
    while (l && l != above)
        l = l->backing;
    return l != NULL;
}

struct layer *
pool_link(struct qcow2_pool *pool, struct layer *above, struct layer **link,
          struct layer *l)
{
    struct layer *unused = NULL, *now;

    pthread_mutex_lock(&pool->lock);
    if (*link || (above && leads_to(l, above)))
        unused = take_out(pool, l);
    else
        *link = l;
    now = *link;
    pthread_mutex_unlock(&pool->lock);
    free_all(unused);
    return now;
}
