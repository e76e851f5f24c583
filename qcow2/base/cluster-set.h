/* SPDX-License-Identifier: BSD-3-Clause */
/* cluster-set.h: a set of host cluster indexes, looked up without a lock. */
#ifndef QCOW2_CLUSTER_SET_H
#define QCOW2_CLUSTER_SET_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "qcow2.h"

struct cluster_set {
    pthread_mutex_t lock;       /* of those who change the set */
    struct cluster_table *table; /* atomic */
    struct cluster_table *retired; /* outgrown; readers may be in them */
};

int cluster_set_init(struct cluster_set *set, struct qcow2_error *err);
void cluster_set_destroy(struct cluster_set *set);

/* Adds nr clusters, which may be there already; on failure (ENOMEM) none. */
int cluster_set_add(struct cluster_set *set, uint64_t host_cluster,
                    uint64_t nr, struct qcow2_error *err);
void cluster_set_remove(struct cluster_set *set, uint64_t host_cluster,
                        uint64_t nr);

/* Is one of the nr clusters in it? */
bool cluster_set_has(const struct cluster_set *set, uint64_t host_cluster,
                     uint64_t nr);

/* Exchanges what is in them, while nobody looks anything up. */
void cluster_set_exchange(struct cluster_set *a, struct cluster_set *b);

#endif /* QCOW2_CLUSTER_SET_H */
