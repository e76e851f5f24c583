/* SPDX-License-Identifier: BSD-3-Clause */
/* test-job: the states of a job's life, and what may be asked of it in each. */
#include "job/job.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "expect.h"

/* A job that does what it is told. */
struct fake {
    struct qcow2_job job; /* first */
    unsigned nr_steps;    /* that it takes */
    bool has_ready;       /* is ready after them */
    bool fails, finish_fails;
    unsigned made;        /* atomic: steps made */
    unsigned finished;
    unsigned *freed;
};

static int
fake_step(struct qcow2_job *job, struct qcow2_error *err)
{
    struct fake *f = (struct fake *)job;
    unsigned made = __atomic_add_fetch(&f->made, 1, __ATOMIC_ACQ_REL);

    if (f->fails) {
        err->errnum = EIO;
        return -1;
    }
    job_set_progress(job, made, f->nr_steps);
    if (made < f->nr_steps)
        return JOB_GOES_ON;
    return f->has_ready && !job_shall_complete(job) ? JOB_IS_READY : JOB_ENDED;
}

static int
fake_finish(struct qcow2_job *job, struct qcow2_error *err)
{
    struct fake *f = (struct fake *)job;

    f->finished++;
    err->errnum = ENOSPC;
    return f->finish_fails ? -1 : 0;
}

static void
fake_free(struct qcow2_job *job)
{
    ++*((struct fake *)job)->freed;
}

static const struct job_ops fake_ops = {
    .step = fake_step, .finish = fake_finish, .free = fake_free,
};

static unsigned nr_freed;

static struct fake *
fake_new(unsigned nr_steps)
{
    struct fake *f = calloc(1, sizeof *f);

    assert_non_null(f);
    job_init(&f->job, &fake_ops);
    f->nr_steps = nr_steps;
    f->freed = &nr_freed;
    return f;
}

static void
expect_state(struct fake *f, const char *name)
{
    const char *is = qcow2_job_status_name(qcow2_job_get_status(&f->job));

    EXPECT(strcmp(is, name) == 0, "it is %s, not %s", is, name);
}

/* A step that returns r and leaves the job in this state. */
static void
step(struct fake *f, int r, const char *state)
{
    struct qcow2_error err;
    int got = qcow2_job_step(&f->job, &err);

    EXPECT(got == r, "the step returned %d", got);
    expect_state(f, state);
}

static void
end(struct fake *f)
{
    struct qcow2_error err;

    expect_state(f, "concluded");
    assert_int_equal(qcow2_job_step(&f->job, &err), -1);
    assert_int_equal(err.errnum, EINVAL);
    nr_freed = 0;
    qcow2_job_free(&f->job);
    assert_int_equal(nr_freed, 1);
}

static void
a_job_runs_and_concludes(void **state)
{
    struct fake *f = fake_new(2);

    (void)state;
    expect_state(f, "created");
    step(f, 1, "running");
    assert_int_equal(f->job.done, 1);
    assert_int_equal(f->job.total, 2);
    assert_int_equal(f->finished, 0);
    step(f, 0, "concluded");
    assert_int_equal(f->finished, 1);
    end(f);
}

static void
a_paused_job_does_nothing_until_it_is_resumed(void **state)
{
    struct fake *f = fake_new(3);

    (void)state;
    qcow2_job_pause(&f->job);
    step(f, 1, "paused");
    step(f, 1, "paused");
    assert_int_equal(f->made, 0);
    qcow2_job_resume(&f->job);
    step(f, 1, "running");
    assert_int_equal(f->made, 1);
    step(f, 1, "running");
    step(f, 0, "concluded");
    end(f);
}

static void
a_ready_job_goes_on_until_it_is_told_to_complete(void **state)
{
    struct fake *f = fake_new(2);
    struct qcow2_error err;

    (void)state;
    f->has_ready = true;
    assert_int_equal(qcow2_job_complete(&f->job, &err), -1);
    assert_int_equal(err.errnum, EINVAL);
    assert_non_null(strstr(err.text, "created"));
    step(f, 1, "running");
    step(f, 1, "ready");
    qcow2_job_pause(&f->job);
    step(f, 1, "paused");
    assert_int_equal(qcow2_job_complete(&f->job, &err), -1);
    qcow2_job_resume(&f->job);
    step(f, 1, "ready");
    EXPECT_OK(qcow2_job_complete(&f->job, &err), &err);
    step(f, 0, "concluded");
    assert_int_equal(f->made, 4);
    end(f);
}

