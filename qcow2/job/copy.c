/* SPDX-License-Identifier: BSD-3-Clause */
/* copy.c: copies chunks with several threads; see copy.h. */
#include "job/copy.h"

#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"

enum {
    /* Chunks of a step, for each thread: the more, the less they wait for
     * the slowest at its end. */
    CHUNKS_PER_THREAD = 32,
    /* After this long a step takes no more of its chunks. */
    STEP_MS = 250,
    PAGE_BYTES = 4096,
    /* Questions to ops->plan in a step, so that a step through what needs no
     * copying ends some time. */
    MAX_PLANS = 4096,

    NO_CHUNK = UINT_MAX,
};

struct worker {
    struct batch *batch;
    pthread_t thread;
    unsigned char *buf;
    pthread_cond_t turn;    /* next_write is waits_for, or it failed */
    unsigned waits_for;     /* chunk, or NO_CHUNK */
};

/* The work of one step. */
struct batch {
    struct copy *copy;
    struct copy_chunk *chunks;
    unsigned nr, capacity;
    uint64_t end;           /* where the next step begins, if all are done */
    struct timespec stop;   /* no chunk is begun after */
    struct worker *workers;
    unsigned nr_workers;

    pthread_mutex_t writing; /* copy.one_writer */
    pthread_mutex_t lock;   /* of all below, and of workers' waits_for */
    unsigned next_read, next_write;
    bool failed;
    struct qcow2_error error;
};

/* Where the chunk that guest_off is in must end. */
static uint64_t
chunk_end(const struct copy *c, enum copy_kind kind, uint64_t guest_off)
{
    uint64_t size = kind == COPY_ZERO ? COPY_ZERO_BYTES : COPY_CHUNK_BYTES;

    return min_u64(c->end, round_down(guest_off, size) + size);
}

/* Adds [from, end) to the last chunk, if it goes on from there. */
static bool
extend_last(struct batch *b, enum copy_kind kind, uint64_t from, uint64_t end)
{
    struct copy_chunk *last;

    if (b->nr == 0)
        return false;
    last = &b->chunks[b->nr - 1];
    if (last->kind != kind || last->guest_off + last->nr_bytes != from
        || end > chunk_end(b->copy, kind, last->guest_off))
        return false;
    last->nr_bytes = end - last->guest_off;
    return true;
}

/* Appends [from, to), in as many chunks as it takes, to what came before.
 * *to is how far there was room. */
static void
add_range(struct batch *b, enum copy_kind kind, uint64_t from, uint64_t *to)
{
    while (from < *to) {
        uint64_t end = min_u64(*to, chunk_end(b->copy, kind, from));

        if (extend_last(b, kind, from, end)) {
            from = end;
            continue;
        }
        if (b->nr == b->capacity) {
            *to = from;
            return;
        }
        b->chunks[b->nr++] = (struct copy_chunk){
            .kind = kind, .guest_off = from, .nr_bytes = end - from,
        };
        from = end;
    }
}

/* What the block-aligned start of [pos, …) is: its kind and length, where
 * blocks that are of several kinds count as data. */
static int
plan_blocks(struct copy *c, uint64_t pos, enum copy_kind *kind,
            uint64_t *len, struct qcow2_error *err)
{
    uint64_t block_end = min_u64(c->end, round_down(pos, c->align)
                                             + c->align);
    uint64_t next;

    if (c->ops->plan(c->opaque, pos, c->end - pos, kind, len, err) == -1)
        return -1;
    next = pos + *len;
    if (next == c->end || is_aligned(next, c->align))
        return 0;
    if (next > block_end && *kind != COPY_DATA) {
        *len = round_down(next, c->align) - pos;
        return 0;
    }
    /* The last block is cut: look at the rest of it. */
    if (*kind == COPY_DATA) {
        *len = min_u64(c->end, round_up(next, c->align)) - pos;
        return 0;
    }
    while (next < block_end) {
        enum copy_kind other;
        uint64_t more;

        if (c->ops->plan(c->opaque, next, block_end - next, &other, &more,
                         err) == -1)
            return -1;
        if (other != *kind) {
            *kind = COPY_DATA;
            break;
        }
        next += more;
    }
    *len = block_end - pos;
    return 0;
}

/* Counts what there is to be copied. */
static int
scan(struct copy *c, struct qcow2_error *err)
{
    for (unsigned i = 0; i < MAX_PLANS && c->scanned < c->end; i++) {
        enum copy_kind kind;
        uint64_t len;

        if (plan_blocks(c, c->scanned, &kind, &len, err) == -1)
            return -1;
        if (kind == COPY_DATA)
            c->nr_data += len;
        c->scanned += len;
    }
    return 1;
}

/* Fills the batch. */
static int
plan(struct batch *b, struct qcow2_error *err)
{
    struct copy *c = b->copy;

    b->end = c->pos;
    for (unsigned i = 0; i < MAX_PLANS && b->end < c->end; i++) {
        enum copy_kind kind;
        uint64_t len, to;

        if (plan_blocks(c, b->end, &kind, &len, err) == -1)
            return -1;
        to = b->end + len;
        if (kind != COPY_SKIP)
            add_range(b, kind, b->end, &to);
        if (to == b->end)
            break;
        b->end = to;
    }
    return 0;
}

/* Under the lock. */
static void
fail(struct batch *b, const struct qcow2_error *error)
{
    if (!b->failed)
        b->error = *error;
    b->failed = true;
    for (unsigned i = 0; i < b->nr_workers; i++)
        pthread_cond_signal(&b->workers[i].turn);
}

