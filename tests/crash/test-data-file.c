/* SPDX-License-Identifier: BSD-3-Clause */
/* test-data-file: power cuts that hit an image and its data file at one moment,
 * whatever survives of either. Each sector is as the last flush left it, or as
 * a later request did, also in a raw data file that is read by itself; the
 * image opens for writing, and has no table that leads elsewhere.
 * CRASH_LONG=1 looks at more states of more sequences; TEST_SEED gives others.
 */
#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "expect.h"
#include "io-crash.h"
#include "rig.h"
#include "states.h"
#include "storage/io-open.h"
#include "tmpdir.h"

static const struct {
    const char *recipe;
    uint64_t backing_bytes;
} scenes[] = {
    { "cluster 512; refcount-bits 64; size 20K; data-file data.raw; data 0-9 1;"
      "zero 12-13; zero-alloc 15; data 30 2", 0 },
    { "cluster 1K; size 20K; data-file data.raw; backing base.raw raw;"
      "data 0-3 1; zero 7", 15000 },
    { "cluster 512; refcount-bits 64; size 20K; data-file data.raw raw;"
      "data 0-39 1", 0 },
    { "cluster 1K; size 20K; data-file data.raw raw", 0 },
    { "cluster 16K; extended-l2; size 100K; data-file data.raw;"
      "backing base.raw raw; subclusters 0 dzup; data 2; zero 3", 80000 },
};

struct trial {
    struct rig rig;
    bool is_raw;
    struct crash_log *image_log, *data_log;
    struct crash_log *events;   /* a file to make moments by */
    struct io *pen;             /* on that */
    struct mem *data;   /* of the state that is looked at; NULL: the log's */
    uint64_t nr_states;
};

/* Of the test that runs. */
static struct trial *now;

static bool
is_data_file(const struct policy_file *file)
{
    return file->name && strcmp(file->name, "data.raw") == 0;
}

static struct io *
open_data_file(const struct policy_file *file,
               const struct io_open_options *o, struct qcow2_error *err)
{
    (void)file, (void)o, (void)err;
    return now->data ? io_mem_open(now->data, false)
                     : io_crash_open(now->data_log);
}

static const struct io_driver driver = {
    .matches = is_data_file, .open = open_data_file,
};

static struct mem *
new_data_file(const struct rig *r)
{
    uint64_t nr_bytes;
    const unsigned char *bytes = builder_data(r->image, &nr_bytes);
    struct mem *m = mem_new(bytes, nr_bytes);
    struct io *io = io_mem_open(m, false);

    EXPECT(io_truncate(io, builder_disk_size(r->image, -1), NULL) == 0, "size");
    io_close(io);
    return m;
}

/* Every event has a moment of its own, whether or not it wrote anything. */
static uint64_t
moment(void *opaque, enum play_event event)
{
    struct trial *t = opaque;

    (void)event;
    EXPECT(io_pwrite(t->pen, "x", 1, 0, NULL) == 0, "pen");
    return crash_log_moment(t->events);
}

static void
trial_begin(struct trial *t, unsigned scene)
{
    struct mem *data;

    memset(t, 0, sizeof *t);
    now = t;
    t->is_raw = strstr(scenes[scene].recipe, "data.raw raw") != NULL;
    rig_init(&t->rig, scenes[scene].recipe, scenes[scene].backing_bytes);
    t->rig.options.driver = &driver;
    rig_start(&t->rig);
    data = new_data_file(&t->rig);
    t->data_log = crash_log_new(data);
    t->image_log = crash_log_new(t->rig.mem);
    t->events = crash_log_new(data);
    crash_log_share_clock(t->image_log, t->data_log);
    crash_log_share_clock(t->events, t->data_log);
    t->pen = io_crash_open(t->events);
    mem_free(data);
    t->rig.play.disk = rig_open_disk(&t->rig, io_crash_open(t->image_log));
    if (strstr(scenes[scene].recipe, "extended-l2"))
        t->rig.play.cluster_size /= 32;
    model_remember(&t->rig.play.model);
    t->rig.play.now = moment;
    t->rig.play.opaque = t;
    t->rig.play.may_keep_trimmed = t->is_raw;
}

static void
trial_end(struct trial *t)
{
    io_close(t->pen);
    crash_log_free(t->events);
    crash_log_free(t->image_log);
    crash_log_free(t->data_log);
    rig_end(&t->rig);
    rig_free(&t->rig);
    tmpdir_clear();
}

