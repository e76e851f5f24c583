/* SPDX-License-Identifier: BSD-3-Clause */
/* test-failed-barriers: the 1st, the 2nd, … barrier fails of requests, of
 * every operation on the whole image and of every job, and as with a real
 * kernel the file goes on to read as if nothing had been lost, and the next
 * barrier succeeds. Nothing that depends on what was lost may be called done:
 * not in the same process, and another one, which does it again, must begin
 * from what the disk has. Then every state that a power cut may leave is
 * tried. CRASH_LONG=1 looks at more.
 */
#include <errno.h>
#include <stdlib.h>

#include "disk/open.h"
#include "expect.h"
#include "history.h"
#include "io-crash.h"
#include "jobs.h"
#include "rng.h"
#include "states.h"
#include "whole-scenes.h"

/* What of the changes that the barrier was to cover is on the disk. */
struct loss {
    enum crash_survival survival;
    uint64_t seed;
};

static const struct loss losses[] = {
    { CRASH_NOTHING, 0 }, { CRASH_ANY, 1 }, { CRASH_ANY, 2 },
    { CRASH_ALL, 0 }, { CRASH_ANY, 3 }, { CRASH_ANY, 4 }, { CRASH_ANY, 5 },
    { CRASH_ANY, 6 },
};

enum { NR_LOSSES = sizeof losses / sizeof losses[0] };

/* How many of them, from the first-th on, are tried. */
static unsigned
nr_losses(void)
{
    return states_are_many() ? NR_LOSSES : 1;
}

static const struct loss *
loss_of(unsigned first, unsigned l)
{
    return &losses[(first + l) % (states_are_many() ? NR_LOSSES : 3)];
}

/* Is it the turn of one more to have all its states tried? */
static bool
is_turn(void)
{
    static unsigned nr;

    return states_are_many() || nr++ % 7 == 0;
}

static struct qcow2_failures *
new_process(struct qcow2_failures *old)
{
    struct qcow2_failures *f = qcow2_failures_new(NULL);

    qcow2_failures_free(old);
    EXPECT(f, "no memory");
    return f;
}

static void
expect_refusal(const struct qcow2_error *err)
{
    EXPECT(err->errnum == EIO && strstr(err->text, "restart the process"),
           "errno %d: %s", err->errnum, err->text);
}

/* Jobs. */

struct redone {
    struct job_trial *trial;
    unsigned file;
    uint64_t nr_states;
};

static int
check_job_state(void *opaque, const struct crash_state *state)
{
    struct redone *r = opaque;

    expect_step("done again, file %u, %s", r->file, state->what);
    job_check(r->trial, r->file, state->image, state->nr_marks > 1);
    r->nr_states++;
    return 0;
}

static int
run_job(struct job_trial *t, struct crash_log **logs, struct qcow2_error *err)
{
    struct io *ios[MAX_JOB_FILES];

    for (unsigned i = 0; i < t->nr_files; i++)
        ios[i] = io_crash_open(logs[i]);
    return job_run(t, ios, err);
}

static bool
creates(const struct job_trial *t)
{
    return t->scene->kind == JOB_CREATE
           || t->scene->kind == JOB_CREATE_ON_DEVICE;
}

/* All that is not stable gets lost. */
static void
expect_done(struct job_trial *t, struct crash_log **logs)
{
    struct mem *files[MAX_JOB_FILES];

    for (unsigned i = 0; i < t->nr_files; i++)
        files[i] = crash_log_state_at(logs[i], UINT64_MAX, CRASH_NOTHING,
                                      NULL);
    expect_step("done again, then cut");
    job_check_files(t, files, true);
    for (unsigned i = 0; i < t->nr_files; i++)
        mem_free(files[i]);
}

/* The job is done again. */
static void
redo_job(struct job_trial *t, struct crash_log **logs)
{
    struct crash_options options = {
        .nr_random = states_are_many() ? 20 : 2,
        .nr_torn = states_are_many() ? 10 : 1,
        .seed = rng_seed(1), .first_mark = 1,
    };
    struct redone r = { .trial = t };
    struct qcow2_error err;

    if (!creates(t)) {
        expect_step("again in the same process");
        EXPECT(run_job(t, logs, &err) == -1, "it is done now");
        expect_refusal(&err);
    }
    t->failures = new_process(t->failures);
    expect_step("again in another process");
    for (unsigned i = 0; i < t->nr_files; i++)
        crash_log_mark(logs[i], CRASH_MARK_ALLOWS);
    EXPECT_OK(run_job(t, logs, &err), &err);
    for (unsigned i = 0; i < t->nr_files; i++)
        crash_log_mark(logs[i], CRASH_MARK_DEMANDS);
    expect_done(t, logs);
    if (!is_turn())
        return;
    for (r.file = 0; r.file < t->nr_files; r.file++)
        crash_log_enumerate(logs[r.file], &options, check_job_state, &r,
                            NULL);
}

