/* SPDX-License-Identifier: BSD-3-Clause */
/* cache.c: the bounded cache of pinned blocks; see cache.h. */
#include "cache/cache.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"

enum { NR_SHARDS = 16, USUAL_BLOCK_BYTES = 4096, CHUNK_BLOCKS = 32 };

enum block_state { BLOCK_LOADING, BLOCK_READY, BLOCK_UNLOADABLE };

struct shard {
    pthread_mutex_t lock;
    pthread_cond_t loaded;
    struct block **buckets;
    struct block *hand;         /* of the clock over all blocks here */
    unsigned nr_blocks;
} __attribute__((aligned(64)));

/* Blocks of the usual size come in chunks: one by one they would make the
 * heap of each thread grow by pages. */
struct chunk {
    struct chunk *next, **link; /* among those with free blocks */
    struct block *free;
    unsigned nr_free;
    struct block blocks[];      /* each with its data behind it */
};

struct cache {
    pthread_mutex_t chunk_lock; /* of chunks and their free blocks; a leaf */
    struct chunk *chunks;       /* that have free blocks */
    uint64_t max_bytes;
    shared_u64 used_bytes;      /* atomic */
    shared_u64 beside_bytes;    /* atomic; of cache_take_beside */
    uint32_t bucket_mask;
    struct shard shards[NR_SHARDS];
};

bool
cache_take_beside(struct cache *c, uint64_t nr_bytes)
{
    uint64_t all = __atomic_add_fetch(&c->beside_bytes, nr_bytes,
                                      __ATOMIC_RELAXED);

    if (all <= CACHE_MAX_BESIDE_BYTES)
        return true;
    cache_give_back_beside(c, nr_bytes);
    return false;
}

void
cache_give_back_beside(struct cache *c, uint64_t nr_bytes)
{
    __atomic_fetch_sub(&c->beside_bytes, nr_bytes, __ATOMIC_RELAXED);
}

static uint64_t
hash_of(const void *owner, uint64_t key)
{
    uint64_t h = (key ^ (uintptr_t)owner) * UINT64_C(0x9e3779b97f4a7c15);

    h ^= h >> 32;
    return h * UINT64_C(0x9e3779b97f4a7c15);
}

static struct shard *
shard_of(struct cache *c, uint64_t hash)
{
    return &c->shards[hash >> 60];
}

static struct block **
bucket_of(struct cache *c, struct shard *s, uint64_t hash)
{
    return &s->buckets[(hash >> 20) & c->bucket_mask];
}

struct cache *
cache_new(uint64_t max_bytes, struct qcow2_error *err)
{
    struct cache *c;
    uint64_t want = max_bytes / USUAL_BLOCK_BYTES / NR_SHARDS;
    uint32_t nr_buckets = 16;

    if (posix_memalign((void **)&c, 64, sizeof *c) != 0) {
        error_nomem(err);
        return NULL;
    }
    memset(c, 0, sizeof *c);
    while (nr_buckets < want && nr_buckets < (1u << 20))
        nr_buckets *= 2;
    pthread_mutex_init(&c->chunk_lock, NULL);
    c->max_bytes = max_bytes;
    c->bucket_mask = nr_buckets - 1;
    for (unsigned i = 0; i < NR_SHARDS; i++) {
        struct shard *s = &c->shards[i];

        pthread_mutex_init(&s->lock, NULL);
        pthread_cond_init(&s->loaded, NULL);
        s->buckets = calloc(nr_buckets, sizeof *s->buckets);
        if (!s->buckets) {
            error_nomem(err);
            cache_free(c);
            return NULL;
        }
    }
    return c;
}

/* What a block takes of memory: many are small. */
static uint64_t
block_bytes(uint32_t size)
{
    return sizeof(struct block) + size;
}

static void
chunk_list(struct cache *c, struct chunk *ch)
{
    ch->next = c->chunks;
    ch->link = &c->chunks;
    if (ch->next)
        ch->next->link = &ch->next;
    c->chunks = ch;
}

static void
chunk_unlist(struct chunk *ch)
{
    *ch->link = ch->next;
    if (ch->next)
        ch->next->link = ch->link;
}

/* One call for all pages of a chunk costs less than a fault for each. */
static void
populate(struct chunk *ch, uint64_t nr_bytes)
{
#ifdef MADV_POPULATE_WRITE
    uint64_t page = sysconf(_SC_PAGESIZE);
    uint64_t from = round_up((uintptr_t)ch, page);
    uint64_t to = round_down((uintptr_t)ch + nr_bytes, page);

    madvise((void *)(uintptr_t)from, to - from, MADV_POPULATE_WRITE);
#else
    (void)ch, (void)nr_bytes;
#endif
}

