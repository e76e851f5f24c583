/* SPDX-License-Identifier: BSD-3-Clause */
/* job.h: what stands behind a struct qcow2_job: a long operation as a
 * sequence of short steps.
 */
#ifndef QCOW2_JOB_H
#define QCOW2_JOB_H

#include "qcow2.h"

/* Embedded, as first member, in what an operation keeps. */
struct qcow2_job {
    const struct job_ops *ops;
    uint64_t done, total; /* bytes, or whatever the operation counts */
    bool ended;           /* by success or failure */
};

struct job_ops {
    /* Does a bounded amount of work (at most a few MiB of I/O). 1: more to
     * do; 0: all is done, durably; -1: failed. After each step everything
     * on disk is valid, and stopping there loses nothing. */
    int (*step)(struct qcow2_job *job, struct qcow2_error *err);

    /* Lets go of everything; a job that did not end is given up. */
    void (*free)(struct qcow2_job *job);
};

#endif /* QCOW2_JOB_H */
