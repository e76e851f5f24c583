/* SPDX-License-Identifier: BSD-3-Clause */
/* test-rebase: rebase over random chains: the overlay reads as before on the
 * new backing file, also when the operation fails or is killed anywhere; and
 * no power cut shows a header that is neither the old nor the new one.
 * TEST_ROUNDS and TEST_SEED make longer and other runs.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "audit.h"
#include "disk/open.h"
#include "expect.h"
#include "format/header.h"
#include "io-crash.h"
#include "io-fault.h"
#include "job/rebase.h"
#include "layers.h"
#include "oracle.h"
#include "tmpdir.h"

struct trial {
    struct rng rng;
    struct layers chain, other;
    const struct test_layer *to; /* NULL: nothing */
    struct qcow2_rebase_options options;
};

/* Rebases to nothing, to a file of the same chain, or to another chain. */
static void
trial_begin(struct trial *t, uint64_t seed, unsigned round)
{
    const struct test_layer *to = NULL;

    tmpdir_clear();
    rng_init(&t->rng, seed, round);
    layers_make(&t->chain, &t->rng,
                1 + rng_below(&t->rng, MAX_TEST_LAYERS),
                rng_percent(&t->rng, 50), "l");
    layers_make(&t->other, &t->rng, 1 + rng_below(&t->rng, 2), false, "n");
    memset(&t->options, 0, sizeof t->options);
    if (rng_percent(&t->rng, 30) && t->chain.nr > 1)
        to = &t->chain.layer[rng_below(&t->rng, t->chain.nr - 1)];
    else if (rng_percent(&t->rng, 75))
        to = layers_top(&t->other);
    if (to) {
        t->options.backing = to->name;
        t->options.backing_format = to->raw ? QCOW2_FORMAT_RAW
                                            : QCOW2_FORMAT_QCOW2;
    }
    t->to = to;
    t->options.snapshots = rng_percent(&t->rng, 70) ? QCOW2_SNAPSHOTS_KEEP
                                                    : QCOW2_SNAPSHOTS_CHANGE;
    expect_case("seed %llu round %u: rebase %s to %s, snapshots %s",
                (unsigned long long)seed, round, layers_text(&t->chain),
                to ? to->name : "nothing",
                t->options.snapshots == QCOW2_SNAPSHOTS_KEEP ? "stay"
                                                             : "change");
}

static void
trial_end(struct trial *t)
{
    layers_free(&t->chain);
    layers_free(&t->other);
}

static struct qcow2_job *
begin_by_path(const char *name, const struct qcow2_rebase_options *rebase,
              struct qcow2_error *err)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;

    return qcow2_rebase(tmpdir_path(name), &options, rebase, err);
}

static void
rebase_by_path(const char *name, const struct qcow2_rebase_options *rebase)
{
    struct qcow2_error err;
    struct qcow2_job *job = begin_by_path(name, rebase, &err);

    EXPECT(job, "%s", err.text);
    EXPECT_OK(qcow2_job_run(job, NULL, NULL, &err), &err);
    qcow2_job_free(job);
}

static void
expect_backing(const char *name, const char *backing, const char *format)
{
    struct qcow2_error err;
    struct header h;
    struct io *io = io_file_open(tmpdir_path(name), -1, true, IO_LOCK_NONE,
                                 &err);

    EXPECT(io, "%s", err.text);
    EXPECT_OK(header_read(io, &h, &err), &err);
    io_close(io);
    if (backing) {
        EXPECT(h.backing_file && strcmp(h.backing_file, backing) == 0,
               "backing file %s", h.backing_file ? h.backing_file : "-");
        EXPECT(h.backing_format && strcmp(h.backing_format, format) == 0,
               "backing format %s", h.backing_format ? h.backing_format
                                                     : "-");
    } else {
        EXPECT(!h.backing_file && !h.backing_format, "backing file %s",
               h.backing_file ? h.backing_file : "-");
    }
    header_free(&h);
}

