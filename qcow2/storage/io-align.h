/* SPDX-License-Identifier: BSD-3-Clause */
/* io-align.h: a backend for any bytes over one that takes whole blocks only:
 * an NBD server with a minimum block, a device, a file opened for direct I/O.
 *
 * Reads of parts of blocks read the blocks. Writes of parts merge them with
 * what is there while the blocks are held exclusively; writes and zeroing of
 * whole blocks hold them shared, or a merge could undo them with what it read
 * before. What the caller gives as whole blocks is passed on without a copy;
 * a list of buffers is one request below if the whole of it is.
 */
#ifndef QCOW2_IO_ALIGN_H
#define QCOW2_IO_ALIGN_H

#include "storage/io.h"

enum { IO_ALIGN_MAX_BYTES = 65536 };

/* Takes over below, also on failure. align is a power of 2, at most
 * IO_ALIGN_MAX_BYTES; with 1 it is below that is returned. The size of the
 * file below is a multiple of it, or the file grows: then a write to its last
 * block makes it so. What is too short for a whole block cannot be punched,
 * nor zeroed fast (ENOTSUP).
 */
struct io *io_align_new(struct io *below, uint32_t align,
                        struct qcow2_error *err);

#endif /* QCOW2_IO_ALIGN_H */
