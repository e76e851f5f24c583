/* SPDX-License-Identifier: BSD-3-Clause */
/* test-nbd-order: barriers of images and raw disks that an NBD server
 * exports are flushes which the server gets, after all that they cover; and
 * what the server cannot do is no success.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>

#include "audit.h"
#include "builder.h"
#include "expect.h"
#include "io-fault.h"
#include "io-mem.h"
#include "io-order.h"
#include "nbd-server.h"
#include "rng.h"

enum { C = 4096, SIZE = 1 << 20, EXPORT = 8 << 20, NR_THREADS = 4 };

static const char image[] = "cluster 4K; size 1M; data 0-19 1; zero 30-35;"
                            "compressed 40-45 2; snapshot 1 first; data 3 4";

/* A file that is exported; the server asserts the order of writes. */
struct scene {
    struct mem *mem;
    struct fault_plan plan;
    struct order_report report;
    struct nbd_server *server;
    struct qcow2_disk *disk;
};

static struct io *
watched(struct scene *s)
{
    return io_fault_new(io_order_new(io_mem_open(s->mem, false), &s->report),
                        &s->plan);
}

static struct qcow2_disk *
open_export(enum qcow2_format format)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;
    struct qcow2_disk *disk;

    options.format = format;
    disk = qcow2_open(nbd_server_uri(), &options, &err);
    EXPECT(disk, "%s", err.text);
    return disk;
}

/* recipe NULL: a raw disk. */
static void
begin(struct scene *s, const char *recipe, unsigned can)
{
    unsigned char *bytes = calloc(1, EXPORT);

    if (!qcow2_has_feature("nbd"))
        skip();
    expect_case("%s, server can %u", recipe ? recipe : "raw", can);
    memset(s, 0, sizeof *s);
    pthread_mutex_init(&s->plan.lock, NULL);
    if (recipe) {
        struct builder *b = builder_new();
        size_t nr_bytes;
        const unsigned char *built;

        builder_add(b, "%s", recipe);
        built = builder_bytes(b, &nr_bytes);
        memcpy(bytes, built, nr_bytes);
        builder_free(b);
    }
    s->mem = mem_new(bytes, EXPORT);
    free(bytes);
    s->server = nbd_server_start(watched(s), can);
    s->disk = open_export(recipe ? QCOW2_FORMAT_QCOW2 : QCOW2_FORMAT_RAW);
}

static void
end(struct scene *s)
{
    nbd_server_stop(s->server);
    EXPECT(s->report.nr_violations == 0, "%u violations at the server: %s",
           s->report.nr_violations, s->report.first);
    mem_free(s->mem);
}

static void
change(struct scene *s, struct rng *r)
{
    static unsigned char buf[5 * C];
    uint64_t nr = 1 + rng_below(r, sizeof buf);
    uint64_t off = rng_below(r, SIZE - nr);
    unsigned flags = rng_percent(r, 10) ? QCOW2_FUA : 0;
    struct qcow2_error err;

    switch (rng_below(r, 4)) {
    case 0:
        EXPECT_OK(qcow2_zero(s->disk, nr, off, flags | QCOW2_MAY_TRIM, &err),
                  &err);
        break;
    case 1:
        EXPECT_OK(qcow2_trim(s->disk, nr, off, flags, &err), &err);
        break;
    default:
        pattern_fill(buf, nr, off, off);
        EXPECT_OK(qcow2_pwrite(s->disk, buf, nr, off, flags, &err), &err);
    }
    if (rng_percent(r, 10))
        EXPECT_OK(qcow2_flush(s->disk, &err), &err);
}