/* The overlay, on whichever file it names, reads as ever. */
static void
expect_intact(struct trial *t)
{
    struct test_layer *top = layers_top(&t->chain);
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct audit a;
    struct qcow2_error err;
    struct qcow2_disk *disk;
    size_t nr_bytes;
    unsigned char *bytes;

    bytes = tmpdir_read_file(tmpdir_path(top->name), &nr_bytes);
    audit_image(bytes, nr_bytes, &a);
    free(bytes);
    EXPECT(a.nr_corruptions == 0, "%s", a.first);
    options.readonly = true;
    disk = qcow2_open(tmpdir_path(top->name), &options, &err);
    EXPECT(disk, "%s", err.text);
    bytes = layers_read(disk);
    expect_same("overlay", bytes, top->shows, top->size, 0);
    free(bytes);
    qcow2_close(disk, NULL);
}

/* What the snapshots read where they have nothing themselves. */
static const unsigned char *
old_shows(const struct trial *t)
{
    return t->chain.nr > 1 ? t->chain.layer[t->chain.nr - 2].shows : NULL;
}

static uint64_t
old_size(const struct trial *t)
{
    return t->chain.nr > 1 ? t->chain.layer[t->chain.nr - 2].size : 0;
}

static void
expect_rebased(struct trial *t)
{
    struct test_layer *top = layers_top(&t->chain);

    expect_backing(top->name, t->options.backing,
                   t->options.backing_format == QCOW2_FORMAT_RAW ? "raw"
                                                                 : "qcow2");
    layers_expect(top->name, QCOW2_FORMAT_QCOW2, top->shows, top->size);
    if (!t->chain.snapshots)
        return;
    if (t->options.snapshots == QCOW2_SNAPSHOTS_CHANGE)
        layers_expect_snapshots(&t->chain, t->to ? t->to->shows : NULL,
                                t->to ? t->to->size : 0);
    else
        layers_expect_snapshots(&t->chain, old_shows(t), old_size(t));
}

/* Exactly where a snapshot would read differently; and nothing is changed. */
static void
without_leave_no_snapshot_changes(void **state)
{
    uint64_t seed = rng_seed(4);
    unsigned rounds = env_number("TEST_ROUNDS", 60), nr_refused = 0;

    (void)state;
    for (unsigned i = 0; i < rounds; i++) {
        unsigned char *before, *after;
        struct test_layer *top;
        struct qcow2_error err;
        struct qcow2_job *job;
        size_t nr_before, nr_after;
        struct trial t;

        trial_begin(&t, seed, i);
        top = layers_top(&t.chain);
        before = tmpdir_read_file(tmpdir_path(top->name), &nr_before);
        t.options.snapshots = QCOW2_SNAPSHOTS_REFUSE;
        job = begin_by_path(top->name, &t.options, &err);
        EXPECT(job, "%s", err.text);
        if (layers_snapshots_differ(&t.chain, old_shows(&t), old_size(&t),
                                    t.to ? t.to->shows : NULL,
                                    t.to ? t.to->size : 0)) {
            EXPECT(qcow2_job_run(job, NULL, NULL, &err) == -1, "no refusal");
            EXPECT(err.errnum == ENOTEMPTY
                   && err.hints == QCOW2_HINT_SNAPSHOTS, "%s", err.text);
            qcow2_job_free(job);
            after = tmpdir_read_file(tmpdir_path(top->name), &nr_after);
            EXPECT(nr_before == nr_after
                   && memcmp(before, after, nr_after) == 0, "it changed");
            free(after);
            nr_refused++;
        } else {
            EXPECT_OK(qcow2_job_run(job, NULL, NULL, &err), &err);
            qcow2_job_free(job);
            expect_rebased(&t);
        }
        free(before);
        trial_end(&t);
    }
    EXPECT(nr_refused > 0 && nr_refused < rounds, "%u refused", nr_refused);
}

static void
the_overlay_reads_the_same(void **state)
{
    uint64_t seed = rng_seed(1);
    unsigned rounds = env_number("TEST_ROUNDS", 60);

    (void)state;
    for (unsigned i = 0; i < rounds; i++) {
        struct trial t;

        trial_begin(&t, seed, i);
        rebase_by_path(layers_top(&t.chain)->name, &t.options);
        expect_rebased(&t);
        trial_end(&t);
    }
}

