/* SPDX-License-Identifier: BSD-3-Clause */
/* tree.h: everything an L1 table reaches, for operations on whole trees.
 * Their callers hold image.rwlock exclusively, and all slices are clean
 * (flush_all) when they begin.
 */
#ifndef QCOW2_TREE_H
#define QCOW2_TREE_H

#include "meta/image.h"

/* For each reference to a host cluster in the tree of l1[0, nr), to L2
 * tables, data, preallocated and compressed clusters: one more is counted,
 * and the COPIED flags in the tables and in l1 are cleared; would it be
 * possible to count one more (ENOTSUP if not); it is given up (alloc_free).
 * Data that are not counted, which snapshots cannot have, are only given up
 * (data_release); l1[0] is entry `first` of a table.
 */
int tree_share(struct image *img, uint64_t *l1, uint32_t nr,
               struct qcow2_error *err);
int tree_can_raise(struct image *img, const uint64_t *l1, uint32_t nr,
                   struct qcow2_error *err);
int tree_free(struct image *img, const uint64_t *l1, uint32_t first,
              uint32_t nr, struct qcow2_error *err);

/* Clears the flags of the first nr entries of the active L1 table. */
int tree_clear_l1_flags(struct image *img, uint32_t nr,
                        struct qcow2_error *err);

/* Makes the COPIED flags of nr entries of the active L1 table from `first` on,
 * and of what they reach, say whether the refcount is 1. */
int tree_set_copied(struct image *img, uint32_t first, uint32_t nr,
                    struct qcow2_error *err);

/* Does each entry of l1[0, nr) have its L2 table for itself? EIO if not: a
 * small file could make walks take for ever. */
int tree_check_alone(struct image *img, const uint64_t *l1, uint32_t nr,
                     struct qcow2_error *err);

/* Does a table of the active disk, or of a snapshot, as they are in the file,
 * refer to one of the clusters in runs, which are in ascending order? 1: one
 * does. -1 also where the tables have more than MAX_SEARCHED_BYTES (E2BIG).
 * Needs image.rwlock shared only, as long as nothing was changed.
 * (tree-search.c)
 */
int tree_search(struct image *img, const struct freed_run *runs, size_t nr,
                struct qcow2_error *err);

/* L1 entries that a disk of nr_bytes needs. VM state begins after them. */
uint32_t tree_l1_entries(const struct image *img, uint64_t nr_bytes);

#endif /* QCOW2_TREE_H */