static void
expect_legal(const struct trial *t, const char *what, const void *disk,
             uint64_t when)
{
    uint64_t bad;

    EXPECT(model_legal(&t->rig.play.model, disk, when, &bad),
           "%s: sector %llu is neither as flushed nor as written later", what,
           (unsigned long long)bad);
}

static void
expect_sound(struct mem *image)
{
    uint64_t nr_bytes;
    const unsigned char *bytes = mem_bytes(image, &nr_bytes);
    struct audit a;

    audit_image(bytes, nr_bytes, &a);
    EXPECT(a.nr_corruptions == 0, "%s", a.first);
}

static void
check_state(struct trial *t, struct mem *image, uint64_t when)
{
    uint64_t size = t->rig.play.model.size, nr_bytes;
    unsigned char *buf = malloc(size);
    struct qcow2_disk *disk;
    struct qcow2_error err;

    assert_non_null(buf);
    expect_sound(image);
    if (t->is_raw)
        expect_legal(t, "data file", mem_bytes(t->data, &nr_bytes), when);
    disk = rig_open_disk(&t->rig, io_mem_open(image, false));
    EXPECT_OK(qcow2_pread(disk, buf, size, 0, &err), &err);
    expect_legal(t, "disk", buf, when);
    memset(buf, 0x77, size);
    EXPECT_OK(qcow2_pwrite(disk, buf, size, 0, 0, &err), &err);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    expect_sound(image);
    expect_same("rewritten data file", mem_bytes(t->data, &nr_bytes), buf, size,
                0);
    free(buf);
    t->nr_states++;
}

static void
cut_at(struct trial *t, uint64_t when, unsigned nr_random, struct rng *rng)
{
    static const enum crash_survival pairs[][2] = {
        { CRASH_NOTHING, CRASH_NOTHING }, { CRASH_NOTHING, CRASH_ALL },
        { CRASH_ALL, CRASH_NOTHING }, { CRASH_ALL, CRASH_ALL },
        { CRASH_ANY, CRASH_ANY },
    };

    for (unsigned i = 0; i < 4 + nr_random; i++) {
        const enum crash_survival *pair = pairs[i < 4 ? i : 4];
        struct mem *image = crash_log_state_at(t->image_log, when, pair[0],
                                               rng);

        expect_step("TEST_SEED=%llu: both at moment %llu, state %u",
                    (unsigned long long)rng_seed(1), (unsigned long long)when,
                    i);
        t->data = crash_log_state_at(t->data_log, when, pair[1], rng);
        check_state(t, image, when);
        mem_free(image);
        mem_free(t->data);
        t->data = NULL;
    }
}

static void
play_sequence(struct trial *t, struct rng *rng)
{
    struct qcow2_error err;

    for (unsigned k = 0; k < 20; k++) {
        struct op op = play_random(&t->rig.play, rng, 100 + k);

        expect_step("request %u: %s", k, play_text(&op));
        EXPECT_OK(play_op(&t->rig.play, &op, &err), &err);
    }
    EXPECT_OK(qcow2_close(t->rig.play.disk, &err), &err);
}

static void
one_cut_of_both_files_loses_nothing(void **state)
{
    unsigned nr_sequences = states_are_many() ? 12 : 4;
    unsigned nr_random = states_are_many() ? 40 : 6;

    (void)state;
    for (unsigned i = 0; i < sizeof scenes / sizeof scenes[0]; i++) {
        struct crash_stats stats = { 0 };

        for (unsigned n = 0; n < nr_sequences; n++) {
            struct trial t;
            struct rng rng;
            uint64_t end;

            expect_case("%s: sequence %u", scenes[i].recipe, n);
            rng_init(&rng, rng_seed(1), i * 1000 + n);
            trial_begin(&t, i);
            play_sequence(&t, &rng);
            end = crash_log_moment(t.data_log);
            for (uint64_t when = 0; when <= end; when++)
                cut_at(&t, when, nr_random, &rng);
            stats.nr_points += end + 1;
            stats.nr_states += t.nr_states;
            trial_end(&t);
        }
        stats.nr_sampled = stats.nr_points;
        stats.nr_distinct = stats.nr_states;
        states_tried(&stats);
    }
    states_print();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_cut_of_both_files_loses_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
