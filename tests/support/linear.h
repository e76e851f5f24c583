/* SPDX-License-Identifier: BSD-3-Clause */
/* linear.h: judges whether concurrent requests to blocks behaved as if those
 * to one block had happened one at a time, each at some moment between its
 * call and its return. It looks for such an order of each block's requests,
 * all of them, and there is none if what it finds is wrong: a value that was
 * overwritten before the read began, one nobody wrote, one that comes back
 * after another was read.
 */
#ifndef LINEAR_H
#define LINEAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LINEAR_BLOCK = 512,
    LINEAR_INITIAL = 1,     /* what a block holds at first, if not zeroes */
};

/* A request on one block: what was written, or what a read returned. Moments
 * are numbers that no two of a block share; 0 is before all. */
struct linear_event {
    uint64_t block;
    uint64_t start, end;
    uint64_t value;         /* 0: zeroes; or whose writing it is */
    bool is_read;
};

struct linear_history {
    struct linear_event *events;
    size_t nr, capacity;
};

void linear_add(struct linear_history *h, struct linear_event e);
void linear_free(struct linear_history *h);

/* Is there an order? Each block's first event writes what it held. If not,
 * why[0, size) tells a request that fits none. Sorts the events. */
bool linear_check(struct linear_history *h, char *why, size_t size);

/* A block that tells its value, all over; value 0: zeroes. */
void linear_make_block(void *block, uint64_t value, uint64_t off);

/* The value of a block; false if no request wrote it as a whole. initial is
 * what the block held at first. */
bool linear_value_of(const void *block, uint64_t off, const void *initial,
                     uint64_t *value);

#endif /* LINEAR_H */
