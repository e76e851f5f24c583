/* SPDX-License-Identifier: BSD-3-Clause */
/* copy-job.c: runs the phases of a job that copies; see copy-job.h. */
#include "job/copy-job.h"

#include "base/error.h"

static int
failed(const struct copy_job *j, struct qcow2_error *err)
{
    return j->ops->name ? error_prefix(err, "%s", j->ops->name) : -1;
}

static int
step(struct qcow2_job *job, struct qcow2_error *err)
{
    struct copy_job *j = (struct copy_job *)job;
    int r = j->ops->run_phase(j, j->phase, err);

    job_set_progress(job, j->copy.nr_done, j->copy.nr_data);
    if (r == -1)
        return failed(j, err);
    if (r == 0)
        j->phase++;
    return j->phase < j->ops->nr_phases ? JOB_GOES_ON : JOB_ENDED;
}

static int
finish(struct qcow2_job *job, struct qcow2_error *err)
{
    struct copy_job *j = (struct copy_job *)job;

    if (!j->ops->finish || j->ops->finish(j, err) == 0)
        return 0;
    return failed(j, err);
}

static void
free_all(struct qcow2_job *job)
{
    struct copy_job *j = (struct copy_job *)job;

    j->ops->free(j);
    copy_end(&j->copy);
}

static const struct job_ops job_ops = {
    .step = step,
    .finish = finish,
    .free = free_all,
};

void
copy_job_init(struct copy_job *j, const struct copy_job_ops *ops)
{
    job_init(&j->job, &job_ops);
    j->ops = ops;
    j->copy.ops = &ops->copy;
    j->copy.opaque = j;
}
