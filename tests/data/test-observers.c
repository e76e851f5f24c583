/* SPDX-License-Identifier: BSD-3-Clause */
/* test-observers.c: every byte that a disk shows differently after a request,
 * an operation or a job lies in a change that its observers saw.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "builder.h"
#include "disk/disk-ops.h"
#include "disk/open.h"
#include "expect.h"
#include "io-fault.h"
#include "io-mem.h"
#include "job/commit.h"
#include "job/convert.h"
#include "job/rebase.h"
#include "rng.h"
#include "tmpdir.h"

enum { MAX_BYTES = 400000, ALL_KINDS = 5 };

static const struct qcow2_snapshot_create_options no_options;

struct watch {
    struct write_observer o;        /* first */
    pthread_mutex_t lock;
    unsigned char seen[MAX_BYTES];  /* since it was last compared */
    unsigned nr_before, nr_done, nr_failed;
    unsigned nr_of_kind[ALL_KINDS];
    int refuse;                     /* errnum; 0: nothing is refused */
    struct fault_plan *plan;        /* of the disk's file; or NULL */
    uint64_t nr_writes_before;      /* when the last change began, */
    uint64_t nr_writes_done;        /* and when it was done */
};

static int
watch_before(struct write_observer *o, const struct guest_change *c,
             struct qcow2_error *err)
{
    struct watch *w = (struct watch *)o;

    if (w->refuse) {
        if (err)
            *err = (struct qcow2_error){ .errnum = w->refuse };
        return -1;
    }
    pthread_mutex_lock(&w->lock);
    w->nr_before++;
    w->nr_of_kind[c->kind]++;
    for (uint64_t i = 0; i < c->nr_bytes; i++)
        if (c->guest_off + i < MAX_BYTES)
            w->seen[c->guest_off + i] = 1;
    if (w->plan)
        w->nr_writes_before = fault_count(w->plan, FAULT_CHANGE);
    pthread_mutex_unlock(&w->lock);
    return 0;
}

static void
watch_done(struct write_observer *o, const struct guest_change *c, int result)
{
    struct watch *w = (struct watch *)o;

    (void)c;
    pthread_mutex_lock(&w->lock);
    w->nr_done++;
    w->nr_failed += result == -1;
    if (w->plan)
        w->nr_writes_done = fault_count(w->plan, FAULT_CHANGE);
    pthread_mutex_unlock(&w->lock);
}

static struct watch *
watch_new(struct qcow2_disk *disk)
{
    struct watch *w = calloc(1, sizeof *w);

    w->o.before = watch_before;
    w->o.done = watch_done;
    pthread_mutex_init(&w->lock, NULL);
    disk_observe(disk, &w->o);
    return w;
}

/* A disk that is watched, and what it showed last. */
struct scene {
    struct mem *mem;
    struct fault_plan plan;
    struct qcow2_disk *disk;
    struct watch *watch;
    unsigned char *was;
    uint64_t size;
};

static unsigned char *
read_all(struct qcow2_disk *disk, uint64_t *size)
{
    unsigned char *bytes;
    struct qcow2_error err;

    *size = qcow2_get_size(disk);
    assert_true(*size <= MAX_BYTES);
    bytes = calloc(1, MAX_BYTES);
    EXPECT_OK(qcow2_pread(disk, bytes, *size, 0, &err), &err);
    return bytes;
}

/* recipe NULL: a raw disk. */
static void
begin(struct scene *s, const char *recipe, struct qcow2_options options)
{
    struct qcow2_error err;

    *s = (struct scene){ .plan = FAULT_PLAN_INIT };
    s->mem = recipe ? mem_from_recipe(recipe) : mem_new(NULL, 100000);
    options.format = recipe ? QCOW2_FORMAT_QCOW2 : QCOW2_FORMAT_RAW;
    s->disk = disk_open_io(io_fault_new(io_mem_open(s->mem, false), &s->plan),
                           tmpdir_path("image"), &options, &err);
    EXPECT(s->disk, "%s", err.text);
    s->was = read_all(s->disk, &s->size);
    s->watch = watch_new(s->disk);
}

