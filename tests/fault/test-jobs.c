/* SPDX-License-Identifier: BSD-3-Clause */
/* test-jobs: lets the 1st, the 2nd, … operation on the files fail, in every
 * way, while an image is created, converted to, committed, rebased, repaired
 * or opened after a crash. The failure is told, no file is flushed again
 * after a flush of it failed, and what is left is sound. Then the same
 * succeeds, where it can be done again.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "expect.h"
#include "faults.h"
#include "jobs.h"

static int
run(struct job_trial *t, struct mem *const *files, struct fault_plan *plan,
    struct qcow2_error *err)
{
    struct io *ios[MAX_JOB_FILES];

    for (unsigned i = 0; i < t->nr_files; i++)
        ios[i] = io_fault_new(io_mem_open(files[i], false), plan);
    return job_run(t, ios, err);
}

/* Fails the nth operation; false if there were fewer. */
static bool
try_fault(struct job_trial *t, const struct fault *fault, unsigned nth)
{
    struct fault_plan plan = FAULT_PLAN_INIT;
    struct mem *files[MAX_JOB_FILES];
    struct qcow2_error err = { .errnum = 0 };
    bool fired;
    int r;

    for (unsigned i = 0; i < t->nr_files; i++)
        files[i] = mem_copy(t->files[i]);
    fault_arm_with(&plan, fault, nth);
    r = run(t, files, &plan, &err);
    fired = fault_fired(&plan) > 0;
    EXPECT(fired || r == 0, "%s", err.text);
    EXPECT(r == 0 || ((err.errnum == EIO || err.errnum == fault->errnum)
                      && err.text[0]), "errno %d: %s", err.errnum, err.text);
    EXPECT(!fired || r == -1 || fault->kinds != FAULT_FLUSH,
           "nobody says that a flush has failed");
    EXPECT(fault_retried(&plan) == 0, "a flush after one that failed");
    job_check_files(t, files, r == 0);
    if (r == -1) {
        fault_arm(&plan, 0, 0, 0, 0);
        expect_step("again");
        EXPECT_OK(run(t, files, &plan, &err), &err);
        job_check_files(t, files, true);
    }
    for (unsigned i = 0; i < t->nr_files; i++)
        mem_free(files[i]);
    return fired;
}

static void
jobs_survive_every_failure(void **state)
{
    unsigned nr = 0;

    (void)state;
    for (unsigned i = 0; i < nr_job_scenes; i++) {
        struct job_trial t;

        job_begin(&t, &job_scenes[i]);
        for (unsigned f = 0; f < nr_faults; f++) {
            unsigned nth = 1;

            alarm(60); /* ends the program if threads wait for each other */
            do {
                expect_case("%s, %s: operation %u", job_scenes[i].name,
                            faults[f].name, nth);
            } while (try_fault(&t, &faults[f], nth++));
            nr += nth - 2;
        }
        alarm(0);
        job_end(&t);
    }
    print_message("%u failures\n", nr);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_survive_every_failure),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
