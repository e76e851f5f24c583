/* SPDX-License-Identifier: BSD-3-Clause */
/* counters.h: a sparse map from host cluster to counter; its memory is in
 * proportion to the clusters whose counter is not 0.
 */
#ifndef QCOW2_COUNTERS_H
#define QCOW2_COUNTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qcow2.h"

struct counters_leaf;

/* For one thread at a time. All zero is an empty one. */
struct counters {
    struct counters_leaf **slots;  /* by hash; NULL: free */
    struct counters_leaf **direct; /* by index; likewise */
    size_t nr_slots, nr_leaves;    /* slots of either kind */
    struct counters_leaf *last;   /* the one used last */
    uint64_t nr_bytes;          /* of memory */
    uint64_t *keys;             /* counters_sort: of the leaves, ascending */
    size_t nr_keys, at;         /* at: where counters_next was */
};

void counters_free(struct counters *c);

uint64_t counters_get(struct counters *c, uint64_t cluster);

/* The number of a cluster, and how many of nr > 0 from there on are known to
 * have the same. */
uint64_t counters_run(struct counters *c, uint64_t cluster, uint64_t nr,
                    uint64_t *number);

/* Adds n, to one cluster or nr of them; stays at UINT64_MAX rather than wrap
 * around. */
int counters_add(struct counters *c, uint64_t cluster, uint64_t n,
               struct qcow2_error *err);
int counters_add_range(struct counters *c, uint64_t cluster, uint64_t nr,
                     uint64_t n, struct qcow2_error *err);
int counters_set(struct counters *c, uint64_t cluster, uint64_t n,
               struct qcow2_error *err);

/* Prepares for counters_next; again after new clusters got a number. */
int counters_sort(struct counters *c, struct qcow2_error *err);

/* The first cluster from *cluster on, and before end, whose number is not
 * 0; false if there is none. */
bool counters_next(struct counters *c, uint64_t *cluster, uint64_t end);

#endif /* QCOW2_COUNTERS_H */