/* False if there were fewer barriers. */
static bool
try_job(const struct job_scene *scene, unsigned file, unsigned nth,
        const struct loss *loss)
{
    struct crash_log *logs[MAX_JOB_FILES];
    struct mem *files[MAX_JOB_FILES];
    struct qcow2_error err = { .errnum = 0 };
    struct job_trial t;
    bool failed;
    int r;

    job_begin(&t, scene);
    t.failures = new_process(NULL);
    for (unsigned i = 0; i < t.nr_files; i++)
        files[i] = crash_log_content(logs[i] = crash_log_new(t.files[i]));
    crash_log_fail_flush(logs[file], nth, loss->survival, loss->seed);
    r = run_job(&t, logs, &err);
    failed = crash_log_flush_failed(logs[file]);
    EXPECT((r == -1) == failed, "nobody says that a barrier has failed, or "
           "none has: %s", err.text);
    if (failed) {
        job_check_files(&t, files, false);
        redo_job(&t, logs);
    }
    for (unsigned i = 0; i < t.nr_files; i++)
        crash_log_free(logs[i]);
    qcow2_failures_free(t.failures);
    job_end(&t);
    return failed;
}

static void
jobs_are_done_only_by_another_process(void **state)
{
    unsigned nr_failures = 0;

    (void)state;
    for (unsigned i = 0; i < nr_job_scenes; i++)
        for (unsigned file = 0; file < MAX_JOB_FILES; file++)
            for (unsigned l = 0; l < nr_losses(); l++) {
                unsigned nth = 1;

                if (file > 0 && job_scenes[i].kind != JOB_COMMIT)
                    continue;
                do
                    expect_case("%s, file %u, barrier %u, loss %u",
                                job_scenes[i].name, file, nth, l);
                while (try_job(&job_scenes[i], file, nth++, loss_of(i, l)));
                EXPECT(nth > 2, "no barrier");
                nr_failures += nth - 2;
            }
    print_message("%u failures\n", nr_failures);
}

/* Requests and operations on the whole image. */

struct trial {
    struct rig rig;
    struct crash_log *log;
    struct history history;
    struct contents now;
    bool failed;          /* a step has; the others are left out */
    unsigned nr_skipped;  /* marks before which nothing is looked at */
    struct aftermath sum;
};

static uint64_t
mark(struct trial *t, enum crash_mark what)
{
    return crash_log_mark(t->log, what) + 1;
}

/* What a step returned. */
static void
note(struct trial *t, int r)
{
    if (r == -1)
        t->failed = true;
}

static void
step_write(struct trial *t, uint64_t off, uint64_t nr_bytes, uint64_t seed)
{
    if (t->failed || off >= t->now.size)
        return;
    if (nr_bytes > t->now.size - off)
        nr_bytes = t->now.size - off;
    pattern_fill(t->now.disk + off, nr_bytes, seed, off);
    history_request(&t->history, &t->now, mark(t, CRASH_MARK_ALLOWS));
    note(t, qcow2_pwrite(t->rig.play.disk, t->now.disk + off, nr_bytes, off,
                         0, NULL));
}

static void
step_zero(struct trial *t, uint64_t off, uint64_t nr_bytes)
{
    if (t->failed || off >= t->now.size)
        return;
    if (nr_bytes > t->now.size - off)
        nr_bytes = t->now.size - off;
    memset(t->now.disk + off, 0, nr_bytes);
    history_request(&t->history, &t->now, mark(t, CRASH_MARK_ALLOWS));
    note(t, qcow2_zero(t->rig.play.disk, nr_bytes, off, QCOW2_MAY_TRIM,
                       NULL));
}

static void
step_flush(struct trial *t)
{
    if (t->failed)
        return;
    note(t, qcow2_flush(t->rig.play.disk, NULL));
    if (!t->failed)
        history_durable(&t->history, mark(t, CRASH_MARK_DEMANDS));
}

static void
step_whole(struct trial *t, const struct whole_op *op)
{
    struct contents after;

    if (t->failed
        || !whole_possible(&t->now, rig_version(crash_log_content(t->log)),
                           op))
        return;
    expect_step("%s", whole_text(op));
    contents_copy(&after, &t->now);
    whole_model(&after, op);
    history_whole(&t->history, &after, mark(t, CRASH_MARK_ALLOWS));
    note(t, whole_run(t->rig.play.disk, &t->now, op, NULL));
    if (!t->failed)
        history_durable(&t->history, mark(t, CRASH_MARK_DEMANDS));
    contents_free(&t->now);
    t->now = after;
}

