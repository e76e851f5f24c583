/* SPDX-License-Identifier: BSD-3-Clause */
/* test-threads: threads with random requests on the same few clusters. What
 * each read returned must be explained by some order of the requests: every
 * block of 512 bytes behaves as if requests to it happened one at a time,
 * each between its call and its return. TEST_SEED and TEST_ROUNDS make other
 * and longer runs (the order of threads is not the seed's).
 */
#include <pthread.h>
#include <stdlib.h>

#include "expect.h"
#include "io-jitter.h"
#include "linear.h"
#include "rig.h"

enum {
    BLOCK = LINEAR_BLOCK,
    NR_THREADS = 16,
    NR_OPS = 250,        /* of each thread */
    MAX_BLOCKS = 128,    /* of a request */
};

struct worker {
    struct rig *rig;
    uint64_t *clock;         /* atomic */
    const unsigned char *initial;
    pthread_barrier_t *go;
    unsigned index;
    struct rng rng;
    struct linear_history history;
    unsigned char buf[MAX_BLOCKS * BLOCK];
    char problem[256];       /* empty: none */
};

static uint64_t
tick(struct worker *w)
{
    return __atomic_add_fetch(w->clock, 1, __ATOMIC_SEQ_CST);
}

static void
read_blocks(struct worker *w, const struct op *op)
{
    uint64_t start = tick(w), end;
    struct qcow2_error err;

    if (qcow2_pread(w->rig->play.disk, w->buf, op->nr_bytes, op->off, &err)) {
        snprintf(w->problem, sizeof w->problem, "read: %.200s", err.text);
        return;
    }
    end = tick(w);
    for (uint64_t i = 0; i < op->nr_bytes; i += BLOCK) {
        struct linear_event e = { .is_read = true, .start = start, .end = end };

        e.block = (op->off + i) / BLOCK;
        if (!linear_value_of(w->buf + i, op->off + i,
                             w->initial + op->off + i, &e.value)) {
            snprintf(w->problem, sizeof w->problem,
                     "block %llu holds parts of several requests",
                     (unsigned long long)e.block);
            return;
        }
        linear_add(&w->history, e);
    }
}

static void
change_blocks(struct worker *w, const struct op *op)
{
    struct qcow2_disk *disk = w->rig->play.disk;
    struct linear_event e = { .value = op->kind == OP_WRITE ? op->seed : 0 };
    struct qcow2_error err;
    int r;

    for (uint64_t i = 0; i < op->nr_bytes; i += BLOCK)
        linear_make_block(w->buf + i, e.value, op->off + i);
    e.start = tick(w);
    if (op->kind == OP_WRITE)
        r = qcow2_pwrite(disk, w->buf, op->nr_bytes, op->off, op->flags,
                         &err);
    else if (op->kind == OP_ZERO)
        r = qcow2_zero(disk, op->nr_bytes, op->off, op->flags, &err);
    else
        r = qcow2_trim(disk, op->nr_bytes, op->off, op->flags, &err);
    e.end = tick(w);
    if (r != 0) {
        snprintf(w->problem, sizeof w->problem, "change: %.200s", err.text);
        return;
    }
    for (uint64_t off = op->off; off < op->off + op->nr_bytes; off += BLOCK) {
        e.block = off / BLOCK;
        linear_add(&w->history, e);
    }
}

static int
ignore_extent(void *opaque, const struct qcow2_extent *e)
{
    (void)opaque;
    return e->nr_bytes == 0;
}

/* Half of the requests go to a sixteenth of the disk. Trims are whole
 * clusters: what they zero must be known. */
static struct op
random_op(struct worker *w, uint64_t seed)
{
    static const enum op_kind kinds[20] = {
        OP_WRITE, OP_WRITE, OP_WRITE, OP_WRITE, OP_WRITE, OP_WRITE, OP_WRITE,
        OP_ZERO, OP_ZERO, OP_ZERO, OP_TRIM, OP_TRIM,
        OP_READ, OP_READ, OP_READ, OP_READ, OP_READ, OP_READ,
        OP_EXTENTS, OP_FLUSH
    };
    struct play *p = &w->rig->play;
    uint64_t nr_blocks = p->model.size / BLOCK;
    uint64_t per_cluster = p->cluster_size / BLOCK;
    uint64_t first = rng_below(&w->rng, rng_percent(&w->rng, 50)
                                            ? nr_blocks / 16 : nr_blocks);
    uint64_t n = 1 + rng_below(&w->rng, 4);
    struct op op = { .seed = seed, .kind = kinds[rng_below(&w->rng, 20)] };

    if (rng_percent(&w->rng, 10))
        n = 1 + rng_below(&w->rng, MAX_BLOCKS);
    if (op.kind == OP_TRIM || (op.kind == OP_ZERO && n % 2)) {
        first -= first % per_cluster;
        n = per_cluster;
    }
    if (n > nr_blocks - first)
        n = nr_blocks - first;
    op.off = first * BLOCK;
    op.nr_bytes = n * BLOCK;
    if (rng_percent(&w->rng, 3))
        op.flags |= QCOW2_FUA;
    if (op.kind == OP_ZERO && rng_percent(&w->rng, 50))
        op.flags |= QCOW2_MAY_TRIM;
    return op;
}

static void *
work(void *arg)
{
    struct worker *w = arg;
    struct qcow2_disk *disk = w->rig->play.disk;

    pthread_barrier_wait(w->go);
    for (unsigned i = 0; i < NR_OPS && !w->problem[0]; i++) {
        struct op op = random_op(w, (w->index + 1) * 1000000 + i);
        int r = 0;

        switch (op.kind) {
        case OP_READ:
            read_blocks(w, &op);
            break;
        case OP_WRITE:
        case OP_ZERO:
        case OP_TRIM:
            change_blocks(w, &op);
            break;
        case OP_FLUSH:
            r = qcow2_flush(disk, NULL);
            break;
        case OP_EXTENTS:
            r = qcow2_map(disk, op.nr_bytes, op.off, ignore_extent, NULL,
                          NULL);
            break;
        case OP_REOPEN:
            break;
        }
        if (r != 0)
            snprintf(w->problem, sizeof w->problem, "flush or map");
    }
    return NULL;
}

