/* SPDX-License-Identifier: BSD-3-Clause */
/* test-pool: threads that open, read and close chains of shared layers of one
 * pool, while others wait for a server that says nothing.
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
    NR_THREADS = 6, NR_WAITING = 3, NR_ROUNDS = 60, NR_OVERLAYS = 8,
    CLUSTER = 64 << 10,
};

static const char *const allow[] = { "nbd+unix:///" };
static char dir[1024]; /* of the images */

struct thread {
    pthread_t thread;
    unsigned number;
    struct qcow2_pool *pool;
    char failure[1100];     /* empty: there was none */
};

static struct qcow2_disk *
open_image(const char *name, struct qcow2_pool *pool, struct qcow2_error *err)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    char path[1200];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    options.readonly = true;
    options.pool = pool;
    options.allow = allow;
    options.nr_allow = 1;
    options.nbd_timeout_ms = 10 * 60 * 1000; /* longer than any test */
    return qcow2_open(path, &options, err);
}

/* Overlays of odd and even numbers have another middle, all one base, and
 * those at the end one that is damaged. */
static void
make_images(void)
{
    char name[32], recipe[1400];

    builder_make(tmpdir_path("base"), "size 1M; data 0-3 1");
    builder_make(tmpdir_path("middle0"), "size 1M; backing base qcow2;"
                 "data 2 2");
    builder_make(tmpdir_path("middle1"), "size 1M; backing base qcow2;"
                 "data 2 3");
    tmpdir_write_file(tmpdir_path("bad"), "QFI\xfb and no more", 16);
    for (unsigned i = 0; i < NR_OVERLAYS; i++) {
        snprintf(name, sizeof name, "overlay%u", i);
        snprintf(recipe, sizeof recipe, "size 1M; backing %s qcow2",
                 i == NR_OVERLAYS - 1 ? "bad" : i % 2 ? "middle1" : "middle0");
        builder_make(tmpdir_path(name), recipe);
    }
    snprintf(recipe, sizeof recipe, "size 1M; backing %s raw",
             nbd_server_uri());
    builder_make(tmpdir_path("remote"), recipe);
}

static bool
try_overlay(struct thread *t, unsigned i)
{
    bool is_bad = i == NR_OVERLAYS - 1;
    unsigned char got[512], want[512];
    struct qcow2_disk *disk;
    struct qcow2_error err;
    char name[32];
    int r;

    snprintf(name, sizeof name, "overlay%u", i);
    disk = open_image(name, t->pool, &err);
    if (is_bad != !disk) {
        snprintf(t->failure, sizeof t->failure, "%s: %s", name,
                 disk ? "opened" : err.text);
        return false;
    }
    if (is_bad)
        return true;
    r = qcow2_pread(disk, got, sizeof got, 2 * CLUSTER, &err);
    pattern_fill(want, sizeof want, i % 2 ? 3 : 2, 2 * CLUSTER);
    if (r == -1 || memcmp(got, want, sizeof got) != 0)
        snprintf(t->failure, sizeof t->failure, "%s: %s", name,
                 r == -1 ? err.text : "wrong bytes");
    qcow2_close(disk, NULL);
    return !t->failure[0];
}

static void *
open_and_close(void *arg)
{
    struct thread *t = arg;
    struct rng r;

    rng_init(&r, rng_seed(1), t->number);
    for (unsigned i = 0; i < NR_ROUNDS; i++)
        if (!try_overlay(t, rng_below(&r, NR_OVERLAYS)))
            break;
    return NULL;
}

static void *
wait_for_server(void *arg)
{
    struct thread *t = arg;
    struct qcow2_error err;

    if (open_image("remote", t->pool, &err))
        snprintf(t->failure, sizeof t->failure, "opened");
    return NULL;
}

static void
start(struct thread *t, unsigned nr, struct qcow2_pool *pool,
      void *(*run)(void *))
{
    for (unsigned i = 0; i < nr; i++) {
        t[i] = (struct thread){ .number = i, .pool = pool };
        pthread_create(&t[i].thread, NULL, run, &t[i]);
    }
}

static void
join(struct thread *t, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++) {
        pthread_join(t[i].thread, NULL);
        EXPECT(!t[i].failure[0], "thread %u: %s", i, t[i].failure);
    }
}

static void
chains_open_and_close_whoever_waits(void **state)
{
    struct thread waiting[NR_WAITING], opening[NR_THREADS];
    struct qcow2_pool *pool = qcow2_pool_new(0, NULL);
    struct nbd_server *server = NULL;
    struct mem *mem = mem_new(NULL, 0);
    bool nbd = qcow2_has_feature("nbd");

    (void)state;
    expect_case("TEST_SEED=%llu", (unsigned long long)rng_seed(1));
    tmpdir_clear();
    snprintf(dir, sizeof dir, "%s", tmpdir_path("."));
    make_images();
    if (nbd) {
        server = nbd_server_start(io_mem_open(mem, false),
                                  NBD_SERVER_ALL | NBD_SERVER_SILENT);
        start(waiting, NR_WAITING, pool, wait_for_server);
        nbd_server_wait_connections(server, NR_WAITING);
    }
    start(opening, NR_THREADS, pool, open_and_close);
    join(opening, NR_THREADS);
    nbd_server_stop(server);
    if (nbd)
        join(waiting, NR_WAITING);
    qcow2_pool_free(pool);
    mem_free(mem);
}

/* Enters a loop of two images at either end, again and again. */
static void *
enter_loop(void *arg)
{
    struct thread *t = arg;
    struct qcow2_error err;

    for (unsigned i = 0; i < NR_ROUNDS && !t->failure[0]; i++) {
        struct qcow2_disk *disk = open_image(t->number % 2 ? "end1" : "end0",
                                             t->pool, &err);

        if (disk || !strstr(err.text, "loop"))
            snprintf(t->failure, sizeof t->failure, "%s",
                     disk ? "opened" : err.text);
        qcow2_close(disk, NULL);
    }
    return NULL;
}

/* Each thread finds the other's half of the loop in the pool: it must not
 * become one there, where nobody looks for loops any more. */
static void
a_loop_entered_at_both_ends_is_refused(void **state)
{
    struct thread entering[NR_THREADS];
    struct qcow2_pool *pool = qcow2_pool_new(0, NULL);

    (void)state;
    tmpdir_clear();
    snprintf(dir, sizeof dir, "%s", tmpdir_path("."));
    builder_make(tmpdir_path("half0"), "size 1M; backing half1 qcow2");
    builder_make(tmpdir_path("half1"), "size 1M; backing half0 qcow2");
    builder_make(tmpdir_path("end0"), "size 1M; backing half0 qcow2");
    builder_make(tmpdir_path("end1"), "size 1M; backing half1 qcow2");
    start(entering, NR_THREADS, pool, enter_loop);
    join(entering, NR_THREADS);
    qcow2_pool_free(pool);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chains_open_and_close_whoever_waits),
        cmocka_unit_test(a_loop_entered_at_both_ends_is_refused),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