static void
writes_reach_the_server_in_their_order(void **state)
{
    static const struct qcow2_snapshot_create_options plain = { 0 };
    const unsigned char *bytes;
    struct qcow2_error err;
    uint64_t nr_bytes;
    struct scene s;
    struct audit a;
    struct rng r;

    (void)state;
    begin(&s, image, NBD_SERVER_ALL);
    expect_step("TEST_SEED=%llu", (unsigned long long)rng_seed(1));
    rng_init(&r, rng_seed(1), 0);
    for (unsigned i = 0; i < 300; i++) {
        change(&s, &r);
        if (i == 100)
            EXPECT_OK(qcow2_snapshot_create(s.disk, "second", &plain, &err),
                      &err);
        if (i == 200)
            EXPECT_OK(qcow2_snapshot_delete(s.disk, "first", &err), &err);
    }
    EXPECT_OK(qcow2_close(s.disk, &err), &err);
    EXPECT(nbd_server_count(s.server, NBD_FLUSH) > 30, "%u flushes",
           nbd_server_count(s.server, NBD_FLUSH));
    /* It would not have to leave zeroes. */
    EXPECT(nbd_server_count(s.server, NBD_TRIM) == 0, "trims");
    bytes = mem_bytes(s.mem, &nr_bytes);
    audit_image(bytes, nr_bytes, &a);
    EXPECT(audit_is_clean(&a), "%s", a.first);
    end(&s);
}

static void
expect_flushes(struct scene *s, unsigned nr, const char *what)
{
    unsigned got = nbd_server_count(s->server, NBD_FLUSH);

    EXPECT(got == nr, "%s: %u flushes so far", what, got);
}

static void
flushes_and_fua_are_flushes_of_the_server(void **state)
{
    struct qcow2_error err;
    struct scene s;

    (void)state;
    begin(&s, NULL, NBD_SERVER_ALL);
    EXPECT_OK(qcow2_pwrite(s.disk, "x", 1, 5, 0, &err), &err);
    expect_flushes(&s, 0, "a write");
    EXPECT_OK(qcow2_flush(s.disk, &err), &err);
    expect_flushes(&s, 1, "a flush");
    EXPECT_OK(qcow2_pwrite(s.disk, "x", 1, 5, QCOW2_FUA, &err), &err);
    expect_flushes(&s, 2, "FUA");
    EXPECT_OK(qcow2_zero(s.disk, 1, 5, QCOW2_FUA, &err), &err);
    expect_flushes(&s, 3, "zeroing with FUA");
    EXPECT_OK(qcow2_close(s.disk, &err), &err);
    end(&s);

    begin(&s, NULL, NBD_SERVER_ALL & ~NBD_SERVER_FLUSH);
    EXPECT_OK(qcow2_pwrite(s.disk, "x", 1, 5, QCOW2_FUA, &err), &err);
    expect_flushes(&s, 0, "a server that has none");
    EXPECT_OK(qcow2_close(s.disk, &err), &err);
    end(&s);
}

static void
expect_failed_flush(const char *recipe, bool lost)
{
    struct qcow2_error err;
    struct scene s;
    char byte;

    begin(&s, recipe, NBD_SERVER_ALL);
    EXPECT_OK(qcow2_pwrite(s.disk, "x", 1, 50 * C, 0, &err), &err);
    if (lost)
        nbd_server_lose_next(s.server, NBD_FLUSH);
    else
        fault_arm(&s.plan, FAULT_FLUSH, 1, EIO, FAULT_ONCE);
    EXPECT(qcow2_flush(s.disk, &err) == -1 && err.errnum == EIO, "flush");
    expect_flushes(&s, 1, "one that fails");
    EXPECT(qcow2_pwrite(s.disk, "x", 1, 0, 0, &err) == -1, "write after it");
    EXPECT(qcow2_flush(s.disk, &err) == -1, "flush after it");
    EXPECT((qcow2_pread(s.disk, &byte, 1, 0, &err) == 0) == !lost, "read");
    qcow2_close(s.disk, NULL);
    expect_flushes(&s, 1, "after it failed");
    EXPECT(fault_retried(&s.plan) == 0, "retried");
    end(&s);
}

static void
a_failed_flush_ends_writing_and_is_not_tried_again(void **state)
{
    (void)state;
    expect_failed_flush(NULL, false);
    expect_failed_flush(image, false);
    expect_failed_flush(NULL, true);
    expect_failed_flush(image, true);
}

