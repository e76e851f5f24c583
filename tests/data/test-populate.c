/* SPDX-License-Identifier: BSD-3-Clause */
/* test-populate: a disk gets clusters of its own for what it shows from below,
 * and nothing that is written meanwhile is lost.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "disk/open-disk.h"
#include "disk/open.h"
#include "expect.h"
#include "layers.h"
#include "request/request.h"
#include "rng.h"
#include "tmpdir.h"

static struct qcow2_disk *
open_top(const char *name)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;
    struct qcow2_disk *disk;

    disk = qcow2_open(tmpdir_path(name), &options, &err);
    EXPECT(disk, "%s", err.text);
    return disk;
}

static void
expect_shows(struct qcow2_disk *disk, const unsigned char *shows,
             uint64_t size)
{
    unsigned char *got = layers_read(disk);

    expect_same("disk", got, shows, size, 0);
    free(got);
}

/* Puts the disk on no layer at all. */
static void
leave_layers(struct qcow2_disk *disk)
{
    struct qcow2_error err;

    EXPECT_OK(disk_replace_backing(disk, NULL, &err), &err);
    assert_int_equal(qcow2_get_nr_layers(disk), 1);
}

static int
expect_own(void *opaque, const struct qcow2_extent *e)
{
    (void)opaque;
    EXPECT(e->present && e->depth == 0, "at %llu: left to layer %u",
           (unsigned long long)e->guest_off, e->depth);
    return 0;
}

/* Random chains, populated range by range in any order: after each the range
 * is the disk's own, and when all of it is nothing shows from below. */
static void
populate_chain(unsigned nth)
{
    struct rng rng;
    struct layers l;
    struct test_layer *top;
    struct qcow2_disk *disk;
    struct qcow2_error err;

    rng_init(&rng, rng_seed(9), nth);
    tmpdir_clear();
    layers_make(&l, &rng, 2 + rng_below(&rng, 4), false, "t");
    top = layers_top(&l);
    expect_case("chain %u: %s", nth, layers_text(&l));
    disk = open_top(top->name);
    for (unsigned i = 0; i < 6; i++) {
        uint64_t off = rng_below(&rng, top->size);
        uint64_t n = 1 + rng_below(&rng, top->size - off);

        expect_step("populate %llu bytes at %llu", (unsigned long long)n,
                    (unsigned long long)off);
        EXPECT_OK(disk_populate(disk, n, off, &err), &err);
        EXPECT_OK(qcow2_map(disk, n, off, expect_own, NULL, &err), &err);
        expect_shows(disk, top->shows, top->size);
    }
    EXPECT_OK(disk_populate(disk, top->size, 0, &err), &err);
    leave_layers(disk);
    expect_shows(disk, top->shows, top->size);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    layers_expect(top->name, QCOW2_FORMAT_QCOW2, top->shows, top->size);
    layers_free(&l);
}

static void
what_was_populated_shows_nothing_from_below(void **state)
{
    uint64_t nr = env_number("TEST_ROUNDS", 25);

    (void)state;
    for (unsigned i = 0; i < nr; i++)
        populate_chain(i);
}

enum { SIZE = 1 << 20, CLUSTER = 4096 };

static unsigned char *
make_images(void)
{
    unsigned char *shows = malloc(SIZE);
    struct builder *top = builder_new();

    EXPECT(shows, "memory");
    tmpdir_clear();
    pattern_fill(shows, SIZE, 3, 0);
    memset(shows + SIZE / 2, 0, SIZE / 8);
    tmpdir_write_file(tmpdir_path("base"), shows, SIZE);
    builder_add(top, "cluster 4096; size 1M; backing base raw; data 7 1");
    builder_write(top, tmpdir_path("top"));
    builder_overlay(top, -1, shows, SIZE);
    builder_free(top);
    return shows;
}

/* Bytes that were read before a request wrote are not put over what it
 * wrote. */
static void
what_was_written_since_stays(void **state)
{
    unsigned char *shows = make_images();
    unsigned char *old = malloc(SIZE);
    struct qcow2_disk *disk = open_top("top");
    struct qcow2_error err;

    (void)state;
    memcpy(old, shows, SIZE);
    memset(shows + 20 * CLUSTER, 0x5a, 3 * CLUSTER);
    EXPECT_OK(qcow2_pwrite(disk, shows + 20 * CLUSTER, 3 * CLUSTER,
                           20 * CLUSTER, 0, &err), &err);
    memset(shows + 30 * CLUSTER, 0, 2 * CLUSTER);
    EXPECT_OK(qcow2_zero(disk, 2 * CLUSTER, 30 * CLUSTER, 0, &err), &err);
    EXPECT_OK(populate_shown(disk_image(disk), old, SIZE, 0, &err), &err);
    expect_shows(disk, shows, SIZE);
    leave_layers(disk);
    expect_shows(disk, shows, SIZE);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    layers_expect("top", QCOW2_FORMAT_QCOW2, shows, SIZE);
    free(old);
    free(shows);
}