/* What both backing files have alike is not copied. */
static void
only_differences_are_copied(void **state)
{
    struct qcow2_rebase_options options = {
        .backing = "new", .backing_format = QCOW2_FORMAT_QCOW2,
    };
    struct audit a;
    size_t nr_bytes;
    unsigned char *bytes;

    (void)state;
    tmpdir_clear();
    expect_case("differences");
    builder_make(tmpdir_path("old"), "cluster 4K; size 1M; data 0-99 1");
    builder_make(tmpdir_path("new"), "cluster 8K; size 1M; data 0-19 1;"
                 "data 20 3; data 21-49 1; data 60 5");
    builder_make(tmpdir_path("top"), "cluster 4K; size 1M;"
                 "backing old qcow2; data 3 7");
    rebase_by_path("top", &options);
    bytes = tmpdir_read_file(tmpdir_path("top"), &nr_bytes);
    audit_image(bytes, nr_bytes, &a);
    free(bytes);
    /* 3, and 40 and 41; 120 and 121 become zero clusters. */
    EXPECT(a.nr_data == 3, "%llu clusters", (unsigned long long)a.nr_data);
}

static struct qcow2_job *
rebase_with_faults(struct trial *t, struct fault_plan *plan,
                   struct qcow2_error *err)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    const char *path = tmpdir_path(layers_top(&t->chain)->name);
    struct qcow2_disk *top, *below = NULL;

    top = disk_open_io(io_fault_new(io_file_open(path, -1, false,
                                                 IO_LOCK_WRITE, err), plan),
                       path, &options, err);
    if (!top)
        return NULL;
    if (t->options.backing) {
        path = tmpdir_path(t->options.backing);
        options.format = t->options.backing_format;
        options.readonly = true;
        below = disk_open_io(
            io_fault_new(io_file_open(path, -1, true, IO_LOCK_READ, err),
                         plan), path, &options, err);
        if (!below) {
            qcow2_close(top, NULL);
            return NULL;
        }
    }
    return rebase_new(top, below, &t->options, err);
}

static bool
rebase_killed(struct trial *t, unsigned nth)
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        struct fault_plan plan = FAULT_PLAN_INIT;
        struct qcow2_job *job;

        fault_arm(&plan, FAULT_CHANGE | FAULT_FLUSH, nth, EIO, FAULT_KILL);
        job = rebase_with_faults(t, &plan, NULL);
        _exit(job && qcow2_job_run(job, NULL, NULL, NULL) == 0 ? 0 : 1);
    }
    EXPECT(pid > 0 && waitpid(pid, &status, 0) == pid, "fork");
    EXPECT(WIFSIGNALED(status) || WEXITSTATUS(status) == 0, "rebase failed");
    return !WIFSIGNALED(status);
}

static void
repair_leaks(struct trial *t)
{
    oracle_run("qemu-img check -q -r leaks '%s' >/dev/null 2>&1",
               tmpdir_path(layers_top(&t->chain)->name));
}

static void
killed_anywhere_and_run_again_it_completes(void **state)
{
    uint64_t seed = rng_seed(2);
    unsigned rounds = env_number("TEST_ROUNDS", 4), nr_kills = 0;

    (void)state;
    for (unsigned i = 0; i < rounds; i++) {
        bool lived = false;

        for (unsigned nth = 1; !lived; nth += 1 + nth / 8) {
            struct trial t;

            trial_begin(&t, seed, i);
            expect_step("killed at %u", nth);
            lived = rebase_killed(&t, nth);
            nr_kills += !lived;
            expect_intact(&t);
            rebase_by_path(layers_top(&t.chain)->name, &t.options);
            repair_leaks(&t);
            expect_rebased(&t);
            trial_end(&t);
        }
    }
    print_message("%u kills\n", nr_kills);
}

