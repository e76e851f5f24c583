/* SPDX-License-Identifier: BSD-3-Clause */
/* check.h: checks an image for damage, and repairs it. */
#ifndef QCOW2_CHECK_H
#define QCOW2_CHECK_H

#include "meta/image.h"
#include "qcow2.h"

/* Repairs an image whose dirty bit is set, before it is used: counts all
 * references (active and snapshot tables, bitmaps, tables themselves),
 * corrects refcounts and COPIED flags, then clears the bit. Crash-safe:
 * refcounts are raised before COPIED is set and the bit goes last. Fails
 * with EIO, changing nothing, when tables are damaged beyond refcounts.
 */
int check_repair_dirty(struct image *img, struct qcow2_error *err);

/* As qcow2_check, on a backend that is open already and stays so. */
int check_io(struct io *io, const struct qcow2_check_options *options,
             struct qcow2_check_result *result, struct qcow2_error *err);

#endif /* QCOW2_CHECK_H */
