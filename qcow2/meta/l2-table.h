/* SPDX-License-Identifier: BSD-3-Clause */
/* l2-table.h: L2 tables as a whole: made, copied when they are shared, read
 * past the cache.
 */
#ifndef QCOW2_L2_TABLE_H
#define QCOW2_L2_TABLE_H

#include "base/bytes.h"
#include "meta/image.h"

/* Reads a part of an L2 table that lies inside the file, or all of it. */
int l2_table_read_part(struct image *img, uint64_t host_off, void *data,
                       uint32_t nr_bytes, struct qcow2_error *err);

/* Gives guest_off an L2 table of its own: a copy of the one at old_off, or an
 * empty one when that is 0. The caller holds its L1 index in image.tables
 * exclusively.
 */
int l2_table_make(struct view *v, uint64_t guest_off, uint64_t old_off,
                  uint64_t *new_off, struct qcow2_error *err);

/* For exclusive operations, with no slice dirty: an L2 table, read whole past
 * the cache; and after it was written what the cache has of it.
 */
int l2_table_read(struct image *img, uint64_t table_off, be64 *table,
                  struct qcow2_error *err);
void l2_table_refresh(struct image *img, uint64_t table_off,
                      const be64 *table);

#endif /* QCOW2_L2_TABLE_H */
