/* SPDX-License-Identifier: BSD-3-Clause */
/* copy-job.h: what commit, rebase, convert and compare are: a job in phases,
 * one of which copies (copy.h).
 */
#ifndef QCOW2_COPY_JOB_H
#define QCOW2_COPY_JOB_H

#include "job/copy.h"
#include "job/job.h"

struct copy_job;

struct copy_job_ops {
    const char *name;   /* in front of errors; NULL: nothing */
    unsigned nr_phases;

    /* A step of a phase, counted from 0: 1 there is more of it, 0 it is done,
     * -1 failure. */
    int (*run_phase)(struct copy_job *j, unsigned phase,
                     struct qcow2_error *err);

    /* As job_ops.finish. */
    int (*finish)(struct copy_job *j, struct qcow2_error *err);

    /* Frees what the operation has beside `copy`. */
    void (*free)(struct copy_job *j);

    struct copy_ops copy;
};

/* Embedded, as first member, in what an operation keeps. */
struct copy_job {
    struct qcow2_job job; /* first */
    const struct copy_job_ops *ops;
    struct copy copy;     /* opaque is the copy_job; the rest is for the
                           * operation to fill */
    unsigned phase;
};

void copy_job_init(struct copy_job *j, const struct copy_job_ops *ops);

#endif /* QCOW2_COPY_JOB_H */
