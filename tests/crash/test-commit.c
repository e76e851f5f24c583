/* SPDX-License-Identifier: BSD-3-Clause */
/* test-commit: power cuts during commit. As long as the base is being
 * written, every state of it shows what it held where the overlay leaves
 * that to it. The overlay changes only once all of the base is stable, and
 * in every state of it each cluster is there as it was, or left to the base.
 * And one cut of both files leaves a disk that reads as before, whatever
 * survives of either. CRASH_LONG=1 looks at more states of both.
 */
#include <stdlib.h>

#include "audit.h"
#include "builder.h"
#include "disk/open.h"
#include "expect.h"
#include "io-crash.h"
#include "job/commit.h"
#include "rng.h"
#include "states.h"

/* The smallest geometry, where a few clusters fill tables. */
struct scene {
    const char *name;
    const char *base, *top;
};

static const struct scene scenes[] = {
    { "version 3 with snapshots",
      "cluster 512; refcount-bits 64; size 41000; data 0-9 1; zero 12-13;"
      "compressed 20-22 2; snapshot 1 s; data 3 4",
      "cluster 512; refcount-bits 64; size 41000; data 2-4 5; zero 5-6;"
      "compressed 8-9 6; data 70-72 7; snapshot 1 s; data 2 8; zero 70;"
      "unallocated 9" },
    { "what a snapshot leaves to the base",
      "cluster 1K; size 41000; data 0-9 1; zero 12-13",
      "cluster 512; refcount-bits 8; size 41000; data 30 3; snapshot 1 s;"
      "data 2-4 5; zero 24-25; data 70 7" },
    { "the same in version 2",
      "version 2; cluster 512; size 41000; data 0-5 1",
      "version 2; cluster 512; size 41000; snapshot 1 s size=41000;"
      "data 2-3 5; data 70 7" },
    { "version 2",
      "version 2; cluster 512; size 41000; data 0-9 1",
      "version 2; cluster 512; size 41000; data 2-4 5; compressed 8-9 6;"
      "data 70-72 7" },
    { "larger clusters below",
      "cluster 4K; size 41000; data 0-1 1; compressed 2 3",
      "cluster 1K; size 41000; data 2-4 5; zero 5-6; data 30-32 7" },
    { "the base grows",
      "cluster 512; size 20000; data 0-9 1",
      "cluster 512; size 41000; data 2-4 5; data 70-72 7; zero 50" },
};

struct trial {
    const struct scene *scene;
    struct builder *base, *top;
    struct crash_log *base_log, *top_log;
    uint64_t base_size, size;
    unsigned char *held;    /* what the base showed */
    unsigned char *shows;   /* what the overlay shows: on what the base */
    unsigned char *inverse; /* held, and on the inverse of that */
    uint64_t nr_states;
};

static struct crash_log *
log_of(struct builder *b)
{
    size_t nr_bytes;
    const unsigned char *bytes = builder_bytes(b, &nr_bytes);
    struct mem *mem = mem_new(bytes, nr_bytes);
    struct crash_log *log = crash_log_new(mem);

    mem_free(mem);
    return log;
}

static void
trial_begin(struct trial *t, const struct scene *scene)
{
    memset(t, 0, sizeof *t);
    expect_case("%s", scene->name);
    t->scene = scene;
    t->base = builder_new();
    builder_add(t->base, "%s", scene->base);
    t->top = builder_new();
    builder_add(t->top, "%s", scene->top);
    t->base_log = log_of(t->base);
    t->top_log = log_of(t->top);
    crash_log_share_clock(t->top_log, t->base_log);
    t->base_size = builder_disk_size(t->base, -1);
    t->size = builder_disk_size(t->top, -1);
    t->held = calloc(1, t->size);
    t->shows = calloc(1, t->size);
    builder_overlay(t->base, -1, t->held, t->base_size);
    t->inverse = calloc(1, t->size);
    memcpy(t->shows, t->held, t->size);
    for (uint64_t i = 0; i < t->size; i++)
        t->inverse[i] = ~t->held[i];
    builder_overlay(t->top, -1, t->shows, t->size);
    builder_overlay(t->top, -1, t->inverse, t->size);
}

static void
trial_end(struct trial *t)
{
    print_message("%s: %llu states\n", t->scene->name,
                  (unsigned long long)t->nr_states);
    crash_log_free(t->top_log);
    crash_log_free(t->base_log);
    builder_free(t->base);
    builder_free(t->top);
    free(t->held);
    free(t->shows);
    free(t->inverse);
}

