/* SPDX-License-Identifier: BSD-3-Clause */
/* test-resize.c: what the disk shows after its size changed: never what was
 * hidden past its end by the backing file, a cluster's rest, or tables that
 * reach further than the disk.
 */
#include <errno.h>
#include <stdlib.h>

#include "audit.h"
#include "contents.h"
#include "expect.h"
#include "oracle.h"
#include "rig.h"
#include "tmpdir.h"

enum { BACKING_BYTES = 200000 };

/* An image whose contents are followed. */
struct trial {
    struct rig rig;
    struct contents now;
};

static void
start(struct trial *t, const char *recipe, uint64_t backing_bytes)
{
    expect_case("%s", recipe);
    rig_init(&t->rig, recipe, backing_bytes);
    rig_open(&t->rig);
    contents_read(&t->now, t->rig.play.disk);
}

static void
expect_clean(struct trial *t)
{
    uint64_t nr_bytes;
    const unsigned char *bytes = mem_bytes(t->rig.mem, &nr_bytes);
    struct audit a;

    audit_image(bytes, nr_bytes, &a);
    EXPECT(audit_is_clean(&a), "closed image: %u corruptions (%s), %u "
           "without COPIED, %u leaks%s", a.nr_corruptions, a.first,
           a.nr_uncopied, a.nr_leaks, a.dirty ? ", dirty" : "");
}

static void
finish(struct trial *t)
{
    const char *path = tmpdir_path("image");
    struct qcow2_error err;

    EXPECT_OK(qcow2_close(t->rig.play.disk, &err), &err);
    expect_clean(t);
    mem_save(t->rig.mem, path);
    oracle_expect_clean(path);
    if (t->now.size % 512 == 0)
        oracle_expect_content(path, t->now.disk, t->now.size);
    contents_free(&t->now);
    rig_end(&t->rig);
    rig_free(&t->rig);
}

static void
run(struct trial *t, const struct whole_op *op)
{
    struct qcow2_error err;

    expect_step("%s", whole_text(op));
    EXPECT_OK(whole_run(t->rig.play.disk, &t->now, op, &err), &err);
    whole_model(&t->now, op);
    contents_expect(t->rig.play.disk, &t->now);
}

static void
resize(struct trial *t, uint64_t size)
{
    struct whole_op op = { .kind = WHOLE_RESIZE, .size = size };

    run(t, &op);
}

static void
fill(struct trial *t, uint64_t seed)
{
    struct qcow2_error err;

    pattern_fill(t->now.disk, t->now.size, seed, 0);
    EXPECT_OK(qcow2_pwrite(t->rig.play.disk, t->now.disk, t->now.size, 0, 0,
                           &err), &err);
}

/* Larger and smaller by all kinds of steps. */
static void
change_size(struct trial *t)
{
    static const uint64_t sizes[] = {
        20300, 20480, 20481, 20992, 40000, 39999, 150000, 199999, 250000,
        70000, 69632, 300000, 100, 0, 30000, 512, 64512, 33000, 300032
    };

    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        resize(t, sizes[i]);
        if (i % 4 == 3)
            fill(t, 100 + i);
    }
}

static void
growing_shows_nothing_that_was_hidden(void **state)
{
    static const char *const contents[] = {
        "data 0 1",
        "data 0-9 1; snapshot 1 s; data 2 2",
        "compressed 0-9 1",
        "compressed 0-9 1; snapshot 1 s",
    };
    static const unsigned clusters[] = { 512, 4096, 65536 };
    static const char *const extended[] = {
        "data 0-2 1", "subclusters 0 dz 1; subclusters 1 dddddduzd 2",
        "data 0-2 1; snapshot 1 s; subclusters 1 dzuuuud 2",
        "data 0; compressed 1 1; snapshot 1 s",
    };

    (void)state;
    for (unsigned i = 0; i < 2 * 2 * 3 * 4; i++) {
        unsigned version = 2 + i % 2, content = i / 12;
        bool backing = i / 2 % 2;
        char recipe[256];
        struct trial t;

        if (version == 2 && strstr(contents[content], "snapshot"))
            continue;
        snprintf(recipe, sizeof recipe, "version %u; cluster %u; size 20000;"
                 "%s %s", version, clusters[i / 4 % 3],
                 backing ? "backing base.raw raw;" : "", contents[content]);
        start(&t, recipe, backing ? BACKING_BYTES : 0);
        change_size(&t);
        finish(&t);
    }
    for (unsigned i = 0; i < 2 * 4; i++) {
        char recipe[256];
        struct trial t;

        snprintf(recipe, sizeof recipe, "cluster 16K; extended-l2; size 20000;"
                 "%s %s", i % 2 ? "backing base.raw raw;" : "",
                 extended[i / 2]);
        start(&t, recipe, i % 2 ? BACKING_BYTES : 0);
        change_size(&t);
        finish(&t);
    }
}

