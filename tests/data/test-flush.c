/* SPDX-License-Identifier: BSD-3-Clause */
/* test-flush: what a flush costs, and who shares it.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "base/error.h"
#include "disk/open.h"
#include "expect.h"
#include "rig.h"

enum { C = 65536, NR_THREADS = 8 };

static void
open_rig(struct rig *r, const char *recipe, uint64_t backing_bytes)
{
    expect_case("%s", recipe);
    rig_init(r, recipe, backing_bytes);
    rig_open(r);
    fault_reset_counts(&r->plan);
}

static void
close_rig(struct rig *r)
{
    rig_close(r);
    rig_free(r);
}

static void
expect_barriers(struct rig *r, unsigned most, const char *what)
{
    uint64_t n = fault_count(&r->plan, FAULT_FLUSH);

    EXPECT(n > 0 && n <= most, "%s: %llu barriers, at most %u expected", what,
           (unsigned long long)n, most);
    fault_reset_counts(&r->plan);
}

static void
barriers_per_flush(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, "backing base.raw raw; cluster 64K; size 8M; data 0-31 1;"
             "compressed 32-39 2; snapshot 1 first; data 0-15 3", 4 << 20);
    rig_flush(&r);
    expect_barriers(&r, 1, "the first");
    rig_flush(&r);
    EXPECT(fault_count(&r.plan, FAULT_FLUSH) == 0, "a barrier for nothing");
    for (unsigned i = 0; i < 16; i++)
        rig_play(&r, OP_WRITE, i * C, 5000, 0);
    rig_flush(&r);
    expect_barriers(&r, 1, "overwrites");
    for (unsigned i = 16; i < 128; i++)
        rig_play(&r, OP_WRITE, i * C, 5000, 0);
    rig_flush(&r);
    expect_barriers(&r, 2, "allocations");
    rig_play(&r, OP_ZERO, 0, 20 * C, QCOW2_MAY_TRIM);
    rig_play(&r, OP_TRIM, 30 * C, 20 * C, 0);
    rig_flush(&r);
    expect_barriers(&r, 2, "zeroes and trims");
    rig_play(&r, OP_WRITE, 70 * C, C, QCOW2_FUA);
    expect_barriers(&r, 1, "FUA overwrite");
    close_rig(&r);
}

static void
requests_alone_cost_no_barrier(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, "cluster 64K; size 8M; data 0-31 1", 0);
    for (unsigned i = 0; i < 128; i++)
        rig_play(&r, OP_WRITE, i * C, 5000, 0);
    rig_play(&r, OP_TRIM, 0, 8 << 20, 0);
    EXPECT(fault_count(&r.plan, FAULT_FLUSH) == 0, "%llu barriers",
           (unsigned long long)fault_count(&r.plan, FAULT_FLUSH));
    close_rig(&r);
}

static void
a_new_refblock_costs_one_more_barrier(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, "cluster 512; refcount-bits 64; size 64K; data 0 1", 0);
    rig_play(&r, OP_WRITE, 0, 64 << 10, 0);
    rig_flush(&r);
    expect_barriers(&r, 3, "refblocks");
    rig_play(&r, OP_WRITE, 0, 64 << 10, 0);
    rig_flush(&r);
    expect_barriers(&r, 1, "after");
    close_rig(&r);
}

static void
closing_what_was_only_read_writes_nothing(void **state)
{
    struct rig r;
    struct qcow2_error err;

    (void)state;
    open_rig(&r, "cluster 64K; size 1M; data 0 1", 0);
    EXPECT_OK(qcow2_close(r.play.disk, &err), &err);
    EXPECT(fault_count(&r.plan, FAULT_CHANGE) == 0,
           "closing wrote to an image that was only opened");
    rig_end(&r);
    rig_free(&r);
}

/* A backend whose first barrier takes until the test lets it go. */
struct gate {
    struct io io;
    struct io *below;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool armed, entered, open;
    bool write_inside, fail;
    unsigned nr_flushes;
};

static int
gate_flush(struct io *io, struct qcow2_error *err)
{
    struct gate *g = (struct gate *)io;

    pthread_mutex_lock(&g->lock);
    g->nr_flushes++;
    if (g->fail) {
        pthread_mutex_unlock(&g->lock);
        return error_set(err, EIO, "as the test wants it");
    }
    if (g->armed) {
        g->entered = true;
        pthread_cond_broadcast(&g->changed);
        while (!g->open)
            pthread_cond_wait(&g->changed, &g->lock);
    }
    pthread_mutex_unlock(&g->lock);
    if (g->write_inside && io_pwrite(io, "", 1, 0, err) == -1)
        return -1;
    return io_flush(g->below, err);
}

static int
gate_preadv(struct io *io, const struct iovec *iov, int nr, uint64_t off,
            struct qcow2_error *err)
{
    return io_preadv(((struct gate *)io)->below, iov, nr, off, err);
}

static int
gate_pwritev(struct io *io, const struct iovec *iov, int nr, uint64_t off,
             struct qcow2_error *err)
{
    return io_pwritev(((struct gate *)io)->below, iov, nr, off, err);
}

