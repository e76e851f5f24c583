/* SPDX-License-Identifier: BSD-3-Clause */
/* io-lock.h: locks of image files against other processes, QEMU included. */
#ifndef QCOW2_IO_LOCK_H
#define QCOW2_IO_LOCK_H

#include "storage/io.h"

/* Takes the locks; they belong to the open file description of fd and end
 * with it. EBUSY: a conflicting lock is held; the text names the holder if it
 * can be found. Returns 1, with nothing locked, where the file system or the
 * kernel keeps no locks of this kind: as with QEMU that is no error. name is
 * the file's, for messages.
 */
int io_lock_take(int fd, const char *name, enum io_lock lock,
                 struct qcow2_error *err);

#endif /* QCOW2_IO_LOCK_H */
