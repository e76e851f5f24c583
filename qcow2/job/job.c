/* SPDX-License-Identifier: BSD-3-Clause */
/* job.c: drives long operations; see job.h. */
#include "job/job.h"

#include <errno.h>

#include "base/error.h"

int
qcow2_job_step(struct qcow2_job *job, struct qcow2_error *err)
{
    int r;

    if (job->ended)
        return error_set(err, EINVAL, "the job has ended");
    r = job->ops->step(job, err);
    if (r != 1)
        job->ended = true;
    return r;
}

void
qcow2_job_get_progress(const struct qcow2_job *job, uint64_t *done,
                       uint64_t *total)
{
    *done = job->done;
    *total = job->total;
}

int
qcow2_job_run(struct qcow2_job *job, qcow2_progress_fn *progress,
              void *opaque, struct qcow2_error *err)
{
    int r;

    do {
        if (progress && progress(opaque, job->done, job->total) != 0)
            return error_set(err, ECANCELED, "canceled");
        r = qcow2_job_step(job, err);
    } while (r == 1);
    if (r == 0 && progress)
        progress(opaque, job->total, job->total);
    return r;
}

void
qcow2_job_free(struct qcow2_job *job)
{
    if (job)
        job->ops->free(job);
}