static void
end(struct scene *s)
{
    struct qcow2_error err;

    if (s->disk)
        EXPECT_OK(qcow2_close(s->disk, &err), &err);
    mem_free(s->mem);
    free(s->was);
    free(s->watch);
}

/* What disk shows differently from before was seen. */
static void
compare(struct scene *s, struct qcow2_disk *disk)
{
    uint64_t size, end;
    unsigned char *now = read_all(disk, &size);

    end = size > s->size ? size : s->size;
    for (uint64_t i = 0; i < end; i++)
        EXPECT(s->watch->seen[i] || (now[i] == s->was[i] && i < size
                                     && i < s->size),
               "byte %llu changed unseen", (unsigned long long)i);
    EXPECT(s->watch->nr_before == s->watch->nr_done, "%u began, %u ended",
           s->watch->nr_before, s->watch->nr_done);
    memset(s->watch->seen, 0, sizeof s->watch->seen);
    free(s->was);
    s->was = now;
    s->size = size;
}

/* Requests and operations at random. */

static void
resize_or_snapshot(struct scene *s, struct rng *rng)
{
    bool image = qcow2_get_format(s->disk) == QCOW2_FORMAT_QCOW2;
    struct qcow2_error err;

    switch (rng_below(rng, image ? 3 : 1)) {
    case 0:
        expect_step("resize");
        /* Version 2 is not resized with snapshots. */
        if (qcow2_resize(s->disk, 512 * (1 + rng_below(rng, 700)), true, &err)
            == -1)
            EXPECT(err.errnum == ENOTSUP, "%s", err.text);
        break;
    case 1:
        expect_step("create a snapshot");
        qcow2_snapshot_delete(s->disk, "s", NULL);
        EXPECT_OK(qcow2_snapshot_create(s->disk, "s", &no_options, &err),
                  &err);
        break;
    case 2:
        expect_step("apply a snapshot");
        qcow2_snapshot_apply(s->disk, "s", NULL);
        break;
    }
}

static void
request(struct scene *s, struct rng *rng)
{
    static unsigned char buf[MAX_BYTES];
    uint64_t off = rng_below(rng, s->size);
    uint64_t n = 1 + rng_below(rng, rng_below(rng, 4) ? 9000 : s->size);
    unsigned flags = rng_below(rng, 2) ? QCOW2_MAY_TRIM : 0;
    struct qcow2_error err;

    n = n > s->size - off ? s->size - off : n;
    memset(buf, rng_below(rng, 4), n);
    switch (rng_below(rng, 3)) {
    case 0:
        expect_step("write");
        EXPECT_OK(qcow2_pwrite(s->disk, buf, n, off, 0, &err), &err);
        break;
    case 1:
        expect_step("zero");
        EXPECT_OK(qcow2_zero(s->disk, n, off, flags, &err), &err);
        break;
    case 2:
        expect_step("trim");
        EXPECT_OK(qcow2_trim(s->disk, n, off, 0, &err), &err);
        break;
    }
}

static const char *const recipes[] = {
    "cluster 512; size 41000; backing below qcow2; data 2-4 5; zero 7;"
    "compressed 8-9 6",
    "cluster 4K; size 300000; data 2-4 5",
    "version 2; cluster 1K; size 41000; data 2-4 5",
    NULL,
};
enum { NR_RECIPES = sizeof recipes / sizeof recipes[0] };

static void
changes_by_requests_and_operations_are_seen(void **state)
{
    (void)state;
    builder_make(tmpdir_path("below"),
                 "cluster 512; size 60000; data 0-9 1; data 70-99 2");
    for (int i = 0; i < 2 * NR_RECIPES; i++) {
        struct qcow2_options options = QCOW2_OPTIONS_INIT;
        struct scene s;
        struct rng rng;

        expect_case("disk %d", i);
        rng_init(&rng, 7, i);
        options.detect_zeroes = i < NR_RECIPES ? QCOW2_DETECT_ZEROES_OFF
                                               : QCOW2_DETECT_ZEROES_UNMAP;
        begin(&s, recipes[i % NR_RECIPES], options);
        for (int step = 0; step < 120; step++) {
            if (rng_below(&rng, 8) == 0)
                resize_or_snapshot(&s, &rng);
            else
                request(&s, &rng);
            compare(&s, s.disk);
        }
        EXPECT(s.watch->nr_failed == 0, "%u", s.watch->nr_failed);
        end(&s);
    }
}

