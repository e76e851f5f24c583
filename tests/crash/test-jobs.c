/* SPDX-License-Identifier: BSD-3-Clause */
/* test-jobs: every state that a power cut may leave of the files that are
 * created, converted to, committed, rebased, repaired or opened after a
 * crash; and of what is left of a repair by a cut the states of the repair
 * after that. CRASH_LONG=1 looks at more of them.
 */
#include <stdlib.h>

#include "expect.h"
#include "io-crash.h"
#include "jobs.h"
#include "rng.h"
#include "states.h"

struct cut {
    struct job_trial trial;
    unsigned file;
    uint64_t nr_states, nr_done;
    unsigned depth; /* cuts that came before */
    char what[512]; /* the first of them */
};

static int check_state(void *opaque, const struct crash_state *state);

static bool
is_repair(const struct job_trial *t)
{
    return t->scene->kind == JOB_REPAIR || t->scene->kind == JOB_OPEN_DIRTY;
}

/* The repair of what a cut left of a repair is cut. */
static void
cut_again(struct cut *c, const struct crash_state *state)
{
    struct crash_options options = CRASH_OPTIONS_INIT;
    struct crash_log *log = crash_log_new(state->image);
    struct io *io = io_crash_open(log);
    struct qcow2_error err;

    snprintf(c->what, sizeof c->what, "%s", state->what);
    c->depth++;
    EXPECT_OK(job_run(&c->trial, &io, &err), &err);
    crash_log_mark(log, CRASH_MARK_DEMANDS);
    crash_log_enumerate(log, &options, check_state, c, NULL);
    crash_log_free(log);
    c->depth--;
    c->what[0] = '\0';
}

static int
check_state(void *opaque, const struct crash_state *state)
{
    struct cut *c = opaque;
    unsigned every = states_are_many() ? 1 : 4;

    expect_step("file %u, %s%s%s", c->file, c->what,
                c->depth ? "; then " : "", state->what);
    if (is_repair(&c->trial) && c->depth == 0 && c->nr_states % every == 0)
        cut_again(c, state);
    expect_step("file %u, %s%s%s", c->file, c->what,
                c->depth ? "; then " : "", state->what);
    job_check(&c->trial, c->file, state->image, state->nr_marks > 0);
    c->nr_states++;
    c->nr_done += state->nr_marks > 0;
    return 0;
}

static void
enumerate(const struct job_scene *scene)
{
    bool is_long = states_are_many();
    struct crash_options options = {
        .nr_random = is_long ? 2000 : 60, .nr_torn = is_long ? 400 : 20,
        .seed = rng_seed(1)
    };
    struct crash_log *logs[MAX_JOB_FILES];
    struct io *ios[MAX_JOB_FILES];
    struct cut c = { .depth = 0 };
    struct qcow2_error err;

    expect_case("TEST_SEED=%llu: %s", (unsigned long long)rng_seed(1),
                scene->name);
    job_begin(&c.trial, scene);
    for (unsigned i = 0; i < c.trial.nr_files; i++) {
        logs[i] = crash_log_new(c.trial.files[i]);
        ios[i] = io_crash_open(logs[i]);
    }
    EXPECT_OK(job_run(&c.trial, ios, &err), &err);
    for (unsigned i = 0; i < c.trial.nr_files; i++)
        crash_log_mark(logs[i], CRASH_MARK_DEMANDS);
    for (c.file = 0; c.file < c.trial.nr_files; c.file++) {
        c.nr_done = 0;
        crash_log_enumerate(logs[c.file], &options, check_state, &c, NULL);
        EXPECT(c.nr_done > 0, "no state after the end");
        crash_log_free(logs[c.file]);
    }
    print_message("%s: %llu states\n", scene->name,
                  (unsigned long long)c.nr_states);
    job_end(&c.trial);
}

static void
jobs_can_be_cut_anywhere(void **state)
{
    (void)state;
    for (unsigned i = 0; i < nr_job_scenes; i++)
        enumerate(&job_scenes[i]);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_can_be_cut_anywhere),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    states_print();
    return failed;
}
