/* SPDX-License-Identifier: BSD-3-Clause */
/* lock-order.c: see lock-order.h. Locks are known by their addresses: those
 * of an image from alloc_prepare to alloc_destroy, those of blocks and shards
 * from the call of cache.c that makes them. What is not known (tests have
 * locks too) is let pass.
 */
#include "lock-order.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "meta/image.h"

/* The rank of image.h; what shares one there has an order here, too. */
enum kind {
    UNKNOWN,
    RWLOCK, BEGIN, RANGES, TABLES, PACKING, GROW, ALLOC, BLOCK, LEAF, FEATURE,
    CHUNKS,
    NR_KINDS
};

static const struct {
    const char *name;
    unsigned rank;
    bool over_io;   /* may be held over I/O */
} kinds[NR_KINDS] = {
    [RWLOCK] = { "image.rwlock", 1, true },
    [BEGIN] = { "image.begin", 2, true },
    [RANGES] = { "image.ranges", 3, true },
    [TABLES] = { "image.tables", 4, true },
    [PACKING] = { "alloc.packing", 4, true },
    [GROW] = { "alloc.grow", 4, true },
    [ALLOC] = { "alloc.lock", 5, false },
    [BLOCK] = { "block.lock", 6, false },
    [LEAF] = { "a leaf", 7, false },
    [CHUNKS] = { "cache.chunk_lock", 8, false },
    [FEATURE] = { "image.feature_lock", 7, true },
};

struct lock_report *lock_order_report;
static unsigned long taken[NR_KINDS]; /* atomic */

