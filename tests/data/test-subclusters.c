/* SPDX-License-Identifier: BSD-3-Clause */
/* test-subclusters: what requests do to clusters with 32 subclusters: what
 * they copy, and read, and when a cluster gets and loses its place.
 */
#include <errno.h>

#include "disk/open.h"
#include "expect.h"
#include "meta/image.h"
#include "meta/map.h"
#include "request/request.h"
#include "rig.h"
#include "storage/io-open.h"

enum { S = 512, C = 32 * S, SIZE = 8 * C };

#define OVERLAY                                                         \
    "extended-l2; cluster 16K; size 128K; backing base.raw raw;"

struct trial {
    struct rig rig;
};

static void
start(struct trial *t, const char *recipe, bool on_base)
{
    memset(t, 0, sizeof *t);
    rig_init(&t->rig, recipe, on_base ? SIZE : 0);
    rig_open(&t->rig);
}

static void
end(struct trial *t)
{
    rig_close(&t->rig);
    rig_free(&t->rig);
}

static struct image *
image_of(struct trial *t)
{
    return disk_image(t->rig.play.disk);
}

/* What the disk itself has at off. */
static struct mapping
look_up(struct trial *t, uint64_t off)
{
    struct qcow2_error err;
    struct mapping m;

    EXPECT_OK(map_lookup(&image_of(t)->active, off, 1, &m, &err), &err);
    return m;
}

/* The kinds of the subclusters of a cluster: a letter each, as in recipes. */
static const char *
kinds(struct trial *t, unsigned cluster)
{
    static char text[33];

    for (unsigned i = 0; i < 32; i++) {
        struct mapping m = look_up(t, cluster * C + i * S);

        text[i] = m.kind == MAP_DATA ? 'd'
                  : m.kind == MAP_ZERO ? 'z'
                  : m.kind == MAP_COMPRESSED ? 'c' : 'u';
    }
    return text;
}

static void
expect_kinds(struct trial *t, unsigned cluster, const char *want)
{
    char all[33];
    size_t n = strlen(want);

    for (unsigned i = 0; i < 32; i++)
        all[i] = want[i < n ? i : n - 1];
    all[32] = '\0';
    EXPECT(strcmp(kinds(t, cluster), all) == 0, "cluster %u is %s, not %s",
           cluster, kinds(t, cluster), all);
}

static void
write_to(struct trial *t, uint64_t off, uint64_t nr_bytes)
{
    rig_play(&t->rig, OP_WRITE, off, nr_bytes, 0);
}

/* Counts what is done to files that are opened by their name: the base. */
static struct fault_plan base_plan = FAULT_PLAN_INIT;

static bool
matches_all(const struct policy_file *file)
{
    return !policy_is_remote(file);
}

static struct io *
open_counted(const struct policy_file *file, const struct io_open_options *o,
             struct qcow2_error *err)
{
    struct io_open_options plain = *o;
    struct io *io;

    plain.driver = NULL;
    io = io_open(file, &plain, err);
    return io ? io_fault_new(io, &base_plan) : NULL;
}

static const struct io_driver counted = {
    .matches = matches_all, .open = open_counted,
};

static void
whole_subclusters_copy_nothing(void **state)
{
    struct trial t;

    (void)state;
    memset(&t, 0, sizeof t);
    rig_init(&t.rig, OVERLAY, SIZE);
    t.rig.options.driver = &counted;
    rig_open(&t.rig);
    fault_reset_counts(&base_plan);
    write_to(&t, 3 * S, S);
    write_to(&t, C + 30 * S, 5 * S);
    write_to(&t, 9 * S, 2 * S);
    EXPECT(fault_count(&base_plan, FAULT_READ) == 0, "the base was read");
    write_to(&t, 20 * S + 1, S);
    EXPECT(fault_count(&base_plan, FAULT_READ) > 0, "the base was not read");
    expect_kinds(&t, 0, "uuuduuuuudduuuuuuuuuddu");
    expect_kinds(&t, 1, "uuuuuuuuuuuuuuuuuuuuuuuuuuuuuudd");
    expect_kinds(&t, 2, "dddu");
    end(&t);
}

static void
a_cluster_is_filled_in_its_place(void **state)
{
    struct trial t;
    uint64_t place;

    (void)state;
    start(&t, OVERLAY, true);
    write_to(&t, 10, 10);
    place = look_up(&t, 0).host_off;
    for (unsigned i = 1; i < 16; i += 2)
        write_to(&t, i * S + i, 100);
    rig_play(&t.rig, OP_ZERO, 16 * S, 4 * S, 0);
    write_to(&t, 17 * S, S / 2);
    expect_kinds(&t, 0, "ddudududududududzdzzu");
    EXPECT(look_up(&t, 31 * S).host_off == place + 31 * S,
           "the cluster has moved");
    end(&t);
}