static void
what_the_server_could_not_do_is_an_error(void **state)
{
    unsigned char buf[2 * C];
    struct qcow2_error err;
    struct scene s;

    (void)state;
    begin(&s, NULL, NBD_SERVER_ALL);
    fault_arm(&s.plan, FAULT_READ, 1, EIO, FAULT_ONCE);
    EXPECT(qcow2_pread(s.disk, buf, C, 0, &err) == -1 && err.errnum == EIO,
           "read");
    fault_arm(&s.plan, FAULT_WRITE, 1, ENOSPC, FAULT_ONCE);
    EXPECT(qcow2_pwrite(s.disk, "x", 1, 0, 0, &err) == -1
           && err.errnum == ENOSPC, "write");
    fault_arm(&s.plan, FAULT_ZERO, 1, EIO, FAULT_FOR_GOOD);
    EXPECT(qcow2_zero(s.disk, C, 0, 0, &err) == -1 && err.errnum == EIO,
           "zero");
    EXPECT(qcow2_trim(s.disk, C, 0, 0, &err) == -1 && err.errnum == EIO,
           "trim");
    fault_arm(&s.plan, FAULT_ALL, 0, 0, 0);
    /* The first half of an answer is none. */
    nbd_server_lose_next(s.server, NBD_READ);
    EXPECT(qcow2_pread(s.disk, buf, sizeof buf, 0, &err) == -1
           && err.errnum == EIO, "half an answer");
    EXPECT(qcow2_pwrite(s.disk, "x", 1, 0, 0, &err) == -1, "write");
    qcow2_close(s.disk, NULL);
    end(&s);
}

static void
zeroes_keep_their_space_unless_they_may_be_trimmed(void **state)
{
    struct qcow2_error err;
    struct scene s;

    (void)state;
    begin(&s, NULL, NBD_SERVER_ALL);
    EXPECT_OK(qcow2_zero(s.disk, C, C, 0, &err), &err);
    EXPECT(nbd_server_holes(s.server) == 0, "a hole");
    EXPECT_OK(qcow2_zero(s.disk, C, C, QCOW2_MAY_TRIM, &err), &err);
    EXPECT(nbd_server_holes(s.server) == 1, "no hole");
    EXPECT_OK(qcow2_trim(s.disk, C, C, 0, &err), &err);
    EXPECT(nbd_server_holes(s.server) == 2, "no hole");
    EXPECT(nbd_server_count(s.server, NBD_WRITE_ZEROES) == 3
           && nbd_server_count(s.server, NBD_TRIM) == 0, "requests");
    EXPECT_OK(qcow2_close(s.disk, &err), &err);
    end(&s);
}

static void *
write_often(void *arg)
{
    struct qcow2_disk *disk = arg;
    static const char buf[C];

    for (unsigned i = 0; i < 200; i++)
        if (qcow2_pwrite(disk, buf, C, i * C, 0, NULL) == -1)
            return arg;
    return NULL;
}

/* Its flush says nothing of writes by other connections. */
static void
a_server_that_does_not_allow_several_has_one_connection(void **state)
{
    pthread_t threads[NR_THREADS];
    struct qcow2_error err;
    struct scene s;
    void *failed;

    (void)state;
    begin(&s, NULL, NBD_SERVER_ALL & ~NBD_SERVER_MULTI_CONN);
    for (unsigned i = 0; i < NR_THREADS; i++)
        pthread_create(&threads[i], NULL, write_often, s.disk);
    for (unsigned i = 0; i < NR_THREADS; i++) {
        pthread_join(threads[i], &failed);
        EXPECT(!failed, "thread %u", i);
    }
    EXPECT(nbd_server_connections(s.server) == 1, "%u connections",
           nbd_server_connections(s.server));
    EXPECT_OK(qcow2_close(s.disk, &err), &err);
    end(&s);
}

/* A byte of its own, of a block that the others have, too. */
struct neighbour {
    struct qcow2_disk *disk;
    uint64_t off;
};