static struct chunk *
chunk_new(void)
{
    uint64_t step = block_bytes(USUAL_BLOCK_BYTES);
    uint64_t nr_bytes = sizeof(struct chunk) + CHUNK_BLOCKS * step;
    struct chunk *ch = malloc(nr_bytes);

    if (!ch)
        return NULL;
    populate(ch, nr_bytes);
    ch->free = NULL;
    for (ch->nr_free = 0; ch->nr_free < CHUNK_BLOCKS; ch->nr_free++) {
        struct block *b = (struct block *)((unsigned char *)ch->blocks
                                           + ch->nr_free * step);

        b->chunk = ch;
        b->hash_next = ch->free;
        ch->free = b;
    }
    return ch;
}

static struct block *
take_from_chunk(struct cache *c)
{
    LOCK_SCOPE(&c->chunk_lock);
    struct chunk *ch = c->chunks;
    struct block *b;

    if (!ch) {
        ch = chunk_new();
        if (!ch)
            return NULL;
        chunk_list(c, ch);
    }
    b = ch->free;
    ch->free = b->hash_next;
    if (--ch->nr_free == 0)
        chunk_unlist(ch);
    return b;
}

/* Keep the last chunk with free blocks for the next block. */
static void
give_to_chunk(struct cache *c, struct block *b)
{
    LOCK_SCOPE(&c->chunk_lock);
    struct chunk *ch = b->chunk;

    b->hash_next = ch->free;
    ch->free = b;
    if (ch->nr_free++ == 0)
        chunk_list(c, ch);
    if (ch->nr_free == CHUNK_BLOCKS && (c->chunks != ch || ch->next)) {
        chunk_unlist(ch);
        free(ch);
    }
}

static struct block *
block_new(struct cache *c, uint32_t size)
{
    struct block *b;

    if (size == USUAL_BLOCK_BYTES) {
        b = take_from_chunk(c);
    } else {
        b = malloc(block_bytes(size));
        if (b)
            b->chunk = NULL;
    }
    if (!b)
        return NULL;
    pthread_mutex_init(&b->lock, NULL);
    b->is_dirty = false;
    b->sequence = 0;
    b->size = size;
    b->data = (unsigned char *)(b + 1);
    return b;
}

static void
block_free(struct cache *c, struct block *b)
{
    if (!b)
        return;
    pthread_mutex_destroy(&b->lock);
    if (b->chunk)
        give_to_chunk(c, b);
    else
        free(b);
}

/* Takes b out of its shard, whose lock is held. */
static void
unlink_block(struct cache *c, struct shard *s, struct block *b)
{
    struct block **p = bucket_of(c, s, hash_of(b->owner, b->key));

    while (*p != b)
        p = &(*p)->hash_next;
    *p = b->hash_next;
    if (b->clock_next == b) {
        s->hand = NULL;
    } else {
        b->clock_next->clock_prev = b->clock_prev;
        b->clock_prev->clock_next = b->clock_next;
        if (s->hand == b)
            s->hand = b->clock_next;
    }
    s->nr_blocks--;
    __atomic_sub_fetch(&c->used_bytes, block_bytes(b->size),
                       __ATOMIC_RELAXED);
}

static void
link_block(struct cache *c, struct shard *s, struct block *b)
{
    struct block **bucket = bucket_of(c, s, hash_of(b->owner, b->key));

    b->hash_next = *bucket;
    *bucket = b;
    if (!s->hand) {
        b->clock_next = b->clock_prev = b;
        s->hand = b;
    } else {
        b->clock_next = s->hand;
        b->clock_prev = s->hand->clock_prev;
        b->clock_prev->clock_next = b;
        s->hand->clock_prev = b;
    }
    s->nr_blocks++;
    __atomic_add_fetch(&c->used_bytes, block_bytes(b->size),
                       __ATOMIC_RELAXED);
}

static bool
is_unused(const struct block *b)
{
    return __atomic_load_n(&b->pins, __ATOMIC_ACQUIRE) == 0;
}

/* Takes out a block that nobody used lately, if there is one; the shard's
 * lock is held. */
