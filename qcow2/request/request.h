/* SPDX-License-Identifier: BSD-3-Clause */
/* request.h: the data path: read.c, write.c, cow.c, zero.c and extents.c, on
 * a view (or, for reads, on a chain). Ranges were checked to lie inside the
 * disk by the caller. What writes is called by change_guest (change.h).
 */
#ifndef QCOW2_REQUEST_H
#define QCOW2_REQUEST_H

#include "layer/source.h"
#include "meta/image.h"
#include "meta/map.h"

/* Reads all of a mapping of guest_off that is not MAP_COMPRESSED. */
int read_mapping(const struct mapping *m, void *buf, uint64_t guest_off,
                 struct qcow2_error *err);

/* Reads from layer `first` of a chain; takes no lock. */
int read_chain(const struct source_chain *chain, unsigned first, void *buf,
               size_t nr_bytes, uint64_t guest_off, struct qcow2_error *err);

/* Reads a disk whose top layer is the active view of a writable image. */
int read_active(struct image *img, void *buf, size_t nr_bytes,
                uint64_t guest_off, struct qcow2_error *err);

/* Writes data; copy-on-write where needed. */
int write_data(struct image *img, const void *buf, size_t nr_bytes,
               uint64_t guest_off, struct qcow2_error *err);

/* Makes one cluster compressed data, which are less than a cluster long.
 * (write-compressed.c)
 */
int write_compressed(struct image *img, const void *packed,
                     uint32_t nr_bytes, uint64_t guest_off,
                     struct qcow2_error *err);

/* One piece (map_piece) of a write whose first byte cannot be written in
 * place. Writes *done bytes of it into new clusters, or into subclusters that
 * were not data so far. has_place: their cluster has a place that is the
 * disk's alone, so that only they need be held; if it lost that meanwhile,
 * *done is 0, otherwise more. (cow.c)
 */
int cow_write(struct image *img, const void *buf, size_t nr_bytes,
              uint64_t guest_off, bool has_place, size_t *done,
              struct qcow2_error *err);

/* The same with the range of whole clusters held exclusively, and room made
 * (flush_make_room); *done is not 0. */
int cow_write_held(struct image *img, const void *buf, size_t nr_bytes,
                   uint64_t guest_off, size_t *done, struct qcow2_error *err);

/* Gives the disk clusters of its own wherever it leaves a part of the range to
 * the layers below: copies of what these show, or zero clusters (version 3)
 * where that is zero. What it reads as stays the same, and from then on depends
 * on no layer below. What other requests write meanwhile stays. (populate.c)
 */
int populate_range(struct image *img, uint64_t nr_bytes, uint64_t guest_off,
                   struct qcow2_error *err);

/* The same where the caller has read what the layers below show: the range
 * begins with a subcluster, and ends with one or with the disk.
 */
int populate_shown(struct image *img, const void *shown, uint64_t nr_bytes,
                   uint64_t guest_off, struct qcow2_error *err);

/* flags: QCOW2_MAY_TRIM, QCOW2_FAST. */
int zero_range(struct image *img, uint64_t nr_bytes, uint64_t guest_off,
               unsigned flags, struct qcow2_error *err);
int zero_trim(struct image *img, uint64_t nr_bytes, uint64_t guest_off,
              struct qcow2_error *err);
bool zero_is_fast(const struct image *img);

/* The extent of a chain at guest_off, looking nr_bytes far; takes no lock.
 * What no layer has is not `present`.
 */
int extents_get(const struct source_chain *chain, uint64_t guest_off,
                uint64_t nr_bytes, struct qcow2_extent *e,
                struct qcow2_error *err);

/* img: take its range locks (the chain's top is its active view), or NULL.
 */
int extents_walk(const struct source_chain *chain, struct image *img,
                 uint64_t nr_bytes, uint64_t guest_off, qcow2_extent_fn *fn,
                 void *opaque, struct qcow2_error *err);

#endif /* QCOW2_REQUEST_H */
