/* SPDX-License-Identifier: BSD-3-Clause */
/* test-aligned: direct I/O to a disk whose sectors are larger than clusters
 * and table entries: what the engine writes is merged into whole blocks, of
 * which a power cut may still leave any sector of 512 bytes. Every request,
 * some pairs and random sequences, as in test-workloads, and whole
 * operations. CRASH_LONG=1 takes more of each.
 */
#include <stdio.h>
#include <stdlib.h>

#include "expect.h"
#include "jobs.h"
#include "powercut.h"
#include "scenes.h"
#include "states.h"
#include "storage/io-align.h"

enum { BLOCK = 4096, PART_OF_PAIRS = 67 };

static void
play_letter(struct powercut *pc, unsigned n, uint64_t seed)
{
    struct op op = letter_op(&letters[n], pc->rig.play.cluster_size,
                             pc->rig.play.model.size, seed);
    struct qcow2_error err;

    EXPECT_OK(play_op(&pc->rig.play, &op, &err), &err);
}

static void
try_pair(struct powercut *pc, const char *scene, unsigned first,
         unsigned second)
{
    const struct crash_options options = {
        .nr_random = 12, .nr_torn = 12, .seed = rng_seed(1),
    };

    powercut_begin(pc);
    expect_case("%s; %s; %s", scene, letters[first].name,
                letters[second].name);
    play_letter(pc, first, 100);
    play_letter(pc, second, 101);
    powercut_end(pc, &options);
}

static void
try_random(struct powercut *pc, const char *scene, unsigned n)
{
    const struct crash_options options = {
        .nr_random = 5, .nr_torn = 5, .seed = rng_seed(1),
    };
    struct qcow2_error err;
    struct rng r;

    rng_init(&r, rng_seed(1), n);
    powercut_begin(pc);
    for (unsigned k = 0; k < 20; k++) {
        struct op op = play_random(&pc->rig.play, &r, 100 + k);

        expect_case("TEST_SEED=%llu: %s, random sequence %u, request %u: %s",
                    (unsigned long long)rng_seed(1), scene, n, k,
                    play_text(&op));
        EXPECT_OK(play_op(&pc->rig.play, &op, &err), &err);
    }
    powercut_end(pc, &options);
}

static void
requests_in_blocks_can_be_cut_anywhere(void **state)
{
    unsigned step = states_are_many() ? 3 : PART_OF_PAIRS;
    unsigned nr_random = states_are_many() ? 20 : 1;

    (void)state;
    for (unsigned i = 0; i < nr_scenes; i++) {
        struct powercut pc;

        powercut_init(&pc, &scenes[i]);
        pc.rig.block = BLOCK;
        for (unsigned n = i; n < nr_letters * nr_letters; n += step)
            try_pair(&pc, scenes[i].name, n / nr_letters, n % nr_letters);
        for (unsigned n = 0; n < nr_random; n++)
            try_random(&pc, scenes[i].name, i * 1000 + n);
        powercut_report(&pc, scenes[i].name);
        powercut_free(&pc);
    }
}

struct job_cut {
    struct job_trial trial;
    unsigned file;
    uint64_t nr_states;
};

static int
check_job(void *opaque, const struct crash_state *state)
{
    struct job_cut *c = opaque;

    expect_step("file %u, %s", c->file, state->what);
    job_check(&c->trial, c->file, state->image, state->nr_marks > 0);
    c->nr_states++;
    return 0;
}

static void
cut_job(const struct job_scene *scene)
{
    const struct crash_options options = {
        .nr_random = states_are_many() ? 400 : 20,
        .nr_torn = states_are_many() ? 200 : 10, .seed = rng_seed(1),
    };
    struct crash_log *logs[MAX_JOB_FILES];
    struct io *ios[MAX_JOB_FILES];
    struct job_cut c = { .file = 0 };
    struct qcow2_error err;

    expect_case("%s", scene->name);
    job_begin(&c.trial, scene);
    for (unsigned i = 0; i < c.trial.nr_files; i++) {
        logs[i] = crash_log_new(c.trial.files[i]);
        ios[i] = io_align_new(io_crash_open(logs[i]), BLOCK, &err);
        assert_non_null(ios[i]);
    }
    EXPECT_OK(job_run(&c.trial, ios, &err), &err);
    for (unsigned i = 0; i < c.trial.nr_files; i++)
        crash_log_mark(logs[i], CRASH_MARK_DEMANDS);
    for (c.file = 0; c.file < c.trial.nr_files; c.file++) {
        crash_log_enumerate(logs[c.file], &options, check_job, &c, NULL);
        crash_log_free(logs[c.file]);
    }
    print_message("%s: %llu states\n", scene->name,
                  (unsigned long long)c.nr_states);
    job_end(&c.trial);
}

static void
jobs_in_blocks_can_be_cut_anywhere(void **state)
{
    (void)state;
    for (unsigned i = 0; i < nr_job_scenes; i++)
        cut_job(&job_scenes[i]);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_in_blocks_can_be_cut_anywhere),
        cmocka_unit_test(requests_in_blocks_can_be_cut_anywhere),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    states_print();
    return failed;
}