static struct qcow2_disk *
open_disk(struct io *io, bool readonly)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;
    struct qcow2_disk *disk;

    options.readonly = readonly;
    options.backing_none = true;
    disk = disk_open_io(io, "image", &options, &err);
    EXPECT(disk, "%s", err.text);
    return disk;
}

static void
commit(struct trial *t)
{
    struct qcow2_error err;
    struct qcow2_job *job;

    job = commit_new(open_disk(io_crash_open(t->top_log), false),
                     open_disk(io_crash_open(t->base_log), false), true,
                     QCOW2_SNAPSHOTS_KEEP, &err);
    EXPECT(job, "%s", err.text);
    EXPECT_OK(qcow2_job_run(job, NULL, NULL, &err), &err);
    qcow2_job_free(job);
}

static struct audit
expect_no_corruption(const struct crash_state *state)
{
    uint64_t nr_bytes;
    const unsigned char *bytes = mem_bytes(state->image, &nr_bytes);
    struct audit a;

    audit_image(bytes, nr_bytes, &a);
    EXPECT(a.nr_corruptions == (a.lazy ? audit_nr_mendable(&a) : 0),
           "%s: %s", state->what, a.first);
    states_ask_qemu(state->image, a.dirty, bytes[7] == 2);
    return a;
}

static int
check_base(void *opaque, const struct crash_state *state)
{
    struct trial *t = opaque;
    struct qcow2_disk *disk;
    struct qcow2_error err;
    uint64_t size;
    unsigned char *got;

    expect_step("base: %s", state->what);
    expect_no_corruption(state);
    disk = open_disk(io_mem_open(state->image, true), true);
    size = qcow2_get_size(disk);
    EXPECT(size == t->base_size || size == t->size, "%llu bytes",
           (unsigned long long)size);
    got = calloc(1, size > t->size ? size : t->size);
    EXPECT_OK(qcow2_pread(disk, got, size, 0, &err), &err);
    qcow2_close(disk, NULL);
    for (uint64_t i = 0; i < t->size; i++) {
        bool left_to_base = t->shows[i] != t->inverse[i];

        EXPECT(!left_to_base || got[i] == t->held[i], "byte %llu",
               (unsigned long long)i);
    }
    free(got);
    t->nr_states++;
    return 0;
}

static int
check_extent(void *opaque, const struct qcow2_extent *e)
{
    unsigned char *is_there = opaque;

    if (e->present)
        memset(is_there + e->guest_off, 1, e->nr_bytes);
    return 0;
}

/* The snapshot of top shows what it did on the base as that was; below: what
 * the base shows now, NULL: where it has something itself. */
static void
expect_snapshot(struct trial *t, struct qcow2_disk *disk,
                const unsigned char *below)
{
    unsigned char *is_there = calloc(1, t->size), *got = malloc(t->size);
    unsigned char *want = malloc(t->size);
    struct qcow2_disk *s;
    struct qcow2_error err;

    if (qcow2_get_nr_snapshots(disk) > 0) {
        s = qcow2_open_snapshot(disk, "s", &err);
        EXPECT(s, "%s", err.text);
        EXPECT_OK(qcow2_map(s, t->size, 0, check_extent, is_there, &err),
                  &err);
        EXPECT_OK(qcow2_pread(s, got, t->size, 0, &err), &err);
        memcpy(want, t->held, t->size);
        builder_overlay(t->top, 0, want, t->size);
        for (uint64_t i = 0; i < t->size; i++)
            if (!is_there[i])
                got[i] = below ? below[i] : want[i];
        expect_same("snapshot", got, want, t->size, 0);
        qcow2_close(s, NULL);
    }
    free(is_there);
    free(got);
    free(want);
}

static int
check_top(void *opaque, const struct crash_state *state)
{
    struct trial *t = opaque;
    unsigned char *is_there = calloc(1, t->size), *got = malloc(t->size);
    struct qcow2_disk *disk;
    struct qcow2_error err;
    struct audit a;

    expect_step("overlay: %s", state->what);
    a = expect_no_corruption(state);
    /* With the dirty bit the next open finds them; version 2 has none. */
    EXPECT(a.nr_leaks == 0 || a.dirty || builder_version(t->top) == 2,
           "%u leaks that nobody will look for", a.nr_leaks);
    disk = open_disk(io_mem_open(state->image, false), false);
    EXPECT_OK(qcow2_map(disk, t->size, 0, check_extent, is_there, &err),
              &err);
    EXPECT_OK(qcow2_pread(disk, got, t->size, 0, &err), &err);
    for (uint64_t i = 0; i < t->size; i++)
        EXPECT(!is_there[i] || got[i] == t->shows[i], "byte %llu",
               (unsigned long long)i);
    expect_snapshot(t, disk, NULL);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    free(is_there);
    free(got);
    t->nr_states++;
    return 0;
}