/* Jobs. */

static void
run(struct qcow2_job *job, const struct qcow2_error *why)
{
    struct qcow2_error err;

    EXPECT(job, "%s", why->text);
    EXPECT_OK(qcow2_job_run(job, NULL, NULL, &err), &err);
    qcow2_job_free(job);
}

/* The disk that was the job's, anew. */
static void
compare_anew(struct scene *s)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;

    options.format = QCOW2_FORMAT_QCOW2;
    options.readonly = true;
    s->disk = disk_open_io(io_mem_open(s->mem, true), tmpdir_path("image"),
                           &options, &err);
    EXPECT(s->disk, "%s", err.text);
    compare(s, s->disk);
}

static void
what_a_commit_writes_to_its_base_is_seen(void **state)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct mem *m = mem_from_recipe(
        "cluster 512; size 41000; data 2-4 5; zero 5-6; compressed 8-9 6");
    struct qcow2_error err = { .errnum = 0 };
    struct qcow2_disk *top;
    struct scene s;

    (void)state;
    begin(&s, "cluster 1K; size 30000; data 0-9 1", options);
    options.format = QCOW2_FORMAT_QCOW2;
    top = disk_open_io(io_mem_open(m, false), tmpdir_path("top"), &options,
                       &err);
    run(commit_new(top, s.disk, true, QCOW2_SNAPSHOTS_KEEP, &err), &err);
    assert_true(s.watch->nr_of_kind[CHANGE_WRITE] > 0);
    assert_true(s.watch->nr_of_kind[CHANGE_ZERO] > 0);
    compare_anew(&s);
    end(&s);
    mem_free(m);
}

/* It reads as it did, but as to its own clusters it is changed. */
static void
what_a_rebase_writes_is_seen(void **state)
{
    const struct qcow2_rebase_options rebase = {
        .backing = "below", .backing_format = QCOW2_FORMAT_QCOW2,
    };
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err = { .errnum = 0 };
    struct qcow2_disk *below;
    struct scene s;

    (void)state;
    builder_make(tmpdir_path("below"),
                 "cluster 512; size 60000; data 0-9 1; data 70-99 2");
    begin(&s, "cluster 1K; size 41000; data 2-4 5", options);
    options.readonly = true;
    below = qcow2_open(tmpdir_path("below"), &options, &err);
    run(rebase_new(s.disk, below, &rebase, &err), &err);
    assert_true(s.watch->nr_of_kind[CHANGE_ZERO] > 0);
    memset(s.watch->seen, 0, sizeof s.watch->seen); /* nothing differs */
    compare_anew(&s);
    end(&s);
}

static void
compressed_clusters_of_a_convert_are_seen(void **state)
{
    const struct qcow2_convert_options convert = {
        .no_create = true, .format = QCOW2_FORMAT_QCOW2, .compress = true,
    };
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err = { .errnum = 0 };
    struct qcow2_disk *source;
    struct scene s;

    (void)state;
    builder_make(tmpdir_path("source"),
                 "cluster 1K; size 41000; data 2-12 1; data 20-30 3");
    begin(&s, "cluster 1K; size 41000; data 0-10 5", options);
    options.readonly = true;
    source = qcow2_open(tmpdir_path("source"), &options, &err);
    run(convert_new(&source, 1, s.disk, &convert, &err), &err);
    assert_true(s.watch->nr_of_kind[CHANGE_WRITE_COMPRESSED] > 0);
    compare_anew(&s);
    end(&s);
    qcow2_close(source, NULL);
}

/* What observers may rely on. */

