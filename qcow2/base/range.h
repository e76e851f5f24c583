/* SPDX-License-Identifier: BSD-3-Clause */
/* range.h: shared and exclusive locks over half-open intervals of numbers.
 *
 * The engine locks guest bytes with it (image.h tells the lock order), and
 * L1 indexes while a table is made. Waiting is first come, first served: a
 * waiter holds back later requests that conflict with it, so nobody starves.
 *
 * Intervals are spread over shards by their place, so that requests to
 * different places do not touch the same mutex. One lock call must stay
 * inside one window of 1 << window_bits; who locks several windows at once
 * takes them in ascending order.
 */
#ifndef QCOW2_RANGE_H
#define QCOW2_RANGE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "qcow2.h"

enum { RANGE_SHARDS = 32 };

/* One held or waiting interval; lives on its owner's stack. */
struct range {
    uint64_t start, end;
    bool exclusive;
    struct range *prev, *next;
};

struct range_shard {
    pthread_mutex_t lock;
    pthread_cond_t released;
    unsigned nr_waiting;
    struct range *first, *last; /* in order of arrival */
} __attribute__((aligned(64)));

struct range_lock {
    unsigned window_bits;
    struct range_shard *shards; /* RANGE_SHARDS; NULL: cannot be locked */
};

/* 0 <= window_bits < 64. Fails for want of memory only. */
int range_lock_init(struct range_lock *rl, unsigned window_bits,
                    struct qcow2_error *err);

/* Also of one that was zeroed and never initialised. */
void range_lock_destroy(struct range_lock *rl);

/* Waits until [start, end) can be held, and holds it. start < end. */
void range_lock_shared(struct range_lock *rl, struct range *r,
                       uint64_t start, uint64_t end);
void range_lock_exclusive(struct range_lock *rl, struct range *r,
                          uint64_t start, uint64_t end);

/* Ends what either of the two began. */
void range_unlock(struct range_lock *rl, struct range *r);

#endif /* QCOW2_RANGE_H */