static void
violation(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static void
violation(const char *fmt, ...)
{
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (!lock_order_report) {
        fprintf(stderr, "lock order: %s\n", text);
        abort();
    }
    if (lock_order_report->nr_violations++ == 0)
        snprintf(lock_order_report->first, sizeof text, "%s", text);
}

/* The locks that are known: buckets of a hash, looked up without a lock. */

/* For chains as long as they may be. */
enum { NR_BUCKETS = 1 << 17, PER_BUCKET = 16 };

struct known {
    uintptr_t lock;             /* atomic; 0: never used, 1: free again */
    const struct image *image;  /* NULL: a cache's */
    enum kind kind;
};

static struct known known[NR_BUCKETS][PER_BUCKET];
static pthread_mutex_t changing = PTHREAD_MUTEX_INITIALIZER;

int __real_pthread_mutex_lock(pthread_mutex_t *m);
int __real_pthread_mutex_unlock(pthread_mutex_t *m);

static struct known *
bucket_of(const void *lock)
{
    uint64_t h = (uintptr_t)lock * UINT64_C(0x9e3779b97f4a7c15);

    return known[(h >> 40) % NR_BUCKETS];
}

static const struct known *
find(const void *lock)
{
    struct known *b = bucket_of(lock);

    for (int i = 0; i < PER_BUCKET; i++) {
        uintptr_t l = __atomic_load_n(&b[i].lock, __ATOMIC_ACQUIRE);

        if (l == (uintptr_t)lock)
            return &b[i];
        if (l == 0)
            return NULL;
    }
    return NULL;
}

static void
add(const void *lock, enum kind kind, const struct image *image)
{
    struct known *b = bucket_of(lock);
    int i = 0;

    __real_pthread_mutex_lock(&changing);
    while (i < PER_BUCKET && __atomic_load_n(&b[i].lock, __ATOMIC_ACQUIRE) > 1)
        i++;
    if (i == PER_BUCKET)
        abort();
    b[i].kind = kind;
    b[i].image = image;
    __atomic_store_n(&b[i].lock, (uintptr_t)lock, __ATOMIC_RELEASE);
    __real_pthread_mutex_unlock(&changing);
}

static void
forget(const void *lock)
{
    struct known *k = (struct known *)find(lock);

    if (k)
        __atomic_store_n(&k->lock, 1, __ATOMIC_RELEASE);
}

/* What this thread holds, in the order it was taken. */

enum { MAX_HELD = 16 };

struct held {
    const void *lock;   /* of a range lock: the interval */
    const void *group;  /* of it: the range lock */
    uint64_t start;
    enum kind kind;
    const struct image *image;
};

static __thread struct held held[MAX_HELD];
static __thread unsigned nr_held;
static __thread enum kind making; /* of mutexes that cache.c makes now */

/* May h be held while new is taken? */
static void
check_pair(const struct held *h, const struct held *new)
{
    if (h->image && new->image && h->image != new->image)
        violation("takes %s of one image, and holds %s of another",
                  kinds[new->kind].name, kinds[h->kind].name);
    else if (h->kind >= LEAF && !(h->kind == LEAF && new->kind == CHUNKS))
        violation("takes %s (%u) while it holds %s (%u)",
                  kinds[new->kind].name, kinds[new->kind].rank,
                  kinds[h->kind].name, kinds[h->kind].rank);
    else if (h->kind == new->kind && h->group && h->group == new->group) {
        if (h->start >= new->start)
            violation("takes a range of %s below one that it holds",
                      kinds[h->kind].name);
    } else if (h->kind >= new->kind)
        violation("takes %s (%u) while it holds %s (%u)",
                  kinds[new->kind].name, kinds[new->kind].rank,
                  kinds[h->kind].name, kinds[h->kind].rank);
}

static void
take(const void *lock, const void *group, uint64_t start)
{
    const struct known *k = find(group ? group : lock);
    struct held new = { lock, group, start, UNKNOWN, NULL };

    if (!k)
        return;
    new.kind = k->kind;
    new.image = k->image;
    __atomic_add_fetch(&taken[k->kind], 1, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < nr_held; i++)
        check_pair(&held[i], &new);
    if (nr_held == MAX_HELD)
        abort();
    held[nr_held++] = new;
}

static void
let_go(const void *lock)
{
    unsigned i = nr_held;

    while (i > 0 && held[i - 1].lock != lock)
        i--;
    if (i == 0)
        return;
    for (nr_held--; i <= nr_held; i++)
        held[i - 1] = held[i];
}

/* Nothing that is never held over I/O is held, but `mine`; except for the one
 * write under image.feature_lock. */
static void
check_waiting(const char *what, const void *mine)
{
    if (nr_held > 0 && held[nr_held - 1].kind == FEATURE)
        return;
    for (unsigned i = 0; i < nr_held; i++)
        if (held[i].lock != mine && !kinds[held[i].kind].over_io)
            violation("%s while it holds %s (%u), which is never held over "
                      "I/O", what, kinds[held[i].kind].name,
                      kinds[held[i].kind].rank);
}

unsigned long
lock_order_taken(unsigned rank)
{
    unsigned long n = 0;

    for (int k = 1; k < NR_KINDS; k++)
        if (kinds[k].rank == rank)
            n += __atomic_load_n(&taken[k], __ATOMIC_RELAXED);
    return n;
}

/* What the linker puts in the place of the functions of these names. */

#define WRAP(type, name, params)                                        \
    type __real_##name params;                                          \
    type __wrap_##name params;                                          \
    type __wrap_##name params

WRAP(int, pthread_mutex_lock, (pthread_mutex_t *m))
{
    if (lock_jitter)
        lock_jitter();
    take(m, NULL, 0);
    return __real_pthread_mutex_lock(m);
}

WRAP(int, pthread_mutex_unlock, (pthread_mutex_t *m))
{
    let_go(m);
    return __real_pthread_mutex_unlock(m);
}

WRAP(int, pthread_cond_wait, (pthread_cond_t *c, pthread_mutex_t *m))
{
    check_waiting("waits", m);
    return __real_pthread_cond_wait(c, m);
}

WRAP(int, pthread_mutex_init,
     (pthread_mutex_t *m, const pthread_mutexattr_t *attr))
{
    if (making)
        add(m, making, NULL);
    if (making == CHUNKS)
        making = LEAF;
    return __real_pthread_mutex_init(m, attr);
}

WRAP(int, pthread_mutex_destroy, (pthread_mutex_t *m))
{
    forget(m);
    return __real_pthread_mutex_destroy(m);
}

WRAP(int, pthread_rwlock_rdlock, (pthread_rwlock_t *l))
{
    take(l, NULL, 0);
    return __real_pthread_rwlock_rdlock(l);
}

WRAP(int, pthread_rwlock_wrlock, (pthread_rwlock_t *l))
{
    take(l, NULL, 0);
    return __real_pthread_rwlock_wrlock(l);
}

WRAP(int, pthread_rwlock_unlock, (pthread_rwlock_t *l))
{
    let_go(l);
    return __real_pthread_rwlock_unlock(l);
}

WRAP(void, range_lock_shared, (struct range_lock *rl, struct range *r,
                               uint64_t start, uint64_t end))
{
    take(r, rl, start);
    __real_range_lock_shared(rl, r, start, end);
}

WRAP(void, range_lock_exclusive, (struct range_lock *rl, struct range *r,
                                  uint64_t start, uint64_t end))
{
    take(r, rl, start);
    __real_range_lock_exclusive(rl, r, start, end);
}

WRAP(void, range_unlock, (struct range_lock *rl, struct range *r))
{
    let_go(r);
    __real_range_unlock(rl, r);
}

/* Chunks' lock and those of shards are made with the cache, in this order; a
 * block's when it is first loaded. */

WRAP(struct cache *, cache_new, (uint64_t max_bytes, struct qcow2_error *err))
{
    enum kind outer = making;
    struct cache *c;

    making = CHUNKS;
    c = __real_cache_new(max_bytes, err);
    making = outer;
    return c;
}

WRAP(struct block *, cache_get,
     (struct cache *c, const void *owner, uint64_t key, uint32_t size,
      cache_load_fn *load, void *opaque, struct qcow2_error *err))
{
    enum kind outer = making;
    struct block *b;

    making = BLOCK;
    b = __real_cache_get(c, owner, key, size, load, opaque, err);
    making = outer;
    return b;
}

WRAP(void, cache_preload,
     (struct cache *c, const void *owner, uint64_t key, uint32_t size,
      unsigned nr, cache_load_many_fn *load, void *opaque))
{
    enum kind outer = making;

    making = BLOCK;
    __real_cache_preload(c, owner, key, size, nr, load, opaque);
    making = outer;
}

/* An image's locks, from first to last. */

struct one_lock {
    const void *lock;
    enum kind kind;
};

enum { NR_IMAGE_LOCKS = 14 };

static void
list_locks(const struct image *img, struct one_lock *list)
{
    const struct one_lock locks[NR_IMAGE_LOCKS] = {
        { &img->rwlock, RWLOCK },
        { &img->begin, BEGIN },
        { &img->ranges, RANGES },
        { &img->tables, TABLES },
        { &img->alloc.packing, PACKING },
        { &img->alloc.grow, GROW },
        { &img->alloc.lock, ALLOC },
        { &img->active.l1_lock, LEAF },
        { &img->alloc.frees_lock, LEAF },
        { &img->l2_dirty.lock, LEAF },
        { &img->alloc.refcounts.lock, LEAF },
        { &img->overlap.lock, LEAF },
        { &img->views_lock, LEAF },
        { &img->flush.lock, LEAF },
    };

    memcpy(list, locks, sizeof locks);
}

WRAP(void, alloc_prepare, (struct image *img))
{
    struct one_lock list[NR_IMAGE_LOCKS];

    __real_alloc_prepare(img);
    list_locks(img, list);
    for (int i = 0; i < NR_IMAGE_LOCKS; i++)
        add(list[i].lock, list[i].kind, img);
    add(&img->feature_lock, FEATURE, img);
}

WRAP(void, alloc_destroy, (struct image *img))
{
    struct one_lock list[NR_IMAGE_LOCKS];

    list_locks(img, list);
    for (int i = 0; i < NR_IMAGE_LOCKS; i++)
        forget(list[i].lock);
    forget(&img->feature_lock);
    __real_alloc_destroy(img);
}

/* I/O. */

WRAP(int, io_preadv, (struct io *io, const struct iovec *iov, int nr_iov,
                      uint64_t host_off, struct qcow2_error *err))
{
    check_waiting("reads", NULL);
    return __real_io_preadv(io, iov, nr_iov, host_off, err);
}

WRAP(int, io_pwritev, (struct io *io, const struct iovec *iov, int nr_iov,
                       uint64_t host_off, struct qcow2_error *err))
{
    check_waiting("writes", NULL);
    return __real_io_pwritev(io, iov, nr_iov, host_off, err);
}

WRAP(int, io_pread, (struct io *io, void *buf, size_t nr_bytes,
                     uint64_t host_off, struct qcow2_error *err))
{
    check_waiting("reads", NULL);
    return __real_io_pread(io, buf, nr_bytes, host_off, err);
}

WRAP(int, io_pwrite, (struct io *io, const void *buf, size_t nr_bytes,
                      uint64_t host_off, struct qcow2_error *err))
{
    check_waiting("writes", NULL);
    return __real_io_pwrite(io, buf, nr_bytes, host_off, err);
}

WRAP(int, io_flush, (struct io *io, struct qcow2_error *err))
{
    check_waiting("flushes", NULL);
    return __real_io_flush(io, err);
}

WRAP(int, io_zero, (struct io *io, uint64_t host_off, uint64_t nr_bytes,
                    unsigned flags, struct qcow2_error *err))
{
    check_waiting("zeroes", NULL);
    return __real_io_zero(io, host_off, nr_bytes, flags, err);
}

WRAP(int, io_punch, (struct io *io, uint64_t host_off, uint64_t nr_bytes,
                     struct qcow2_error *err))
{
    check_waiting("punches", NULL);
    return __real_io_punch(io, host_off, nr_bytes, err);
}

WRAP(int, io_truncate, (struct io *io, uint64_t size,
                        struct qcow2_error *err))
{
    check_waiting("truncates", NULL);
    return __real_io_truncate(io, size, err);
}