static void
step_close(struct trial *t)
{
    int r = qcow2_close(t->rig.play.disk, NULL);

    EXPECT(!t->failed || r == -1, "a failed image is closed without a word");
    note(t, r);
    if (!t->failed)
        history_durable(&t->history, mark(t, CRASH_MARK_DEMANDS));
}

static void
begin(struct trial *t)
{
    t->failed = false;
    t->rig.play.disk = rig_open_disk(&t->rig, io_crash_open(t->log));
    contents_read(&t->now, t->rig.play.disk);
    history_begin(&t->history, &t->now);
}

static void
end(struct trial *t)
{
    history_free(&t->history);
    contents_free(&t->now);
}

static int
check_state(void *opaque, const struct crash_state *state)
{
    struct trial *t = opaque;

    expect_step("another process, %s", state->what);
    history_check(&t->history, &t->rig, state->image, state->nr_marks,
                  &t->sum);
    return 0;
}

/* Another process uses the image, and is cut. What it found is certain to be
 * on the disk from its first barrier on. */
static void
go_on(struct trial *t)
{
    static const struct whole_op create = {
        .kind = WHOLE_CREATE, .number = 50,
    };
    struct crash_options options = {
        .nr_random = states_are_many() ? 20 : 2,
        .nr_torn = states_are_many() ? 10 : 1,
        .seed = rng_seed(1),
    };
    struct mem *cut;

    begin(t);
    step_flush(t);
    EXPECT(!t->failed, "the flush fails");
    options.first_mark = crash_log_nr_marks(t->log);
    step_write(t, 300, 1500, 300);
    step_zero(t, 8192, 4096);
    step_flush(t);
    step_write(t, 12 * 1024, 2048, 301);
    step_whole(t, &create);
    step_write(t, 700, 900, 302);
    step_close(t);
    EXPECT(!t->failed, "something fails");
    expect_step("another process, then cut");
    cut = crash_log_state_at(t->log, UINT64_MAX, CRASH_NOTHING, NULL);
    history_check(&t->history, &t->rig, cut, UINT64_MAX - 1, &t->sum);
    mem_free(cut);
    if (is_turn())
        crash_log_enumerate(t->log, &options, check_state, t, NULL);
    end(t);
}

/* In the same process it does not open for writing. */
static void
expect_no_writes(struct trial *t)
{
    struct qcow2_error err;

    EXPECT(!disk_open_io(io_crash_open(t->log), "image", &t->rig.options,
                         &err), "it opens for writing");
    expect_refusal(&err);
}

/* False if there were fewer barriers. killed: the process that met the
 * failure ended without closing anything. */
static bool
try_operation(const struct scene *s, const struct whole_op *op, unsigned nth,
              const struct loss *loss, bool killed, struct aftermath *sum)
{
    struct trial t = { .failed = false };
    struct mem *copy;
    bool failed;

    rig_init(&t.rig, s->recipe, s->backing_bytes);
    t.rig.options.failures = new_process(NULL);
    rig_start(&t.rig);
    t.log = crash_log_new(t.rig.mem);
    begin(&t);
    crash_log_fail_flush(t.log, nth, loss->survival, loss->seed);
    step_write(&t, 700, 2000, 100);
    step_zero(&t, 5000, 3000);
    step_flush(&t);
    step_write(&t, 9000, 600, 101);
    step_whole(&t, op);
    step_write(&t, 0, 1024, 102);
    crash_log_keep_cache(t.log, t.failed && killed);
    step_close(&t);
    failed = crash_log_flush_failed(t.log);
    EXPECT(t.failed == failed, "nobody says that a barrier has failed");
    if (failed) {
        if (!killed) {
            copy = mem_copy(crash_log_content(t.log));
            history_check(&t.history, &t.rig, copy, UINT64_MAX - 1, &t.sum);
            mem_free(copy);
        }
        expect_no_writes(&t);
        crash_log_keep_cache(t.log, false);
        t.rig.options.failures = new_process(t.rig.options.failures);
        end(&t);
        go_on(&t);
    } else {
        end(&t);
    }
    crash_log_free(t.log);
    rig_end(&t.rig);
    qcow2_failures_free(t.rig.options.failures);
    rig_free(&t.rig);
    sum->nr_states += t.sum.nr_states;
    return failed;
}