static void *
write_beside(void *arg)
{
    const struct neighbour *n = arg;
    unsigned char got;

    for (unsigned i = 0; i < 300; i++) {
        unsigned char byte = i + 1;

        if (qcow2_pwrite(n->disk, &byte, 1, n->off, 0, NULL) == -1
            || qcow2_pread(n->disk, &got, 1, n->off, NULL) == -1
            || got != byte)
            return arg;
    }
    return NULL;
}

static void
parts_of_a_block_do_not_undo_each_other(void **state)
{
    struct neighbour neighbours[NR_THREADS];
    pthread_t threads[NR_THREADS];
    struct qcow2_error err;
    struct scene s;
    void *failed;

    (void)state;
    begin(&s, NULL, NBD_SERVER_ALL | NBD_SERVER_BLOCKS);
    for (unsigned i = 0; i < NR_THREADS; i++) {
        neighbours[i] = (struct neighbour){ s.disk, 700 * i };
        pthread_create(&threads[i], NULL, write_beside, &neighbours[i]);
    }
    for (unsigned i = 0; i < NR_THREADS; i++) {
        pthread_join(threads[i], &failed);
        EXPECT(!failed, "the byte of thread %u", i);
    }
    EXPECT_OK(qcow2_close(s.disk, &err), &err);
    end(&s);
}

struct request {
    struct qcow2_disk *disk;
    bool started, ended;    /* atomic */
    int result;
};

static void
yield_often(void)
{
    for (unsigned i = 0; i < 10000; i++)
        sched_yield();
}

static void *
write_one(void *arg)
{
    struct request *q = arg;

    q->result = qcow2_pwrite(q->disk, "y", 1, 0, 0, NULL);
    return NULL;
}

static void *
flush_one(void *arg)
{
    struct request *q = arg;

    __atomic_store_n(&q->started, true, __ATOMIC_SEQ_CST);
    q->result = qcow2_flush(q->disk, NULL);
    return NULL;
}

static void *
write_block(void *arg)
{
    struct request *q = arg;
    char block[C];

    memset(block, 'w', C);
    __atomic_store_n(&q->started, true, __ATOMIC_SEQ_CST);
    q->result = qcow2_pwrite(q->disk, block, C, 0, 0, NULL);
    __atomic_store_n(&q->ended, true, __ATOMIC_SEQ_CST);
    return NULL;
}

static void *
zero_block(void *arg)
{
    struct request *q = arg;

    __atomic_store_n(&q->started, true, __ATOMIC_SEQ_CST);
    q->result = qcow2_zero(q->disk, C, 0, 0, NULL);
    __atomic_store_n(&q->ended, true, __ATOMIC_SEQ_CST);
    return NULL;
}

/* A block of 'o' is changed as a whole while a part of it is being merged. */
static void
change_while_merging(void *(*change_block)(void *), char want)
{
    struct request part = { .result = 0 }, whole = { .result = 0 };
    pthread_t merging, changing;
    struct qcow2_error err;
    char block[2 * C];
    struct scene s;

    begin(&s, NULL, NBD_SERVER_ALL | NBD_SERVER_BLOCKS);
    part.disk = whole.disk = s.disk;
    memset(block, 'o', sizeof block);
    EXPECT_OK(qcow2_pwrite(s.disk, block, sizeof block, 0, 0, &err), &err);
    nbd_server_hold(s.server, NBD_WRITE); /* the block was read by then */
    pthread_create(&merging, NULL, write_one, &part);
    nbd_server_wait_held(s.server);
    pthread_create(&changing, NULL, change_block, &whole);
    /* It has to wait; if it does not, it ends in this time. */
    for (unsigned i = 0; i < 50; i++)
        if (!__atomic_load_n(&whole.ended, __ATOMIC_SEQ_CST))
            yield_often();
    /* Other blocks do not wait for this one. */
    EXPECT_OK(qcow2_pwrite(s.disk, block, C, C, 0, &err), &err);
    nbd_server_answer_held(s.server);
    pthread_join(merging, NULL);
    pthread_join(changing, NULL);
    EXPECT(part.result == 0 && whole.result == 0, "requests");
    EXPECT_OK(qcow2_pread(s.disk, block, C, 0, &err), &err);
    EXPECT(block[0] == 'y' || block[0] == want, "%c first", block[0]);
    for (unsigned i = 1; i < C; i++)
        EXPECT(block[i] == want, "%d is neither's", block[i]);
    EXPECT_OK(qcow2_close(s.disk, &err), &err);
    end(&s);
}