static void
no_power_cut_changes_what_is_read(void **state)
{
    struct crash_options options = CRASH_OPTIONS_INIT;

    (void)state;
    options.seed = rng_seed(1);
    for (size_t i = 0; i < sizeof scenes / sizeof scenes[0]; i++) {
        struct trial t;

        trial_begin(&t, &scenes[i]);
        commit(&t);
        crash_log_enumerate(t.base_log, &options, check_base, &t, NULL);
        crash_log_enumerate(t.top_log, &options, check_top, &t, NULL);
        trial_end(&t);
    }
}

/* The overlay on the base: what the one does not have the other shows. */
static void
check_both(struct trial *t, struct mem *top, struct mem *base)
{
    unsigned char *is_there = calloc(1, t->size), *got = malloc(t->size);
    unsigned char *below = calloc(1, t->size);
    struct qcow2_disk *disk = open_disk(io_mem_open(top, true), true), *lower;
    struct qcow2_error err;
    uint64_t size;

    EXPECT_OK(qcow2_map(disk, t->size, 0, check_extent, is_there, &err),
              &err);
    EXPECT_OK(qcow2_pread(disk, got, t->size, 0, &err), &err);
    lower = open_disk(io_mem_open(base, true), true);
    size = qcow2_get_size(lower);
    EXPECT_OK(qcow2_pread(lower, below, size < t->size ? size : t->size, 0,
                          &err), &err);
    qcow2_close(lower, NULL);
    expect_snapshot(t, disk, below);
    qcow2_close(disk, NULL);
    for (uint64_t i = 0; i < t->size; i++)
        if (!is_there[i])
            got[i] = below[i];
    expect_same("disk", got, t->shows, t->size, 0);
    free(is_there);
    free(got);
    free(below);
    t->nr_states++;
}

static void
cut_both_at(struct trial *t, uint64_t moment, unsigned nr_random,
            struct rng *rng)
{
    static const enum crash_survival pairs[][2] = {
        { CRASH_NOTHING, CRASH_NOTHING }, { CRASH_NOTHING, CRASH_ALL },
        { CRASH_ALL, CRASH_NOTHING }, { CRASH_ALL, CRASH_ALL },
        { CRASH_ANY, CRASH_NOTHING }, { CRASH_ANY, CRASH_ANY },
    };

    for (unsigned i = 0; i < 5 + nr_random; i++) {
        const enum crash_survival *pair = pairs[i < 5 ? i : 5];
        struct mem *top, *base;

        expect_step("TEST_SEED=%llu: both at moment %llu, state %u",
                    (unsigned long long)rng_seed(1),
                    (unsigned long long)moment, i);
        top = crash_log_state_at(t->top_log, moment, pair[0], rng);
        base = crash_log_state_at(t->base_log, moment, pair[1], rng);
        check_both(t, top, base);
        mem_free(top);
        mem_free(base);
    }
}

static void
one_cut_of_both_files_changes_nothing_that_is_read(void **state)
{
    unsigned nr_random = states_are_many() ? 1000 : 30;

    (void)state;
    for (size_t i = 0; i < sizeof scenes / sizeof scenes[0]; i++) {
        struct crash_stats stats = { 0 };
        uint64_t end;
        struct trial t;
        struct rng rng;

        rng_init(&rng, rng_seed(1), i);
        trial_begin(&t, &scenes[i]);
        commit(&t);
        end = crash_log_moment(t.base_log);
        for (uint64_t moment = 0; moment <= end; moment++)
            cut_both_at(&t, moment, nr_random, &rng);
        stats.nr_points = stats.nr_sampled = end + 1;
        stats.nr_states = stats.nr_distinct = t.nr_states;
        states_tried(&stats);
        trial_end(&t);
    }
}

/* A backend that notes when which file is written and flushed. */
struct noted {
    struct io io;
    struct io *below;
    struct trace *trace;
    bool is_base;
};

