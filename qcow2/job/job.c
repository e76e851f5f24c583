/* SPDX-License-Identifier: BSD-3-Clause */
/* job.c: drives long operations through the states of their life; see job.h.
 *
 *   created → running ⇄ paused
 *             running → ready ⇄ paused
 *             running, ready → waiting → pending → concluded
 *
 * Failing, or canceling, concludes a job from anywhere.
 */
#include "job/job.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/error.h"

const char *
qcow2_job_status_name(enum qcow2_job_status status)
{
    switch (status) {
    case QCOW2_JOB_CREATED:
        return "created";
    case QCOW2_JOB_RUNNING:
        return "running";
    case QCOW2_JOB_PAUSED:
        return "paused";
    case QCOW2_JOB_READY:
        return "ready";
    case QCOW2_JOB_WAITING:
        return "waiting";
    case QCOW2_JOB_PENDING:
        return "pending";
    case QCOW2_JOB_CONCLUDED:
        return "concluded";
    }
    __builtin_unreachable();
}

void
job_init(struct qcow2_job *job, const struct job_ops *ops)
{
    job->ops = ops;
    pthread_mutex_init(&job->lock, NULL);
    pthread_cond_init(&job->changed, NULL);
    job->status = QCOW2_JOB_CREATED;
}

void
job_set_progress(struct qcow2_job *job, uint64_t done, uint64_t total)
{
    __atomic_store_n(&job->total, total, __ATOMIC_RELAXED);
    __atomic_store_n(&job->done, done, __ATOMIC_RELAXED);
}

bool
job_shall_complete(struct qcow2_job *job)
{
    LOCK_SCOPE(&job->lock);

    return job->complete;
}

static void
set_status(struct qcow2_job *job, enum qcow2_job_status status)
{
    LOCK_SCOPE(&job->lock);

    job->status = status;
}

/* What the next step is to do. */
enum turn { TURN_STEP, TURN_FINISH, TURN_NOTHING, TURN_CANCEL, TURN_NONE };

/* The lock is held. */
static enum turn
turn_of_active(struct qcow2_job *job)
{
    if (job->pause) {
        job->status = QCOW2_JOB_PAUSED;
        return TURN_NOTHING;
    }
    job->status = job->was_ready ? QCOW2_JOB_READY : QCOW2_JOB_RUNNING;
    return TURN_STEP;
}

static enum turn
take_turn(struct qcow2_job *job)
{
    LOCK_SCOPE(&job->lock);

    if (job->cancel && job->status != QCOW2_JOB_CONCLUDED)
        return TURN_CANCEL;
    switch (job->status) {
    case QCOW2_JOB_CREATED:
    case QCOW2_JOB_RUNNING:
    case QCOW2_JOB_PAUSED:
    case QCOW2_JOB_READY:
        return turn_of_active(job);
    case QCOW2_JOB_WAITING:
        job->status = QCOW2_JOB_PENDING;
        return job->manual_finalize && !job->finalize ? TURN_NOTHING
                                                      : TURN_FINISH;
    case QCOW2_JOB_PENDING:
        return job->manual_finalize && !job->finalize ? TURN_NOTHING
                                                      : TURN_FINISH;
    case QCOW2_JOB_CONCLUDED:
        break;
    }
    return TURN_NONE;
}

static int
conclude(struct qcow2_job *job, int r)
{
    set_status(job, QCOW2_JOB_CONCLUDED);
    return r;
}

/* Nothing holds back a job whose work is done, unless its end is to be asked
 * for. */
static int
finish(struct qcow2_job *job, struct qcow2_error *err)
{
    return conclude(job, job->ops->finish ? job->ops->finish(job, err) : 0);
}

static int
work(struct qcow2_job *job, struct qcow2_error *err)
{
    int r = job->ops->step(job, err);

    switch (r) {
    case JOB_GOES_ON:
        return 1;
    case JOB_IS_READY:
        pthread_mutex_lock(&job->lock);
        job->was_ready = true;
        job->status = QCOW2_JOB_READY;
        pthread_mutex_unlock(&job->lock);
        return 1;
    case JOB_ENDED:
        break;
    default:
        return conclude(job, -1);
    }
    set_status(job, QCOW2_JOB_WAITING);
    return take_turn(job) == TURN_FINISH ? finish(job, err) : 1;
}

