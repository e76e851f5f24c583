/* SPDX-License-Identifier: BSD-3-Clause */
/* first-read.h: what an opened file needs before its first byte counts. */
#ifndef QCOW2_FIRST_READ_H
#define QCOW2_FIRST_READ_H

#include <stdbool.h>

#include "storage/io.h"

/* To be called once for every file that was opened: failures_watch, and then
 * the page cache is dropped if the file is an image that may have been left
 * after a failed flush: one with the dirty bit, or of version 2, which has no
 * such bit, if it is opened for writing. in_use: others may be writing to the
 * file, as no lock was taken and io is read-only: nothing is dropped then for
 * the dirty bit. EIO: a flush of the file failed in this process, and io is
 * writable. The caller keeps io.
 */
int first_read_prepare(struct io *io, struct qcow2_failures *failures,
                       bool in_use, struct qcow2_error *err);

#endif /* QCOW2_FIRST_READ_H */
