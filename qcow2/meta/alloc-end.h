/* SPDX-License-Identifier: BSD-3-Clause */
/* alloc-end.h: where the clusters in use end, and the file. */
#ifndef QCOW2_ALLOC_END_H
#define QCOW2_ALLOC_END_H

#include "meta/image.h"

/* Whatever was allocated lies inside the file: it grows to a whole number of
 * clusters. For the flush, before a barrier.
 */
void alloc_fill_last_cluster(struct image *img);

/* For the flush, likewise: where each of several flushes needed few new
 * clusters, writes zeroes behind the end of the file, for the next ones. It is
 * an offer: without space nothing is written. See "Space written ahead" in
 * DESIGN.md.
 */
void alloc_write_ahead(struct image *img);

/* Cuts off the end of the file that no cluster in use reaches to; what was
 * freed there has ended its quarantine. any: also where that is little.
 * Requests may be under way.
 */
int alloc_cut_file(struct image *img, bool any, struct qcow2_error *err);

/* Clusters up to end (an index) are in use now, or were written: they need not
 * read as zeroes any more. With alloc.lock, or the image alone.
 */
void alloc_mark_used(struct image *img, uint64_t end);
void alloc_mark_written(struct image *img, uint64_t end);

#endif /* QCOW2_ALLOC_END_H */
