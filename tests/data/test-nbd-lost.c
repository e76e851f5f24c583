/* SPDX-License-Identifier: BSD-3-Clause */
/* test-nbd-lost: NBD servers that do not answer, go away, come back, or come
 * back with something else.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "builder.h"
#include "expect.h"
#include "io-mem.h"
#include "nbd-server.h"
#include "rng.h"
#include "tmpdir.h"

enum {
    C = 4096, SIZE = 1 << 20, NR_THREADS = 8,
    SHORT_MS = 2000,            /* to be waited for in full, but enough for a
                                 * loaded machine to connect in */
    LONG_MS = 10 * 60 * 1000,   /* never */
};

/* Contents that outlive the servers that export them. */
static struct mem *
new_mem(uint64_t size, unsigned seed)
{
    unsigned char *bytes = malloc(size);
    struct mem *mem;

    EXPECT(bytes, "memory");
    pattern_fill(bytes, size, seed, 0);
    mem = mem_new(bytes, size);
    free(bytes);
    return mem;
}

static void
begin(const char *what)
{
    if (!qcow2_has_feature("nbd"))
        skip();
    tmpdir_clear();
    expect_case("%s", what);
}

static struct nbd_server *
serve(struct mem *mem, unsigned can)
{
    return nbd_server_start(io_mem_open(mem, false), can);
}

static struct qcow2_disk *
open_export(bool readonly, unsigned timeout_ms)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;
    struct qcow2_disk *disk;

    options.format = QCOW2_FORMAT_RAW;
    options.readonly = readonly;
    options.nbd_timeout_ms = timeout_ms;
    disk = qcow2_open(nbd_server_uri(), &options, &err);
    EXPECT(disk, "%s", err.text);
    return disk;
}

static void
expect_pattern(struct qcow2_disk *disk, uint64_t off, unsigned seed)
{
    unsigned char got[C], want[C];
    struct qcow2_error err;

    EXPECT_OK(qcow2_pread(disk, got, C, off, &err), &err);
    pattern_fill(want, C, seed, off);
    expect_same("read", got, want, C, off);
}

static void
expect_eio(struct qcow2_disk *disk)
{
    struct qcow2_error err;
    unsigned char byte;

    EXPECT(qcow2_pread(disk, &byte, 1, 0, &err) == -1 && err.errnum == EIO,
           "%s", err.text);
}

static void
a_server_that_says_nothing_is_given_up(void **state)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct mem *mem = new_mem(SIZE, 1);
    struct nbd_server *server;
    struct qcow2_error err;

    (void)state;
    begin("silent");
    server = serve(mem, NBD_SERVER_ALL | NBD_SERVER_SILENT);
    options.nbd_timeout_ms = SHORT_MS;
    EXPECT(!qcow2_open(nbd_server_uri(), &options, &err), "opened");
    EXPECT(err.errnum == ETIMEDOUT && strstr(err.text, "2 seconds"), "%s",
           err.text);
    nbd_server_stop(server);
    mem_free(mem);
}

static void
a_readonly_export_is_connected_to_again(void **state)
{
    struct mem *mem = new_mem(SIZE, 1);
    struct nbd_server *server;
    struct qcow2_disk *disk;

    (void)state;
    begin("again");
    server = serve(mem, NBD_SERVER_ALL);
    disk = open_export(true, 0);
    expect_pattern(disk, 0, 1);
    nbd_server_stop(server);
    expect_eio(disk);
    server = serve(mem, NBD_SERVER_ALL);
    expect_pattern(disk, C, 1);
    /* Started anew between two requests: nobody notices. */
    nbd_server_stop(server);
    server = serve(mem, NBD_SERVER_ALL);
    expect_pattern(disk, 2 * C, 1);
    /* In the middle of an answer: the same. */
    nbd_server_lose_next(server, NBD_READ);
    expect_pattern(disk, 3 * C, 1);
    qcow2_close(disk, NULL);
    nbd_server_stop(server);
    mem_free(mem);
}

struct reader {
    pthread_t thread;
    struct qcow2_disk *disk;
    pthread_barrier_t *restart;
    unsigned nr_failed;
};