int
qcow2_job_step(struct qcow2_job *job, struct qcow2_error *err)
{
    switch (take_turn(job)) {
    case TURN_STEP:
        return work(job, err);
    case TURN_FINISH:
        return finish(job, err);
    case TURN_NOTHING:
        return 1;
    case TURN_CANCEL:
        error_set(err, ECANCELED, "canceled");
        return conclude(job, -1);
    case TURN_NONE:
        break;
    }
    return error_set(err, EINVAL, "the job has ended");
}

static void
get_progress(const struct qcow2_job *job, uint64_t *done, uint64_t *total)
{
    *done = __atomic_load_n(&job->done, __ATOMIC_RELAXED);
    *total = __atomic_load_n(&job->total, __ATOMIC_RELAXED);
}

enum qcow2_job_status
qcow2_job_get_status(struct qcow2_job *job)
{
    LOCK_SCOPE(&job->lock);

    return job->status;
}

/* Sets, or clears, a request. */
static void
request(struct qcow2_job *job, bool *what, bool value)
{
    LOCK_SCOPE(&job->lock);

    *what = value;
    pthread_cond_broadcast(&job->changed);
}

void
qcow2_job_pause(struct qcow2_job *job)
{
    request(job, &job->pause, true);
}

void
qcow2_job_resume(struct qcow2_job *job)
{
    request(job, &job->pause, false);
}

void
qcow2_job_cancel(struct qcow2_job *job)
{
    request(job, &job->cancel, true);
}

void
qcow2_job_set_manual_finalize(struct qcow2_job *job, bool manual)
{
    request(job, &job->manual_finalize, manual);
}

/* A request that makes sense in one state alone. */
static int
request_in(struct qcow2_job *job, enum qcow2_job_status status, bool *what,
           struct qcow2_error *err)
{
    LOCK_SCOPE(&job->lock);

    if (job->status != status)
        return error_set(err, EINVAL, "the job is %s, not %s",
                         qcow2_job_status_name(job->status),
                         qcow2_job_status_name(status));
    *what = true;
    pthread_cond_broadcast(&job->changed);
    return 0;
}

int
qcow2_job_complete(struct qcow2_job *job, struct qcow2_error *err)
{
    return request_in(job, QCOW2_JOB_READY, &job->complete, err);
}

int
qcow2_job_finalize(struct qcow2_job *job, struct qcow2_error *err)
{
    return request_in(job, QCOW2_JOB_PENDING, &job->finalize, err);
}

/* Until a job that is paused or pending is told to go on. */
static void
wait_for_request(struct qcow2_job *job)
{
    LOCK_SCOPE(&job->lock);

    while (!job->cancel
           && ((job->status == QCOW2_JOB_PAUSED && job->pause)
               || (job->status == QCOW2_JOB_PENDING && job->manual_finalize
                   && !job->finalize)))
        pthread_cond_wait(&job->changed, &job->lock);
}

int
qcow2_job_run(struct qcow2_job *job, qcow2_progress_fn *progress,
              void *opaque, struct qcow2_error *err)
{
    uint64_t done, total;
    int r;

    do {
        get_progress(job, &done, &total);
        if (progress && progress(opaque, done, total) != 0)
            qcow2_job_cancel(job);
        wait_for_request(job);
        r = qcow2_job_step(job, err);
    } while (r == 1);
    if (r == 0 && progress) {
        get_progress(job, &done, &total);
        progress(opaque, total, total);
    }
    return r;
}

void
qcow2_job_free(struct qcow2_job *job)
{
    if (!job)
        return;
    job->ops->free(job);
    pthread_cond_destroy(&job->changed);
    pthread_mutex_destroy(&job->lock);
    free(job);
}
