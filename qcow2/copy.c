/* SPDX-License-Identifier: BSD-3-Clause */
/* copy.c: copies chunks with several threads; see copy.h. */
#include "copy.h"

#include <pthread.h>
#include <stdlib.h>

#include "checked.h"
#include "cleanup.h"
#include "error.h"

enum {
    /* Chunks of a step, for each thread: the more, the less they wait for
     * the slowest at its end. */
    CHUNKS_PER_THREAD = 4,
    /* Questions to ops->plan in a step, so that a step through what needs no
     * copying ends some time. */
    MAX_PLANS = 4096,
};

/* The work of one step. */
struct batch {
    struct copy *copy;
    struct copy_chunk *chunks;
    unsigned nr, capacity;
    uint64_t end;           /* where the next step begins */
    uint64_t nr_data;       /* bytes of data chunks */

    pthread_mutex_t lock;   /* of all below */
    pthread_cond_t written; /* next_write changed, or something failed */
    unsigned next_read, next_write, nr_workers;
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

/* Appends [from, to), in as many chunks as it takes, to what came before.
 * *to is how far there was room. */
static void
add_range(struct batch *b, enum copy_kind kind, uint64_t from, uint64_t *to)
{
    while (from < *to) {
        struct copy_chunk *last = b->nr ? &b->chunks[b->nr - 1] : NULL;
        uint64_t end = min_u64(*to, chunk_end(b->copy, kind, from));

        if (last && last->kind == kind
            && last->guest_off + last->nr_bytes == from
            && end <= chunk_end(b->copy, kind, last->guest_off)) {
            last->nr_bytes = end - last->guest_off;
        } else if (b->nr == b->capacity) {
            *to = from;
            return;
        } else {
            b->chunks[b->nr++] = (struct copy_chunk){
                .kind = kind, .guest_off = from, .nr_bytes = end - from,
            };
        }
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
        if (kind == COPY_DATA)
            b->nr_data += to - b->end;
        b->end = to;
    }
    return 0;
}

static void
fail(struct batch *b, const struct qcow2_error *error)
{
    if (!b->failed)
        b->error = *error;
    b->failed = true;
    pthread_cond_broadcast(&b->written);
}

/* Waits until it is chunk i's turn to be written. */
static bool
wait_turn(struct batch *b, unsigned i)
{
    LOCK_SCOPE(&b->lock);

    while (!b->copy->out_of_order && b->next_write < i && !b->failed)
        pthread_cond_wait(&b->written, &b->lock);
    return !b->failed;
}

static int
copy_chunk(struct batch *b, unsigned i, struct qcow2_error *err)
{
    const struct copy_ops *ops = b->copy->ops;
    struct copy_chunk *c = &b->chunks[i];

    if (c->kind == COPY_DATA && ops->read(b->copy->opaque, c, err) == -1)
        return -1;
    if (!wait_turn(b, i))
        return 0;
    return ops->write(b->copy->opaque, c, err);
}

static void *
work(void *arg)
{
    struct batch *b = arg;
    struct copy *c = b->copy;
    size_t space = (size_t)COPY_CHUNK_BYTES * (c->needs_space ? 2 : 1);
    struct qcow2_error error;
    unsigned char *buf;
    unsigned i;
    int r;

    pthread_mutex_lock(&b->lock);
    buf = c->buffers + b->nr_workers++ * space;
    while (!b->failed && b->next_read < b->nr) {
        i = b->next_read++;
        b->chunks[i].buf = buf;
        b->chunks[i].space = c->needs_space ? buf + COPY_CHUNK_BYTES : NULL;
        pthread_mutex_unlock(&b->lock);
        r = copy_chunk(b, i, &error);
        pthread_mutex_lock(&b->lock);
        if (r == -1)
            fail(b, &error);
        b->next_write++;
        pthread_cond_broadcast(&b->written);
    }
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

/* The calling thread works too; more threads are welcome, not needed. */
static void
run(struct batch *b)
{
    pthread_t threads[COPY_MAX_THREADS];
    unsigned nr = 0, want = min_u64(b->copy->nr_threads, b->nr);

    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->written, NULL);
    while (nr + 1 < want
           && pthread_create(&threads[nr], NULL, work, b) == 0)
        nr++;
    work(b);
    while (nr > 0)
        pthread_join(threads[--nr], NULL);
    pthread_cond_destroy(&b->written);
    pthread_mutex_destroy(&b->lock);
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
    if (!c->buffers)
        c->buffers = malloc((size_t)c->nr_threads * COPY_CHUNK_BYTES
                            * (c->needs_space ? 2 : 1));
    if (!chunks || !c->buffers)
        return error_nomem(err);
    if (plan(&b, err) == -1)
        return -1;
    run(&b);
    if (b.failed) {
        if (err)
            *err = b.error;
        return -1;
    }
    c->pos = b.end;
    c->nr_done += b.nr_data;
    return c->pos < c->end;
}

void
copy_end(struct copy *c)
{
    free(c->buffers);
    c->buffers = NULL;
}
