/* SPDX-License-Identifier: BSD-3-Clause */
/* alloc-free.h: takes host clusters back, which rest in quarantine first. */
#ifndef QCOW2_ALLOC_FREE_H
#define QCOW2_ALLOC_FREE_H

#include "meta/image.h"

/* One reference to each cluster was dropped in memory. They rest in
 * quarantine until flush_run has made that durable (I3). Without memory to
 * remember them they leak, which a check finds; hence no error.
 */
void alloc_free(struct image *img, uint64_t host_off, uint64_t nr_clusters);

/* As alloc_free, for the cluster of an L2 table that was replaced. A reader
 * may still be on its way into it, without any lock on it, so it stays in
 * quarantine until alloc_release_tables, which takes that no request is
 * under way.
 */
void alloc_free_table(struct image *img, uint64_t host_off);
void alloc_release_tables(struct image *img);

/* Runs in quarantine. */
size_t alloc_nr_frees(struct image *img);

/* Are those so many, or of so many bytes, that a flush should end the
 * quarantine before more is freed or allocated?
 */
bool alloc_has_many_frees(struct image *img);

/* For flush.c. Takes the list of what is freed, or gives it back; ends the
 * quarantine of a list whose dropping is durable: punches, lowers refcounts,
 * makes the clusters available. */
void alloc_take_frees(struct image *img, struct freed_list *list);
void alloc_give_back_frees(struct image *img, struct freed_list *list);
int alloc_apply_frees(struct image *img, struct freed_list *list,
                      struct qcow2_error *err);

#endif /* QCOW2_ALLOC_FREE_H */