/* Snapshots hold what they held, whatever happens to the disk. */
static void *
read_snapshots(void *arg)
{
    struct worker *w = arg;
    struct qcow2_disk *s = qcow2_open_snapshot(w->rig->play.disk, "first",
                                               NULL);
    uint64_t size = builder_disk_size(w->rig->image, 0);
    unsigned char *want = calloc(2, size), *got = want + size;

    if (!want)
        abort();
    memcpy(want, w->rig->below, size);
    builder_overlay(w->rig->image, 0, want, size);
    pthread_barrier_wait(w->go);
    for (unsigned i = 0; i < 30 && !w->problem[0]; i++) {
        if (!s || qcow2_pread(s, got, size, 0, NULL) != 0 ||
            memcmp(got, want, size) != 0)
            snprintf(w->problem, sizeof w->problem, "a snapshot differs");
    }
    if (s)
        qcow2_close(s, NULL);
    free(want);
    return NULL;
}

static void
run_threads(struct worker *workers, pthread_barrier_t *go)
{
    pthread_t threads[NR_THREADS + 1];

    pthread_barrier_init(go, NULL, NR_THREADS + 1);
    for (unsigned i = 0; i <= NR_THREADS; i++)
        EXPECT(pthread_create(&threads[i], NULL,
                              i < NR_THREADS ? work : read_snapshots,
                              &workers[i]) == 0, "thread");
    for (unsigned i = 0; i <= NR_THREADS; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(go);
}

/* What the disk held before and what it holds now, and all in between. */
static void
check_workers(struct worker *workers, uint64_t size)
{
    struct linear_history all = { NULL, 0, 0 };
    struct op op = { .kind = OP_READ, .nr_bytes = MAX_BLOCKS * BLOCK };
    const unsigned char *initial = workers[0].initial;
    char why[256];

    for (uint64_t off = 0; off < size; off += BLOCK) {
        struct linear_event e = { .block = off / BLOCK };

        linear_value_of(initial + off, off, initial + off, &e.value);
        linear_add(&all, e);
    }
    for (op.off = 0; op.off < size; op.off += op.nr_bytes) {
        if (op.nr_bytes > size - op.off)
            op.nr_bytes = size - op.off;
        read_blocks(&workers[0], &op);
    }
    for (unsigned i = 0; i <= NR_THREADS; i++) {
        EXPECT(!workers[i].problem[0], "thread %u: %s", i,
               workers[i].problem);
        for (size_t j = 0; j < workers[i].history.nr; j++)
            linear_add(&all, workers[i].history.events[j]);
        linear_free(&workers[i].history);
    }
    EXPECT(linear_check(&all, why, sizeof why), "%s", why);
    linear_free(&all);
}

static void
run(const char *recipe, uint64_t backing_bytes, uint64_t stream)
{
    struct worker *workers = calloc(NR_THREADS + 1, sizeof *workers);
    pthread_barrier_t go;
    unsigned char *initial;
    uint64_t clock = 1, size;
    struct rig r;
    struct qcow2_error err;

    expect_case("TEST_SEED=%llu: %s", (unsigned long long)rng_seed(1),
                recipe);
    rig_init(&r, recipe, backing_bytes);
    rig_start(&r);
    r.play.disk = rig_open_disk(&r,
                                io_jitter_new(io_mem_open(r.mem, false)));
    size = r.play.model.size;
    initial = malloc(size);
    if (!initial || !workers)
        abort();
    memcpy(initial, r.play.model.disk, size);
    for (unsigned i = 0; i <= NR_THREADS; i++) {
        workers[i].rig = &r;
        workers[i].clock = &clock;
        workers[i].initial = initial;
        workers[i].go = &go;
        workers[i].index = i;
        rng_init(&workers[i].rng, rng_seed(1), stream + i);
    }
    run_threads(workers, &go);
    check_workers(workers, size);
    free(workers);
    free(initial);
    EXPECT_OK(qcow2_pread(r.play.disk, r.play.model.disk, size, 0, &err),
              &err);
    rig_close(&r);
    rig_free(&r);
}

static void
blocks_are_linearizable(void **state)
{
    static const struct {
        const char *recipe;
        uint64_t backing_bytes;
    } images[] = {
        { "backing base.raw raw; cluster 4K; size 512K; data 0-30 1;"
          "compressed 31-60 2; zero-alloc 61-64; snapshot 1 first;"
          "data 5-9 3; compressed 40-50 4", 300000 },
        { "backing base.raw raw; cluster 512; refcount-bits 64; size 128K;"
          "data 0-30 1; compressed 31-60 2; snapshot 1 first", 100000 },
        { "cluster 64K; size 2M; data 0-3 1; compressed 4-9 2;"
          "snapshot 1 first; gap 3", 0 },
        { "backing base.raw raw; extended-l2; cluster 64K; size 1M;"
          "subclusters 0 ddzzuuppddddzu 1; subclusters 1 zd 2;"
          "compressed 2-5 2; snapshot 1 first; subclusters 0 dpz 3;"
          "subclusters 7 p 3", 700000 },
    };
    unsigned rounds = env_number("TEST_ROUNDS", 4);

    (void)state;
    for (unsigned i = 0; i < 4 * rounds; i++)
        run(images[i % 4].recipe, images[i % 4].backing_bytes, i * 100);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_linearizable),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
