/* SPDX-License-Identifier: BSD-3-Clause */
/* bitmap-edit.h: changes the persistent bitmaps of an image.
 *
 * Nothing that the header refers to is overwritten: bits that change, tables
 * and the directory are written to new clusters, and one switch of the header
 * (I5) makes all of it count. Then what was replaced is freed (I3).
 */
#ifndef QCOW2_BITMAP_EDIT_H
#define QCOW2_BITMAP_EDIT_H

#include "meta/bitmap-list.h"
#include "meta/txn.h"

struct bitmap_clusters {
    struct freed_run *runs;
    size_t nr, capacity;
};

struct bitmap_edit {
    struct txn *txn;
    struct bitmap_list *list;   /* the caller's, as it is to become */
    struct bitmap_clusters made, replaced;
};

/* The list is that of the image, and is changed by the caller and by the
 * functions below; the transaction is the caller's. After the end (of either
 * kind) it is valid only if bitmap_edit_switch returned 0.
 */
void bitmap_edit_begin(struct bitmap_edit *e, struct txn *txn,
                       struct bitmap_list *list);
void bitmap_edit_end(struct bitmap_edit *e);

/* Gives the bitmap the table that the disk's size asks for, whose bits are
 * those that it has, and `more`, which may be NULL. Bits behind the end of the
 * disk are lost. EINVAL: the disk is empty, or too large for the bitmap, which
 * stays as it was. */
int bitmap_edit_bits(struct bitmap_edit *e, struct bitmap *b,
                     struct dirty_ranges *more, struct qcow2_error *err);

/* Takes all of its bits and its table from it. */
int bitmap_edit_drop_bits(struct bitmap_edit *e, struct bitmap *b,
                          struct qcow2_error *err);

/* Writes the directory, makes the header name it, or no bitmaps if there are
 * none, and frees what was replaced. */
int bitmap_edit_switch(struct bitmap_edit *e, struct qcow2_error *err);

#endif /* QCOW2_BITMAP_EDIT_H */