static void
whole_blocks_are_not_undone_by_parts(void **state)
{
    (void)state;
    change_while_merging(write_block, 'w');
    change_while_merging(zero_block, '\0');
}

/* Whole blocks need no lock against each other: the server has its own. */
static void
writes_of_whole_blocks_do_not_wait_for_each_other(void **state)
{
    struct request held = { .result = 0 };
    struct qcow2_error err;
    char block[C] = { 0 };
    pthread_t writer;
    struct scene s;

    (void)state;
    begin(&s, NULL, NBD_SERVER_ALL | NBD_SERVER_BLOCKS);
    held.disk = s.disk;
    nbd_server_hold(s.server, NBD_WRITE);
    pthread_create(&writer, NULL, write_block, &held);
    nbd_server_wait_held(s.server);
    EXPECT_OK(qcow2_pwrite(s.disk, block, C, 0, 0, &err), &err);
    EXPECT_OK(qcow2_pwrite(s.disk, block, C, C, 0, &err), &err);
    nbd_server_answer_held(s.server);
    pthread_join(writer, NULL);
    EXPECT(held.result == 0, "the first");
    EXPECT_OK(qcow2_close(s.disk, &err), &err);
    end(&s);
}

/* The new server knows nothing of what the old one had in memory. */
static void
the_flush_of_a_server_started_anew_is_none(void **state)
{
    struct request w = { .result = 0 }, f = { .result = 0 };
    pthread_t writer, flusher;
    struct nbd_server *second;
    struct qcow2_error err;
    struct scene s;

    (void)state;
    begin(&s, NULL, NBD_SERVER_ALL);
    w.disk = f.disk = s.disk;
    EXPECT_OK(qcow2_pwrite(s.disk, "x", 1, 5, 0, &err), &err);
    nbd_server_hold(s.server, NBD_WRITE);
    pthread_create(&writer, NULL, write_one, &w);
    nbd_server_wait_held(s.server);
    second = nbd_server_start(io_mem_open(s.mem, false), NBD_SERVER_ALL);
    pthread_create(&flusher, NULL, flush_one, &f);
    while (!__atomic_load_n(&f.started, __ATOMIC_SEQ_CST))
        sched_yield();
    yield_often(); /* from the call to the server */
    nbd_server_lose_held(s.server);
    pthread_join(writer, NULL);
    pthread_join(flusher, NULL);
    EXPECT(w.result == -1, "the write");
    EXPECT(f.result == -1 && nbd_server_count(second, NBD_FLUSH) == 0,
           "the flush");
    qcow2_close(s.disk, NULL);
    nbd_server_stop(second);
    end(&s);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_reach_the_server_in_their_order),
        cmocka_unit_test(flushes_and_fua_are_flushes_of_the_server),
        cmocka_unit_test(a_failed_flush_ends_writing_and_is_not_tried_again),
        cmocka_unit_test(what_the_server_could_not_do_is_an_error),
        cmocka_unit_test(zeroes_keep_their_space_unless_they_may_be_trimmed),
        cmocka_unit_test(
            a_server_that_does_not_allow_several_has_one_connection),
        cmocka_unit_test(parts_of_a_block_do_not_undo_each_other),
        cmocka_unit_test(whole_blocks_are_not_undone_by_parts),
        cmocka_unit_test(writes_of_whole_blocks_do_not_wait_for_each_other),
        cmocka_unit_test(the_flush_of_a_server_started_anew_is_none),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
