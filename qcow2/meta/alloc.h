/* SPDX-License-Identifier: BSD-3-Clause */
/* alloc.h: hands out host clusters. */
#ifndef QCOW2_ALLOC_H
#define QCOW2_ALLOC_H

#include "cache/counters.h"
#include "meta/alloc-end.h"
#include "meta/alloc-free.h"
#include "meta/image.h"

/* What alloc_clusters gave. */
struct alloc_run {
    uint64_t host_off;
    uint64_t nr_clusters;
    bool reads_zero; /* never written before: unwritten parts read as 0 */
};

/* alloc_prepare makes the locks, so that alloc_destroy may follow; alloc_init
 * reads the reftable and finds where the used clusters end. Again after
 * tables were changed behind the engine (check.c).
 */
void alloc_prepare(struct image *img);
int alloc_init(struct image *img, struct qcow2_error *err);
void alloc_destroy(struct image *img);

/* One to `want` contiguous clusters with refcount 1 (in memory; durable
 * with the next flush). The caller makes a table point to them, or gives
 * them back with alloc_free. ENOSPC when the file cannot grow.
 */
int alloc_clusters(struct image *img, uint64_t want, struct alloc_run *run,
                   struct qcow2_error *err);

/* A place for nr_bytes of compressed data, less than a cluster: behind what
 * got one before, where that leaves room, so that clusters are shared. Each
 * cluster touched gets one more reference. (alloc-packed.c)
 */
int alloc_packed(struct image *img, uint32_t nr_bytes, uint64_t *host_off,
                 struct qcow2_error *err);

/* For operations that hold image.rwlock exclusively (so nobody else
 * allocates): contiguous clusters for a table of nr_bytes, entered into
 * overlap, refcounts 1; *host_off is 0 when nr_bytes is. And their end.
 */
int alloc_table(struct image *img, uint64_t nr_bytes, uint64_t *host_off,
                struct qcow2_error *err);
void alloc_free_metadata(struct image *img, uint64_t host_off,
                         uint64_t nr_bytes);

/* Likewise: one more reference to each cluster, and whether that fits the
 * width of refcounts (ENOTSUP if not) after those that `more` counts, to
 * which it is added.
 */
int alloc_raise(struct image *img, uint64_t host_off, uint64_t nr_clusters,
                struct qcow2_error *err);
int alloc_can_raise(struct image *img, uint64_t host_off,
                    uint64_t nr_clusters, struct counters *more,
                    struct qcow2_error *err);

/* Likewise: would that fit for whatever tree there is, without counting? The
 * answer costs a look at every refcount. */
int alloc_can_raise_all(struct image *img, bool *can,
                        struct qcow2_error *err);
uint64_t alloc_nr_refblocks(const struct image *img);

#endif /* QCOW2_ALLOC_H */