/* Only what is data there moves out of a cluster that a snapshot has, too:
 * with the write where both touch, and else by itself. */
static void
shared_clusters_copy_what_is_data(void **state)
{
    static const struct {
        const char *before;
        unsigned first, nr; /* subclusters written */
        const char *after;
        unsigned nr_writes;
    } cases[] = {
        { "d", 9, 1, "d", 1 },
        { "u", 9, 1, "uuuuuuuuudu", 1 },
        { "uuuudddddzzzu", 9, 1, "uuuuddddddzzu", 1 },
        { "dduuudddddzzzdduuuuuuuuuuuuuuuud", 9, 1,
          "dduuudddddzzzdduuuuuuuuuuuuuuuud", 4 },
        { "zzzzddddz", 0, 32, "d", 1 },
        { "dzp", 1, 1, "ddu", 1 },
    };

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char recipe[256];
        struct trial t;
        uint64_t place;

        expect_case("%s", cases[i].before);
        snprintf(recipe, sizeof recipe, OVERLAY "subclusters 1 %s 5;"
                 "snapshot 1 s; data 7 3", cases[i].before);
        start(&t, recipe, true);
        place = look_up(&t, C).host_off;
        write_to(&t, 7 * C, S); /* the L2 table is the disk's by now */
        fault_reset_counts(&t.rig.plan);
        write_to(&t, C + cases[i].first * S, cases[i].nr * S);
        EXPECT(fault_count(&t.rig.plan, FAULT_WRITE) == cases[i].nr_writes,
               "%llu writes, not %u", (unsigned long long)
               fault_count(&t.rig.plan, FAULT_WRITE), cases[i].nr_writes);
        expect_kinds(&t, 1, cases[i].after);
        EXPECT(look_up(&t, C).host_off != place, "the snapshot's cluster was "
               "written to");
        rig_expect_snapshots(&t.rig, t.rig.play.disk);
        end(&t);
    }
}

static void
compressed_clusters_become_data_as_a_whole(void **state)
{
    struct trial t;

    (void)state;
    start(&t, OVERLAY "compressed 1-2 5", true);
    write_to(&t, C + 3 * S, S);
    expect_kinds(&t, 1, "d");
    /* A part of one that is trimmed stays, one that is zeroed is written. */
    rig_play(&t.rig, OP_TRIM, 2 * C + S, 5 * S, 0);
    expect_kinds(&t, 2, "c");
    rig_play(&t.rig, OP_ZERO, 2 * C + S, 5 * S, QCOW2_MAY_TRIM);
    expect_kinds(&t, 2, "d");
    end(&t);
}

static void
the_place_goes_with_the_last_data(void **state)
{
    static const struct {
        enum op_kind kind;
        unsigned flags;
        bool frees;
    } cases[] = {
        { OP_TRIM, 0, true },
        { OP_ZERO, QCOW2_MAY_TRIM, true },
        { OP_ZERO, 0, false },
    };

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct trial t;

        expect_case("%u", i);
        start(&t, OVERLAY "subclusters 1 dduudu 5", true);
        rig_play(&t.rig, cases[i].kind, C, 2 * S, cases[i].flags);
        expect_kinds(&t, 1, "zzuudu");
        EXPECT(look_up(&t, C).has_host, "the place of data was given up");
        rig_play(&t.rig, cases[i].kind, C + 3 * S, 4 * S, cases[i].flags);
        expect_kinds(&t, 1, "zzuzzzzu");
        EXPECT(look_up(&t, C).has_host == !cases[i].frees, "has%s a place",
               cases[i].frees ? "" : " not");
        end(&t);
    }
}

/* Also where nothing was ever written. */
static void
the_place_goes_without_data(void **state)
{
    static const struct {
        enum op_kind kind;
        unsigned flags;
        bool frees;
    } cases[] = {
        { OP_TRIM, 0, true },
        { OP_ZERO, QCOW2_MAY_TRIM, true },
        { OP_ZERO, 0, false },
    };

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct trial t;

        expect_case("%u", i);
        start(&t, "extended-l2; cluster 16K; size 128K; subclusters 1 p 5;"
              "subclusters 2 ppzzdp 5", false);
        rig_play(&t.rig, cases[i].kind, C, 2 * C, cases[i].flags);
        for (unsigned cluster = 1; cluster < 3; cluster++)
            EXPECT(look_up(&t, cluster * C).has_host == !cases[i].frees,
                   "cluster %u has%s a place", cluster,
                   cases[i].frees ? "" : " not");
        end(&t);
    }
}