/* Reads before and after the server is started anew. */
static void *
read_often(void *arg)
{
    struct reader *r = arg;
    unsigned char got[C], want[C];

    for (unsigned turn = 0; turn < 2; turn++) {
        for (unsigned i = 0; i < 100; i++) {
            uint64_t off = (i * 37 % (SIZE / C)) * C;

            pattern_fill(want, C, 1, off);
            r->nr_failed += qcow2_pread(r->disk, got, C, off, NULL) == -1
                            || memcmp(got, want, C) != 0;
        }
        if (turn == 0) {
            pthread_barrier_wait(r->restart);
            pthread_barrier_wait(r->restart);
        }
    }
    return NULL;
}

static void
all_connections_are_made_again(void **state)
{
    struct reader readers[NR_THREADS];
    struct mem *mem = new_mem(SIZE, 1);
    pthread_barrier_t restart;
    struct nbd_server *server;
    struct qcow2_disk *disk;

    (void)state;
    begin("several");
    server = serve(mem, NBD_SERVER_ALL);
    disk = open_export(true, 0);
    pthread_barrier_init(&restart, NULL, NR_THREADS + 1);
    for (unsigned i = 0; i < NR_THREADS; i++) {
        readers[i] = (struct reader){ .disk = disk, .restart = &restart };
        pthread_create(&readers[i].thread, NULL, read_often, &readers[i]);
    }
    pthread_barrier_wait(&restart);
    nbd_server_stop(server);
    server = serve(mem, NBD_SERVER_ALL);
    pthread_barrier_wait(&restart);
    for (unsigned i = 0; i < NR_THREADS; i++) {
        pthread_join(readers[i].thread, NULL);
        EXPECT(readers[i].nr_failed == 0, "thread %u: %u reads failed", i,
               readers[i].nr_failed);
    }
    pthread_barrier_destroy(&restart);
    qcow2_close(disk, NULL);
    nbd_server_stop(server);
    mem_free(mem);
}

static void
another_export_is_not_taken_for_the_same(void **state)
{
    struct mem *mem = new_mem(SIZE, 1), *other = new_mem(2 * SIZE, 2);
    struct nbd_server *server;
    struct qcow2_disk *disk;

    (void)state;
    begin("another");
    server = serve(mem, NBD_SERVER_ALL);
    disk = open_export(true, 0);
    nbd_server_stop(server);
    server = serve(other, NBD_SERVER_ALL);
    expect_eio(disk);
    nbd_server_stop(server);
    server = serve(mem, NBD_SERVER_ALL);
    expect_eio(disk); /* it is lost for good */
    qcow2_close(disk, NULL);
    nbd_server_stop(server);
    mem_free(mem);
    mem_free(other);
}

static struct qcow2_disk *
open_overlay(const char *name, struct qcow2_pool *pool)
{
    static const char *const allow[] = { "nbd+unix:///" };
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;
    struct qcow2_disk *disk;

    options.readonly = true;
    options.pool = pool;
    options.allow = allow;
    options.nr_allow = 1;
    options.nbd_timeout_ms = LONG_MS;
    disk = qcow2_open(tmpdir_path(name), &options, &err);
    EXPECT(disk, "%s", err.text);
    return disk;
}

static void
a_lost_export_is_not_handed_on(void **state)
{
    struct mem *mem = new_mem(SIZE, 1), *other = new_mem(2 * SIZE, 2);
    struct qcow2_pool *pool = qcow2_pool_new(0, NULL);
    struct qcow2_disk *first, *second, *third;
    struct nbd_server *server;
    char recipe[1400];

    (void)state;
    begin("handed on");
    snprintf(recipe, sizeof recipe, "cluster 4K; size 1M; backing %s raw",
             nbd_server_uri());
    builder_make(tmpdir_path("middle"), recipe);
    builder_make(tmpdir_path("top"), "size 1M; backing middle qcow2");
    server = serve(mem, NBD_SERVER_ALL);
    first = open_overlay("top", pool);
    second = open_overlay("middle", pool);
    expect_pattern(second, 0, 1);
    EXPECT(nbd_server_connections(server) == 1, "%u connections",
           nbd_server_connections(server));
    nbd_server_stop(server);
    server = serve(other, NBD_SERVER_ALL);
    expect_eio(first);
    expect_eio(second);
    third = open_overlay("top", pool); /* with a new middle, too */
    expect_pattern(third, 0, 2);
    expect_eio(first);
    qcow2_close(first, NULL);
    qcow2_close(second, NULL);
    qcow2_close(third, NULL);
    qcow2_pool_free(pool);
    nbd_server_stop(server);
    mem_free(mem);
    mem_free(other);
}