static void
a_failure_anywhere_loses_nothing(void **state)
{
    static const unsigned kinds[] = { FAULT_WRITE, FAULT_FLUSH, FAULT_READ };
    uint64_t seed = rng_seed(3);

    (void)state;
    for (unsigned i = 0; i < 6; i++) {
        bool fired = true;

        for (unsigned nth = 1; fired; nth += 1 + nth / 8) {
            struct fault_plan plan = FAULT_PLAN_INIT;
            struct qcow2_error err;
            struct qcow2_job *job;
            struct trial t;
            int r = -1;

            trial_begin(&t, seed, i);
            expect_step("fault %u of kind %u", nth, kinds[i % 3]);
            fault_arm(&plan, kinds[i % 3], nth, EIO,
                      i & 1 ? FAULT_FOR_GOOD : FAULT_ONCE);
            job = rebase_with_faults(&t, &plan, &err);
            if (job)
                r = qcow2_job_run(job, NULL, NULL, &err);
            qcow2_job_free(job);
            fired = fault_fired(&plan) > 0;
            EXPECT(fired || r == 0, "%s", err.text);
            EXPECT(r == 0 || err.errnum == EIO, "%s", err.text);
            expect_intact(&t);
            rebase_by_path(layers_top(&t.chain)->name, &t.options);
            repair_leaks(&t);
            expect_rebased(&t);
            trial_end(&t);
        }
    }
}

static void
expect_refused(const char *name, const char *backing,
               enum qcow2_format format, int errnum, const char *text)
{
    struct qcow2_rebase_options options = {
        .backing = backing, .backing_format = format,
    };
    struct qcow2_error err = { .errnum = 0 };
    struct qcow2_job *job = begin_by_path(name, &options, &err);

    EXPECT(!job, "rebase of %s to %s began", name, backing);
    EXPECT(err.errnum == errnum && strstr(err.text, text), "errno %d: %s",
           err.errnum, err.text);
}

static void
what_cannot_be_is_refused_in_words(void **state)
{
    (void)state;
    tmpdir_clear();
    expect_case("refusals");
    builder_make(tmpdir_path("base"), "size 1M; data 0-3 1");
    builder_make(tmpdir_path("top"), "size 1M; backing base qcow2; data 1 2");
    builder_make(tmpdir_path("above"), "size 1M; backing top qcow2");

    expect_refused("top", "missing", QCOW2_FORMAT_QCOW2, ENOENT, "missing");
    expect_refused("top", "base", QCOW2_FORMAT_AUTO, EINVAL, "format");
    expect_refused("top", "", QCOW2_FORMAT_RAW, EINVAL, "1 to 1023");
    expect_refused("top", "top", QCOW2_FORMAT_QCOW2, EINVAL,
                   "its own backing chain");
    expect_refused("top", "above", QCOW2_FORMAT_QCOW2, EINVAL,
                   "its own backing chain");
    expect_refused("top", "https://host/x", QCOW2_FORMAT_RAW, EPERM, "https");
}

/* The files that headers name here do not exist. */
static void
expect_clean_alone(const char *name)
{
    if (oracle_present())
        EXPECT(oracle_run("qemu-img check -q 'json:{\"driver\": \"qcow2\", "
                          "\"backing\": null, \"file\": {\"driver\": "
                          "\"file\", \"filename\": \"%s\"}}'",
                          tmpdir_path(name)) == 0, "not clean");
}

static void
change_header(const char *name, const char *backing,
              enum qcow2_format format)
{
    const struct qcow2_rebase_options options = {
        .backing = backing, .backing_format = format, .header_only = true,
    };

    rebase_by_path(name, &options);
    expect_backing(name, backing, format == QCOW2_FORMAT_RAW ? "raw"
                                                             : "qcow2");
    expect_clean_alone(name);
}

/* Headers as the other implementation and older ones write them. */
static const char *const recipes[] = {
    "size 1M; data 0-3 1",
    "version 2; size 1M; data 0-3 1",
    "cluster 512; size 64K; data 0-3 1",
    "cluster 512; size 64K; backing a raw; data 0-3 1",
    "cluster 1K; size 64K; backing some-name.img qcow2; data 0-3 1",
    "size 1M; backing a -; data 0-3 1",
    "version 2; size 1M; backing a -; data 0-3 1",
    "size 1M; backing a raw; extension 0x12345678 some\\x00thing; data 0 1",
    "size 1M; extension 0x12345678 some\\x00thing; data 0 1",
    "size 1M; header-length 400; extension 0x12345678 some-thing; data 0 1",
};

