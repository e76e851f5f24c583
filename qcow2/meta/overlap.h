/* SPDX-License-Identifier: BSD-3-Clause */
/* overlap.h: which host clusters hold metadata (image.overlap), so that no
 * write of data ever lands on them (I6).
 */
#ifndef QCOW2_OVERLAP_H
#define QCOW2_OVERLAP_H

#include "meta/image.h"

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
