/* SPDX-License-Identifier: BSD-3-Clause */
/* decompress-pool.c: what decompressing clusters needs. */
#include "cache/decompress-pool.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/shared.h"

enum {
    /* Kept for the next time; larger buffers are not. */
    MAX_KEPT_SPACES = 16,
    MAX_KEPT_BYTES = 512 << 10,

    /* Clusters remembered: as many as the cache likely holds. */
    MIN_NOTES = 64,
    MAX_NOTES = 4096,
    USUAL_CLUSTER_BYTES = 65536,
    /* Clusters read since that make "just now" long ago. */
    JUST_NOW = 64,

    WHEN_BITS = 24,
};

struct decompress_pool {
    struct cache *cache;

    pthread_mutex_t lock;
    struct workspace *spaces; /* that nobody uses */
    unsigned nr_spaces;

    /* A word a cluster, found by its index: who it is (a hash) and when it
     * was read, counted in clusters. Atomic. */
    uint64_t *notes;
    uint64_t notes_mask;
    shared_u64 now; /* atomic */
};

static int
init(struct decompress_pool *c, uint64_t max_bytes, struct qcow2_error *err)
{
    uint64_t nr = MIN_NOTES;

    while (nr < MAX_NOTES && nr < max_bytes / USUAL_CLUSTER_BYTES)
        nr *= 2;
    c->notes_mask = nr - 1;
    c->notes = calloc(nr, sizeof *c->notes);
    if (!c->notes)
        return error_nomem(err);
    c->cache = cache_new(max_bytes, err);
    return c->cache ? 0 : -1;
}

struct decompress_pool *
decompress_pool_new(uint64_t max_bytes, struct qcow2_error *err)
{
    struct decompress_pool *c = calloc(1, sizeof *c);

    if (!c) {
        error_nomem(err);
        return NULL;
    }
    pthread_mutex_init(&c->lock, NULL);
    if (init(c, max_bytes, err) == -1) {
        decompress_pool_free(c);
        return NULL;
    }
    return c;
}

static void
space_free(struct workspace *w)
{
    compress_context_free(w->context);
    free(w->in);
    free(w->out);
    free(w);
}

void
decompress_pool_free(struct decompress_pool *c)
{
    if (!c)
        return;
    while (c->spaces) {
        struct workspace *w = c->spaces;

        c->spaces = w->next;
        space_free(w);
    }
    cache_free(c->cache);
    pthread_mutex_destroy(&c->lock);
    free(c->notes);
    free(c);
}

struct cache *
decompress_pool_cache(struct decompress_pool *c)
{
    return c->cache;
}

static struct workspace *
take_kept(struct decompress_pool *c)
{
    struct workspace *w;
    LOCK_SCOPE(&c->lock);

    w = c->spaces;
    if (w) {
        c->spaces = w->next;
        c->nr_spaces--;
    }
    return w;
}

static struct workspace *
space_new(void)
{
    struct workspace *w = calloc(1, sizeof *w);

    if (w)
        w->context = compress_context_new();
    if (w && !w->context) {
        free(w);
        w = NULL;
    }
    return w;
}

static bool
make_room(unsigned char **buf, size_t *has_bytes, size_t nr_bytes)
{
    if (*has_bytes >= nr_bytes)
        return true;
    free(*buf);
    *buf = malloc(nr_bytes);
    *has_bytes = *buf ? nr_bytes : 0;
    return *buf != NULL;
}

struct workspace *
decompress_pool_take_space(struct decompress_pool *c, size_t in_bytes,
                           size_t out_bytes, struct qcow2_error *err)
{
    struct workspace *w = take_kept(c);

    if (!w)
        w = space_new();
    if (w && make_room(&w->in, &w->in_bytes, in_bytes)
        && make_room(&w->out, &w->out_bytes, out_bytes))
        return w;
    if (w)
        space_free(w);
    error_nomem(err);
    return NULL;
}

static void
drop_large(unsigned char **buf, size_t *has_bytes)
{
    if (*has_bytes <= MAX_KEPT_BYTES)
        return;
    free(*buf);
    *buf = NULL;
    *has_bytes = 0;
}

void
decompress_pool_put_space(struct decompress_pool *c, struct workspace *w)
{
    bool keep;

    drop_large(&w->in, &w->in_bytes);
    drop_large(&w->out, &w->out_bytes);
    pthread_mutex_lock(&c->lock);
    keep = c->nr_spaces < MAX_KEPT_SPACES;
    if (keep) {
        w->next = c->spaces;
        c->spaces = w;
        c->nr_spaces++;
    }
    pthread_mutex_unlock(&c->lock);
    if (!keep)
        space_free(w);
}

static uint64_t
hash_of(const void *owner, uint64_t idx)
{
    uint64_t h = ((uintptr_t)owner ^ idx) * UINT64_C(0x9e3779b97f4a7c15);

    return (h ^ h >> 29) >> WHEN_BITS << WHEN_BITS;
}

/* When the cluster was read, as far as is known. */
static bool
find_note(struct decompress_pool *c, const void *owner, uint64_t idx,
          uint32_t now, uint32_t *ago)
{
    uint64_t note =
        __atomic_load_n(&c->notes[idx & c->notes_mask], __ATOMIC_RELAXED);
    uint32_t mask = (UINT32_C(1) << WHEN_BITS) - 1;

    *ago = (now - (uint32_t)note) & mask;
    return note >> WHEN_BITS << WHEN_BITS == hash_of(owner, idx);
}

enum cluster_use
decompress_pool_note(struct decompress_pool *c, const void *owner, uint64_t idx)
{
    uint32_t now = __atomic_add_fetch(&c->now, 1, __ATOMIC_RELAXED), ago;
    uint64_t when = now & ((UINT32_C(1) << WHEN_BITS) - 1);
    bool again = find_note(c, owner, idx, now, &ago);
    bool next =
        idx > 0 && find_note(c, owner, idx - 1, now, &ago) && ago <= JUST_NOW;

    __atomic_store_n(&c->notes[idx & c->notes_mask], hash_of(owner, idx) | when,
                     __ATOMIC_RELAXED);
    return next ? CLUSTER_NEXT : again ? CLUSTER_AGAIN : CLUSTER_FIRST;
}
