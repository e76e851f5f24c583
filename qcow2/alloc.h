/* SPDX-License-Identifier: BSD-3-Clause */
/* alloc.h: hands out host clusters and takes them back. */
#ifndef QCOW2_ALLOC_H
#define QCOW2_ALLOC_H

#include "image.h"

/* What alloc_clusters gave. */
struct alloc_run {
    uint64_t host_off;
    uint64_t nr_clusters;
    bool reads_zero; /* never written before: unwritten parts read as 0 */
};

int alloc_init(struct image *img, struct qcow2_error *err);
void alloc_destroy(struct image *img);

/* One to `want` contiguous clusters with refcount 1 (in memory; durable
 * with the next flush). The caller makes a table point to them, or gives
 * them back with alloc_free. ENOSPC when the file cannot grow.
 */
int alloc_clusters(struct image *img, uint64_t want, struct alloc_run *run,
                   struct qcow2_error *err);

/* Exactly nr contiguous clusters. */
int alloc_contiguous(struct image *img, uint64_t nr, struct alloc_run *run,
                     struct qcow2_error *err);

/* One reference to each cluster was dropped in memory. They rest in
 * quarantine until flush_run has made that durable (I3). Without memory to
 * remember them they leak, which a check finds; hence no error.
 */
void alloc_free(struct image *img, uint64_t host_off, uint64_t nr_clusters);

/* Too much in quarantine: flush before freeing more. */
bool alloc_frees_full(struct image *img);

/* For flush.c. Takes the list of what is freed; ends the quarantine of a
 * list whose dropping is durable: punches, lowers refcounts, makes the
 * clusters available. */
void alloc_take_frees(struct image *img, struct freed_list *list);
int alloc_apply_frees(struct image *img, struct freed_list *list,
                      struct qcow2_error *err);

/* For flush.c: what stage A writes, as one consistent take. */
struct reftable_change {
    uint64_t moved_offset;      /* 0: entries change in place */
    uint32_t moved_clusters;
    uint32_t nr;                /* entries changed (all, when moved) */
    uint32_t *indexes;          /* ascending; NULL when moved */
    uint64_t *entries;          /* CPU order */
};
int alloc_take_dirty(struct image *img, struct dirty_batch *refcounts,
                     struct reftable_change *rt, struct qcow2_error *err);
void reftable_change_free(struct reftable_change *rt);

#endif /* QCOW2_ALLOC_H */
