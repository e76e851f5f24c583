/* SPDX-License-Identifier: BSD-3-Clause */
/* test-bitmaps: power cuts, and failures, while an image with persistent
 * bitmaps is changed. Whatever comes of it, a bitmap that says it is right
 * (not in use, with the feature bit set) knows of all that changed since it
 * was made (I10); and nothing is damaged.
 */
#include <errno.h>
#include <stdlib.h>

#include "builder.h"
#include "check/check.h"
#include "disk/open.h"
#include "expect.h"
#include "io-crash.h"
#include "io-fault.h"
#include "states.h"

enum { C = 512, SIZE = 64 * C };

static const char *const recipes[] = {
    "cluster 512; size 32K; data 0-9 1; zero-alloc 12; compressed 14-15 2;"
    "snapshot 1 s; data 3-4 7",
    "cluster 512; size 32K; compatible 0; data 0-9 1",
};
enum { NR_RECIPES = sizeof recipes / sizeof recipes[0] };

static struct qcow2_disk *
open_disk(struct io *io, bool readonly)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;
    struct qcow2_disk *disk;

    options.readonly = readonly;
    disk = disk_open_io(io, "image", &options, &err);
    EXPECT(disk, "%s", err.text);
    return disk;
}

/* What is done to the disk; errors are for the caller. */
typedef int scene_fn(struct qcow2_disk *disk, struct qcow2_error *err);

static int
write_here_and_there(struct qcow2_disk *disk, struct qcow2_error *err)
{
    return qcow2_pwrite(disk, "changed", 7, 100, 0, err) == -1
           || qcow2_pwrite(disk, "changed", 7, 20 * C, QCOW2_FUA, err) == -1
           || qcow2_pwrite(disk, "changed", 7, 40 * C, 0, err) == -1;
}

static int
zero_and_trim(struct qcow2_disk *disk, struct qcow2_error *err)
{
    return qcow2_zero(disk, C, 0, QCOW2_MAY_TRIM, err) == -1
           || qcow2_zero(disk, 100, 2 * C + 200, 0, err) == -1
           || qcow2_trim(disk, 2 * C, 14 * C, 0, err) == -1;
}

static int
shrink_and_grow(struct qcow2_disk *disk, struct qcow2_error *err)
{
    return qcow2_resize(disk, 5 * C + 100, true, err) == -1
           || qcow2_resize(disk, SIZE, false, err) == -1;
}

static int
take_and_apply(struct qcow2_disk *disk, struct qcow2_error *err)
{
    const struct qcow2_snapshot_create_options o = { .date_sec = 1 };

    return qcow2_snapshot_create(disk, "t", &o, err) == -1
           || qcow2_pwrite(disk, "changed", 7, 5 * C, 0, err) == -1
           || qcow2_snapshot_apply(disk, "t", err) == -1
           || qcow2_pwrite(disk, "changed", 7, 6 * C, 0, err) == -1;
}

static int
change_bitmaps_between_writes(struct qcow2_disk *disk,
                              struct qcow2_error *err)
{
    return qcow2_pwrite(disk, "changed", 7, 5 * C, 0, err) == -1
           || qcow2_bitmap_add(disk, "b", 1024, false, err) == -1
           || qcow2_pwrite(disk, "changed", 7, 7 * C, 0, err) == -1
           || qcow2_bitmap_merge(disk, "b", disk, "fine", err) == -1
           || qcow2_bitmap_enable(disk, "b", false, err) == -1
           || qcow2_bitmap_clear(disk, "b", err) == -1
           || qcow2_pwrite(disk, "changed", 7, 8 * C, 0, err) == -1
           || qcow2_bitmap_remove(disk, "b", err) == -1;
}

static const struct {
    const char *name;
    scene_fn *fn;
} scenes[] = {
    { "writes", write_here_and_there },
    { "zeroes", zero_and_trim },
    { "another size", shrink_and_grow },
    { "snapshots", take_and_apply },
    { "bitmaps", change_bitmaps_between_writes },
};
enum { NR_SCENES = sizeof scenes / sizeof scenes[0] };

struct trial {
    unsigned char before[SIZE];
    struct mem *start;
    unsigned nr_valid, nr_lost, nr_changed; /* states */
};

static void
make_image(struct trial *t, const char *recipe)
{
    struct builder *b = builder_new();
    const unsigned char *bytes;
    struct qcow2_disk *disk;
    struct qcow2_error err;
    size_t nr_bytes;

    memset(t, 0, sizeof *t);
    builder_add(b, "%s", recipe);
    bytes = builder_bytes(b, &nr_bytes);
    t->start = mem_new(bytes, nr_bytes);
    builder_free(b);
    disk = open_disk(io_mem_open(t->start, false), false);
    EXPECT_OK(qcow2_bitmap_add(disk, "fine", 512, false, &err), &err);
    EXPECT_OK(qcow2_bitmap_add(disk, "coarse", 4096, false, &err), &err);
    EXPECT_OK(qcow2_bitmap_add(disk, "off", 512, true, &err), &err);
    EXPECT_OK(qcow2_pread(disk, t->before, SIZE, 0, &err), &err);
    EXPECT_OK(qcow2_close(disk, &err), &err);
}