static void
any_header_takes_any_name(void **state)
{
    char longest[MAX_BACKING_NAME_BYTES + 1];

    (void)state;
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    tmpdir_clear();
    for (size_t i = 0; i < sizeof recipes / sizeof recipes[0]; i++) {
        expect_case("%s", recipes[i]);
        builder_make(tmpdir_path("image"), recipes[i]);
        change_header("image", "b", QCOW2_FORMAT_RAW);
        change_header("image", "another-name.qcow2", QCOW2_FORMAT_QCOW2);
        change_header("image", "b", QCOW2_FORMAT_RAW);
        change_header("image", NULL, QCOW2_FORMAT_AUTO);
        change_header("image", "c", QCOW2_FORMAT_QCOW2);
        if (strstr(recipes[i], "cluster"))
            continue;
        change_header("image", longest, QCOW2_FORMAT_QCOW2);
        change_header("image", longest, QCOW2_FORMAT_RAW);
        longest[0] ^= 1;
        change_header("image", longest, QCOW2_FORMAT_RAW);
        change_header("image", NULL, QCOW2_FORMAT_AUTO);
    }
}

static void
headers_of_the_other_implementation(void **state)
{
    (void)state;
    oracle_or_skip();
    tmpdir_clear();
    for (unsigned i = 0; i < 8; i++) {
        const char *path = tmpdir_path("image");

        expect_case("variant %u", i);
        oracle_run("cd '%s' && rm -f image && qemu-img create -q -f raw b 1M "
                   "&& qemu-img create -q -f qcow2 -o compat=%s,"
                   "cluster_size=%s %s image 1M", tmpdir(),
                   i & 1 ? "0.10" : "1.1", i & 4 ? "512" : "64K",
                   i & 2 ? "-b b -F raw" : "");
        change_header("image", "new.img", QCOW2_FORMAT_QCOW2);
        oracle_run("cd '%s' && qemu-img create -q -f qcow2 new.img 1M",
                   tmpdir());
        EXPECT(oracle_run("qemu-img info '%s' | grep -q 'backing file format:"
                          " qcow2'", path) == 0, "format");
        EXPECT(oracle_run("cd '%s' && qemu-img rebase -q -u -b b -F raw "
                          "image", tmpdir()) == 0, "qemu-img rebase");
        change_header("image", NULL, QCOW2_FORMAT_AUTO);
        EXPECT(oracle_run("qemu-img info '%s' | grep -q 'backing'", path)
               != 0, "no backing file");
    }
}

static void
what_has_no_room_is_refused(void **state)
{
    struct qcow2_rebase_options options = {
        .backing_format = QCOW2_FORMAT_RAW, .header_only = true,
    };
    char name[400];
    struct qcow2_error err;
    struct qcow2_job *job;

    (void)state;
    tmpdir_clear();
    expect_case("no room");
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    options.backing = name;
    builder_make(tmpdir_path("image"), "cluster 512; size 64K; backing a raw");
    job = begin_by_path("image", &options, &err);
    EXPECT(job, "%s", err.text);
    EXPECT(qcow2_job_run(job, NULL, NULL, &err) == -1
           && err.errnum == ENOTSUP, "%s", err.text);
    qcow2_job_free(job);
    expect_backing("image", "a", "raw");
    expect_clean_alone("image");
}

static int
is_old_or_new(void *opaque, const struct crash_state *state)
{
    static const char *const names[] = { "old-name.img", "a-new-one" };
    struct io *io = io_mem_open(state->image, true);
    struct qcow2_error err;
    struct header h;
    bool old, new;

    (void)opaque;
    EXPECT_OK(header_read(io, &h, &err), &err);
    old = h.backing_file && strcmp(h.backing_file, names[0]) == 0
          && strcmp(h.backing_format, "raw") == 0;
    new = h.backing_file && strcmp(h.backing_file, names[1]) == 0
          && strcmp(h.backing_format, "qcow2") == 0;
    EXPECT(old || new, "%s: %s", state->what, h.backing_file);
    EXPECT(h.nr_extensions >= 2, "%u extensions", h.nr_extensions);
    header_free(&h);
    io_close(io);
    return 0;
}

