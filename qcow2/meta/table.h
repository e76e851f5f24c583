/* SPDX-License-Identifier: BSD-3-Clause */
/* table.h: a cluster that was just allocated becomes an L2 table or a
 * refblock.
 */
#ifndef QCOW2_TABLE_H
#define QCOW2_TABLE_H

#include "meta/image.h"

/* The cluster at host_off reads as zeroes on disk, lies inside the file, its
 * space is allocated, and nothing of an earlier table there is cached.
 */
int table_zero(struct image *img, uint64_t host_off, struct qcow2_error *err);

/* Forgets cached slices of whatever was in the cluster before. */
void table_forget(struct image *img, uint64_t host_off);

#endif /* QCOW2_TABLE_H */