static void
a_refused_change_changes_nothing(void **state)
{
    (void)state;
    for (int i = 1; i < NR_RECIPES; i++) {
        struct qcow2_options options = QCOW2_OPTIONS_INIT;
        struct watch *first;
        struct qcow2_error err;
        struct scene s;

        begin(&s, recipes[i], options);
        first = watch_new(s.disk); /* called before the other one */
        s.watch->refuse = EPERM;
        assert_int_equal(qcow2_pwrite(s.disk, "x", 1, 0, 0, &err), -1);
        assert_int_equal(err.errnum, EPERM);
        assert_int_equal(qcow2_zero(s.disk, s.size, 0, 0, &err), -1);
        assert_int_equal(qcow2_trim(s.disk, s.size, 0, 0, &err), -1);
        assert_int_equal(qcow2_resize(s.disk, 512, true, &err), -1);
        assert_int_equal(err.errnum, EPERM);
        if (recipes[i]) {
            EXPECT_OK(qcow2_snapshot_create(s.disk, "s", &no_options, &err),
                      &err);
            assert_int_equal(qcow2_snapshot_apply(s.disk, "s", &err), -1);
        }
        assert_int_equal(first->nr_failed, first->nr_before);
        assert_true(first->nr_failed >= 4);
        assert_int_equal(s.watch->nr_done, 0);
        compare(&s, s.disk);
        disk_unobserve(s.disk, &first->o);
        end(&s);
        free(first);
    }
}

static void
a_change_is_made_between_the_two_calls(void **state)
{
    (void)state;
    for (int i = 1; i < NR_RECIPES; i++) {
        struct qcow2_options options = QCOW2_OPTIONS_INIT;
        struct scene s;

        begin(&s, recipes[i], options);
        s.watch->plan = &s.plan;
        fault_reset_counts(&s.plan);
        assert_int_equal(qcow2_pwrite(s.disk, "x", 1, 20000, 0, NULL), 0);
        assert_true(s.watch->nr_writes_done > s.watch->nr_writes_before);
        assert_int_equal(fault_count(&s.plan, FAULT_CHANGE),
                         s.watch->nr_writes_done);
        end(&s);
    }
}

static void
a_change_that_fails_is_reported_as_such(void **state)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct scene s;

    (void)state;
    begin(&s, recipes[1], options);
    assert_int_equal(qcow2_pwrite(s.disk, "x", 1, 0, 0, NULL), 0);
    fault_arm(&s.plan, FAULT_WRITE, 1, EIO, FAULT_ONCE);
    assert_int_equal(qcow2_pwrite(s.disk, "x", 1, 0, 0, NULL), -1);
    assert_int_equal(s.watch->nr_failed, 1);
    assert_int_equal(s.watch->nr_done, s.watch->nr_before);
    end(&s);
}

static void
an_observer_that_left_is_not_called(void **state)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct watch *second, *third;
    struct scene s;

    (void)state;
    begin(&s, recipes[1], options);
    second = watch_new(s.disk);
    third = watch_new(s.disk);
    disk_unobserve(s.disk, &second->o);
    assert_int_equal(qcow2_pwrite(s.disk, "x", 1, 0, 0, NULL), 0);
    assert_int_equal(second->nr_before + second->nr_done, 0);
    assert_int_equal(third->nr_done, 1);
    assert_int_equal(s.watch->nr_done, 1);
    disk_unobserve(s.disk, &s.watch->o);
    disk_unobserve(s.disk, &third->o);
    assert_int_equal(qcow2_pwrite(s.disk, "x", 1, 0, 0, NULL), 0);
    assert_int_equal(third->nr_done, 1);
    end(&s);
    free(second);
    free(third);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(changes_by_requests_and_operations_are_seen),
        cmocka_unit_test(what_a_commit_writes_to_its_base_is_seen),
        cmocka_unit_test(what_a_rebase_writes_is_seen),
        cmocka_unit_test(compressed_clusters_of_a_convert_are_seen),
        cmocka_unit_test(a_refused_change_changes_nothing),
        cmocka_unit_test(a_change_is_made_between_the_two_calls),
        cmocka_unit_test(a_change_that_fails_is_reported_as_such),
        cmocka_unit_test(an_observer_that_left_is_not_called),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
