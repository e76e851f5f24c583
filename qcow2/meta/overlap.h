/* SPDX-License-Identifier: BSD-3-Clause */
/* overlap.h: which host clusters hold metadata, so that no write of data
 * ever lands on them (I6).
 */
#ifndef QCOW2_OVERLAP_H
#define QCOW2_OVERLAP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "qcow2.h"

/* A set of host cluster indexes. Looking up takes no lock. */
struct overlap {
    pthread_mutex_t lock;       /* of those who change the set */
    struct overlap_table *table; /* atomic */
    struct overlap_table *retired; /* outgrown; readers may be in them */
};

struct image;

int overlap_init(struct overlap *o, struct qcow2_error *err);
void overlap_destroy(struct overlap *o);

/* Adds clusters that may be there already; on failure (ENOMEM) none. */
int overlap_add(struct overlap *o, uint64_t host_cluster, uint64_t nr,
                struct qcow2_error *err);
void overlap_remove(struct overlap *o, uint64_t host_cluster, uint64_t nr);

bool overlap_hit(const struct overlap *o, uint64_t host_cluster,
                 uint64_t nr);

/* Makes the set header, tables, refblocks and L2 tables of the active disk,
 * the snapshot table and snapshots' L1 tables, and the bitmap directory.
 * Only while nobody looks anything up. EIO when they overlap each other. On
 * failure the set is as it was.
 */
int overlap_fill(struct image *img, struct qcow2_error *err);

/* Fails with EIO, and marks the image corrupt, if a data write to
 * [host_off, host_off + nr_bytes) would hit metadata.
 */
int overlap_check(struct image *img, uint64_t host_off, uint64_t nr_bytes,
                  struct qcow2_error *err);

#endif /* QCOW2_OVERLAP_H */