/* Where the dirty bit is set, the next opening repairs what it is set for. */
static void
expect_no_damage(struct mem *image)
{
    enum { INCOMPATIBLE_AT = 79 };
    const struct qcow2_check_options options = { .repair = 0 };
    struct io *io = io_mem_open(image, true);
    struct qcow2_check_result result;
    struct qcow2_error err;
    uint64_t nr_bytes;

    if (!(mem_bytes(image, &nr_bytes)[INCOMPATIBLE_AT] & 1)) {
        EXPECT_OK(check_io(io, &options, &result, &err), &err);
        EXPECT(result.corruptions == 0, "%d corruptions",
               (int)result.corruptions);
    }
    io_close(io);
}

/* A clean range must read as it did. */
struct comparison {
    const unsigned char *before, *now;
    uint64_t size;
};

static int
compare_clean(void *opaque, uint64_t guest_off, uint64_t nr_bytes, bool dirty)
{
    struct comparison *c = opaque;
    uint64_t end = guest_off + nr_bytes;

    if (end > c->size)
        end = c->size;
    EXPECT(dirty || guest_off >= end
           || memcmp(c->before + guest_off, c->now + guest_off,
                     end - guest_off) == 0,
           "a change is missing behind %d", (int)guest_off);
    return 0;
}

static void
look_at(struct trial *t, struct mem *image)
{
    struct qcow2_disk *disk = open_disk(io_mem_open(image, true), true);
    unsigned char now[SIZE] = { 0 };
    struct comparison c = { t->before, now, qcow2_get_size(disk) };
    struct qcow2_error err;

    if (c.size > SIZE)
        c.size = SIZE;
    EXPECT_OK(qcow2_pread(disk, now, c.size, 0, &err), &err);
    t->nr_changed += memcmp(now, t->before, SIZE) != 0;
    for (unsigned i = 0; i < 2; i++) {
        int r = qcow2_bitmap_dump(disk, i ? "fine" : "coarse", compare_clean,
                                  &c, &err);

        EXPECT(r == 0 || err.errnum == EBUSY, "%s", err.text);
        t->nr_valid += r == 0;
        t->nr_lost += r == -1;
    }
    EXPECT_OK(qcow2_close(disk, &err), &err);
    expect_no_damage(image);
}

static int
check_state(void *opaque, const struct crash_state *state)
{
    expect_step("%s", state->what);
    look_at(opaque, state->image);
    return 0;
}

static void
a_cut_leaves_no_bitmap_that_misses_a_change(void **state)
{
    struct crash_options options = CRASH_OPTIONS_INIT;

    (void)state;
    options.nr_random = options.nr_torn = 10;
    for (unsigned i = 0; i < NR_SCENES * NR_RECIPES; i++) {
        struct qcow2_error err;
        struct crash_log *log;
        struct qcow2_disk *disk;
        struct trial t;

        expect_case("%s; %s", scenes[i % NR_SCENES].name,
                    recipes[i / NR_SCENES]);
        make_image(&t, recipes[i / NR_SCENES]);
        log = crash_log_new(t.start);
        disk = open_disk(io_crash_open(log), false);
        EXPECT_OK(scenes[i % NR_SCENES].fn(disk, &err), &err);
        EXPECT_OK(qcow2_close(disk, &err), &err);
        crash_log_enumerate(log, &options, check_state, &t, NULL);
        EXPECT(t.nr_valid > 0 && t.nr_lost > 0 && t.nr_changed > 0,
               "%u valid, %u lost, %u changed", t.nr_valid, t.nr_lost,
               t.nr_changed);
        crash_log_free(log);
        mem_free(t.start);
    }
}

/* Until nothing fails any more. */
static void
fail_each(unsigned scene, const char *recipe, int errnum, unsigned kinds)
{
    for (unsigned at = 1;; at++) {
        struct fault_plan plan = { .lock = PTHREAD_MUTEX_INITIALIZER };
        struct qcow2_error err;
        struct qcow2_disk *disk;
        struct trial t;
        bool fired;

        make_image(&t, recipe);
        expect_step("operation %u fails with %d", at, errnum);
        disk = open_disk(io_fault_new(io_mem_open(t.start, false), &plan),
                         false);
        fault_arm(&plan, kinds, at, errnum, 0);
        scenes[scene].fn(disk, &err);
        qcow2_close(disk, &err);
        fired = fault_fired(&plan) > 0;
        look_at(&t, t.start);
        mem_free(t.start);
        if (!fired)
            break;
    }
}

static void
a_failure_leaves_no_bitmap_that_misses_a_change(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NR_SCENES; i++) {
        expect_case("%s", scenes[i].name);
        fail_each(i, recipes[0], ENOSPC, FAULT_CHANGE);
        fail_each(i, recipes[0], EIO, FAULT_CHANGE | FAULT_FLUSH);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cut_leaves_no_bitmap_that_misses_a_change),
        cmocka_unit_test(a_failure_leaves_no_bitmap_that_misses_a_change),
    };

    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    states_print();
    return failed;
}