/* What a power cut may leave of a longer disk, or QEMU of a VM state. */
static void
the_last_cluster_is_zeroed_to_its_end(void **state)
{
    struct trial t;

    (void)state;
    start(&t, "extended-l2; cluster 16K; size 17000; data 0-1 1", false);
    rig_play(&t.rig, OP_TRIM, C, 17000 - C, 0);
    expect_kinds(&t, 1, "z");
    EXPECT(!look_up(&t, C).has_host, "has a place");
    end(&t);
}

static int
zero_fast(struct trial *t, uint64_t off, uint64_t nr_bytes)
{
    struct qcow2_error err;

    return qcow2_zero(t->rig.play.disk, nr_bytes, off, QCOW2_FAST, &err) == 0
               ? 0 : err.errnum;
}

static void
whole_subclusters_are_zeroed_fast(void **state)
{
    struct trial t;

    (void)state;
    start(&t, OVERLAY "data 0-1 1; compressed 2-3 2; data 4-5 3", true);
    EXPECT(zero_fast(&t, C - 3 * S, 5 * S) == 0, "data");
    EXPECT(zero_fast(&t, 2 * C, 2 * C) == 0, "whole compressed clusters");
    EXPECT(zero_fast(&t, 4 * C + 7, S) == ENOTSUP, "a part of data");
    EXPECT(zero_fast(&t, 6 * C + 7, S) == ENOTSUP, "a part of the base");
    expect_kinds(&t, 4, "d");
    expect_kinds(&t, 6, "u");
    rig_play(&t.rig, OP_ZERO, C - 3 * S, 5 * S, 0);
    rig_play(&t.rig, OP_ZERO, 2 * C, 2 * C, 0);
    end(&t);
    start(&t, OVERLAY "compressed 2 2", true);
    EXPECT(zero_fast(&t, 2 * C + S, S) == ENOTSUP, "a part of compressed");
    EXPECT(zero_fast(&t, C + S, C) == ENOTSUP, "that at its end");
    expect_kinds(&t, 1, "u");
    end(&t);
}

/* Its place was given up after the writer had seen it, which therefore holds
 * too little. */
static void
a_place_that_was_lost_is_not_replaced(void **state)
{
    const unsigned char bytes[S] = { 1 };
    struct qcow2_error err;
    struct image *img;
    struct trial t;
    size_t done = 1;

    (void)state;
    start(&t, OVERLAY, true);
    img = image_of(&t);
    pthread_rwlock_rdlock(&img->rwlock);
    EXPECT_OK(image_begin_write(img, &err), &err);
    EXPECT_OK(cow_write(img, bytes, S, 2 * S, true, &done, &err), &err);
    pthread_rwlock_unlock(&img->rwlock);
    EXPECT(done == 0, "%zu bytes were written", done);
    expect_kinds(&t, 0, "u");
    end(&t);
}

static void
preallocation_hides_nothing(void **state)
{
    struct qcow2_error err;
    struct trial t;

    (void)state;
    start(&t, OVERLAY "subclusters 1 uudz 5; zero 2; data 3 4", true);
    EXPECT_OK(qcow2_preallocate(t.rig.play.disk, SIZE, 0,
                                QCOW2_PREALLOC_METADATA, &err), &err);
    play_verify(&t.rig.play);
    expect_kinds(&t, 0, "u");
    expect_kinds(&t, 1, "uudz");
    expect_kinds(&t, 2, "z");
    for (unsigned i = 0; i < 8; i++)
        EXPECT(look_up(&t, i * C).copied, "cluster %u has no place", i);
    /* A write to such a cluster allocates nothing. */
    fault_reset_counts(&t.rig.plan);
    write_to(&t, 5 * S, S);
    EXPECT(fault_count(&t.rig.plan, FAULT_ALL) == 1, "%llu operations",
           (unsigned long long)fault_count(&t.rig.plan, FAULT_ALL));
    end(&t);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_subclusters_copy_nothing),
        cmocka_unit_test(a_cluster_is_filled_in_its_place),
        cmocka_unit_test(shared_clusters_copy_what_is_data),
        cmocka_unit_test(compressed_clusters_become_data_as_a_whole),
        cmocka_unit_test(the_place_goes_with_the_last_data),
        cmocka_unit_test(the_place_goes_without_data),
        cmocka_unit_test(the_last_cluster_is_zeroed_to_its_end),
        cmocka_unit_test(whole_subclusters_are_zeroed_fast),
        cmocka_unit_test(a_place_that_was_lost_is_not_replaced),
        cmocka_unit_test(preallocation_hides_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
