/* SPDX-License-Identifier: BSD-3-Clause */
/* view.h: L1 tables become views of an image, for view.c and image-open.c. */
#ifndef QCOW2_VIEW_H
#define QCOW2_VIEW_H

#include "meta/image.h"

/* Loads an L1 table into v, which is zero; header_read or snaptab_read checked
 * its place and size. Also after a failure view_unload frees what v has.
 */
int view_load(struct view *v, struct image *img, uint64_t l1_off,
              uint32_t l1_entries, uint64_t size, struct qcow2_error *err);
void view_unload(struct view *v);

/* What the flush needs to know of an L1 table of n entries that changes. */
int view_init_dirty(uint32_t n, uint32_t **dirty, uint8_t **is_dirty,
                    struct qcow2_error *err);

#endif /* QCOW2_VIEW_H */
