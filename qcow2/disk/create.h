/* SPDX-License-Identifier: BSD-3-Clause */
/* create.h: creates an image, in a file that is open already. */
#ifndef QCOW2_CREATE_H
#define QCOW2_CREATE_H

#include "qcow2.h"
#include "storage/io.h"

/* Writes an empty image of options->size, and backing as it is said, over
 * whatever io holds. Cut short anywhere it leaves what was there, no image
 * at all, or all of the new one.
 */
int create_io(struct io *io, const struct qcow2_create_options *options,
              struct qcow2_error *err);

#endif /* QCOW2_CREATE_H */
