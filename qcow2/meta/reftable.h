/* SPDX-License-Identifier: BSD-3-Clause */
/* reftable.h: the refcount table: loading it, making refblocks, growing, and
 * what the flush publishes of it.
 */
#ifndef QCOW2_REFTABLE_H
#define QCOW2_REFTABLE_H

#include "meta/image.h"

int reftable_load(struct image *img, struct qcow2_error *err);

/* Makes a refblock for host_cluster's refcount, if there is none, in
 * host_cluster itself; if the table is too short, moves it there as well.
 * payload_clusters from host_cluster on become the caller's (metadata),
 * refblocks follow them: then no refblock from there on may exist. Call it
 * without alloc.lock.
 */
int reftable_add_refblock(struct image *img, uint64_t host_cluster,
                          uint64_t payload_clusters,
                          struct qcow2_error *err);

/* Is there anything new in the table? */
bool reftable_is_dirty(struct image *img);

/* What stage A of the flush writes, as one consistent take. */
struct reftable_change {
    uint64_t moved_offset;      /* 0: entries change in place */
    uint32_t moved_clusters;
    uint32_t first, nr;         /* entries changed (all, when moved) */
    be64 *entries;
};
int reftable_take(struct image *img, struct dirty_batch *refcounts,
                  struct reftable_change *change, struct qcow2_error *err);
/* What was taken was not written: it is there to be taken again. */
void reftable_give_back(struct image *img, struct dirty_batch *refcounts,
                        struct reftable_change *change);
void reftable_change_free(struct reftable_change *change);

#endif /* QCOW2_REFTABLE_H */