static void
an_answer_that_does_not_come_is_an_error(void **state)
{
    struct mem *mem = new_mem(SIZE, 1);
    struct nbd_server *server;
    struct qcow2_disk *disk;

    (void)state;
    begin("no answer");
    server = serve(mem, NBD_SERVER_ALL);
    disk = open_export(true, SHORT_MS);
    nbd_server_hold(server, NBD_READ);
    expect_eio(disk);
    expect_pattern(disk, 0, 1);
    qcow2_close(disk, NULL);
    nbd_server_stop(server);
    mem_free(mem);
}

static void
a_writable_export_is_lost_for_good(void **state)
{
    struct mem *mem = new_mem(SIZE, 1);
    struct nbd_server *server;
    struct qcow2_disk *disk;
    struct qcow2_error err;

    (void)state;
    begin("writable");
    server = serve(mem, NBD_SERVER_ALL);
    disk = open_export(false, SHORT_MS);
    EXPECT_OK(qcow2_pwrite(disk, "x", 1, 0, 0, &err), &err);
    nbd_server_hold(server, NBD_READ);
    expect_eio(disk); /* a late read */
    EXPECT(qcow2_pwrite(disk, "y", 1, 0, 0, &err) == -1, "write");
    EXPECT(qcow2_flush(disk, &err) == -1 && err.errnum == EIO, "flush");
    expect_eio(disk);
    EXPECT(nbd_server_count(server, NBD_FLUSH) == 0
           && nbd_server_connections(server) == 1, "connected again");
    qcow2_close(disk, NULL);
    nbd_server_stop(server);
    mem_free(mem);
}

static void *
read_once(void *arg)
{
    struct reader *r = arg;
    unsigned char byte;

    r->nr_failed += qcow2_pread(r->disk, &byte, 1, 0, NULL) == -1;
    return NULL;
}

static void
a_connection_that_takes_long_keeps_nobody_waiting(void **state)
{
    struct reader first, second;
    struct mem *mem = new_mem(SIZE, 1);
    struct nbd_server *server;
    struct qcow2_disk *disk;

    (void)state;
    begin("connecting");
    server = serve(mem, NBD_SERVER_ALL);
    disk = open_export(true, LONG_MS);
    first = second = (struct reader){ .disk = disk };
    nbd_server_hold(server, NBD_READ);
    pthread_create(&first.thread, NULL, read_once, &first);
    nbd_server_wait_held(server);
    nbd_server_fall_silent(server);
    pthread_create(&second.thread, NULL, read_once, &second);
    nbd_server_wait_connections(server, 2);
    nbd_server_answer_held(server);
    pthread_join(first.thread, NULL);
    for (unsigned i = 0; i < 10; i++)
        expect_pattern(disk, i * C, 1);
    nbd_server_stop(server); /* ends the attempt */
    pthread_join(second.thread, NULL);
    EXPECT(first.nr_failed == 0, "the first read failed");
    qcow2_close(disk, NULL);
    mem_free(mem);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_server_that_says_nothing_is_given_up),
        cmocka_unit_test(a_readonly_export_is_connected_to_again),
        cmocka_unit_test(all_connections_are_made_again),
        cmocka_unit_test(another_export_is_not_taken_for_the_same),
        cmocka_unit_test(a_lost_export_is_not_handed_on),
        cmocka_unit_test(an_answer_that_does_not_come_is_an_error),
        cmocka_unit_test(a_writable_export_is_lost_for_good),
        cmocka_unit_test(a_connection_that_takes_long_keeps_nobody_waiting),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