static struct block *
evict_one(struct cache *c, struct shard *s)
{
    for (unsigned left = 2 * s->nr_blocks; left > 0; left--) {
        struct block *b = s->hand;

        s->hand = b->clock_next;
        if (!is_unused(b))
            continue;
        if (b->referenced) {
            b->referenced = false;
            continue;
        }
        unlink_block(c, s, b);
        return b;
    }
    return NULL;
}

static bool
has_room(const struct cache *c, uint32_t size)
{
    return __atomic_load_n(&c->used_bytes, __ATOMIC_RELAXED)
               + block_bytes(size)
           <= c->max_bytes;
}

/* Makes room for a block of `size`, if that can be had: first from the shard
 * whose lock is held, then from others that are not busy. Returns an evicted
 * block that can be used again, if any: a full cache allocates nothing. */
static struct block *
make_room(struct cache *c, struct shard *own, uint32_t size)
{
    struct block *spare = NULL;

    for (unsigned i = 0; i < NR_SHARDS && !has_room(c, size); i++) {
        struct shard *s = &c->shards[((own - c->shards) + i) % NR_SHARDS];
        struct block *b;

        if (s != own && pthread_mutex_trylock(&s->lock) != 0)
            continue;
        while (!has_room(c, size) && (b = evict_one(c, s))) {
            if (!spare && b->size == size)
                spare = b;
            else
                block_free(c, b);
        }
        if (s != own)
            pthread_mutex_unlock(&s->lock);
    }
    return spare;
}

void
cache_free(struct cache *c)
{
    if (!c)
        return;
    for (unsigned i = 0; i < NR_SHARDS; i++) {
        struct shard *s = &c->shards[i];

        while (s->hand) {
            struct block *b = s->hand;

            assert(is_unused(b));
            unlink_block(c, s, b);
            block_free(c, b);
        }
        free(s->buckets);
        pthread_cond_destroy(&s->loaded);
        pthread_mutex_destroy(&s->lock);
    }
    free(c->chunks); /* all of its blocks are free */
    pthread_mutex_destroy(&c->chunk_lock);
    free(c);
}

uint64_t
cache_max_bytes(const struct cache *c)
{
    return c->max_bytes;
}

uint64_t
cache_used_bytes(struct cache *c)
{
    return __atomic_load_n(&c->used_bytes, __ATOMIC_RELAXED);
}

static struct block *
find_block(struct cache *c, struct shard *s, uint64_t hash,
           const void *owner, uint64_t key)
{
    struct block *b = *bucket_of(c, s, hash);

    while (b && (b->key != key || b->owner != owner))
        b = b->hash_next;
    return b;
}

/* A new block, pinned and loading, linked into s, whose lock is held. */
static struct block *
add_block(struct cache *c, struct shard *s, const void *owner, uint64_t key,
          uint32_t size, struct qcow2_error *err)
{
    struct block *b = make_room(c, s, size);

    if (!b) {
        b = block_new(c, size);
        if (!b) {
            error_nomem(err);
            return NULL;
        }
    }
    b->owner = owner;
    b->key = key;
    b->state = BLOCK_LOADING;
    b->referenced = false;
    b->pins = 1;
    link_block(c, s, b);
    return b;
}

/* A load ended; s's lock is held. A block that could not be loaded goes with
 * its last waiter. */
static void
loaded(struct cache *c, struct shard *s, struct block *b, bool ok)
{
    if (ok) {
        b->state = BLOCK_READY;
    } else {
        b->state = BLOCK_UNLOADABLE;
        unlink_block(c, s, b);
        if (__atomic_sub_fetch(&b->pins, 1, __ATOMIC_ACQ_REL) == 0)
            block_free(c, b);
    }
    pthread_cond_broadcast(&s->loaded);
}

/* Loads a block that add_block made; s's lock is held before and after. */
static int
load_block(struct cache *c, struct shard *s, struct block *b,
           cache_load_fn *load, void *opaque, struct qcow2_error *err)
{
    int r;

    pthread_mutex_unlock(&s->lock);
    r = load(opaque, b->key, b->data, b->size, err);
    pthread_mutex_lock(&s->lock);
    loaded(c, s, b, r == 0);
    return r;
}

/* Waits for somebody else's load; s's lock is held before and after. */
static bool
await_block(struct cache *c, struct shard *s, struct block *b)
{
    __atomic_add_fetch(&b->pins, 1, __ATOMIC_RELAXED);
    while (b->state == BLOCK_LOADING)
        pthread_cond_wait(&s->loaded, &s->lock);
    if (b->state == BLOCK_READY)
        return true;
    if (__atomic_sub_fetch(&b->pins, 1, __ATOMIC_ACQ_REL) == 0)
        block_free(c, b);
    return false;
}

