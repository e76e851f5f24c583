/* SPDX-License-Identifier: BSD-3-Clause */
/* job.h: what is behind a struct qcow2_job: a long operation as a sequence of
 * short steps.
 */
#ifndef QCOW2_JOB_H
#define QCOW2_JOB_H

#include <pthread.h>

#include "qcow2.h"

enum { JOB_ENDED = 0, JOB_GOES_ON = 1, JOB_IS_READY = 2 };

struct job_ops {
    /* Does a bounded amount of work (at most a few MiB of I/O). JOB_GOES_ON;
     * JOB_IS_READY: it could end, and goes on until job_shall_complete;
     * JOB_ENDED: all is done, durably, but what `finish` does; -1: failed.
     * After each step everything on disk is valid, and stopping there loses
     * nothing. */
    int (*step)(struct qcow2_job *job, struct qcow2_error *err);

    /* The end, which makes the work count: 0 or -1. NULL: there is none. */
    int (*finish)(struct qcow2_job *job, struct qcow2_error *err);

    /* Frees everything but the job's own state; a job that did not end is
     * abandoned. */
    void (*free)(struct qcow2_job *job);
};

/* Embedded, as first member, in what an operation keeps. */
struct qcow2_job {
    const struct job_ops *ops;
    uint64_t done, total;   /* atomic: bytes, or whatever the operation
                             * counts */

    pthread_mutex_t lock;   /* of all below; never held over a step */
    pthread_cond_t changed; /* one of the requests came */
    enum qcow2_job_status status;
    bool was_ready;         /* before it was paused */
    /* Requests of any thread. */
    bool pause, cancel, complete, finalize;
    bool manual_finalize;
};

/* Makes a job that is created. Its memory comes from malloc, and is freed by
 * qcow2_job_free after ops->free. */
void job_init(struct qcow2_job *job, const struct job_ops *ops);

void job_set_progress(struct qcow2_job *job, uint64_t done, uint64_t total);

/* Was a job that is ready told to complete? */
bool job_shall_complete(struct qcow2_job *job);

#endif /* QCOW2_JOB_H */