/* Zeroes take no clusters for data, whether tables or bytes tell. */
static void
zeroes_become_zero_clusters(void **state)
{
    unsigned char *shows = make_images();
    struct qcow2_disk *disk = open_top("top");
    uint64_t before, after;
    struct qcow2_error err;

    (void)state;
    EXPECT_OK(io_get_size(disk_image(disk)->io, &before, &err), &err);
    EXPECT_OK(disk_populate(disk, SIZE / 8, SIZE / 2, &err), &err);
    EXPECT_OK(qcow2_map(disk, SIZE / 8, SIZE / 2, expect_own, NULL, &err),
              &err);
    EXPECT_OK(io_get_size(disk_image(disk)->io, &after, &err), &err);
    EXPECT(after <= before + CLUSTER, "the file grew from %llu to %llu",
           (unsigned long long)before, (unsigned long long)after);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    free(shows);
}

struct writer {
    struct qcow2_disk *disk;
    unsigned char *shows;
    unsigned nth, *failed;
    pthread_t thread;
};

enum { NR_WRITERS = 4 };

/* Writes to clusters that are its alone, parts of them too. */
static void *
write_on(void *arg)
{
    struct writer *w = arg;
    struct rng rng;

    rng_init(&rng, rng_seed(10), w->nth);
    for (unsigned i = 0; i < 60; i++) {
        uint64_t cluster = rng_below(&rng, SIZE / CLUSTER / NR_WRITERS)
                           * NR_WRITERS + w->nth;
        uint64_t from = rng_below(&rng, CLUSTER);
        uint64_t n = 1 + rng_below(&rng, CLUSTER - from);
        uint64_t off = cluster * CLUSTER + from;

        memset(w->shows + off, 1 + rng_below(&rng, 255), n);
        if (qcow2_pwrite(w->disk, w->shows + off, n, off, 0, NULL) == -1)
            __atomic_store_n(w->failed, 1, __ATOMIC_RELEASE);
    }
    return NULL;
}

static void *
populate_on(void *arg)
{
    struct writer *w = arg;
    struct rng rng;

    rng_init(&rng, rng_seed(10), w->nth);
    for (unsigned i = 0; i < 40; i++) {
        uint64_t off = rng_below(&rng, SIZE);
        uint64_t n = 1 + rng_below(&rng, SIZE - off);

        if (disk_populate(w->disk, n, off, NULL) == -1)
            __atomic_store_n(w->failed, 1, __ATOMIC_RELEASE);
    }
    return NULL;
}

static void
writers_and_populating_threads_go_together(void **state)
{
    enum { NR = NR_WRITERS + 2 };

    (void)state;
    for (unsigned round = 0; round < 5; round++) {
        unsigned char *shows = make_images();
        struct qcow2_disk *disk = open_top("top");
        struct writer w[NR];
        struct qcow2_error err;
        unsigned failed = 0;

        expect_case("round %u", round);
        for (unsigned i = 0; i < NR; i++) {
            w[i] = (struct writer){ disk, shows, i, &failed, 0 };
            EXPECT(pthread_create(&w[i].thread, NULL,
                                  i < NR_WRITERS ? write_on : populate_on,
                                  &w[i]) == 0, "thread");
        }
        for (unsigned i = 0; i < NR; i++)
            pthread_join(w[i].thread, NULL);
        EXPECT(!failed, "a request failed");
        EXPECT_OK(disk_populate(disk, SIZE, 0, &err), &err);
        leave_layers(disk);
        expect_shows(disk, shows, SIZE);
        EXPECT_OK(qcow2_close(disk, &err), &err);
        layers_expect("top", QCOW2_FORMAT_QCOW2, shows, SIZE);
        free(shows);
    }
}

static void
raw_and_read_only_disks_are_refused(void **state)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    unsigned char *shows = make_images();
    struct qcow2_disk *disk;
    struct qcow2_error err;

    (void)state;
    options.readonly = true;
    disk = qcow2_open(tmpdir_path("top"), &options, &err);
    EXPECT(disk, "%s", err.text);
    assert_int_equal(disk_populate(disk, 1, 0, &err), -1);
    assert_int_equal(err.errnum, EROFS);
    qcow2_close(disk, NULL);
    disk = open_top("top");
    assert_int_equal(disk_populate(disk, 2, SIZE - 1, &err), -1);
    assert_int_equal(err.errnum, EINVAL);
    qcow2_close(disk, NULL);
    options.readonly = false;
    options.format = QCOW2_FORMAT_RAW;
    disk = qcow2_open(tmpdir_path("base"), &options, &err);
    EXPECT(disk, "%s", err.text);
    assert_int_equal(disk_populate(disk, 1, 0, &err), -1);
    assert_int_equal(err.errnum, ENOTSUP);
    qcow2_close(disk, NULL);
    free(shows);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_populated_shows_nothing_from_below),
        cmocka_unit_test(what_was_written_since_stays),
        cmocka_unit_test(zeroes_become_zero_clusters),
        cmocka_unit_test(writers_and_populating_threads_go_together),
        cmocka_unit_test(raw_and_read_only_disks_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
