/* SPDX-License-Identifier: BSD-3-Clause */
/* io-crash-private.h: the log that io-crash.c writes and io-crash-states.c
 * reads.
 *
 * Sequence numbers count beginnings and ends alike. An operation is stable
 * at a cut if it ended before the beginning of a flush that ended before
 * the cut.
 */
#ifndef IO_CRASH_PRIVATE_H
#define IO_CRASH_PRIVATE_H

#include <pthread.h>

#include "io-crash.h"

enum op_kind { OP_WRITE, OP_ZERO, OP_PUNCH, OP_TRUNCATE, OP_FLUSH };

struct op {
    enum op_kind kind;
    uint64_t off, nr_bytes; /* truncate: off is the new size */
    unsigned char *data;    /* OP_WRITE */
    uint64_t begin, end;    /* end 0: has not returned */
    bool failed;            /* without an effect; or lost, which shows only
                             * when the cache is dropped */
};

/* What makes one cut differ from the one before. */
enum event_kind { EVENT_OP_BEGINS, EVENT_FLUSH_ENDS, EVENT_MARK };

struct event {
    enum event_kind kind;
    unsigned index; /* of the operation */
    enum crash_mark mark;
};

struct crash_log {
    pthread_mutex_t lock;
    struct mem *start, *now;
    uint64_t seq, *clock;   /* of this log, or of the one it shares: atomic */
    struct op *ops;
    unsigned nr_ops, max_ops;
    struct event *events;
    unsigned nr_events, max_events;
    unsigned nr_marks;

    unsigned nr_until_failure; /* flushes; 0: none fails */
    enum crash_survival survival;
    struct rng rng;
    bool flush_failed;
    bool cache_lies;        /* now has what was lost */
    bool keep_cache;
};

/* All that ended before this is stable at the moment. */
uint64_t crash_log_last_flush(const struct crash_log *log, uint64_t moment);

#endif /* IO_CRASH_PRIVATE_H */
