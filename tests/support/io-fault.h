/* SPDX-License-Identifier: BSD-3-Clause */
/* io-fault.h: a backend over another that counts operations and lets a
 * chosen one fail.
 *
 * A plan is shared by all backends made with it, and outlives them. Armed
 * with (kinds, nth), the nth operation of these kinds from then on fails,
 * counted from 1. The usual loop fails the 1st, the 2nd, … until a scenario
 * passes without fault_fired. Safe for any number of threads.
 */
#ifndef IO_FAULT_H
#define IO_FAULT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "storage/io.h"

/* Kinds of operations; masks of them. */
enum {
    FAULT_READ = 1,
    FAULT_WRITE = 2,
    FAULT_FLUSH = 4,
    FAULT_ZERO = 8,
    FAULT_PUNCH = 16,
    FAULT_TRUNCATE = 32,
    FAULT_CHANGE = FAULT_WRITE | FAULT_ZERO | FAULT_PUNCH | FAULT_TRUNCATE,
    FAULT_ALL = FAULT_READ | FAULT_CHANGE | FAULT_FLUSH,
    FAULT_NR_KINDS = 6,
};

enum {
    FAULT_ONCE = 0,
    FAULT_FOR_GOOD = 1, /* all later operations of the kinds fail too */
    FAULT_TORN = 2,     /* a failing write has written its first half, cut
                         * at a sector's start */
    FAULT_WRITTEN = 8,  /* a failing write has written all */
    FAULT_KILL = 4,     /* no failure: the process is killed (SIGKILL) */
};

struct fault_plan {
    pthread_mutex_t lock;
    unsigned kinds, flags;
    uint64_t nth; /* 0: not armed */
    int errnum;
    uint64_t nr_since_armed; /* operations of these kinds */
    uint64_t nr_fired;
    uint64_t counts[FAULT_NR_KINDS];
    uint64_t nr_retried; /* see fault_retried */
};

#define FAULT_PLAN_INIT { .lock = PTHREAD_MUTEX_INITIALIZER }

/* nth 0 disarms. */
void fault_arm(struct fault_plan *plan, unsigned kinds, uint64_t nth,
               int errnum, unsigned flags);

/* Operations that failed since the plan was armed. */
uint64_t fault_fired(struct fault_plan *plan);

/* Operations of these kinds since the last reset of the counts, or ever;
 * those that failed count. */
uint64_t fault_count(struct fault_plan *plan, unsigned kinds);
void fault_reset_counts(struct fault_plan *plan);

/* Flushes of a file on which one had failed before, in all this time: none
 * of them proves anything. */
uint64_t fault_retried(struct fault_plan *plan);

/* Takes over below. */
struct io *io_fault_new(struct io *below, struct fault_plan *plan);

/* What it is on, where nothing fails or counts; io itself if it is none. */
struct io *io_fault_below(struct io *io);

#endif /* IO_FAULT_H */