static void
the_end_waits_for_finalize_where_it_is_manual(void **state)
{
    struct fake *f = fake_new(1);
    struct qcow2_error err;

    (void)state;
    qcow2_job_set_manual_finalize(&f->job, true);
    assert_int_equal(qcow2_job_finalize(&f->job, &err), -1);
    assert_int_equal(err.errnum, EINVAL);
    step(f, 1, "pending");
    step(f, 1, "pending");
    assert_int_equal(f->made, 1);
    assert_int_equal(f->finished, 0);
    EXPECT_OK(qcow2_job_finalize(&f->job, &err), &err);
    step(f, 0, "concluded");
    assert_int_equal(f->finished, 1);
    end(f);
}

static void
a_canceled_job_does_not_finish(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct fake *f = fake_new(2);
        struct qcow2_error err;

        expect_case("canceled after %u steps", i);
        qcow2_job_set_manual_finalize(&f->job, true);
        for (unsigned n = 0; n < i; n++)
            assert_int_equal(qcow2_job_step(&f->job, &err), 1);
        qcow2_job_cancel(&f->job);
        assert_int_equal(qcow2_job_step(&f->job, &err), -1);
        assert_int_equal(err.errnum, ECANCELED);
        assert_int_equal(f->finished, 0);
        assert_int_equal(f->made, i);
        end(f);
    }
}

static void
failures_conclude(void **state)
{
    struct fake *f = fake_new(2);

    (void)state;
    f->fails = true;
    step(f, -1, "concluded");
    assert_int_equal(f->finished, 0);
    end(f);
    f = fake_new(1);
    f->finish_fails = true;
    step(f, -1, "concluded");
    end(f);
}

static void *
run(void *arg)
{
    struct qcow2_error err;

    return (void *)(intptr_t)qcow2_job_run(arg, NULL, NULL, &err);
}

static void
await_state(struct fake *f, enum qcow2_job_status status)
{
    while (qcow2_job_get_status(&f->job) != status)
        sched_yield();
}

/* Requests of one thread while another one runs the job. */
static void
running_waits_where_the_job_does(void **state)
{
    struct fake *f = fake_new(2);
    struct qcow2_error err;
    pthread_t thread;
    void *r;

    (void)state;
    qcow2_job_pause(&f->job);
    qcow2_job_set_manual_finalize(&f->job, true);
    EXPECT(pthread_create(&thread, NULL, run, &f->job) == 0, "thread");
    await_state(f, QCOW2_JOB_PAUSED);
    assert_int_equal(__atomic_load_n(&f->made, __ATOMIC_ACQUIRE), 0);
    qcow2_job_resume(&f->job);
    await_state(f, QCOW2_JOB_PENDING);
    EXPECT_OK(qcow2_job_finalize(&f->job, &err), &err);
    pthread_join(thread, &r);
    assert_null(r);
    assert_int_equal(f->made, 2);
    assert_int_equal(f->finished, 1);
    end(f);
}

static int
stop_at_1(void *opaque, uint64_t done, uint64_t total)
{
    (void)opaque;
    (void)total;
    return done == 1;
}

static void
progress_may_cancel(void **state)
{
    struct fake *f = fake_new(3);
    struct qcow2_error err;

    (void)state;
    assert_int_equal(qcow2_job_run(&f->job, stop_at_1, NULL, &err), -1);
    assert_int_equal(err.errnum, ECANCELED);
    assert_int_equal(f->made, 1);
    end(f);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_runs_and_concludes),
        cmocka_unit_test(a_paused_job_does_nothing_until_it_is_resumed),
        cmocka_unit_test(a_ready_job_goes_on_until_it_is_told_to_complete),
        cmocka_unit_test(the_end_waits_for_finalize_where_it_is_manual),
        cmocka_unit_test(a_canceled_job_does_not_finish),
        cmocka_unit_test(failures_conclude),
        cmocka_unit_test(running_waits_where_the_job_does),
        cmocka_unit_test(progress_may_cancel),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
