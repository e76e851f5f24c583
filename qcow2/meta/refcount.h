/* SPDX-License-Identifier: BSD-3-Clause */
/* refcount.h: the cached slices of refblocks, and the refcounts in them.
 * Changing them is alloc.c's business.
 */
#ifndef QCOW2_REFCOUNT_H
#define QCOW2_REFCOUNT_H

#include "format/refcount-array.h"
#include "meta/image.h"

/* Refcounts a slice of a refblock holds, and where one is in its slice. */
uint64_t refcount_slice_entries(const struct image *img);

/* The slice that holds host_cluster's refcount. refcount_peek gives it only
 * if no I/O is needed: *missing tells a slice that must be loaded first.
 * NULL without *missing: no refblock, all refcounts there are 0.
 * refcount_load does the I/O; call it without alloc.lock. Both return -1
 * when the reftable entry is damaged.
 */
int refcount_peek(struct image *img, uint64_t host_cluster,
                  struct block **b, bool *missing, struct qcow2_error *err);
int refcount_load(struct image *img, uint64_t host_cluster,
                  struct block **b, struct qcow2_error *err);

/* The refcount of host_cluster as memory has it; of *nr clusters from there
 * on, at least the *nr that it leaves have the same. */
int refcount_read(struct image *img, uint64_t host_cluster, uint64_t *nr,
                  uint64_t *refcount, struct qcow2_error *err);

/* For operations that hold image.rwlock exclusively: the greatest refcount in
 * the idx-th refblock, read at once. */
int refcount_block_most(struct image *img, uint64_t idx, uint64_t *most,
                        struct qcow2_error *err);

#endif /* QCOW2_REFCOUNT_H */