struct block *
cache_get(struct cache *c, const void *owner, uint64_t key, uint32_t size,
          cache_load_fn *load, void *opaque, struct qcow2_error *err)
{
    uint64_t hash = hash_of(owner, key);
    struct shard *s = shard_of(c, hash);
    LOCK_SCOPE(&s->lock);

    for (;;) {
        struct block *b = find_block(c, s, hash, owner, key);

        if (!b && !load)
            return NULL;
        if (!b) {
            b = add_block(c, s, owner, key, size, err);
            if (!b || load_block(c, s, b, load, opaque, err) != 0)
                return NULL;
            return b;
        }
        if (await_block(c, s, b)) {
            b->referenced = true;
            return b;
        }
    }
}

/* Those that are to be loaded together, each LOADING and pinned. */
struct many {
    struct block *blocks[CACHE_MAX_PRELOAD];
    struct iovec vec[CACHE_MAX_PRELOAD];
    int nr;
};

static void
load_many(struct cache *c, struct many *m, cache_load_many_fn *load,
          void *opaque)
{
    bool ok = m->nr > 0
              && load(opaque, m->blocks[0]->key, m->vec, m->nr) == 0;

    for (int i = 0; i < m->nr; i++) {
        struct block *b = m->blocks[i];
        struct shard *s = shard_of(c, hash_of(b->owner, b->key));
        LOCK_SCOPE(&s->lock);

        loaded(c, s, b, ok);
        if (ok)
            cache_put(b);
    }
    m->nr = 0;
}

/* Waits for nobody, as others may wait for what m has. */
void
cache_preload(struct cache *c, const void *owner, uint64_t key,
              uint32_t size, unsigned nr, cache_load_many_fn *load,
              void *opaque)
{
    struct many m = { .nr = 0 };

    assert(nr <= CACHE_MAX_PRELOAD);
    for (unsigned i = 0; i < nr; i++, key += size) {
        uint64_t hash = hash_of(owner, key);
        struct shard *s = shard_of(c, hash);
        struct block *b = NULL;

        pthread_mutex_lock(&s->lock);
        if (!find_block(c, s, hash, owner, key))
            b = add_block(c, s, owner, key, size, NULL);
        pthread_mutex_unlock(&s->lock);
        if (!b) {
            load_many(c, &m, load, opaque);
            continue;
        }
        m.blocks[m.nr] = b;
        m.vec[m.nr++] = (struct iovec){ b->data, size };
    }
    load_many(c, &m, load, opaque);
}

struct block *
cache_peek(struct cache *c, const void *owner, uint64_t key)
{
    uint64_t hash = hash_of(owner, key);
    struct shard *s = shard_of(c, hash);
    struct block *b;
    LOCK_SCOPE(&s->lock);

    b = find_block(c, s, hash, owner, key);
    if (!b || b->state != BLOCK_READY)
        return NULL;
    __atomic_add_fetch(&b->pins, 1, __ATOMIC_RELAXED);
    b->referenced = true;
    return b;
}

bool
cache_has(struct cache *c, const void *owner, uint64_t key)
{
    uint64_t hash = hash_of(owner, key);
    struct shard *s = shard_of(c, hash);
    LOCK_SCOPE(&s->lock);

    return find_block(c, s, hash, owner, key) != NULL;
}

void
cache_pin(struct block *b)
{
    __atomic_add_fetch(&b->pins, 1, __ATOMIC_RELAXED);
}

void
cache_put(struct block *b)
{
    if (b)
        __atomic_sub_fetch(&b->pins, 1, __ATOMIC_RELEASE);
}

void
cache_drop(struct cache *c, const void *owner, uint64_t key)
{
    uint64_t hash = hash_of(owner, key);
    struct shard *s = shard_of(c, hash);
    struct block *b;
    LOCK_SCOPE(&s->lock);

    b = find_block(c, s, hash, owner, key);
    if (b && is_unused(b)) {
        unlink_block(c, s, b);
        block_free(c, b);
    }
}

void
cache_drop_owner(struct cache *c, const void *owner)
{
    for (unsigned i = 0; i < NR_SHARDS; i++) {
        struct shard *s = &c->shards[i];
        LOCK_SCOPE(&s->lock);
        struct block *b = s->hand;

        for (unsigned left = s->nr_blocks; left > 0; left--) {
            struct block *next = b->clock_next;

            if (b->owner == owner && is_unused(b)) {
                unlink_block(c, s, b);
                block_free(c, b);
            }
            b = next;
        }
    }
}

