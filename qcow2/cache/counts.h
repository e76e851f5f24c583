/* SPDX-License-Identifier: BSD-3-Clause */
/* counts.h: a number for each host cluster, most of them 0, in memory that
 * is in proportion to the clusters that have one.
 */
#ifndef QCOW2_COUNTS_H
#define QCOW2_COUNTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qcow2.h"

struct counts_leaf;

/* For one thread at a time. All zero is an empty one. */
struct counts {
    struct counts_leaf **slots; /* by hash; NULL: free */
    size_t nr_slots, nr_leaves;
    struct counts_leaf *last;   /* the one used last */
    uint64_t nr_bytes;          /* of memory */
    uint64_t *keys;             /* counts_sort: of the leaves, ascending */
    size_t nr_keys, at;         /* at: where counts_next was */
};

void counts_free(struct counts *c);

uint64_t counts_get(struct counts *c, uint64_t cluster);

/* The number of a cluster, and how many of nr > 0 from there on are known to
 * have the same. */
uint64_t counts_run(struct counts *c, uint64_t cluster, uint64_t nr,
                    uint64_t *number);

/* Adds n, to one cluster or nr of them; stays at UINT64_MAX rather than wrap
 * around. */
int counts_add(struct counts *c, uint64_t cluster, uint64_t n,
               struct qcow2_error *err);
int counts_add_range(struct counts *c, uint64_t cluster, uint64_t nr,
                     uint64_t n, struct qcow2_error *err);
int counts_set(struct counts *c, uint64_t cluster, uint64_t n,
               struct qcow2_error *err);

/* Prepares for counts_next; again after new clusters got a number. */
int counts_sort(struct counts *c, struct qcow2_error *err);

/* The first cluster from *cluster on, and before end, whose number is not
 * 0; false if there is none. */
bool counts_next(struct counts *c, uint64_t *cluster, uint64_t end);

#endif /* QCOW2_COUNTS_H */