struct trace {
    bool base_dirty;    /* something of the base is not stable */
    bool base_was_written;
    unsigned nr_bad;    /* writes to the overlay meanwhile */
};

static void
note_write(struct noted *n)
{
    if (n->is_base)
        n->trace->base_dirty = n->trace->base_was_written = true;
    else if (n->trace->base_was_written && n->trace->base_dirty)
        n->trace->nr_bad++;
}

static void
noted_close(struct io *io)
{
    io_close(((struct noted *)io)->below);
    free(io->name);
    free(io);
}

static int
noted_preadv(struct io *io, const struct iovec *iov, int nr_iov,
             uint64_t host_off, struct qcow2_error *err)
{
    return io_preadv(((struct noted *)io)->below, iov, nr_iov, host_off, err);
}

static int
noted_pwritev(struct io *io, const struct iovec *iov, int nr_iov,
              uint64_t host_off, struct qcow2_error *err)
{
    note_write((struct noted *)io);
    return io_pwritev(((struct noted *)io)->below, iov, nr_iov, host_off,
                      err);
}

static int
noted_flush(struct io *io, struct qcow2_error *err)
{
    struct noted *n = (struct noted *)io;

    if (n->is_base)
        n->trace->base_dirty = false;
    return io_flush(n->below, err);
}

static int
noted_zero(struct io *io, uint64_t host_off, uint64_t nr_bytes,
           unsigned flags, struct qcow2_error *err)
{
    note_write((struct noted *)io);
    return io_zero(((struct noted *)io)->below, host_off, nr_bytes, flags,
                   err);
}

static int
noted_punch(struct io *io, uint64_t host_off, uint64_t nr_bytes,
            struct qcow2_error *err)
{
    note_write((struct noted *)io);
    return io_punch(((struct noted *)io)->below, host_off, nr_bytes, err);
}

static int
noted_truncate(struct io *io, uint64_t size, struct qcow2_error *err)
{
    note_write((struct noted *)io);
    return io_truncate(((struct noted *)io)->below, size, err);
}

static int
noted_get_size(struct io *io, uint64_t *size, struct qcow2_error *err)
{
    return io_get_size(((struct noted *)io)->below, size, err);
}

static int
noted_get_allocated(struct io *io, uint64_t *nr_bytes,
                    struct qcow2_error *err)
{
    return io_get_allocated(((struct noted *)io)->below, nr_bytes, err);
}

static const struct io_ops noted_ops = {
    .close = noted_close,
    .preadv = noted_preadv,
    .pwritev = noted_pwritev,
    .flush = noted_flush,
    .zero = noted_zero,
    .punch = noted_punch,
    .truncate = noted_truncate,
    .get_size = noted_get_size,
    .get_allocated = noted_get_allocated,
};

static struct io *
note(struct crash_log *log, struct trace *trace, bool is_base)
{
    struct noted *n = calloc(1, sizeof *n);

    n->below = io_crash_open(log);
    n->io = *n->below;
    n->io.ops = &noted_ops;
    n->io.name = strdup(n->below->name);
    n->trace = trace;
    n->is_base = is_base;
    return &n->io;
}

/* Nothing of the base is freed here: what a flush writes last, lowered
 * refcounts, need not be stable. */
static void
the_overlay_changes_when_the_base_is_stable(void **state)
{
    static const struct scene scene = {
        "order", "cluster 512; size 41000; data 0-9 1",
        "cluster 512; size 41000; data 2-4 5; data 70-72 7; zero 30-31"
    };
    struct trace trace = { .nr_bad = 0 };
    struct qcow2_error err;
    struct qcow2_job *job;
    struct trial t;

    (void)state;
    trial_begin(&t, &scene);
    job = commit_new(open_disk(note(t.top_log, &trace, false), false),
                     open_disk(note(t.base_log, &trace, true), false), true,
                     QCOW2_SNAPSHOTS_KEEP, &err);
    EXPECT(job, "%s", err.text);
    EXPECT_OK(qcow2_job_run(job, NULL, NULL, &err), &err);
    qcow2_job_free(job);
    EXPECT(trace.base_was_written && trace.nr_bad == 0, "%u writes",
           trace.nr_bad);
    trial_end(&t);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_power_cut_changes_what_is_read),
        cmocka_unit_test(one_cut_of_both_files_changes_nothing_that_is_read),
        cmocka_unit_test(the_overlay_changes_when_the_base_is_stable),
    };

    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    states_print();
    return failed;
}