void
dirty_init(struct dirty_set *set)
{
    memset(set, 0, sizeof *set);
    pthread_mutex_init(&set->lock, NULL);
}

void
dirty_destroy(struct dirty_set *set)
{
    while (set->first) {
        struct block *b = set->first;

        set->first = b->dirty_next;
        b->is_dirty = false;
        cache_put(b);
    }
    pthread_mutex_destroy(&set->lock);
}

uint64_t
dirty_bytes(const struct dirty_set *set)
{
    return __atomic_load_n(&set->nr_bytes, __ATOMIC_RELAXED);
}

void
dirty_add(struct dirty_set *set, struct block *b)
{
    if (b->is_dirty)
        return;
    b->is_dirty = true;
    cache_pin(b);
    LOCK_SCOPE(&set->lock);
    b->dirty_next = NULL;
    if (set->last)
        set->last->dirty_next = b;
    else
        set->first = b;
    set->last = b;
    set->nr_blocks++;
    __atomic_add_fetch(&set->nr_bytes, b->size, __ATOMIC_RELAXED);
}

static int
compare_copies(const void *a, const void *b)
{
    const struct dirty_copy *x = a, *y = b;

    return x->block->key < y->block->key ? -1
           : x->block->key > y->block->key;
}

/* Allocates copies for what stands in the set now. It only grows while
 * nobody takes from it, and there is one taker at a time. */
static int
batch_alloc(struct dirty_set *set, struct dirty_batch *batch,
            struct qcow2_error *err)
{
    uint64_t bytes;

    memset(batch, 0, sizeof *batch);
    pthread_mutex_lock(&set->lock);
    batch->nr = set->nr_blocks;
    bytes = set->nr_bytes;
    pthread_mutex_unlock(&set->lock);
    if (batch->nr == 0)
        return 0;
    batch->copies = calloc(batch->nr, sizeof *batch->copies);
    batch->arena = malloc(bytes);
    if (!batch->copies || !batch->arena) {
        free(batch->copies);
        free(batch->arena);
        memset(batch, 0, sizeof *batch);
        return error_nomem(err);
    }
    return 0;
}

/* Takes the oldest batch->nr blocks; the set's pins become the batch's. */
static void
batch_collect(struct dirty_set *set, struct dirty_batch *batch)
{
    uint64_t bytes = 0;
    LOCK_SCOPE(&set->lock);

    for (unsigned i = 0; i < batch->nr; i++) {
        struct block *b = set->first;

        set->first = b->dirty_next;
        batch->copies[i].block = b;
        bytes += b->size;
    }
    if (!set->first)
        set->last = NULL;
    set->nr_blocks -= batch->nr;
    __atomic_sub_fetch(&set->nr_bytes, bytes, __ATOMIC_RELAXED);
}

int
dirty_take(struct dirty_set *set, struct dirty_batch *batch,
           struct qcow2_error *err)
{
    unsigned char *to;

    if (batch_alloc(set, batch, err) == -1)
        return -1;
    if (batch->nr == 0)
        return 0;
    batch_collect(set, batch);
    to = batch->arena;
    /* A change between collecting and copying finds is_dirty still set,
     * and is in the copy. */
    for (unsigned i = 0; i < batch->nr; i++) {
        struct block *b = batch->copies[i].block;
        LOCK_SCOPE(&b->lock);

        batch->copies[i].data = memcpy(to, b->data, b->size);
        to += b->size;
        b->is_dirty = false;
    }
    qsort(batch->copies, batch->nr, sizeof *batch->copies, compare_copies);
    return 0;
}

void
dirty_batch_end(struct dirty_batch *batch)
{
    for (unsigned i = 0; i < batch->nr; i++)
        cache_put(batch->copies[i].block);
    free(batch->copies);
    free(batch->arena);
    memset(batch, 0, sizeof *batch);
}

void
dirty_give_back(struct dirty_set *set, struct dirty_batch *batch)
{
    for (unsigned i = 0; i < batch->nr; i++) {
        struct block *b = batch->copies[i].block;
        LOCK_SCOPE(&b->lock);

        dirty_add(set, b); /* unless it was changed again meanwhile */
    }
    dirty_batch_end(batch);
}
