/* SPDX-License-Identifier: BSD-3-Clause */
/* test-no-memory-jobs: lets the 1st, the 2nd, … allocation fail, in whichever
 * thread, while an image is created, converted to, committed, rebased,
 * repaired or opened after a crash. It is refused with ENOMEM, or done; what
 * is left is sound, and the same then succeeds.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "expect.h"
#include "jobs.h"
#include "memory.h"

/* So that files need no more memory when they grow. */
enum { FILE_CAPACITY = 1 << 20 };

static struct mem *
roomy_copy(struct mem *m)
{
    struct mem *copy = mem_copy(m);
    struct io *io = io_mem_open(copy, false);
    uint64_t size;

    mem_bytes(copy, &size);
    if (io->can_grow) {
        EXPECT(io_truncate(io, FILE_CAPACITY, NULL) == 0
               && io_truncate(io, size, NULL) == 0, "room");
    }
    io_close(io);
    return copy;
}

static int
run(struct job_trial *t, struct mem *const *files, uint64_t nth,
    bool *failed, struct qcow2_error *err)
{
    struct io *ios[MAX_JOB_FILES];
    int r;

    for (unsigned i = 0; i < t->nr_files; i++)
        ios[i] = io_mem_open(files[i], false);
    memory_fail_anywhere(nth);
    r = job_run(t, ios, err);
    *failed = memory_has_failed_anywhere();
    memory_fail_anywhere(0);
    return r;
}

/* False if there are not so many allocations. */
static bool
try(struct job_trial *t, uint64_t nth)
{
    struct mem *files[MAX_JOB_FILES];
    struct qcow2_error err;
    bool failed, again;
    int r;

    for (unsigned i = 0; i < t->nr_files; i++)
        files[i] = roomy_copy(t->files[i]);
    r = run(t, files, nth, &failed, &err);
    EXPECT(r == 0 || (failed && err.errnum == ENOMEM), "errno %d: %s",
           err.errnum, err.text);
    job_check_files(t, files, r == 0);
    if (r == -1) {
        expect_step("again");
        EXPECT_OK(run(t, files, 0, &again, &err), &err);
        job_check_files(t, files, true);
    }
    for (unsigned i = 0; i < t->nr_files; i++)
        mem_free(files[i]);
    return failed;
}

static void
every_allocation_may_fail(void **state)
{
    unsigned nr = 0;

    (void)state;
    for (unsigned i = 0; i < nr_job_scenes; i++) {
        struct job_trial t;
        uint64_t nth = 0;

        job_begin(&t, &job_scenes[i]);
        alarm(60); /* ends the program if threads wait for each other */
        do {
            expect_case("%s: allocation %llu fails", job_scenes[i].name,
                        (unsigned long long)++nth);
        } while (try(&t, nth));
        alarm(0);
        nr += nth - 1;
        job_end(&t);
    }
    print_message("%u allocations\n", nr);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_may_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