static void
images_go_on_only_in_another_process(void **state)
{
    unsigned nr_failures = 0, step = states_are_many() ? 1 : 5;
    struct aftermath sum = { .nr_states = 0 };

    (void)state;
    for (unsigned i = 0; i < nr_whole_scenes; i++)
        for (unsigned n = 0; n < nr_whole_words; n++)
            for (unsigned l = 0; l < 2 * nr_losses(); l++) {
                /* A lost change of the version is told by no bit. */
                bool amends = whole_words[n].kind == WHOLE_AMEND;
                unsigned first = amends ? 0 : i + n, nth = 1;

                if (!amends && n % step != i % step)
                    continue;
                do
                    expect_case("%s, barrier %u, loss %u%s, %s",
                                whole_scenes[i].name, nth, l / 2,
                                l % 2 ? ", killed" : "",
                                whole_text(&whole_words[n]));
                while (try_operation(&whole_scenes[i], &whole_words[n],
                                     nth++, loss_of(first, l / 2), l % 2,
                                     &sum));
                EXPECT(nth > 2, "no barrier");
                nr_failures += nth - 2;
            }
    print_message("%u failures, %llu states\n", nr_failures,
                  (unsigned long long)sum.nr_states);
}

/* Raw disks: each sector is there as it was flushed, or as it was written
 * later. */

enum { RAW_BYTES = 16384 };

static struct qcow2_disk *
open_raw(struct crash_log *log, struct qcow2_failures *f,
         struct qcow2_error *err)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;

    options.format = QCOW2_FORMAT_RAW;
    options.failures = f;
    return disk_open_io(io_crash_open(log), "raw", &options, err);
}

static void
write_all(struct qcow2_disk *disk, int byte)
{
    unsigned char buf[RAW_BYTES];
    struct qcow2_error err;

    memset(buf, byte, sizeof buf);
    EXPECT_OK(qcow2_pwrite(disk, buf, sizeof buf, 0, 0, &err), &err);
}

static void
raw_disks_go_on_only_in_another_process(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 40; i++) {
        const struct loss loss = { i == 0 ? CRASH_NOTHING : CRASH_ANY, i };
        struct mem *mem = mem_new(NULL, RAW_BYTES), *cut;
        struct crash_log *log = crash_log_new(mem);
        struct qcow2_failures *f = new_process(NULL);
        unsigned char got[RAW_BYTES];
        const unsigned char *bytes;
        struct qcow2_disk *disk;
        struct qcow2_error err;
        uint64_t nr_bytes;
        bool killed = i % 2;

        expect_case("raw, loss %u%s", i, killed ? ", killed" : "");
        disk = open_raw(log, f, &err);
        write_all(disk, 1);
        EXPECT_OK(qcow2_flush(disk, &err), &err);
        write_all(disk, 2);
        crash_log_fail_flush(log, 1, loss.survival, loss.seed);
        EXPECT(qcow2_flush(disk, &err) == -1, "no failure");
        EXPECT(qcow2_flush(disk, &err) == -1, "the next one succeeds");
        crash_log_keep_cache(log, killed);
        EXPECT(qcow2_close(disk, &err) == -1, "closing it succeeds");
        EXPECT(!open_raw(log, f, &err), "it opens for writing");
        expect_refusal(&err);
        crash_log_keep_cache(log, false);
        f = new_process(f);
        disk = open_raw(log, f, &err);
        EXPECT(disk, "%s", err.text);
        EXPECT_OK(qcow2_pread(disk, got, sizeof got, 0, &err), &err);
        for (unsigned k = 0; k < RAW_BYTES; k++)
            EXPECT(got[k] == 1 || (loss.survival != CRASH_NOTHING
                                   && got[k] == 2), "byte %u: %u", k, got[k]);
        EXPECT_OK(qcow2_pwrite(disk, "new", 3, 600, 0, &err), &err);
        memcpy(got + 600, "new", 3);
        EXPECT_OK(qcow2_flush(disk, &err), &err);
        cut = crash_log_state_at(log, UINT64_MAX, CRASH_NOTHING, NULL);
        bytes = mem_bytes(cut, &nr_bytes);
        expect_same("cut", bytes, got, RAW_BYTES, 0);
        mem_free(cut);
        EXPECT_OK(qcow2_close(disk, &err), &err);
        qcow2_failures_free(f);
        crash_log_free(log);
        mem_free(mem);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_are_done_only_by_another_process),
        cmocka_unit_test(images_go_on_only_in_another_process),
        cmocka_unit_test(raw_disks_go_on_only_in_another_process),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    states_print();
    return failed;
}