static int
gate_get_size(struct io *io, uint64_t *size, struct qcow2_error *err)
{
    return io_get_size(((struct gate *)io)->below, size, err);
}

static void
gate_close(struct io *io)
{
    io_close(((struct gate *)io)->below);
}

static const struct io_ops gate_ops = {
    .close = gate_close, .preadv = gate_preadv, .pwritev = gate_pwritev,
    .flush = gate_flush, .get_size = gate_get_size,
};

/* On the file of a rig without a disk yet. */
static void
gate_begin(struct gate *g, struct rig *r)
{
    memset(g, 0, sizeof *g);
    rig_init(r, "cluster 64K; size 1M; data 0 1", 0);
    rig_start(r);
    g->below = io_mem_open(r->mem, false);
    g->io = *g->below;
    g->io.ops = &gate_ops;
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->changed, NULL);
}

static void
gate_end(struct gate *g)
{
    pthread_cond_destroy(&g->changed);
    pthread_mutex_destroy(&g->lock);
}

struct flusher {
    struct qcow2_disk *disk;
    unsigned index;
    unsigned *nr_called; /* atomic */
    int result;
};

/* Writes in place first, so that there is something to flush. */
static void *
write_and_flush(void *arg)
{
    struct flusher *f = arg;
    unsigned char c;

    if (qcow2_pread(f->disk, &c, 1, f->index, NULL) == -1
        || qcow2_pwrite(f->disk, &c, 1, f->index, 0, NULL) == -1)
        return NULL;
    __atomic_add_fetch(f->nr_called, 1, __ATOMIC_SEQ_CST);
    f->result = qcow2_flush(f->disk, NULL);
    return NULL;
}

static void
flushes_that_arrive_during_one_share_the_next(void **state)
{
    pthread_t threads[NR_THREADS + 1];
    struct flusher flushers[NR_THREADS + 1];
    unsigned nr_called = 0;
    struct rig r;
    struct gate g;

    (void)state;
    expect_case("shared flushes");
    gate_begin(&g, &r);
    r.play.disk = rig_open_disk(&r, &g.io);
    g.nr_flushes = 0;
    g.armed = true;

    for (unsigned i = 0; i <= NR_THREADS; i++) {
        flushers[i] = (struct flusher){ r.play.disk, i, &nr_called, -1 };
        pthread_create(&threads[i], NULL, write_and_flush, &flushers[i]);
        pthread_mutex_lock(&g.lock);
        while (!g.entered) /* the first is inside; the others find it so */
            pthread_cond_wait(&g.changed, &g.lock);
        pthread_mutex_unlock(&g.lock);
    }
    while (__atomic_load_n(&nr_called, __ATOMIC_SEQ_CST) <= NR_THREADS)
        sched_yield();
    for (unsigned i = 0; i < 10000; i++) /* from the call to the queue */
        sched_yield();
    pthread_mutex_lock(&g.lock);
    g.open = true;
    pthread_cond_broadcast(&g.changed);
    pthread_mutex_unlock(&g.lock);
    for (unsigned i = 0; i <= NR_THREADS; i++) {
        pthread_join(threads[i], NULL);
        EXPECT(flushers[i].result == 0, "flush %u", i);
    }
    EXPECT(g.nr_flushes >= 2, "a flush was answered by one begun before");
    EXPECT(g.nr_flushes < NR_THREADS, "%u barriers for %u flushes",
           g.nr_flushes, NR_THREADS + 1);
    rig_close(&r);
    rig_free(&r);
    gate_end(&g);
}

static void
expect_flushes(struct gate *g, int result, unsigned nr, const char *what)
{
    EXPECT(io_flush(&g->io, NULL) == result, "%s: result", what);
    EXPECT(g->nr_flushes == nr, "%s: %u flushes so far", what,
           g->nr_flushes);
}

static void
only_what_returned_before_a_flush_began_is_flushed(void **state)
{
    struct rig r;
    struct gate g;

    (void)state;
    expect_case("flushes with nothing to do");
    gate_begin(&g, &r);
    expect_flushes(&g, 0, 1, "what others may have written");
    expect_flushes(&g, 0, 1, "nothing");
    EXPECT(io_pwrite(&g.io, "", 1, 0, NULL) == 0, "write");
    g.write_inside = true;
    expect_flushes(&g, 0, 2, "a write");
    g.write_inside = false;
    expect_flushes(&g, 0, 3, "a write while it was flushed");
    EXPECT(io_pwrite(&g.io, "", 1, 0, NULL) == 0, "write");
    g.fail = true;
    expect_flushes(&g, -1, 4, "a flush that fails");
    g.fail = false;
    expect_flushes(&g, -1, 4, "after it failed");
    io_close(&g.io);
    rig_end(&r);
    rig_free(&r);
    gate_end(&g);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(barriers_per_flush),
        cmocka_unit_test(requests_alone_cost_no_barrier),
        cmocka_unit_test(a_new_refblock_costs_one_more_barrier),
        cmocka_unit_test(closing_what_was_only_read_writes_nothing),
        cmocka_unit_test(flushes_that_arrive_during_one_share_the_next),
        cmocka_unit_test(only_what_returned_before_a_flush_began_is_flushed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