/* Waits until it is chunk i's turn to be written. */
static bool
wait_turn(struct worker *w, unsigned i)
{
    struct batch *b = w->batch;
    LOCK_SCOPE(&b->lock);

    w->waits_for = i;
    while (!b->copy->out_of_order && b->next_write < i && !b->failed)
        pthread_cond_wait(&w->turn, &b->lock);
    w->waits_for = NO_CHUNK;
    return !b->failed;
}

static int
copy_chunk(struct worker *w, unsigned i, struct qcow2_error *err)
{
    const struct copy *copy = w->batch->copy;
    const struct copy_ops *ops = copy->ops;
    struct copy_chunk *c = &w->batch->chunks[i];

    c->buf = w->buf;
    c->space = copy->needs_space ? w->buf + COPY_CHUNK_BYTES : NULL;
    if (c->kind == COPY_DATA && ops->read(copy->opaque, c, err) == -1)
        return -1;
    if (!wait_turn(w, i))
        return 0;
    if (!copy->out_of_order || !copy->one_writer)
        return ops->write(copy->opaque, c, err);
    LOCK_SCOPE(&w->batch->writing);
    return ops->write(copy->opaque, c, err);
}

static bool
is_past(const struct timespec *t)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec > t->tv_sec
           || (now.tv_sec == t->tv_sec && now.tv_nsec > t->tv_nsec);
}

/* Takes the next chunk; the first one is begun in any case. */
static unsigned
take_chunk(struct batch *b)
{
    bool late = is_past(&b->stop);
    LOCK_SCOPE(&b->lock);

    if (b->failed || b->next_read == b->nr || (b->next_read > 0 && late))
        return NO_CHUNK;
    return b->next_read++;
}

/* Chunk i is done: wakes who waits to write the next one, and nobody else. */
static void
end_chunk(struct batch *b, unsigned i)
{
    struct worker *next = NULL;

    pthread_mutex_lock(&b->lock);
    b->next_write = max_u64(b->next_write, i + 1);
    for (unsigned n = 0; n < b->nr_workers && !next; n++)
        if (b->workers[n].waits_for == i + 1)
            next = &b->workers[n];
    pthread_mutex_unlock(&b->lock);
    if (next)
        pthread_cond_signal(&next->turn);
}

static void *
work(void *arg)
{
    struct worker *w = arg;
    struct batch *b = w->batch;
    struct qcow2_error error;
    unsigned i;

    while ((i = take_chunk(b)) != NO_CHUNK) {
        if (copy_chunk(w, i, &error) == -1) {
            pthread_mutex_lock(&b->lock);
            fail(b, &error);
            pthread_mutex_unlock(&b->lock);
        }
        end_chunk(b, i);
    }
    return NULL;
}

/* The calling thread works too; more threads are welcome, not needed. */
static void
run(struct batch *b)
{
    struct copy *c = b->copy;
    struct worker workers[COPY_MAX_THREADS];
    size_t space = (size_t)COPY_CHUNK_BYTES * (c->needs_space ? 2 : 1);
    unsigned nr = 1;

    clock_gettime(CLOCK_MONOTONIC, &b->stop);
    b->stop.tv_nsec += STEP_MS * 1000000L;
    b->stop.tv_sec += b->stop.tv_nsec / 1000000000L;
    b->stop.tv_nsec %= 1000000000L;
    b->workers = workers;
    b->nr_workers = min_u64(c->nr_threads, b->nr);
    pthread_mutex_init(&b->lock, NULL);
    pthread_mutex_init(&b->writing, NULL);
    for (unsigned i = 0; i < b->nr_workers; i++) {
        workers[i] = (struct worker){ .batch = b, .waits_for = NO_CHUNK,
                                      .buf = c->buffers + i * space };
        pthread_cond_init(&workers[i].turn, NULL);
    }
    while (nr < b->nr_workers
           && pthread_create(&workers[nr].thread, NULL, work, &workers[nr])
                  == 0)
        nr++;
    if (b->nr > 0)
        work(&workers[0]);
    while (nr > 1)
        pthread_join(workers[--nr].thread, NULL);
    for (unsigned i = 0; i < b->nr_workers; i++)
        pthread_cond_destroy(&workers[i].turn);
    pthread_mutex_destroy(&b->writing);
    pthread_mutex_destroy(&b->lock);
}

/* What was done of the batch. */
static void
advance(struct copy *c, const struct batch *b)
{
    for (unsigned i = 0; i < b->next_read; i++)
        if (b->chunks[i].kind == COPY_DATA)
            c->nr_done += b->chunks[i].nr_bytes;
    c->pos = b->next_read < b->nr ? b->chunks[b->next_read].guest_off
                                  : b->end;
}

/* At whole pages: direct I/O takes them as they are. */
static int
alloc_buffers(struct copy *c)
{
    size_t nr_bytes = (size_t)c->nr_threads * COPY_CHUNK_BYTES
                      * (c->needs_space ? 2 : 1);
    void *buffers;

    if (posix_memalign(&buffers, PAGE_BYTES, nr_bytes) != 0)
        return -1;
    c->buffers = buffers;
    return 0;
}

int
copy_step(struct copy *c, struct qcow2_error *err)
{
    struct batch b = { .copy = c };
    CLEANUP_FREE struct copy_chunk *chunks = NULL;

    if (c->scanned < c->end)
        return scan(c, err);
    b.capacity = c->nr_threads * CHUNKS_PER_THREAD;
    b.chunks = chunks = calloc(b.capacity, sizeof *chunks);
    if (!chunks || (!c->buffers && alloc_buffers(c) == -1))
        return error_nomem(err);
    if (plan(&b, err) == -1)
        return -1;
    run(&b);
    if (b.failed) {
        if (err)
            *err = b.error;
        return -1;
    }
    advance(c, &b);
    return c->pos < c->end;
}

void
copy_end(struct copy *c)
{
    free(c->buffers);
    c->buffers = NULL;
}