/* An unknown extension over several sectors, before the name. */
static void
no_power_cut_shows_half_a_header(void **state)
{
    static const char *const fillers[] = { "short", NULL };
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_rebase_options rebase = {
        .backing = "a-new-one", .backing_format = QCOW2_FORMAT_QCOW2,
        .header_only = true,
    };
    struct crash_options crash = CRASH_OPTIONS_INIT;
    char filler[401];

    (void)state;
    memset(filler, 'f', 400);
    filler[400] = '\0';
    options.backing_none = true;
    for (unsigned i = 0; i < 2; i++) {
        struct builder *b = builder_new();
        struct crash_log *log;
        struct crash_stats stats;
        struct qcow2_error err;
        struct qcow2_disk *disk;
        struct qcow2_job *job;
        struct mem *mem;
        size_t nr_bytes;
        const unsigned char *bytes;

        expect_case("power cut %u", i);
        builder_add(b, "size 1M; backing old-name.img raw;"
                    "extension 0x12345678 %s; data 0 1",
                    fillers[i] ? fillers[i] : filler);
        bytes = builder_bytes(b, &nr_bytes);
        mem = mem_new(bytes, nr_bytes);
        log = crash_log_new(mem);
        mem_free(mem);
        disk = disk_open_io(io_crash_open(log), "image", &options, &err);
        EXPECT(disk, "%s", err.text);
        job = rebase_new(disk, NULL, &rebase, &err);
        EXPECT_OK(qcow2_job_run(job, NULL, NULL, &err), &err);
        qcow2_job_free(job);
        crash_log_enumerate(log, &crash, is_old_or_new, NULL, &stats);
        EXPECT(stats.nr_distinct >= 2, "%llu states",
               (unsigned long long)stats.nr_distinct);
        crash_log_free(log);
        builder_free(b);
    }
}

static void
expect_snapshot(const char *name, const unsigned char *want,
                uint64_t nr_bytes)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_disk *disk, *snapshot;
    struct qcow2_error err;
    unsigned char *got;

    options.readonly = true;
    disk = qcow2_open(tmpdir_path("top"), &options, &err);
    EXPECT(disk, "%s", err.text);
    snapshot = qcow2_open_snapshot(disk, name, &err);
    EXPECT(snapshot, "%s", err.text);
    got = layers_read(snapshot);
    expect_same(name, got, want, nr_bytes, 0);
    free(got);
    qcow2_close(snapshot, NULL);
    qcow2_close(disk, NULL);
}

/* The two snapshots have the same place for cluster 0, of which the second,
 * like the disk, leaves a part to the backing file. */
static void
the_place_of_another_snapshots_data_is_not_written(void **state)
{
    enum { CLUSTER = 16 << 10, SHARED = CLUSTER / 4, SIZE = 2 * CLUSTER };
    struct qcow2_rebase_options rebase = { .snapshots = QCOW2_SNAPSHOTS_KEEP };
    unsigned char first[SIZE] = "", second[SIZE];

    (void)state;
    tmpdir_clear();
    expect_case("a place that two snapshots share");
    builder_make(tmpdir_path("below"), "cluster 512; size 32K; data 0-63 1");
    builder_make(tmpdir_path("top"), "cluster 16K; extended-l2; size 32K;"
                 "backing below qcow2; data 0 5; zero 1; snapshot 1 first;"
                 "zero 1; snapshot 2 second; poke bitmap[0] = 0xff");
    pattern_fill(first, CLUSTER, 5, 0);
    memcpy(second, first, SIZE);
    pattern_fill(second + SHARED, CLUSTER - SHARED, 1, SHARED);
    rebase_by_path("top", &rebase);
    expect_snapshot("first", first, SIZE);
    expect_snapshot("second", second, SIZE);
    oracle_expect_clean(tmpdir_path("top"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_overlay_reads_the_same),
        cmocka_unit_test(without_leave_no_snapshot_changes),
        cmocka_unit_test(only_differences_are_copied),
        cmocka_unit_test(killed_anywhere_and_run_again_it_completes),
        cmocka_unit_test(a_failure_anywhere_loses_nothing),
        cmocka_unit_test(what_cannot_be_is_refused_in_words),
        cmocka_unit_test(any_header_takes_any_name),
        cmocka_unit_test(headers_of_the_other_implementation),
        cmocka_unit_test(what_has_no_room_is_refused),
        cmocka_unit_test(no_power_cut_shows_half_a_header),
        cmocka_unit_test(the_place_of_another_snapshots_data_is_not_written),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
