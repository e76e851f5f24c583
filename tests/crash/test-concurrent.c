/* SPDX-License-Identifier: BSD-3-Clause */
/* test-concurrent: threads write, zero, trim and flush at once on a tiny
 * image, and after that every state that a power cut may leave is tried.
 * Every sector belongs to one thread, so what it may hold is known whatever
 * the threads' order was. CRASH_LONG=1 does more of it.
 */
#include <pthread.h>
#include <stdlib.h>

#include "expect.h"
#include "powercut.h"
#include "states.h"

enum { NR_THREADS = 4, NR_OPS = 14 };

struct worker {
    struct powercut *pc;
    pthread_mutex_t *lock;      /* of the model */
    pthread_barrier_t *start;
    struct rng rng;
    unsigned index;
    uint64_t unit;              /* bytes of what one thread owns */
    struct qcow2_error err;
    int result;
};

/* One of the worker's own units. */
static struct op
random_op(struct worker *w, uint64_t seed)
{
    uint64_t size = w->pc->rig.play.model.size;
    uint64_t nr_units = size / w->unit / NR_THREADS;
    uint64_t nth = rng_below(&w->rng, nr_units);
    struct op op = {
        .kind = OP_WRITE, .seed = seed,
        .off = (nth * NR_THREADS + w->index) * w->unit,
        .nr_bytes = w->unit,
        .flags = rng_percent(&w->rng, 10) ? QCOW2_FUA : 0,
    };
    unsigned dice = rng_below(&w->rng, 100);

    if (dice < 20)
        op.kind = OP_FLUSH;
    else if (dice < 32)
        op.kind = OP_ZERO;
    else if (dice < 50 && w->unit == w->pc->rig.play.cluster_size)
        op.kind = OP_TRIM;
    if (op.kind == OP_ZERO && rng_percent(&w->rng, 50))
        op.flags |= QCOW2_MAY_TRIM;
    return op;
}

static int
run_op(struct worker *w, const struct op *op)
{
    struct qcow2_disk *disk = w->pc->rig.play.disk;
    unsigned char bytes[4096];

    switch (op->kind) {
    case OP_WRITE:
        pattern_fill(bytes, op->nr_bytes, op->seed, op->off);
        return qcow2_pwrite(disk, bytes, op->nr_bytes, op->off, op->flags,
                            &w->err);
    case OP_ZERO:
        return qcow2_zero(disk, op->nr_bytes, op->off, op->flags, &w->err);
    case OP_TRIM:
        return qcow2_trim(disk, op->nr_bytes, op->off, op->flags, &w->err);
    case OP_FLUSH:
        return qcow2_flush(disk, &w->err);
    case OP_READ:
    case OP_EXTENTS:
    case OP_REOPEN:
        break;
    }
    return 0;
}

static uint64_t
tell_sent(struct worker *w, const struct op *op)
{
    struct play *p = &w->pc->rig.play;
    unsigned char bytes[4096];
    uint64_t when;

    pthread_mutex_lock(w->lock);
    when = p->now(p->opaque, PLAY_SENT);
    if (op->kind != OP_FLUSH) {
        pattern_fill(bytes, op->nr_bytes,
                     op->kind == OP_WRITE ? op->seed : 0, op->off);
        model_write(&p->model, bytes, op->nr_bytes, op->off, when);
    }
    pthread_mutex_unlock(w->lock);
    return when;
}

static void
tell_answered(struct worker *w, const struct op *op, uint64_t sent)
{
    struct play *p = &w->pc->rig.play;
    bool durable = op->kind == OP_FLUSH || (op->flags & QCOW2_FUA);
    uint64_t when;

    pthread_mutex_lock(w->lock);
    when = p->now(p->opaque, durable ? PLAY_DURABLE : PLAY_ANSWERED);
    if (op->kind == OP_FLUSH)
        model_flushed(&p->model, sent, when);
    else
        model_answered(&p->model, op->nr_bytes, op->off, when, durable);
    pthread_mutex_unlock(w->lock);
}

static void *
work(void *arg)
{
    struct worker *w = arg;

    pthread_barrier_wait(w->start);
    for (unsigned i = 0; i < NR_OPS && w->result == 0; i++) {
        struct op op = random_op(w, 1000 * (w->index + 1) + i);
        uint64_t sent = tell_sent(w, &op);

        w->result = run_op(w, &op);
        if (w->result == 0)
            tell_answered(w, &op, sent);
    }
    return NULL;
}

static void
run_threads(struct powercut *pc, uint64_t unit, uint64_t stream)
{
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_barrier_t start;
    pthread_t threads[NR_THREADS];
    struct worker workers[NR_THREADS];

    pthread_barrier_init(&start, NULL, NR_THREADS);
    for (unsigned i = 0; i < NR_THREADS; i++) {
        workers[i] = (struct worker){
            .pc = pc, .lock = &lock, .start = &start, .index = i,
            .unit = unit
        };
        rng_init(&workers[i].rng, rng_seed(1), stream + i);
        EXPECT(pthread_create(&threads[i], NULL, work, &workers[i]) == 0,
               "thread");
    }
    for (unsigned i = 0; i < NR_THREADS; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < NR_THREADS; i++)
        EXPECT(workers[i].result == 0, "thread %u: %s", i,
               workers[i].err.text);
    pthread_barrier_destroy(&start);
}

static const struct scene scene = {
    "threads",
    "cluster 2K; refcount-bits 64; size 61440; backing base.raw raw;"
    "data 0-5 1; zero 6; zero-alloc 7; compressed 8-11 2;"
    "snapshot 1 first; data 2 4; zero-alloc 3; gap 3", 30000, 0
};

static void
run(uint64_t unit, const char *name)
{
    struct crash_options options = {
        .nr_random = 5, .nr_torn = 4, .seed = rng_seed(1)
    };
    unsigned nr = states_are_many() ? 8 : 2;
    struct powercut pc;

    powercut_init(&pc, &scene);
    for (unsigned i = 0; i < nr; i++) {
        expect_case("TEST_SEED=%llu: %s, round %u",
                    (unsigned long long)rng_seed(1), name, i);
        powercut_begin(&pc);
        run_threads(&pc, unit, i * 100 + unit);
        powercut_end(&pc, &options);
    }
    powercut_report(&pc, name);
    powercut_free(&pc);
}

static void
threads_in_the_same_clusters(void **state)
{
    (void)state;
    run(512, "sectors");
}

static void
threads_in_clusters_of_their_own(void **state)
{
    (void)state;
    run(2048, "clusters");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_in_the_same_clusters),
        cmocka_unit_test(threads_in_clusters_of_their_own),
    };

    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    states_print();
    return failed;
}