/* A loaded VM state, or what an interrupted shrinking left behind. */
static void
tables_that_reach_past_the_end_show_nothing(void **state)
{
    static const char *const recipes[] = {
        "cluster 512; size 10000; data 3 1; data 20-30 2; data 60 3",
        "cluster 512; size 10000; l1-entries 6; data 3 1; data 19-30 2;"
        "data 100 3; compressed 140-144 4; zero 200; data 380 5",
        "cluster 512; size 32768; l1-entries 6; data 3 1; data 64-66 2",
        "cluster 512; size 10000; l1-entries 6; data 3 1; data 19-30 2;"
        "data 100 3; snapshot 1 s size=10000; data 101 6",
        "version 2; cluster 512; size 10000; l1-entries 6; data 3 1;"
        "data 19-30 2; data 100 3; compressed 140-144 4",
        "cluster 512; size 10000; backing base.raw raw; l1-entries 6;"
        "data 3 1; data 20-30 2; data 100 3; unallocated 101",
        "version 2; cluster 512; size 10000; backing base.raw raw;"
        "l1-entries 6; data 3 1; data 20-30 2; data 100 3",
    };
    static const uint64_t sizes[] = { 10300, 13000, 32768, 190000, 300000 };

    (void)state;
    for (unsigned i = 0; i < sizeof recipes / sizeof recipes[0]; i++)
        for (unsigned k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
            struct trial t;

            start(&t, recipes[i], strstr(recipes[i], "backing")
                                      ? BACKING_BYTES : 0);
            resize(&t, sizes[k]);
            resize(&t, sizes[k] + 20000);
            fill(&t, 7);
            finish(&t);
        }
}

/* Another program may grow what we have shrunk. */
static void
qemu_growing_shows_nothing_that_was_cut_off(void **state)
{
    static const char *const recipes[] = {
        "cluster 64K; size 1M; data 0-15 1",
        "cluster 64K; size 1M; compressed 0-15 1",
        "cluster 64K; size 1M; data 0-15 1; snapshot 1 s",
        "cluster 4K; size 1M; data 0-255 1",
    };
    const char *path = tmpdir_path("image");

    (void)state;
    oracle_or_skip();
    for (unsigned i = 0; i < sizeof recipes / sizeof recipes[0]; i++) {
        struct whole_op grow = { .kind = WHOLE_RESIZE, .size = 1 << 20 };
        struct qcow2_error err;
        struct trial t;

        start(&t, recipes[i], 0);
        resize(&t, 100 * 512);
        EXPECT_OK(qcow2_close(t.rig.play.disk, &err), &err);
        expect_clean(&t);
        mem_save(t.rig.mem, path);
        EXPECT(oracle_run("qemu-img resize -q -f qcow2 '%s' 1M", path) == 0,
               "qemu-img resize");
        whole_model(&t.now, &grow);
        oracle_expect_content(path, t.now.disk, t.now.size);
        contents_free(&t.now);
        rig_end(&t.rig);
        rig_free(&t.rig);
    }
}

static void
snapshots_bring_their_size_back(void **state)
{
    static const struct whole_op ops[] = {
        { .kind = WHOLE_CREATE, .number = 1, .vm_state_size = 100000 },
        { .kind = WHOLE_RESIZE, .size = 300000 },
        { .kind = WHOLE_CREATE, .number = 2 },
        { .kind = WHOLE_RESIZE, .size = 5000 },
        { .kind = WHOLE_CREATE, .number = 3, .vm_state_size = 1 },
        { .kind = WHOLE_APPLY, .i = 1 },
        { .kind = WHOLE_APPLY, .i = 0 },
        { .kind = WHOLE_RESIZE, .size = 400000 },
        { .kind = WHOLE_APPLY, .i = 2 },
        { .kind = WHOLE_DELETE, .i = 1 },
        { .kind = WHOLE_RESIZE, .size = 0 },
        { .kind = WHOLE_CREATE, .number = 4, .vm_state_size = 60000 },
        { .kind = WHOLE_CREATE, .number = 5 },
        { .kind = WHOLE_APPLY, .i = 0 },
        { .kind = WHOLE_APPLY, .i = 2 },
        { .kind = WHOLE_DELETE, .i = 2 },
        { .kind = WHOLE_RESIZE, .size = 30000 },
    };
    struct trial t;

    (void)state;
    start(&t, "cluster 512; size 41000; backing base.raw raw; data 0-9 1",
          BACKING_BYTES);
    for (unsigned i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        run(&t, &ops[i]);
        if (t.now.size > 0)
            fill(&t, i);
    }
    finish(&t);
}

static void
expect_refused(int r, const struct qcow2_error *err, int errnum)
{
    EXPECT(r == -1 && err->errnum == errnum, "returned %d, errno %d: %s", r,
           r == -1 ? err->errnum : 0, r == -1 ? err->text : "");
}

static void
sizes_have_limits(void **state)
{
    uint64_t most = UINT64_C(128) << 30; /* of clusters of 512 bytes */
    struct qcow2_disk *disk;
    struct qcow2_error err;
    struct trial t;

    (void)state;
    start(&t, "cluster 512; size 41000; data 0-9 1", 0);
    disk = t.rig.play.disk;
    expect_refused(qcow2_resize(disk, 40999, false, &err), &err, EINVAL);
    expect_refused(qcow2_resize(disk, most + 1, false, &err), &err, EINVAL);
    expect_refused(qcow2_resize(disk, UINT64_MAX, true, &err), &err, EINVAL);
    contents_expect(disk, &t.now);
    EXPECT_OK(qcow2_resize(disk, most, false, &err), &err);
    EXPECT_OK(qcow2_pwrite(disk, "end", 3, most - 3, QCOW2_FUA, &err), &err);
    resize(&t, 41000);
    finish(&t);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(growing_shows_nothing_that_was_hidden),
        cmocka_unit_test(tables_that_reach_past_the_end_show_nothing),
        cmocka_unit_test(qemu_growing_shows_nothing_that_was_cut_off),
        cmocka_unit_test(snapshots_bring_their_size_back),
        cmocka_unit_test(sizes_have_limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
